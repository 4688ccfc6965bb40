"""Clients where two things come together: who gives up and what is done at that moment, one wait and another, a fork and a load."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

from ipc_peers import run_python
from ipc_rig import EchoInit, serving, until

from zmqpub import errors, ipc
from zmqpub.interfaces import BlockRef
from zmqpub.ipc import async_client
from zmqpub.ipc.codec import OPERATIONS
from zmqpub.ipc.loop import LoopThread


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


class Sleeper:
    """An Echo that takes as many seconds as the text says, and is told when it is destroyed."""

    def make_echo(self) -> Sleeper:
        return self

    def echo(self, echo: str) -> str:
        time.sleep(float(echo))
        return echo

    def destroy(self) -> None:
        pass


def test_an_object_is_destroyed_though_another_call_is_stuck(path: Path) -> None:
    with serving(path, Sleeper(), grace=0), ipc.connect(f"unix:{path}", deadline=2) as init:
        stuck, other = init.make_echo(), init.make_echo()
        with pytest.raises(errors.IpcTimeoutError):
            stuck.echo("6", timeout=0.1)
        other.destroy()


def test_times_without_measure(path: Path) -> None:
    with serving(path, EchoInit()), ipc.connect(f"unix:{path}", deadline=1e12) as init:
        echo = init.make_echo()
        assert echo.echo("x") == "x"
        assert echo.echo("x", timeout=1e300) == "x"


# ---- waits ----

GIVEN_UP, STEADY, FLAG = b"\1" * 32, b"\2" * 32, bytes(32)


class Mining:
    """The wait for GIVEN_UP ends with a tip as it is interrupted; what takes the flag back takes its time, or fails."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.taking = threading.Event()
        self.interrupts = 0
        self.interrupted = threading.Event()

    def make_mining(self) -> Mining:
        return self

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None) -> BlockRef | None:
        if current_tip == GIVEN_UP:
            time.sleep(0.3)
        elif current_tip == STEADY:
            self.interrupted.wait(20)
            return None
        else:
            assert current_tip == FLAG
            if self.fails:
                raise KeyError("there is no such block")
            self.taking.set()
            time.sleep(0.3)
        return BlockRef(STEADY, 1)

    def interrupt(self) -> None:
        self.interrupts += 1
        if self.interrupts > 1:
            self.interrupted.set()


def _give_up(mining: ipc.Mining) -> None:
    with pytest.raises(errors.IpcTimeoutError):
        mining._call(OPERATIONS["Mining.waitTipChanged"], {"currentTip": GIVEN_UP, "timeout": 60_000.0}, 0.1)


def test_an_interrupt_while_another_ones_flag_is_taken_back(path: Path) -> None:
    served = Mining(fails=False)
    answers: list[Any] = []
    with serving(path, served), ipc.connect(f"unix:{path}", deadline=10) as init:
        mining = init.make_mining()
        steady = threading.Thread(target=lambda: answers.append(mining.wait_tip_changed(STEADY)))
        steady.start()
        _give_up(mining)
        assert served.taking.wait(10)
        mining.interrupt()
        steady.join(5)
        assert answers == [None]


def test_threads_are_not_lost_where_the_flag_cannot_be_taken_back(path: Path) -> None:
    with serving(path, Mining(fails=True)), ipc.connect(f"unix:{path}", deadline=10) as init:
        mining = init.make_mining()
        (link,) = (one for one in LoopThread.shared().kj.connections.values() if hasattr(one, "remotes"))
        for _ in range(3):
            _give_up(mining)
            until(lambda: not next(iter(link.remotes[1].waits._active), None) and link.remotes[1].waits._settling is None, "it waits on")
        assert link.wire.lanes <= 2


@pytest.mark.parametrize("kind", ["as ever", "eager"])
def test_a_hosts_task_factory_does_not_matter(path: Path, kind: str) -> None:
    """A wait that is cancelled is interrupted in the peer, though the host's tasks begin at once."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if kind == "eager" and factory is None:
        pytest.skip("this Python has no eager tasks")
    served = Mining(fails=False)

    async def main() -> None:
        if kind == "eager":
            asyncio.get_running_loop().set_task_factory(factory)
        async with ipc.connect_async(f"unix:{path}", deadline=10) as init:
            mining = await init.make_mining()
            wait = asyncio.ensure_future(mining.wait_tip_changed(STEADY))
            await asyncio.sleep(0.2)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
            deadline = time.monotonic() + 10
            while not served.interrupts and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert served.interrupts
            served.interrupted.set()

    with serving(path, served, grace=0):
        asyncio.run(main())


# ---- giving up on a connection as it is made ----


@pytest.mark.parametrize("turns", range(4))
def test_a_cancelled_connection_is_closed_whenever_that_comes(path: Path, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    tasks: list[asyncio.Task[Any]] = []
    really = async_client._open

    async def open_and_cancel(*args: Any) -> int:
        number = await really(*args)
        loop = asyncio.get_running_loop()

        def cancel(left: int) -> None:
            if left:
                loop.call_soon(cancel, left - 1)
            else:
                tasks[0].cancel()

        cancel(turns)
        return number

    async def connect() -> None:
        async with ipc.connect_async(f"unix:{path}"):
            await asyncio.sleep(0.1)

    async def main() -> None:
        async with ipc.connect_async(f"unix:{path}"):  # Cap'n Proto runs on in this loop
            monkeypatch.setattr(async_client, "_open", open_and_cancel)
            tasks.append(asyncio.ensure_future(connect()))
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            deadline = time.monotonic() + 10
            while listener.connections > 1 and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert listener.connections == 1

    with serving(path, EchoInit()) as listener:
        asyncio.run(main())


def test_ctrl_c_as_a_connection_is_made(path: Path) -> None:
    """The descriptor is free at once, and the next connection's."""
    with serving(path, EchoInit()):
        done = run_python(
            """
import os, signal, sys, time
from zmqpub import ipc
from zmqpub.ipc import client
from zmqpub.ipc.loop import LoopThread
signal.signal(signal.SIGINT, signal.default_int_handler)
really = client._open
async def interrupted(*args):
    number = await really(*args)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    return number
client._open = interrupted
try: ipc.connect(sys.argv[1], deadline=10)
except KeyboardInterrupt: pass
else: raise SystemExit("no interrupt")
client._open = really
with ipc.connect(sys.argv[1], deadline=10) as init:
    assert init.make_echo().echo("x") == "x"
    assert len(LoopThread.shared().kj.connections) == 1
print("fine")
""",
            f"unix:{path}",
        )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done


# ---- in a place where it does not belong ----


def test_close_in_the_thread_of_the_loop(path: Path) -> None:
    with serving(path, EchoInit()) as listener:
        init = ipc.connect(f"unix:{path}")
        until(lambda: listener.connections == 1, "not connected")
        LoopThread.shared().post(init.close)
        until(lambda: init.closed and listener.connections == 0, "not closed")


def test_a_protocol_that_is_closed_as_it_connects(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zmqpub.ipc import client

    really = client.connect_over
    protocol = ipc.CapnpProtocol()

    def connect_and_close(sock: socket.socket, address: str) -> Any:
        init = really(sock, address)
        protocol.close()
        return init

    monkeypatch.setattr(client, "connect_over", connect_and_close)
    with serving(path, EchoInit()) as listener:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        with pytest.raises(errors.ClosedError):
            protocol.connect(sock, "here")
        until(lambda: listener.connections == 0, "not closed")


def test_another_loop_may_not_end_what_is_of_this_one(path: Path) -> None:
    """Cap'n Proto would end the process."""
    with serving(path, EchoInit()):
        done = run_python(
            """
import asyncio, gc, sys, threading
from zmqpub import ipc
ready, stop, made = threading.Event(), threading.Event(), []
async def main():
    async with ipc.connect_async(sys.argv[1]) as init:
        made.extend([init, await init.make_echo()])
        ready.set()
        while not stop.is_set(): await asyncio.sleep(0.01)
        assert await made[1].echo("x") == "x"
        await made[1].destroy()
thread = threading.Thread(target=lambda: asyncio.run(main()))
thread.start(); ready.wait()
init, echo = made
for end in (echo.destroy, init.close):
    try: asyncio.run(end())
    except RuntimeError as error: assert "another event loop" in str(error), error
    else: raise SystemExit("no error")
    gc.collect()
stop.set(); thread.join()
assert init.closed
print("fine")
""",
            f"unix:{path}",
        )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done


def test_a_fork_as_another_thread_loads_the_schema() -> None:
    done = run_python(
        """
import os, signal
from zmqpub.ipc import schema
with schema._lock:
    child = os.fork()
    if not child:
        signal.alarm(10)
        schema.load()
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("fine")
"""
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done
