"""Peers that do not behave: the server drops them, and serves the others."""

from __future__ import annotations

import gc
import random
import signal
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

from bare_capnp import Bare, bare, start_bare
from ipc_rig import EchoInit, descriptors, resident, serving, threads, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def _send(path: Path, data: bytes) -> None:
    """And close, whether it was taken or not."""
    with _connect(path) as sock:
        sock.settimeout(20)
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass


async def alive(peer: Bare) -> Any:
    echo, context = await peer.echo()
    return (await echo.echo(context, "alive")).result


def _words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


ABSURD = {
    "4 billion segments": _words(0xFFFF_FFFF, 0xFFFF_FFFF) * 4,
    "513 segments": _words(512, *[1] * 513) + bytes(513 * 8),
    "32 GB": _words(0, 0xFFFF_FFFF) + bytes(1000),
    "60 MB that do not come": _words(0, 7_500_000) + bytes(1000),
    "no segment at all": _words(0, 0),
    "an empty message": _words(0, 1) + bytes(8),
    "a pointer to itself": _words(0, 1) + struct.pack("<iHH", -4, 0, 1),
    "a pointer to nowhere": _words(0, 1) + struct.pack("<iHH", 4 << 20, 4, 4),
    "an unknown kind of message": _words(0, 2) + struct.pack("<iHH", 0, 1, 0) + struct.pack("<HHI", 99, 0, 0),
    "an answer to no question": _words(0, 5) + struct.pack("<iHHHHIiHH", 0, 1, 1, 3, 0, 0, 0, 2, 1) + bytes(16),
    "an abort": _words(0, 3) + struct.pack("<iHHHHI", 0, 1, 1, 1, 0, 0) + bytes(8),
}


@pytest.mark.parametrize("data", ABSURD.values(), ids=list(ABSURD))
def test_absurd_headers(path: Path, data: bytes) -> None:
    with serving(path, EchoInit()) as listener:
        for _ in range(20):
            _send(path, data)
        until(lambda: not listener.connections, "connections are still there")
        assert bare(alive, path) == "alive"


def test_10_mb_of_random_bytes(path: Path) -> None:
    chance = random.Random(1)
    with serving(path, EchoInit()) as listener:
        for _ in range(100):
            _send(path, chance.randbytes(100_000))
        # What looks like a header and then is noise gets further.
        for _ in range(300):
            words = chance.randrange(1, 60)
            _send(path, _words(0, words) + chance.randbytes(words * 8))
        until(lambda: not listener.connections, "connections are still there")
        assert bare(alive, path) == "alive"


class Record:
    """The bytes that a good client sends."""

    def __init__(self, path: Path) -> None:
        middle = path.with_name("m")
        self.sent = b""
        with socket.socket(socket.AF_UNIX) as between:
            between.bind(str(middle))
            between.listen()
            child = start_bare(alive, middle)
            theirs, _ = between.accept()
        with theirs, _connect(path) as ours:
            ours.settimeout(0.02)
            theirs.settimeout(0.02)
            while child.poll() is None:
                self._relay(theirs, ours, keep=True)
                self._relay(ours, theirs, keep=False)
        child.communicate()
        assert child.returncode == 0

    def _relay(self, source: socket.socket, target: socket.socket, keep: bool) -> None:
        try:
            data = source.recv(65536)
        except (TimeoutError, ConnectionResetError):
            return
        if keep:
            self.sent += data
        try:
            target.sendall(data)
        except BrokenPipeError:
            return


def test_a_good_conversation_with_bytes_changed_and_cut(path: Path) -> None:
    chance = random.Random(2)
    with serving(path, EchoInit()) as listener:
        good = Record(path).sent
        assert len(good) > 300
        _send(path, good)
        for length in range(0, len(good), 7):
            _send(path, good[:length])
        for _ in range(600):
            damaged = bytearray(good)
            for _ in range(chance.choice([1, 1, 2, 8])):
                damaged[chance.randrange(len(damaged))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
            _send(path, bytes(damaged))
        until(lambda: not listener.connections, "connections are still there")
        assert bare(alive, path) == "alive"


async def bad_text(peer: Bare) -> Any:
    echo, context = await peer.echo()
    request = echo.echo_request()
    request.context = context
    request.echo = "marker of a text"
    return (await request.send()).result


def test_text_that_is_no_utf8(path: Path) -> None:
    with serving(path, EchoInit()):
        middle = path.with_name("m")
        with socket.socket(socket.AF_UNIX) as between:
            between.bind(str(middle))
            between.listen()
            child = start_bare(_reports_bad_text, middle)
            theirs, _ = between.accept()
        with theirs, _connect(path) as ours:
            ours.settimeout(0.02)
            theirs.settimeout(0.02)
            while child.poll() is None:
                for source, target in ((theirs, ours), (ours, theirs)):
                    try:
                        data = source.recv(65536)
                        target.sendall(data.replace(b"marker", b"\xff\xfe\xff\xfe\xff\xfe"))
                    except (TimeoutError, ConnectionResetError, BrokenPipeError):
                        continue
        output, _ = child.communicate()
        assert "UnicodeDecodeError" in output
        assert "FAILED" in output
        assert "Traceback" not in output


async def _reports_bad_text(peer: Bare) -> Any:
    from bare_capnp import error_of

    return await error_of(bad_text(peer))


def test_nothing_is_left_of_thousands_of_connections(path: Path) -> None:
    with serving(path, EchoInit()) as listener:
        _come_and_go(path, 300)
        bare(alive, path)
        until(lambda: not listener.connections, "connections are still there")
        gc.collect()
        before = descriptors(), threads(), resident()
        _come_and_go(path, 3_000)
        until(lambda: not listener.connections, "connections are still there")
        gc.collect()
        assert descriptors() == before[0]
        assert threads() == before[1]
        assert resident() - before[2] < 4_000_000
        assert bare(alive, path) == "alive"


def _come_and_go(path: Path, count: int) -> None:
    chance = random.Random(3)
    for number in range(count):
        with _connect(path) as sock:
            if number % 3 == 1:
                sock.send(b"\0")
            elif number % 3 == 2:
                sock.send(chance.randbytes(64))


async def until_killed(peer: Bare) -> Any:
    echo, context = await peer.echo()
    print("ready", flush=True)
    while True:
        await echo.echo(context, "x" * 10_000)


@pytest.mark.slow
def test_killed_clients(path: Path) -> None:
    with serving(path, EchoInit()) as listener:
        before = descriptors(), threads()
        for _ in range(5):
            children = [start_bare(until_killed, path) for _ in range(4)]
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
            for child in children:
                child.send_signal(signal.SIGKILL)
            for child in children:
                child.communicate()
        until(lambda: not listener.connections, "connections are still there")
        until(lambda: (descriptors(), threads()) == before, "something is left")
        assert bare(alive, path) == "alive"


def test_a_client_that_half_closes(path: Path) -> None:
    with serving(path, EchoInit()) as listener, _connect(path) as sock:
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(20)
        assert sock.recv(1) == b""
        until(lambda: not listener.connections, "the connection is still there")
