"""A server's limits: what goes beyond is refused, and the server goes on."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

from bare_capnp import Bare, bare, connected, error_of, result_of, start_bare
from ipc_rig import EchoInit, resident, serving, until

from zmqpub.errors import ConfigError
from zmqpub.ipc import Limits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


async def _await(call: Any) -> Any:
    return (await call).result


def test_limits_that_make_no_sense() -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(max_connections=0, max_message_bytes=10, grace=float("nan"), max_threads=True)
    assert [problem.option for problem in caught.value.problems] == ["max_connections", "max_message_bytes", "max_threads", "grace"]


# ---- connections ----


async def one_more(peer: Bare, path: str) -> Any:
    echo, context = await peer.echo()
    others = [await connected(path) for _ in range(3)]
    refused = [await error_of(other.init.makeEcho(await other.context())) for other in others]
    return [*refused, (await echo.echo(context, "still here")).result]


def test_one_connection_too_many(path: Path) -> None:
    with serving(path, EchoInit(), max_connections=1) as listener:
        *refused, echoed = bare(one_more, path, str(path))
        assert [kind for kind, _ in refused] == ["OVERLOADED"] * 3
        assert "limit" in refused[0][1]
        assert echoed == "still here"
        until(lambda: not listener.connections, "the connection is still there")
        bare(echo_once, path)


async def echo_once(peer: Bare) -> Any:
    echo, context = await peer.echo()
    return (await echo.echo(context, "x")).result


def test_many_that_say_nothing_are_closed(path: Path) -> None:
    with serving(path, EchoInit(), max_connections=4, handshake_timeout=0.5):
        silent = [_connect(path) for _ in range(60)]
        for sock in silent:
            sock.settimeout(20)
            # Those within the limit are ended by the handshake's timeout, those beyond are told nothing, as they ask nothing.
            assert sock.recv(1) == b""
            sock.close()
        assert bare(echo_once, path) == "x"


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


@pytest.mark.parametrize("sent", [b"\0", bytes(7), bytes.fromhex("00000000 10000000"), bytes.fromhex("00000000 10000000") + bytes(5)])
def test_a_message_that_does_not_go_on_ends_its_connection(path: Path, sent: bytes) -> None:
    with serving(path, EchoInit(), message_timeout=0.3), _connect(path) as sock:
        sock.sendall(sent)
        sock.settimeout(20)
        assert sock.recv(1) == b""


async def constructs(peer: Bare) -> Any:
    await peer.construct()
    return "constructed"


def test_a_peer_that_called_and_then_stops_within_a_message(path: Path) -> None:
    # What pycapnp sends to call construct, and then the beginning of a message.
    with serving(path, EchoInit(), message_timeout=0.3) as listener:
        with socket.socket(socket.AF_UNIX) as between:
            middle = path.with_name("m")
            between.bind(str(middle))
            between.listen()
            child = start_bare(constructs, middle)
            theirs, _ = between.accept()
        with theirs, _connect(path) as sock:
            there = threading.Thread(target=_relay, args=(theirs, sock))
            back = threading.Thread(target=_relay, args=(sock, theirs))
            there.start()
            back.start()
            assert result_of(child) == "constructed"
            there.join()
            time.sleep(1)
            assert listener.connections == 1, "between messages a peer may take its time"
            sock.sendall(b"\0\0\0\0\4")
            until(lambda: not listener.connections, "the connection is still there")
            back.join()


def _relay(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        try:
            target.sendall(data)
        except OSError:
            return


# ---- calls, threads, objects ----


class Blocked:
    """Answers once it may."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()

    def make_echo(self) -> Any:
        return self

    def echo(self, echo: str) -> str:
        if echo == "release":
            self.released.set()
            return echo
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.released.wait(30)
        with self.lock:
            self.running -= 1
        return echo


async def too_many_calls(peer: Bare) -> Any:
    echo, context = await peer.echo()
    other = await peer.context()
    calls = [asyncio.ensure_future(_await(echo.echo(context, str(number)))) for number in range(10)]
    await asyncio.sleep(0.3)
    refused = [await error_of(echo.echo(other, "release")) for _ in range(3)]
    for call in calls:
        call.cancel()
    return refused


def test_too_many_calls_under_way(path: Path) -> None:
    init = Blocked()
    with serving(path, init, max_calls_in_flight=10):
        refused = bare(too_many_calls, path)
        assert [kind for kind, _ in refused] == ["OVERLOADED"] * 3
        assert init.most == 1
        init.released.set()
        assert bare(echo_once, path) == "x"


async def too_many_threads(peer: Bare) -> Any:
    kept = [await peer.context(str(number)) for number in range(4)]
    refused = [await error_of(peer.threads.makeThread("one more")), await error_of(peer.threads.makePool(1))]
    del kept
    await asyncio.sleep(0.2)
    again = await peer.context()
    await peer.threads.makePool(3)
    return [*refused, (await (await peer.init.makeEcho(again)).result.echo(again, "fits")).result]


def test_too_many_threads(path: Path) -> None:
    with serving(path, EchoInit(), max_threads=4):
        *refused, fits = bare(too_many_threads, path)
    assert [kind for kind, _ in refused] == ["OVERLOADED"] * 2
    assert fits == "fits"


async def too_many_objects(peer: Bare) -> Any:
    context = await peer.context()
    made = []
    for _ in range(20):
        try:
            made.append((await peer.init.makeEcho(context)).result)
        except Exception as error:
            kind = error.type  # type: ignore[attr-defined]
            break
    count = len(made)
    made.clear()
    await asyncio.sleep(0.2)
    await peer.init.makeEcho(context)
    return [count, kind]


def test_too_many_objects(path: Path) -> None:
    with serving(path, EchoInit(), max_objects=5):
        assert bare(too_many_objects, path) == [4, "OVERLOADED"]  # Init is one, too


async def threads_come_and_go(peer: Bare, count: int) -> Any:
    for number in range(count):
        context = await peer.context(str(number))
        echo = (await peer.init.makeEcho(context)).result
        assert (await echo.echo(context, "x")).result == "x"
        del echo, context
    return "done"


def test_a_dropped_thread_ends(path: Path) -> None:
    class Init:
        def make_echo(self) -> Any:
            return Plain()

    class Plain:
        def echo(self, echo: str) -> str:
            return echo

    before = threading.active_count()
    with serving(path, Init(), max_threads=8):
        assert bare(threads_come_and_go, path, 100) == "done"
        until(lambda: threading.active_count() <= before + 1, "worker threads are left")  # and the loop's, if this is the first test


# ---- sizes ----


async def large_echo(peer: Bare, size: int, rounds: int) -> Any:
    echo, context = await peer.echo()
    text = "x" * size
    for _ in range(rounds):
        assert (await echo.echo(context, text)).result == text
    return "same"


def test_4_mb_there_and_back(path: Path) -> None:
    with serving(path, EchoInit()):
        assert bare(large_echo, path, 4_000_000, 5) == "same"


async def large_request(peer: Bare, size: int) -> Any:
    echo, context = await peer.echo()
    return await error_of(echo.echo(context, "x" * size))


def test_a_request_over_the_limit_ends_its_connection_alone(path: Path) -> None:
    with serving(path, EchoInit(), max_message_bytes=100_000):
        child = start_bare(echo_for_a_while, path)
        assert bare(large_request, path, 200_000)[0] == "DISCONNECTED"
        assert result_of(child) == "x"


async def echo_for_a_while(peer: Bare) -> Any:
    echo, context = await peer.echo()
    until_when = time.monotonic() + 2
    while time.monotonic() < until_when:
        answer = (await echo.echo(context, "x")).result
        await asyncio.sleep(0.01)
    return answer


class Multiplier:
    def make_echo(self) -> Any:
        return self

    def echo(self, echo: str) -> str:
        return "x" * int(echo)


async def multiplied(peer: Bare, *sizes: int) -> Any:
    echo, context = await peer.echo()
    return [
        await error_of(echo.echo(context, str(size))) if size > 90_000 else len((await echo.echo(context, str(size))).result)
        for size in sizes
    ]


def test_an_answer_over_the_limit_is_an_error(path: Path) -> None:
    with serving(path, Multiplier(), max_message_bytes=100_000):
        first, (kind, text), last = bare(multiplied, path, 90_000, 100_000, 10)
    assert (first, kind, last) == (90_000, "FAILED", 10)
    assert "larger than the limit" in text


async def does_not_read(peer: Bare, size: int) -> Any:
    import gc

    echo, context = await peer.echo()
    calls = [echo.echo(context, "x" * size) for _ in range(40)]
    await asyncio.sleep(0)
    print("sent", flush=True)
    gc.disable()
    time.sleep(4)  # the loop stands still
    del calls
    return "slept"


@pytest.mark.slow
def test_a_peer_that_does_not_read_fills_no_memory(path: Path) -> None:
    with serving(path, EchoInit()) as listener:
        bare(large_echo, path, 1_000_000, 2)
        before = resident()
        children = [start_bare(does_not_read, path, 1_000_000) for _ in range(3)]
        most = 0
        while any(child.poll() is None for child in children):
            most = max(most, resident() - before)
            time.sleep(0.05)
        for child in children:
            assert result_of(child) == "slept"
        # Each has 40 MB under way at most, of which the server takes what is in one message or two.
        assert most < 60_000_000
        until(lambda: not listener.connections, "connections are still there")


def test_no_descriptors_left_is_survived(path: Path) -> None:
    import resource

    with serving(path, EchoInit(), max_connections=1_000) as listener:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        socks = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20 + 3, hard))
            for sock in socks:
                sock.connect(str(path))
            time.sleep(1)
            assert listener.connections < 20
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until(lambda: listener.connections == 20, "those that wait are not accepted")
        for sock in socks:
            sock.close()
        assert bare(echo_once, path) == "x"
