"""Relay between plain sockets: bytes pass as they are, and as slowly, partly or not at all as was asked for."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening import wait_for

from zmqpub import ConfigError
from zmqpub.testing import Relay


class Peer:
    """The publisher's side: accepts, and keeps what was accepted."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(10)
        self.accepted.append(connection)
        return connection

    def close(self) -> None:
        for each in (self.listener, *self.accepted):
            each.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with contextlib.closing(Peer()) as made:
        yield made


@pytest.fixture
def relay(peer: Peer) -> Iterator[Relay]:
    with Relay(to=peer.address) as made:
        yield made


def connect(relay: Relay) -> socket.socket:
    host, _, port = relay.address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), 10)


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionError
        data += chunk
    return data


def was_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def is_turned_away(relay: Relay) -> bool:
    with connect(relay) as connection:
        return was_closed(connection)


def test_both_directions(relay: Relay, peer: Peer) -> None:
    with connect(relay) as near:
        far = peer.accept()
        near.sendall(b"up")
        assert read(far, 2) == b"up"
        far.sendall(b"down")
        assert read(near, 4) == b"down"
        assert relay.connections == 1
    assert was_closed(far)
    wait_for(lambda: relay.connections == 0)


def test_megabytes_both_ways_at_once(relay: Relay, peer: Peer) -> None:
    data = bytes(range(256)) * 40_000
    with connect(relay) as near:
        far = peer.accept()
        senders = [threading.Thread(target=each.sendall, args=(data,)) for each in (near, far)]
        for sender in senders:
            sender.start()
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(read(far, len(data))))
        reader.start()
        assert read(near, len(data)) == data
        for thread in (reader, *senders):
            thread.join(30)
        assert received == [data]


def test_the_end_comes_after_what_was_sent(relay: Relay, peer: Peer) -> None:
    with connect(relay) as near:
        far = peer.accept()
        data = bytes(30_000_000)  # more than the system keeps for a connection

        def send() -> None:
            far.sendall(data)
            far.close()

        sender = threading.Thread(target=send)
        sender.start()
        assert not relay.wait_until_idle(0.1)
        assert read(near, len(data)) == data
        assert was_closed(near)
        sender.join(10)
        assert relay.wait_until_idle(10)


def test_cut(relay: Relay, peer: Peer) -> None:
    with connect(relay) as near, connect(relay) as other:
        ends = [peer.accept(), peer.accept()]
        relay.cut()
        assert all(map(was_closed, (near, other, *ends)))
        with connect(relay):
            peer.accept()


def test_silence(relay: Relay, peer: Peer) -> None:
    with connect(relay) as near:
        far = peer.accept()
        relay.silence()
        relay.silence()
        assert was_closed(far)
        near.sendall(bytes(1_000_000))  # goes nowhere, and is no error
        near.settimeout(0.2)
        with pytest.raises(TimeoutError):
            near.recv(1)
        assert relay.connections == 0
        with connect(relay) as new:
            peer.accept().sendall(b"heard")
            assert read(new, 5) == b"heard"
        relay.cut()
        near.settimeout(10)
        assert was_closed(near)


def test_trickle(relay: Relay, peer: Peer) -> None:
    relay.trickle(10_000)
    with connect(relay) as near:
        far = peer.accept()
        begun = time.monotonic()
        far.sendall(bytes(20_000))
        near.sendall(b"what the subscriber says is not slowed down")
        read(far, 43)
        assert time.monotonic() - begun < 1.5
        read(near, 20_000)
        assert 1.7 < time.monotonic() - begun < 20
        relay.trickle(0)
        far.sendall(b"held")
        near.settimeout(0.2)
        with pytest.raises(TimeoutError):
            near.recv(1)
        relay.trickle(None)
        near.settimeout(10)
        assert read(near, 4) == b"held"


def test_new_connections_wait(relay: Relay, peer: Peer) -> None:
    relay.hold_new()
    with connect(relay) as near:
        peer.listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.accept()
        peer.listener.settimeout(10)
        relay.hold_new(False)
        peer.accept().sendall(b"in")
        assert read(near, 2) == b"in"


def test_refused_for_a_while(relay: Relay, peer: Peer) -> None:
    address = relay.address
    with connect(relay) as near:
        far = peer.accept()
        relay.refuse()
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(relay)
        far.sendall(b"those who were in stay")
        read(near, 22)
        relay.refuse(False)
        relay.refuse(False)
        assert relay.address == address
        with connect(relay):
            peer.accept()


def test_nobody_behind_it(peer: Peer) -> None:
    with Relay() as relay:
        assert is_turned_away(relay)
        relay.turn_to(peer.address)
        with connect(relay) as near:
            peer.accept()
            relay.turn_to(None)
            near.sendall(b"still served")
            read(peer.accepted[0], 12)
        assert is_turned_away(relay)
        peer.close()
        relay.turn_to(peer.address)
        assert is_turned_away(relay)


def test_unix_sockets(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(inner))
        listener.listen()
        with Relay(f"unix:{outer}", f"ipc://{inner}") as relay, socket.socket(socket.AF_UNIX) as near:
            assert relay.address == f"ipc://{outer}"
            near.connect(str(outer))
            far, _ = listener.accept()
            with far:
                far.sendall(b"over")
                assert read(near, 4) == b"over"
            relay.refuse()
            assert not outer.exists()
            relay.refuse(False)
            assert outer.exists()
    assert not outer.exists()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6(peer: Peer) -> None:
    try:
        relay = Relay("tcp://[::1]:*", peer.address)
    except OSError:
        pytest.skip("no IPv6 here")
    with relay:
        assert relay.address.startswith("tcp://[::1]:")
        with connect(relay):
            peer.accept()


@pytest.mark.parametrize(("address", "problem"), [("inproc://x", "no connections"), ("ipc://*", "name the path"), ("tcp://", "missing")])
def test_addresses_that_cannot_be(address: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Relay(address)


def test_closed_is_closed(peer: Peer) -> None:
    before = threading.active_count()
    relay = Relay(to=peer.address)
    with connect(relay) as near:
        peer.accept()
        relay.close()
        relay.close()
        assert was_closed(near)
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="closed"):
        relay.cut()
