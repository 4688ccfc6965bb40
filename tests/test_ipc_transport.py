"""The transport between a socket and pycapnp: what it reads, what it hands to the system, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

pytest.importorskip("capnp")

from zmqpub.ipc import transport as transport_module
from zmqpub.ipc.transport import SocketTransport


class Protocol:
    """What pycapnp's stream does, in the open."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.buffer = bytearray()
        self.received = b""
        self.events: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def want(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.transport.resume_reading()

    def get_buffer(self, hint: int) -> memoryview:
        assert self.buffer, "nothing is wanted"
        return memoryview(self.buffer)

    def buffer_updated(self, count: int) -> None:
        self.received += self.buffer[:count]
        self.buffer = bytearray(len(self.buffer) - count)
        if not self.buffer:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, reason: Any) -> None:
        self.events.append(reason)


Test = Callable[[Protocol, SocketTransport, socket.socket], Coroutine[Any, Any, None]]


def run(test: Test, **options: Any) -> Protocol:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    protocol = Protocol()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport = SocketTransport(loop, ours, on_lost=lambda: protocol.events.append("lost"), **options)
        transport.start(protocol)
        with theirs:
            theirs.setblocking(False)
            await test(protocol, transport, theirs)
        transport.abort()
        await asyncio.sleep(0)

    asyncio.run(main())
    return protocol


def message(*segments: int, fill: bytes = b"x") -> list[bytes]:
    """A message of so many words in each segment, in the pieces in which pycapnp writes it."""
    table = struct.pack(f"<{len(segments) + 1}I", len(segments) - 1, *segments)
    return [table + bytes(-len(table) % 8), *(fill * (8 * words) for words in segments)]


async def read_all(sock: socket.socket, size: int) -> bytes:
    data = b""
    loop = asyncio.get_running_loop()
    while len(data) < size:
        data += await loop.sock_recv(sock, 1 << 20)
    return data


async def until(condition: Callable[[], object]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 10 s")


# ---- reading ----


def test_reads_what_is_wanted_and_no_more() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        peer.send(b"abcdef")
        await asyncio.sleep(0.05)
        assert protocol.received == b""
        assert not transport.is_reading()
        protocol.want(2)
        await until(lambda: protocol.received == b"ab")
        await asyncio.sleep(0.05)
        assert protocol.received == b"ab"
        protocol.want(10)
        await until(lambda: protocol.received == b"abcdef")
        assert transport.within_message
        assert transport.bytes_in == 6

    run(test)


def test_between_messages_it_is_not_within_one() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        assert not transport.within_message
        protocol.want(8)
        assert not transport.within_message
        peer.send(b"1234")
        await until(lambda: protocol.received)
        assert transport.within_message
        peer.send(b"5678")
        await until(lambda: len(protocol.received) == 8)
        protocol.want(8)
        assert not transport.within_message

    run(test)


@pytest.mark.parametrize("before", [True, False])
def test_the_peers_end(before: bool) -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        if not before:
            protocol.want(8)
            await asyncio.sleep(0.02)
        peer.send(b"abc")
        peer.close()
        if before:
            await asyncio.sleep(0.05)
            assert protocol.events == [], "it is told when pycapnp reads, so that what came before is not lost"
            protocol.want(8)
        await until(lambda: "lost" in protocol.events)
        assert protocol.received == b"abc"
        assert protocol.events == ["Peer disconnected.", "lost"]

    run(test)


# ---- writing ----


def test_a_message_goes_out_when_it_is_whole() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        pieces = message(1, 0, 3)
        for piece in pieces[:-1]:
            transport.write(piece)
        await asyncio.sleep(0.02)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        transport.write(pieces[-1])
        assert peer.recv(1000) == b"".join(pieces), "at once, in one piece"

    run(test)


def test_what_is_written_in_one_turn_goes_out_together() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        for number in range(5):
            for piece in message(1, fill=bytes([number])):
                transport.write(piece)
        first = peer.recv(1000)
        assert first == b"".join(message(1, fill=b"\0"))
        await asyncio.sleep(0.02)
        assert peer.recv(1000) == b"".join(b"".join(message(1, fill=bytes([number]))) for number in range(1, 5))

    run(test)


def test_large_messages_wait_for_the_peer() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        sent = b""
        for number in range(6):
            for piece in message(100_000, fill=bytes([number])):
                transport.write(piece)
                sent += piece
        assert protocol.events == ["pause"]
        assert transport.get_write_buffer_size() > 1_000_000
        assert await read_all(peer, len(sent)) == sent
        await until(lambda: protocol.events == ["pause", "resume"])
        assert transport.bytes_out == len(sent)

    run(test)


@pytest.mark.parametrize("stops", [True, False])
def test_who_takes_no_answers_is_not_read_from(stops: bool) -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        pieces = message(500_000)
        for piece in pieces:
            transport.write(piece)
        peer.send(b"request")
        protocol.want(7)
        await asyncio.sleep(0.1)
        assert protocol.received == (b"" if stops else b"request")
        await read_all(peer, sum(map(len, pieces)))
        await until(lambda: protocol.received == b"request")

    run(test, stop_reading_when_full=stops)


def test_messages_can_be_rewritten() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        seen = []

        def rewrite(whole: bytes) -> bytes:
            seen.append(whole)
            return b"rewritten"

        transport.rewrite = rewrite
        pieces = message(2, 1)
        for piece in pieces:
            transport.write(piece)
        assert seen == [b"".join(pieces)]
        assert peer.recv(1000) == b"rewritten"

    run(test)


# ---- the end ----


def test_close_sends_what_was_written() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        pieces = message(200_000)
        for piece in pieces:
            transport.write(piece)
        transport.close()
        transport.close()
        assert transport.is_closing()
        transport.write(message(1)[0])
        assert len(await read_all(peer, sum(map(len, pieces)))) == sum(map(len, pieces))
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        await until(lambda: "lost" in protocol.events)

    run(test)


def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "_LINGER", 0.2)

    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        for piece in message(500_000):
            transport.write(piece)
        transport.close()
        assert "lost" not in protocol.events
        await until(lambda: "lost" in protocol.events)

    run(test)


def test_abort_drops_it() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        for piece in message(500_000):
            transport.write(piece)
        transport.abort()
        received = 0
        while data := await asyncio.get_running_loop().sock_recv(peer, 1 << 20):
            received += len(data)
        assert received < 4_000_000
        await until(lambda: "lost" in protocol.events)

    run(test)


def test_a_peer_that_is_gone_is_told_after_the_write() -> None:
    async def test(protocol: Protocol, transport: SocketTransport, peer: socket.socket) -> None:
        peer.close()
        for piece in message(1):
            transport.write(piece)
        assert protocol.events == [], "pycapnp is still in its write"
        await until(lambda: "lost" in protocol.events)
        for piece in message(1):
            transport.write(piece)

    assert run(test).events.count("lost") == 1
