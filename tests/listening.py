"""Real subscribers for tests: in this process, and in a process of their own that can be stopped or killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from zmqpub import Publisher

ALL_TOPICS = ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")
ANY_PORT = "tcp://127.0.0.1:*"


def everything(address: str = ANY_PORT, **marks: int) -> dict[str, object]:
    """Options for all five topics at one address."""
    options: dict[str, object] = {f"zmqpub{topic}": address for topic in ALL_TOPICS}
    return options | {f"zmqpub{topic}hwm": mark for topic in ALL_TOPICS for mark in marks.values()}


def address_of(publisher: Publisher, topic: str = "hashblock") -> str:
    return next(notifier.address for notifier in publisher.active_notifiers() if notifier.type == f"pub{topic}")


def wait_for(condition: Callable[[], Any], timeout: float = 10.0, what: str = "the condition") -> Any:
    """Poll until ``condition`` is true; its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        time.sleep(0.002)
    return value


def wait_wanted(publisher: Publisher, topics: int | None = None, timeout: float = 10.0) -> None:
    """Until somebody subscribes to all (or so many) of the notifiers."""
    wait_for(
        lambda: sum(notifier.wanted for notifier in publisher.stats().notifiers) >= (topics or len(publisher.stats().notifiers)),
        timeout,
        "a subscription",
    )


@contextlib.contextmanager
def subscriber(
    address: str, *topics: str, context: zmq.Context[Any] | None = None, hwm: int = 0, ipv6: bool = False
) -> Iterator[zmq.Socket[bytes]]:
    """A SUB socket of this process; without topics it takes all."""
    own = context or zmq.Context()
    sub = own.socket(zmq.SUB)
    sub.rcvhwm = hwm
    sub.rcvtimeo = 10_000
    sub.ipv6 = ipv6
    for topic in topics or ("",):
        sub.subscribe(topic)
    sub.connect(address)
    try:
        yield sub
    finally:
        sub.close(0)
        if context is None:
            own.term()


def receive(sub: zmq.Socket[bytes], count: int) -> list[tuple[bytes, ...]]:
    return [tuple(sub.recv_multipart()) for _ in range(count)]


def receive_all(sub: zmq.Socket[bytes], quiet: float = 0.3) -> list[tuple[bytes, ...]]:
    """What is there, until it was quiet for a while."""
    messages = []
    while sub.poll(int(quiet * 1000)):
        messages.append(tuple(sub.recv_multipart()))
    return messages


class RemoteSubscriber:
    """A subscriber in its own process. Use as a context manager; it dies with it."""

    def __init__(self, address: str, *topics: str, expect: int = 0, per_second: float = 0, hwm: int = 0, rcvbuf: int = -1) -> None:
        settings = {"address": address, "topics": topics, "expect": expect, "per_second": per_second, "hwm": hwm, "rcvbuf": rcvbuf}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _REMOTE, json.dumps(settings)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )

    def __enter__(self) -> RemoteSubscriber:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "connected\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def result(self, timeout: float = 30.0) -> dict[str, Any]:
        """What it received, once it has all that it expects, or after a second of quiet: received, gaps, max_lag."""
        out, _ = self.process.communicate(timeout=timeout)
        answer: dict[str, Any] = json.loads(out)
        return answer


_REMOTE = """
import json, sys, time, zmq
s = json.loads(sys.argv[1])
context = zmq.Context()
sub = context.socket(zmq.SUB)
sub.rcvhwm = s["hwm"]
if s["rcvbuf"] > 0:
    sub.rcvbuf = s["rcvbuf"]
for topic in s["topics"] or [""]:
    sub.subscribe(topic)
monitor = sub.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
sub.connect(s["address"])
monitor.recv_multipart()
sub.disable_monitor()
print("connected", flush=True)
received, gaps, counters, first = 0, 0, {}, {}
while not s["expect"] or received < s["expect"]:
    if not sub.poll(10_000 if s["expect"] else 1000 if received else 10_000):
        break
    topic, body, number = sub.recv_multipart()
    counter = int.from_bytes(number, "little")
    topic = topic.decode()
    first.setdefault(topic, counter)
    if topic in counters and counter != (counters[topic] + 1) % 2**32:
        gaps += 1
    counters[topic] = counter
    received += 1
    if s["per_second"]:
        time.sleep(1 / s["per_second"])
print(json.dumps({"received": received, "gaps": gaps, "first": first, "last": counters}))
context.destroy(0)
"""
