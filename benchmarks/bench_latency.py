"""How long does a hashblock take from the call to a subscriber over loopback TCP, idle and beside a thread that hogs the GIL?

A new block of one transaction every millisecond, as raw bytes to updated_block_tip; latency.c sends ready-made messages at the
same pace on bare libzmq.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from hashlib import sha256
from struct import Struct
from typing import Any

import native
import pytest
import zmq
from bursts import free_port
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import tiny
from subscribers import Subscribers

from zmqpub import Publisher

COUNT = 1000
GAP = 0.001
"""Seconds."""
NAMES = ["bare libzmq in C", "zmqpub", "zmqpub, GIL hogged", "pyzmq by hand", "pyzmq by hand, GIL hogged"]
_COUNTER = Struct("<I").pack


@cache
def tips() -> list[bytes]:
    return [tiny(number) for number in range(COUNT)]


@contextmanager
def hog(on: bool) -> Iterator[None]:
    """A Python thread that computes without a pause."""
    stop = threading.Event()

    def compute() -> None:
        number = 0
        while not stop.is_set():
            for i in range(1000):
                number += i

    thread = threading.Thread(target=compute)
    if on:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if on:
            thread.join()


def measure_calls(publish: Callable[[int, bytes], object], address: str, hogged: bool) -> Turn:
    with Subscribers(address, topics=["hashblock"], timed="hashblock") as drain:
        drain.begin(COUNT)
        sent = []
        with hog(hogged):
            for number, raw in enumerate(tips()):
                sent.append(time.monotonic_ns())
                publish(number, raw)
                time.sleep(GAP)
        drain.finished(2.0)
        taken = [(when - sent[counter]) / 1e9 for counter, when in drain.arrivals()[0]]
    return turn_of(taken)


def turn_of(taken: list[float]) -> Turn:
    taken.sort()
    n = len(taken)
    return Turn(taken, {"p50": taken[n // 2], "p90": taken[n * 9 // 10], "p99": taken[n * 99 // 100], "count": n})


def zmqpub_turn(hogged: bool) -> Turn:
    with Publisher({"zmqpubhashblock": "tcp://127.0.0.1:*"}) as publisher:
        address = publisher.active_notifiers()[0].address
        return measure_calls(lambda number, raw: publisher.updated_block_tip(raw), address, hogged)


def by_hand_turn(hogged: bool) -> Turn:
    with zmq.Context[Any]() as context, context.socket(zmq.PUB) as socket:
        address = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

        def publish(number: int, raw: bytes) -> None:
            block_hash = sha256(sha256(raw[:80]).digest()).digest()[::-1]
            socket.send_multipart((b"hashblock", block_hash, _COUNTER(number)))

        return measure_calls(publish, address, hogged)


def bare_turn() -> Turn:
    command = [str(native.latency()), f"tcp://127.0.0.1:{free_port()}", str(COUNT), str(round(GAP * 1e6))]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    info = {name: told[key] / 1e6 for name, key in (("p50", "median_us"), ("p90", "p90_us"), ("p99", "p99_us"))}
    return Turn([info["p50"]], {**info, "count": told["count"]})


@cache
def measure() -> dict[str, Outcome]:
    tips()
    turns: list[Callable[[], Turn]] = [
        bare_turn, partial(zmqpub_turn, False), partial(zmqpub_turn, True), partial(by_hand_turn, False), partial(by_hand_turn, True)
    ]  # fmt: skip
    return interleave(dict(zip(NAMES, turns, strict=True)), rounds=3)


@pytest.mark.parametrize("contender", NAMES)
def test_latency(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "latency", "publish to receive, hashblock", contender, measure()[contender])
