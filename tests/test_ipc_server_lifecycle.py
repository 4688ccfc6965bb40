"""Servers that begin and end: orderly, amid calls, with the interpreter, in forked children."""

from __future__ import annotations

import asyncio
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

pytest.importorskip("capnp")

from bare_capnp import Bare, bare, error_of, result_of, start_bare
from ipc_rig import EchoInit, descriptors, serving, threads, until

from zmqpub.errors import ClosedError
from zmqpub.ipc import CapnpProtocol, Limits, Listener, current_call, serve_connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def _listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(128)
    return sock


async def _await(call: Any) -> Any:
    return (await call).result


async def call_once(peer: Bare, text: str) -> Any:
    import capnp

    echo, context = await peer.echo()
    print("calls", flush=True)
    try:
        return [(await echo.echo(context, text)).result]
    except capnp.KjException as error:
        return [error.type, error.description]


class Slow:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = threading.Event()
        self.cancelled = threading.Event()

    def make_echo(self) -> Any:
        return self

    def echo(self, echo: str) -> str:
        call = current_call()
        assert call is not None
        ended = threading.Event()
        call.on_cancel(ended.set)
        self.began.set()
        if ended.wait(self.seconds):
            self.cancelled.set()
        return echo


class AsyncSlow(Slow):
    async def echo(self, echo: str) -> str:  # type: ignore[override]
        self.began.set()
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return echo


@pytest.mark.parametrize("slow", [Slow, AsyncSlow])
def test_calls_under_way_may_end(path: Path, slow: type[Slow]) -> None:
    init = slow(1)
    with serving(path, init, grace=20):
        child = start_bare(call_once, path, "done")
        assert init.began.wait(30)
    assert result_of(child) == ["done"]
    assert not init.cancelled.is_set()


@pytest.mark.parametrize("slow", [Slow, AsyncSlow])
def test_what_takes_longer_is_cancelled(path: Path, slow: type[Slow]) -> None:
    init = slow(60)
    with serving(path, init, grace=0.2):
        child = start_bare(call_once, path, "never")
        assert init.began.wait(30)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert init.cancelled.wait(10)
    assert result_of(child)[0] == "DISCONNECTED"


def test_a_handler_that_never_returns_does_not_keep_the_server(path: Path) -> None:
    released = threading.Event()

    class Init:
        def make_echo(self) -> Any:
            return self

        def echo(self, echo: str) -> str:
            began.set()
            released.wait(60)
            return echo

    began = threading.Event()
    with serving(path, Init(), grace=0.2):
        child = start_bare(call_once, path, "never")
        assert began.wait(30)
        at = time.monotonic()
    assert time.monotonic() - at < 15
    assert result_of(child)[0] == "DISCONNECTED"
    released.set()


async def late_call(peer: Bare) -> Any:
    echo, context = await peer.echo()
    other = await peer.context()
    first = asyncio.ensure_future(_await(echo.echo(context, "first")))
    print("calls", flush=True)
    await asyncio.sleep(1.5)
    return [await error_of(echo.echo(other, "late")), await first]


@pytest.mark.slow
def test_no_new_calls_while_the_server_ends(path: Path) -> None:
    init = Slow(4)
    with serving(path, init, grace=30):
        child = start_bare(late_call, path)
        assert init.began.wait(30)
    (kind, text), first = result_of(child)
    assert (kind, first) == ("OVERLOADED", "first")
    assert "shutting down" in text


def test_nobody_is_accepted_after_the_end(path: Path) -> None:
    with serving(path, EchoInit()) as listener:
        pass
    listener.close()  # a second time does nothing
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(str(path))


async def until_disconnected(peer: Bare) -> Any:
    await peer.construct()
    print("constructed", flush=True)
    await peer.client.on_disconnect()
    return "disconnected"


def test_disconnect_incoming(path: Path) -> None:
    with serving(path, EchoInit()) as listener:
        children = [start_bare(until_disconnected, path) for _ in range(2)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "constructed\n"
        assert listener.connections == 2
        listener.disconnect_incoming()
        assert [result_of(child) for child in children] == ["disconnected"] * 2
        assert listener.connections == 0
        assert bare(call_once, path, "new") == ["new"]


def test_servers_come_and_go(path: Path) -> None:
    with serving(path, EchoInit()):
        pass
    before = descriptors(), threads()
    for number in range(50):
        with serving(path.with_name(str(number)), EchoInit()), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path.with_name(str(number))))
    assert (descriptors(), threads()) == before


# ---- one connection ----


def test_one_connection_in_the_foreground(path: Path) -> None:
    with _listening(path) as listening:
        child = start_bare(call_once, path, "hello")
        sock, _ = listening.accept()
    serve_connection(sock, EchoInit(), address="fd:7")
    assert result_of(child) == ["hello"]


# ---- the protocol ----


def test_protocol(path: Path) -> None:
    protocol = CapnpProtocol("test", limits=Limits(grace=1))
    protocol.context.something = 1
    assert protocol.context.something == 1
    protocol.listen(_listening(path), EchoInit(), f"unix:{path}")
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    init = protocol.connect(sock, f"unix:{path}")
    cleaned = []
    protocol.add_cleanup(init, lambda: cleaned.append("init"))
    echo = init.make_echo()
    assert echo.echo("through both ends") == "through both ends"
    protocol.disconnect_incoming()
    until(lambda: init.closed or not _answers(echo), "the connection is still there")
    protocol.close()
    assert cleaned == ["init"]
    with _listening(path.with_name("other")) as other, pytest.raises(ClosedError):
        protocol.listen(other, EchoInit(), "unix:other")
    protocol.close()


def _answers(echo: Any) -> bool:
    try:
        echo.echo("x")
    except Exception:
        return False
    return True


def test_cleanup_of_what_is_simply_gone() -> None:
    class Thing:
        pass

    protocol = CapnpProtocol("test")
    thing = Thing()
    cleaned = []
    protocol.add_cleanup(thing, lambda: cleaned.append(1))
    assert not cleaned
    del thing
    assert cleaned == [1]
    protocol.close()


# ---- the interpreter's end, and forks ----

PROGRAM = """
import socket, sys, threading, time
from zmqpub.ipc import Listener, EchoServer

class Sync:
    def echo(self, echo):
        print("began", flush=True)
        time.sleep(600)

class Init:
    def make_echo(self):
        return Sync() if sys.argv[2] == "sync" else EchoServer()

sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
listener = Listener(sock, Init(), address="unix:x")
print("listening", flush=True)
sys.stdin.read()
"""


FORKS = """
import os
sys.stdin.readline()
pid = os.fork()
if pid == 0:
    time.sleep(600)
print(pid, flush=True)
listener.close()
sys.stdin.read()
"""


def _start(program: str, path: Path, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", program, str(path), kind]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["sync", "inline"])
def test_interpreter_exit_while_serving(path: Path, kind: str) -> None:
    server = _start(PROGRAM, path, kind)
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    child = start_bare(call_once if kind == "sync" else echo_for_ever, path, "x")
    assert child.stdout is not None
    assert child.stdout.readline() == "calls\n"
    if kind == "sync":
        assert server.stdout.readline() == "began\n"
    _, errors = server.communicate("", timeout=60)
    assert (server.returncode, errors) == (0, "")
    assert result_of(child)[0] == "DISCONNECTED"


async def echo_for_ever(peer: Bare, text: str) -> Any:
    import capnp

    echo, context = await peer.echo()
    print("calls", flush=True)
    try:
        while True:
            await echo.echo(context, text)
    except capnp.KjException as error:
        return [error.type, error.description]


def test_a_forked_child_does_not_hold_the_connection(path: Path) -> None:
    server = _start(PROGRAM.replace("sys.stdin.read()", FORKS), path, "inline")
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    child = start_bare(until_disconnected, path)
    assert child.stdout is not None
    assert child.stdout.readline() == "constructed\n"
    server.stdin.write("\n")
    server.stdin.flush()
    forked = int(server.stdout.readline())
    try:
        assert result_of(child) == "disconnected"
    finally:
        os.kill(forked, signal.SIGKILL)
    _, errors = server.communicate("", timeout=60)
    assert (server.returncode, errors) == (0, "")


def test_a_listener_is_a_context_manager(path: Path) -> None:
    with Listener(_listening(path), EchoInit(), address=f"unix:{path}") as listener:
        assert listener.address == f"unix:{path}"
        assert listener.connections == 0


COLLECTING = """
import asyncio, gc, socket, sys, threading, time
from zmqpub.ipc import Limits, Listener, current_call

class Echo:
    def __init__(self):
        self.itself = self

    async def echo(self, echo):
        if echo == "fail":
            raise ValueError(self)
        await asyncio.sleep(0.001 if echo == "quick" else 60)
        return echo

class Plain(Echo):
    def echo(self, echo):
        if echo == "fail":
            raise ValueError(self)
        ended = threading.Event()
        current_call().on_cancel(ended.set)
        ended.wait(0.001 if echo == "quick" else 60)
        return echo

class Init:
    made = 0

    def make_echo(self):
        self.made += 1
        return (Echo, Plain)[self.made % 2]()

def collect():
    while True:
        gc.collect()

sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen(128)
listener = Listener(sock, Init(), address="unix:x", limits=Limits(grace=0.2))
for _ in range(2):
    threading.Thread(target=collect, daemon=True).start()
print("listening", flush=True)
sys.stdin.read()
listener.close()
"""


async def all_kinds_of_ends(peer: Bare, rounds: int) -> Any:
    for _ in range(rounds):
        echo, context = await peer.echo()
        other = await peer.context()
        assert (await error_of(echo.echo(context, "fail")))[0] == "FAILED"
        assert (await echo.echo(context, "quick")).result == "quick"
        task = asyncio.ensure_future(_await(echo.echo(other, "long")))
        queued = [asyncio.ensure_future(_await(echo.echo(context, "quick"))) for _ in range(5)]
        await asyncio.sleep(0.01)
        task.cancel()
        queued[3].cancel()
        await asyncio.gather(*queued, return_exceptions=True)
        await echo.destroy(context)
    calls = [asyncio.ensure_future(_await(echo.echo(other, "long"))) for _ in range(3)]
    await asyncio.sleep(0.1)
    for call in calls:
        call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return "ended amid calls"


@pytest.mark.slow
def test_garbage_collection_in_other_threads(path: Path) -> None:
    server = _start(COLLECTING, path, "")
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    children = [start_bare(all_kinds_of_ends, path, 6) for _ in range(2)]
    assert [result_of(child, 100) for child in children] == ["ended amid calls"] * 2
    child = start_bare(call_once, path, "long")
    assert child.stdout is not None
    assert child.stdout.readline() == "calls\n"
    _, errors = server.communicate("", timeout=60)
    assert server.returncode == 0, errors
    assert result_of(child)[0] == "DISCONNECTED"
