"""Publishers that die, freeze, vanish and come back: each connection is told of, and the stream goes on over the next one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import raw_zmtp
import zmq
from listening import address_of, everything, wait_for, wait_wanted
from raw_publisher import (
    HASHTX,
    RawPublisher,
    events,
    messages,
    receiving,
    take_all,
    take_count,
    take_until,
    wait_connected,
)
from remote_publisher import RemotePublisher, free_port
from synthetic import block, transaction

from zmqpub import ConnectError, Publisher, Topic
from zmqpub._fast import Receiver

BODY = bytes(range(32))


class Relay:
    """A TCP relay to a port on this machine; connections through it can be cut, or be left standing and say nothing."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.target = port
        self.frozen = False
        self.accepted = 0
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            far = socket.create_connection(("127.0.0.1", self.target))
            self.pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self.frozen:
                    sink.sendall(data)
        except OSError:
            pass

    def cut(self) -> None:
        for pair in self.pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self.pairs.clear()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def kinds(items: list[Any]) -> list[str]:
    return [item[0] for item in items if isinstance(item, tuple)]


def test_all_of_a_publishers_messages_in_its_order() -> None:
    with Publisher(everything()) as publisher, receiving(address_of(publisher)) as receiver:
        wait_wanted(publisher)
        one = block(5, 30)
        for i in range(10):
            publisher.transaction_added_to_mempool(transaction(i), i + 1)
        publisher.block_connected(one)
        publisher.updated_block_tip(one)
        got = messages(take_count(receiver, 10 * 3 + 2 * 30 + 1 + 2))
    expected = [topic for _ in range(10) for topic in ("hashtx", "rawtx", "sequence")] + ["hashtx", "rawtx"] * 30
    assert [m.topic.value for m in got] == [*expected, "sequence", "hashblock", "rawblock"]
    assert [m.counter for m in got if m.topic is Topic.HASHTX] == list(range(40))


def test_a_killed_publisher_and_the_next_one_at_its_address() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with receiving(address) as receiver:
        with RemotePublisher(address) as publisher:
            wait_connected(receiver)
            publisher.wait_wanted()
            publisher.publish(5)
            assert len(messages(take_count(receiver, 15))) == 15
            publisher.kill()
            assert kinds(take_until(receiver, lambda items: kinds(items)[-1:] == ["disconnected"])) == ["disconnected"]
            assert not receiver.connected(0)
        with RemotePublisher(address) as publisher:
            wait_connected(receiver, generation=2)
            publisher.wait_wanted()
            publisher.publish(2)
            items = take_until(receiver, lambda items: len(messages(items)) == 6)
    assert kinds(items) == ["connected", "restart"]
    assert items[0] == ("connected", 0, 2, address)
    assert [m.counter for m in messages(items)] == [0, 0, 0, 1, 1, 1]


def test_a_publisher_killed_amid_a_burst_costs_only_what_it_had_not_sent() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with receiving(address) as receiver, RemotePublisher(address) as publisher:
        wait_connected(receiver)
        publisher.wait_wanted()
        assert publisher.process.stdin is not None
        publisher.process.stdin.write("200000\n")
        publisher.process.stdin.flush()
        items = take_until(receiver, lambda items: len(messages(items)) > 1000)
        publisher.kill()
        items += take_until(receiver, lambda items: kinds(items)[-1:] == ["disconnected"])
        assert receiver.take(0.1) is None
    assert kinds(items) == ["connected", "disconnected"]
    assert not isinstance(items[-2], tuple)  # what the connection brought comes before its end
    for topic in (Topic.HASHTX, Topic.RAWTX, Topic.SEQUENCE):
        counters = [m.counter for m in messages(items) if m.topic is topic]
        assert counters == list(range(len(counters)))


def test_a_frozen_publisher_is_stale_and_heard_again_when_it_thaws() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with receiving(address, stale_after=0.4) as receiver, RemotePublisher(address) as publisher:
        wait_connected(receiver)
        publisher.wait_wanted()
        publisher.publish(1)
        take_count(receiver, 3)
        publisher.stop()
        stale = events(take_until(receiver, lambda items: "stale" in kinds(items)), "stale")
        assert stale[0][2] >= 0.4  # more, where the publisher was slow to start
        publisher.resume()
        generation = receiver.generation(0)
        wait_connected(receiver, generation=generation + 1)
        deadline = time.monotonic() + 15
        items: list[Any] = []
        while not messages(items):
            assert time.monotonic() < deadline
            publisher.publish(1)
            items += take_all(receiver, quiet=0.1)
    assert "restart" not in kinds(items)


def test_silence_makes_the_socket_anew_ever_less_often() -> None:
    with RawPublisher() as publisher, receiving(publisher.address, stale_after=0.05) as receiver:
        publisher.wait_subscribed()
        items = take_until(receiver, lambda items: len(events(items, "stale")) == 4)
        silences = [event[2] for event in events(items, "stale")]
        assert silences[0] >= 0.05
        assert [b - a >= factor * 0.05 for a, b, factor in zip(silences, silences[1:], (2, 4, 8), strict=False)] == [True] * 3
        assert receiver.stats().sources[0].stale >= 4
        # Each with a connection of its own.
        assert [kind for kind in kinds(items) if kind != "stale"][:4] == ["connected", "disconnected", "connected", "disconnected"]
        publisher.wait_subscribed()
        wait_connected(receiver)
        take_all(receiver, quiet=0.0)
        for i in range(200):
            publisher.send(HASHTX, BODY, i)
            time.sleep(0.002)
        heard = take_all(receiver, quiet=0.0)
        assert len(messages(heard)) > 50


def test_the_consumers_time_is_no_silence() -> None:
    """Nothing is taken for three times stale_after, while messages arrive."""
    with RawPublisher() as publisher, receiving(publisher.address, stale_after=1.0) as receiver:
        publisher.wait_subscribed()
        for i in range(30):
            publisher.send(HASHTX, BODY, i)
            time.sleep(0.1)
        items = take_count(receiver, 30)
        assert not events(items, "stale")
        assert [m.counter for m in messages(items)] == list(range(30))


def test_being_stopped_is_no_silence(tmp_path: Path) -> None:
    """A subscriber's whole process is frozen for longer than stale_after; its publisher spoke meanwhile."""
    program = """
import sys, time, zmq
sys.path.insert(0, sys.argv[2])
from raw_publisher import *
with receiving(sys.argv[1], stale_after=1.0) as receiver:
    wait_connected(receiver)
    print("ready", flush=True)
    items = take_until(receiver, lambda items: any(m.counter == 59 for m in messages(items)), timeout=60)
    print(len(messages(items)), len(events(items, "stale")), receiver.generation(0), flush=True)
"""
    with RawPublisher() as publisher:
        with subprocess.Popen(
            [sys.executable, "-c", program, publisher.address, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            publisher.wait_subscribed()
            for i in range(60):
                if i == 10:
                    process.send_signal(signal.SIGSTOP)
                if i == 50:
                    process.send_signal(signal.SIGCONT)
                publisher.send(HASHTX, BODY, i)
                time.sleep(0.05)
            assert process.stdout.readline() == "60 0 1\n"


def test_a_connection_that_is_cut_is_made_again_and_what_was_missed_is_a_gap() -> None:
    with RawPublisher() as publisher, Relay(port_of(publisher.address)) as relay:
        with receiving(f"tcp://127.0.0.1:{relay.port}") as receiver:
            publisher.wait_subscribed()
            publisher.send(HASHTX, BODY, 0)
            take_count(receiver, 1)
            relay.cut()
            wait_for(lambda: not receiver.connected(0))
            publisher.send(HASHTX, BODY, 1)
            publisher.wait_subscribed()
            publisher.send(HASHTX, BODY, 2)
            items = take_until(receiver, lambda items: messages(items))
    assert [item[:2] for item in events(items)] == [("disconnected", 0), ("connected", 0), ("gap", 0)]
    assert items[-2] == ("gap", 0, Topic.HASHTX, 1, 2, "network")


def test_a_dead_connection_that_nobody_closed_is_left_after_silence() -> None:
    with RawPublisher() as publisher, Relay(port_of(publisher.address)) as relay:
        with receiving(f"tcp://127.0.0.1:{relay.port}", stale_after=0.3) as receiver:
            publisher.wait_subscribed()
            publisher.send(HASHTX, BODY, 0)
            take_count(receiver, 1)
            relay.frozen = True
            publisher.send(HASHTX, BODY, 1)
            take_until(receiver, lambda items: "stale" in kinds(items))
            relay.frozen = False
            publisher.wait_subscribed()
            publisher.send(HASHTX, BODY, 2)
            items = take_until(receiver, lambda items: messages(items))
            assert items[-2] == ("gap", 0, Topic.HASHTX, 1, 2, "network")
            assert relay.accepted >= 2


def test_heartbeats_find_a_dead_connection_too() -> None:
    with RawPublisher() as publisher, Relay(port_of(publisher.address)) as relay:
        with receiving(f"tcp://127.0.0.1:{relay.port}", heartbeat=0.1) as receiver:
            publisher.wait_subscribed()
            relay.frozen = True
            take_until(receiver, lambda items: "disconnected" in kinds(items))
            relay.frozen = False
            wait_connected(receiver, generation=2)


def test_a_server_that_speaks_something_else_is_tried_until_it_is_a_publisher() -> None:
    """libzmq never connects again after a handshake that broke the rules."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with receiving(f"tcp://127.0.0.1:{port}") as receiver:
            for _ in range(3):
                connection, _ = listener.accept()
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 4)
                connection.close()
            listener.close()
            with RawPublisher(f"tcp://127.0.0.1:{port}") as publisher:
                publisher.wait_subscribed(timeout=20)
                publisher.send(HASHTX, BODY, 5)
                items = take_until(receiver, lambda items: messages(items))
                assert kinds(items) == ["refused", "connected"]


def test_a_publisher_of_another_socket_type_is_tried_until_it_is_one() -> None:
    context = zmq.Context()
    wrong = context.socket(zmq.PULL)
    wrong.linger = 0
    wrong.bind("tcp://127.0.0.1:*")
    address = wrong.get_string(zmq.LAST_ENDPOINT)
    with receiving(address) as receiver:
        assert take_until(receiver, lambda items: "refused" in kinds(items)) == [("refused", 0)]
        time.sleep(0.3)
        assert receiver.generation(0) == 0
        assert receiver.take(0) is None
        wrong.close()
        context.term()
        with RawPublisher(address) as publisher:
            publisher.wait_subscribed(timeout=20)
            wait_connected(receiver)


def test_an_address_that_is_not_there_yet() -> None:
    port = free_port()
    with receiving(f"tcp://localhost:{port}") as receiver:
        assert receiver.take(0.1) is None
        assert (receiver.connected(0), receiver.generation(0)) == (False, 0)
        with RawPublisher(f"tcp://127.0.0.1:{port}") as publisher:
            publisher.wait_subscribed()
            (connected,) = take_until(receiver, lambda items: items)
            assert isinstance(connected, tuple)
            assert connected[:3] == ("connected", 0, 1)


def test_ipc_and_inproc(tmp_path: Path) -> None:
    context = zmq.Context()
    for address in (f"ipc://{tmp_path}/socket", "inproc://receiver-test"):
        with RawPublisher(address, context) as publisher, receiving(address, context=context) as receiver:
            publisher.wait_subscribed()
            publisher.send(HASHTX, BODY, 0)
            items = take_until(receiver, lambda items: messages(items))
            assert kinds(items) == ["connected"]
    context.term()


def test_a_message_is_never_said_to_be_of_a_newer_connection() -> None:
    """The relay is cut while messages flow; whatever came over the first connection stands before its end."""
    with RawPublisher() as publisher, Relay(port_of(publisher.address)) as relay:
        with receiving(f"tcp://127.0.0.1:{relay.port}") as receiver:
            publisher.wait_subscribed()
            counter = 0
            for round_ in range(5):
                for _ in range(300):
                    publisher.send(HASHTX, BODY, counter)
                    counter += 1
                relay.cut()
                wait_connected(receiver, generation=round_ + 2)
                publisher.wait_subscribed()
            publisher.send(HASHTX, BODY, counter)
            items = take_until(receiver, lambda items: messages(items) and messages(items)[-1].counter == counter)
    generation = 0
    for item in items:
        if isinstance(item, tuple) and item[0] == "connected":
            generation = item[2]
        elif not isinstance(item, tuple):
            assert item.counter // 300 + 1 == generation or item.counter == counter


def test_many_sources_are_one_thread() -> None:
    context = zmq.Context()
    publishers = [RawPublisher(context=context) for _ in range(4)]
    threads = len(os.listdir("/proc/self/task"))
    with receiving(*[publisher.address for publisher in publishers for _ in range(10)], context=context) as receiver:
        assert len(os.listdir("/proc/self/task")) == threads + 1
        for publisher in publishers:
            for _ in range(10):
                publisher.wait_subscribed()
            publisher.send(HASHTX, BODY, 0)
        items = take_until(receiver, lambda items: len(messages(items)) == 40)
        assert len(events(items, "connected")) == 40
    for publisher in publishers:
        publisher.close()
    context.term()


@pytest.mark.parametrize("endpoint", ["tcp:/127.0.0.1", "tcp://127.0.0.1", "nothing://x", ""])
def test_an_endpoint_that_can_never_be_is_refused(endpoint: str) -> None:
    context = zmq.Context()
    with pytest.raises(ConnectError, match="my address: cannot connect"):
        Receiver([("my address", endpoint, False, 31, {})], context=context)
    context.term()


def test_a_publisher_of_zmtp_2_is_connected_when_it_speaks() -> None:
    """It shakes no hands, so that libzmq's monitor has nothing to say of it."""
    publisher_type, no_identity = bytes([1, 1]), bytes([0, 0])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with receiving(f"tcp://127.0.0.1:{port}", topics=1 << HASHTX) as receiver:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.sendall(b"\xff" + bytes(7) + b"\1\x7f" + publisher_type + no_identity)
                heard = b""
                while not heard.endswith(b"\1hashtx"):
                    heard += connection.recv(4096)
                for counter in range(2):
                    connection.sendall(raw_zmtp.encode(b"hashtx", raw_zmtp.MORE) + raw_zmtp.encode(BODY, raw_zmtp.MORE))
                    connection.sendall(raw_zmtp.encode(counter.to_bytes(4, "little")))
                items = take_until(receiver, lambda items: len(messages(items)) == 2)
            assert kinds(items) == ["connected"]
            assert items[0] == ("connected", 0, 1, f"tcp://127.0.0.1:{port}")
            assert kinds(take_until(receiver, lambda items: items)) == ["disconnected"]
