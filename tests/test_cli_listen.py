"""`zmqpub listen` before publishers of every kind: well-behaved, lossy, malformed, restarted, and none at all."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from programs import TOPICS, Program, connected_listener, free_port, on_terminal, once
from synthetic import block, transaction

pytest.importorskip("click")
pytest.importorskip("rich")


class HandMade:
    """A publisher that sends exactly what a test says."""

    def __init__(self, address: str = "tcp://127.0.0.1:*", hwm: int = 1000) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.linger = 5000
        self.socket.sndhwm = hwm
        self.socket.rcvtimeo = 20_000
        self.socket.xpub_verbose = True
        self.socket.bind(address)
        self.address = bytes(self.socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def wait_for_subscriptions(self, count: int = len(TOPICS)) -> set[bytes]:
        return {self.socket.recv()[1:] for _ in range(count)}

    def send(self, topic: str, body: bytes, counter: int) -> None:
        self.socket.send_multipart([topic.encode(), body, struct.pack("<I", counter)])

    def close(self) -> None:
        self.context.destroy()


@pytest.fixture
def publisher() -> Iterator[HandMade]:
    made = HandMade()
    yield made
    made.close()


def without_time(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in ("time", "address")} for line in objects]


def test_every_topic_as_json(publisher: HandMade) -> None:
    tx, made = transaction(1), block(2, 3)
    with Program("listen", publisher.address, "--json", "--count=7") as listener:
        assert publisher.wait_for_subscriptions() == {topic.encode() for topic in TOPICS}
        publisher.send("hashtx", tx.txid, 4)
        publisher.send("rawtx", bytes(tx), 0xFFFFFFFF)
        publisher.send("sequence", tx.txid + b"A" + struct.pack("<Q", 2**40), 0)
        publisher.send("sequence", made.hash + b"C", 1)
        publisher.send("hashblock", made.hash, 9)
        publisher.send("rawblock", bytes(made), 9)
        publisher.send("rawtx", bytes(tx), 0)  # the counter wrapped
        assert listener.end() == 0
        connected, *messages, summary = listener.objects()
    assert connected["event"] == "connected"
    assert all(message["address"] == publisher.address for message in messages)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", message["time"]) for message in messages)
    txid, block_hash = tx.txid.hex(), made.hash.hex()
    common = {"event": "message", "gap": 0}
    raw = {**common, "topic": "rawtx", "hash": txid, "size": tx.size}
    assert without_time(messages) == [
        {**common, "topic": "hashtx", "counter": 4, "hash": txid, "size": 32},
        {**raw, "counter": 0xFFFFFFFF},
        {**common, "topic": "sequence", "counter": 0, "hash": txid, "size": 41, "label": "A", "mempool_sequence": 2**40},
        {**common, "topic": "sequence", "counter": 1, "hash": block_hash, "size": 33, "label": "C"},
        {**common, "topic": "hashblock", "counter": 9, "hash": block_hash, "size": 32},
        {**common, "topic": "rawblock", "counter": 9, "hash": block_hash, "size": made.size, "transactions": 3},
        {**raw, "counter": 0},
    ]
    assert (summary["event"], summary["messages"], summary["missed"], summary["restarts"]) == ("summary", 7, 0, 0)


def test_gaps_and_restarts_are_events_of_their_own(publisher: HandMade) -> None:
    digest = bytes(range(32))
    with connected_listener(publisher.address, "--topic=hashtx", "--count=5") as listener:
        assert publisher.wait_for_subscriptions(1) == {b"hashtx"}
        for counter in (100, 101, 105, 0, 3):
            publisher.send("hashtx", digest, counter)
        assert listener.end() == 6
        *lines, summary = listener.objects()
    common = {"topic": "hashtx"}
    told = [line for line in without_time(lines) if line["event"] in ("gap", "restart")]
    assert told == [
        {"event": "gap", **common, "after": 101, "counter": 105, "missed": 3},
        {"event": "restart", **common, "after": 105, "counter": 0},
        {"event": "gap", **common, "after": 0, "counter": 3, "missed": 2},
    ]
    assert [line["gap"] for line in lines if line["event"] == "message"] == [0, 0, 3, 0, 2]
    assert (summary["messages"], summary["missed"], summary["restarts"]) == (5, 5, 1)


def test_malformed_messages_are_shown_and_the_stream_goes_on(publisher: HandMade) -> None:
    tx = transaction(3)
    with connected_listener(publisher.address, "--count=9") as listener:
        publisher.wait_for_subscriptions()
        publisher.send("rawtx", bytes(tx), 0)
        publisher.send("rawtx", bytes(tx)[:-1], 1)
        publisher.send("rawtx", bytes(tx) + b"\0", 2)
        publisher.send("rawtx", b"\x1b[2J", 3)
        publisher.socket.send_multipart([b"rawtx", bytes(tx)])
        publisher.socket.send_multipart([b"rawtx", bytes(tx), b"12345"])
        publisher.send("rawtxlock", bytes(tx), 0)
        publisher.send("sequence", bytes(32) + b"X", 0)
        publisher.send("rawtx", bytes(tx), 4)
        assert listener.end() == 5
        *lines, summary = listener.objects()
    malformed = [line for line in lines if line["event"] == "malformed"]
    assert [line.get("topic") for line in malformed] == ["rawtx", "rawtx", "rawtx", None, None, None, "sequence"]
    assert all(line["error"].isprintable() for line in malformed)
    assert "expected 3 frames" in malformed[3]["error"]
    assert [line["counter"] for line in lines if line["event"] == "message"] == [0, 4]
    # A bad body is no gap: its counter was sound.
    assert (summary["messages"], summary["malformed"], summary["missed"]) == (2, 7, 0)


def test_lines_for_people(publisher: HandMade) -> None:
    with Program("listen", publisher.address, "--topic=hashtx", "--topic=rawtx") as listener:
        listener.line(rf"Z connected: {publisher.address}$")
        publisher.wait_for_subscriptions(2)
        for counter in (7, 8, 11):
            publisher.send("hashtx", bytes(32), counter)
        publisher.send("rawtx", b"no transaction", 0)
        listener.line(rf"Z gap: hashtx at {publisher.address}: 2 messages missed between counters 8 and 11$")
        listener.line(rf"Z lost: hashtx at {publisher.address}: 2 messages from counter 9 on: there is no replay endpoint to ask$")
        listener.line(rf"Z malformed message from {publisher.address}: rawtx body: at offset \d+: expected ")
        assert listener.end(signal.SIGINT) == 5
        assert listener.errors == []
        assert listener.seen[-3].startswith(
            f"hashtx at {publisher.address}: 3 messages, 96 B, counter 11, 2 missed, 0 repaired, 2 lost, 0 restarts, 0 malformed"
        )
        assert re.fullmatch(r"3 messages in \d+\.\d s, 2 missed, 0 repaired, 2 lost, 0 restarts, 1 malformed", listener.seen[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(publisher: HandMade, number: int) -> None:
    with connected_listener(publisher.address) as listener:
        assert listener.end(number, timeout=5) == 0
        assert listener.objects()[-1]["event"] == "summary"
        assert listener.errors == []


def test_a_publisher_that_was_restarted() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with Program("listen", address, "--json", "--topic=hashtx") as listener:
        for _ in range(2):
            publisher = HandMade(address)
            publisher.wait_for_subscriptions(1)
            for counter in range(3):
                publisher.send("hashtx", bytes(32), counter)
            listener.line('"counter": 2, "gap"')
            publisher.close()
        assert listener.end(signal.SIGTERM) == 0
    told = [line["event"] for line in listener.objects()]
    message = ["message"] * 3
    expected = ["connected", *message, "disconnected", "connected", "restart", *message, "disconnected", "summary"]
    assert told == expected or told == [*expected[:-2], "summary"]


def test_several_addresses_are_told_apart(publisher: HandMade, tmp_path: Path) -> None:
    other = HandMade(f"ipc://{tmp_path}/socket")
    addresses = [publisher.address, f"unix:{tmp_path}/socket"]
    try:
        with Program("listen", *addresses, addresses[0], "--json", "--topic=hashtx", "--count=4") as listener:
            for each in (publisher, other):
                each.wait_for_subscriptions(1)
            publisher.send("hashtx", bytes(32), 5)
            publisher.send("hashtx", bytes(32), 6)
            other.send("hashtx", bytes(32), 1)
            other.send("hashtx", bytes(32), 2)
            assert listener.end() == 0
            rows = listener.objects()[-1]["notifiers"]
            assert [(row["address"], row["messages"], row["counter"]) for row in rows] == [(addresses[0], 2, 6), (addresses[1], 2, 2)]
    finally:
        other.close()


def test_nobody_there() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    begun = time.monotonic()
    program = once("listen", address, "--timeout=1")
    assert 1 <= time.monotonic() - begun < 10
    assert program.process.returncode == 8
    assert program.errors == ["zmqpub: error: nothing came within 1 seconds"]


def test_too_few_in_time(publisher: HandMade) -> None:
    with Program("listen", publisher.address, "--json", "--count=3", "--timeout=3") as listener:
        publisher.wait_for_subscriptions()
        publisher.send("hashtx", bytes(32), 0)
        assert listener.end() == 8
        assert listener.errors == ["zmqpub: error: 1 of 3 messages came within 3 seconds"]


def test_enough_in_time(publisher: HandMade) -> None:
    with Program("listen", publisher.address, "--json", "--timeout=2") as listener:
        publisher.wait_for_subscriptions()
        publisher.send("hashtx", bytes(32), 0)
        assert listener.end() == 0


def test_somebody_else_there() -> None:
    """A web server on that port: said, not waited for in silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def answer() -> None:
            while not stop.is_set():
                connection, _ = server.accept()
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 3)
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with Program("listen", f"tcp://127.0.0.1:{server.getsockname()[1]}") as listener:
                listener.line(r"Z refused: tcp://127\.0\.0\.1:\d+: what listens there speaks no ZeroMQ$")
                assert listener.end(signal.SIGINT) == 0
        finally:
            stop.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


def test_a_reader_that_is_gone_ends_it_quietly(publisher: HandMade) -> None:
    """`zmqpub listen --json … | head -1`."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as stdout, Program("listen", publisher.address, "--json", stdout=stdout) as listener:
        stdout.close()
        publisher.wait_for_subscriptions()
        assert os.read(reader, 9) == b'{"event":'
        os.close(reader)
        publisher.send("hashtx", bytes(32), 0)
        assert listener.end(timeout=10) == 128 + signal.SIGPIPE
        assert listener.errors == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_in_one_line(publisher: HandMade) -> None:
    with open("/dev/full", "wb") as full, Program("listen", publisher.address, "--json", stdout=full) as listener:
        publisher.wait_for_subscriptions()
        assert listener.end(timeout=10) == 1
        assert listener.errors == ["zmqpub: error: No space left on device"]


def test_a_table_on_a_terminal(publisher: HandMade) -> None:
    def send() -> None:
        publisher.wait_for_subscriptions()
        for counter in (0, 1, 4):
            publisher.send("hashtx", bytes([0xAB]) * 32, counter)

    thread = threading.Thread(target=send)
    thread.start()
    code, output = on_terminal("listen", publisher.address, until=r"hashtx +3 .* 4 .* 2 .*abababab", number=signal.SIGINT)
    thread.join()
    assert code == 6
    assert f"gap: hashtx at {publisher.address}: 2 messages missed" in output
    assert f"connected: {publisher.address}" in output
    assert f"{publisher.address} degraded" in output
    assert "rawblock" in output


def test_many_messages_are_all_counted() -> None:
    publisher = HandMade(hwm=0)
    try:
        with Program("listen", publisher.address, "--json", "--count=50000") as listener:
            publisher.wait_for_subscriptions()
            for counter in range(50_000):
                publisher.send("hashtx", bytes(32), counter)
            assert listener.end() == 0
            assert listener.objects()[-1]["messages"] == 50_000
    finally:
        publisher.close()
