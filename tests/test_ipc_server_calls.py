"""Plain objects served to bare pycapnp clients: calls, their threads, their errors, their cancellation."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

from bare_capnp import Bare, bare, error_of, result_of, start_bare
from ipc_rig import EchoInit, serving, until

from zmqpub.errors import DisconnectedError, OverloadedError, RemoteError, UnimplementedError
from zmqpub.ipc import current_call, inline, on_cancel


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


# ---- the connection itself ----


async def echo_something(peer: Bare, text: str) -> Any:
    echo, context = await peer.echo()
    return (await echo.echo(context, text)).result


@pytest.mark.parametrize("text", ["", "hello", "a\0b", "größer"])
def test_echo(path: Path, text: str) -> None:
    with serving(path, EchoInit()):
        assert bare(echo_something, path, text) == text


async def thread_names(peer: Bare) -> Any:
    await peer.construct()
    names = [(await (await peer.threads.makeThread("miner")).result.getName()).result for _ in range(2)]
    await peer.init.construct()  # a second time does no harm
    return names


def test_threads_have_names_of_their_own(path: Path) -> None:
    with serving(path, EchoInit()):
        first, second = bare(thread_names, path)
    assert "miner" in first
    assert "miner" in second
    assert first != second


async def without_thread(peer: Bare) -> Any:
    await peer.construct()
    before = await error_of(peer.init.makeEcho())
    await peer.threads.makePool(2)
    echo = (await peer.init.makeEcho()).result
    return [before, (await echo.echo(peer.schema.Context.new_message(), "pool")).result, await error_of(peer.threads.makePool(1))]


def test_a_call_needs_a_thread_or_a_pool(path: Path) -> None:
    with serving(path, EchoInit()):
        (kind, text), echoed, second = bare(without_thread, path)
    assert (kind, echoed, second[0]) == ("FAILED", "pool", "FAILED")
    assert "no thread" in text


async def foreign_thread(peer: Bare) -> Any:
    class Foreign(peer.schema.Thread.Server):  # type: ignore[misc, name-defined]
        async def getName_context(self, context: Any) -> None:
            context.results.result = "mine"

    echo, context = await peer.echo()
    another = await peer.context("another")  # with one thread alone, there is no other that could be meant
    wait = asyncio.ensure_future(_await(echo.echo(context, "slow")))
    await asyncio.sleep(0.2)
    context = peer.schema.Context.new_message()
    context.thread = Foreign()
    error = await error_of(echo.echo(context, "x"))
    await wait
    del another
    return error


async def _await(call: Any) -> Any:
    return (await call).result


class SlowEcho:
    def echo(self, echo: str) -> str:
        if echo == "slow":
            time.sleep(1)
        return echo


class SlowInit:
    def make_echo(self) -> SlowEcho:
        return SlowEcho()


def test_a_thread_of_somebody_else_is_refused(path: Path) -> None:
    with serving(path, SlowInit()):
        kind, text = bare(foreign_thread, path)
    assert kind == "FAILED"
    assert "not of this connection" in text


# ---- what is missing, what fails ----


class Nothing:
    pass


async def missing(peer: Bare) -> Any:
    context = await peer.context()
    init = peer.init
    return [await error_of(call) for call in (init.makeRpc(context), init.makeRpc(), init.makeMiningOld2(context))]


def test_missing_methods_are_unimplemented(path: Path) -> None:
    with serving(path, Nothing()):
        answers = bare(missing, path)
    assert [kind for kind, _ in answers] == ["UNIMPLEMENTED"] * 3
    assert answers[0][1] == "remote exception: Init.makeRpc is not implemented here"


async def missing_in_mining(peer: Bare) -> Any:
    context = await peer.context()
    mining = (await peer.init.makeMining(context)).result
    await mining.interrupt()
    return [await error_of(mining.isTestChain(context)), await error_of(mining.submitBlock(context, b""))]


def test_missing_methods_of_what_was_made(path: Path) -> None:
    class Init:
        def make_mining(self) -> Nothing:
            return Nothing()

    with serving(path, Init()):
        assert [kind for kind, _ in bare(missing_in_mining, path)] == ["UNIMPLEMENTED", "UNIMPLEMENTED"]


class Failing:
    errors = {  # noqa: RUF012
        "value": ValueError("no such thing"),
        "empty": RuntimeError(),
        "file": FileNotFoundError(2, "No such file or directory", "/secret/path"),
        "remote": RemoteError("unix:/secret/path", "Rpc", "executeRpc", "std::runtime_error", "deep down"),
        "lacks": UnimplementedError("unix:/secret/path", "Rpc", "executeRpc"),
        "busy": OverloadedError("unix:/secret/path", "Rpc", "executeRpc", "try later"),
        "gone": DisconnectedError("unix:/secret/path", "Rpc", "executeRpc", "no node"),
        "surrogate": ValueError("\ud800"),
        "exit": SystemExit(3),
    }

    def execute_rpc(self, request: str, uri: str = "", user: str = "") -> Any:
        if request == "long":
            raise ValueError("x" * 100_000)
        if request == "none":
            return None
        if request == "number":
            return 7
        if request == "half":
            return "\ud800"
        raise self.errors[request]


class AsyncFailing(Failing):
    async def execute_rpc(self, request: str, uri: str = "", user: str = "") -> Any:
        await asyncio.sleep(0)
        return super().execute_rpc(request)


class InlineFailing(Failing):
    @inline
    def execute_rpc(self, request: str, uri: str = "", user: str = "") -> Any:
        if request == "exit":
            raise ValueError("3")  # an inline method ends the loop with SystemExit, which is its own fault
        return super().execute_rpc(request)


async def all_failures(peer: Bare, requests: list[str]) -> Any:
    context = await peer.context()
    rpc = (await peer.init.makeRpc(context)).result
    return {request: await error_of(rpc.executeRpc(context, request, "", "")) for request in requests}


@pytest.mark.parametrize("rpc", [Failing, AsyncFailing, InlineFailing])
def test_errors_are_clean(path: Path, rpc: type[Failing], caplog: pytest.LogCaptureFixture) -> None:
    class Init:
        def make_rpc(self) -> Failing:
            return rpc()

    with caplog.at_level(logging.WARNING, "zmqpub"):
        with serving(path, Init()):
            answers = bare(all_failures, path, [*Failing.errors, "long", "none", "number", "half"])
    prefix = "remote exception: "
    assert answers["value"] == ["FAILED", prefix + "std::exception: no such thing"]
    assert answers["empty"] == ["FAILED", prefix + "std::exception: RuntimeError"]
    assert answers["file"] == ["FAILED", prefix + "std::exception: No such file or directory"]
    assert answers["remote"] == ["FAILED", prefix + "std::runtime_error: deep down"]
    assert answers["lacks"][0] == "UNIMPLEMENTED"
    assert answers["busy"] == ["OVERLOADED", prefix + "try later"]
    assert answers["gone"] == ["DISCONNECTED", prefix + "no node"]
    assert answers["surrogate"][0] == answers["exit"][0] == answers["long"][0] == "FAILED"
    assert len(answers["long"][1]) < 5_000
    for request in ("none", "number", "half"):
        assert answers[request][1].startswith(prefix + "std::exception: ")
    assert not [text for _, text in answers.values() if "Traceback" in text or "secret" in text or ".py" in text]
    assert "no such thing" in caplog.text
    assert "Traceback" in caplog.text


def test_none_is_an_error_where_null_would_abort_the_peer(path: Path) -> None:
    class Init:
        def make_rpc(self) -> None:
            return None

    with serving(path, Init()):
        (answer,) = bare(made_rpc, path)
    assert answer[0] == "FAILED"
    assert "no Rpc" in answer[1]


async def made_rpc(peer: Bare) -> Any:
    return [await error_of(peer.init.makeRpc(await peer.context()))]


async def pipelined_failure(peer: Bare) -> Any:
    context = await peer.context()
    return await error_of(peer.init.makeRpc(context).result.executeRpc(context, "getblockcount", "", ""))


def test_a_call_on_what_was_not_made_has_the_same_error(path: Path) -> None:
    with serving(path, Nothing()):
        assert bare(pipelined_failure, path) == ["UNIMPLEMENTED", "remote exception: Init.makeRpc is not implemented here"]


async def destroyed(peer: Bare) -> Any:
    echo, context = await peer.echo()
    await echo.destroy(context)
    await echo.destroy(context)
    return await error_of(echo.echo(context, "x"))


def test_a_destroyed_object_refuses_and_the_server_lives(path: Path) -> None:
    gone = threading.Event()

    class Echo:
        def echo(self, echo: str) -> str:
            return echo

        def destroy(self) -> None:
            gone.set()

    class Init:
        def make_echo(self) -> Echo:
            return Echo()

    with serving(path, Init()):
        kind, text = bare(destroyed, path)
        assert gone.is_set()
        gone.clear()
        bare(echo_something, path, "x")
        assert gone.wait(10), "dropping the capability destroys the object, too"
    assert kind == "FAILED"
    assert "destroyed" in text


# ---- threads ----


class Recorder:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.threads: set[int] = set()

    def echo(self, echo: str) -> str:
        self.threads.add(threading.get_ident())
        self.log.append(f"begin {echo}")
        time.sleep(0.002)
        self.log.append(f"end {echo}")
        return echo

    def make_echo(self) -> Any:
        return self


class AsyncRecorder(Recorder):
    async def echo(self, echo: str) -> str:  # type: ignore[override]
        self.log.append(f"begin {echo}")
        await asyncio.sleep(0.002)
        self.log.append(f"end {echo}")
        return echo


async def many_on_one_thread(peer: Bare, count: int, threads: int) -> Any:
    echo, context = await peer.echo()
    others = [await peer.context(f"other {number}") for number in range(threads - 1)]
    calls = [_await(echo.echo([context, *others][index % threads], f"{index % threads}:{index}")) for index in range(count)]
    return len(await asyncio.gather(*calls))


@pytest.mark.parametrize("recorder", [Recorder, AsyncRecorder])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_thread_runs_its_calls_in_order(path: Path, recorder: type[Recorder], threads: int) -> None:
    init = recorder()
    with serving(path, init):
        assert bare(many_on_one_thread, path, 60, threads) == 60
    for thread in range(threads):
        entries = [entry for entry in init.log if f" {thread}:" in entry]
        expected = [f"{what} {thread}:{index}" for index in range(thread, 60, threads) for what in ("begin", "end")]
        assert entries == expected
    assert len(init.threads) in (0, threads)


async def two_at_once(peer: Bare) -> Any:
    echo, context = await peer.echo()
    other = await peer.context("other")
    began = time.monotonic()
    slow = asyncio.ensure_future(_await(echo.echo(context, "slow")))
    await asyncio.sleep(0.1)
    await echo.echo(other, "quick")
    quick = time.monotonic() - began
    behind = asyncio.ensure_future(_await(echo.echo(context, "behind")))
    await slow
    assert not behind.done() or time.monotonic() - began >= 0.9
    await behind
    return quick


def test_another_thread_does_not_wait(path: Path) -> None:
    with serving(path, SlowInit()):
        assert bare(two_at_once, path) < 0.9


# ---- cancellation ----


class Waiting:
    """Waits until nobody waits for it any more."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()

    def make_rpc(self) -> Any:
        return self

    def execute_rpc(self, request: str, uri: str, user: str) -> str:
        call = current_call()
        assert call is not None
        assert str(call) == "Rpc.executeRpc"
        assert not call.cancelled
        ended = threading.Event()
        on_cancel(ended.set)
        self.began.set()
        if not ended.wait(30):
            return "not cancelled"
        assert call.cancelled
        self.cancelled.set()
        return "too late"


class AsyncWaiting(Waiting):
    async def execute_rpc(self, request: str, uri: str, user: str) -> str:  # type: ignore[override]
        call = current_call()
        assert call is not None
        self.began.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "not cancelled"


async def give_up(peer: Bare, how: str) -> Any:
    context = await peer.context()
    rpc = (await peer.init.makeRpc(context)).result
    task = asyncio.ensure_future(_await(rpc.executeRpc(context, "", "", "")))
    await asyncio.sleep(0.3)
    if how == "cancel":
        task.cancel()
        await asyncio.sleep(0.5)
        # The thread is free again.
        return (await (await peer.init.makeRpc(context)).result.executeRpc(context, "again", "", "")).result
    print("waits", flush=True)
    await asyncio.sleep(60)
    return None


@pytest.mark.parametrize("waiting", [Waiting, AsyncWaiting])
def test_a_cancelled_call_tells_its_handler(path: Path, waiting: type[Waiting]) -> None:
    class Init(Waiting):
        rpcs = 0

        def make_rpc(self) -> Any:
            self.rpcs += 1
            return first if self.rpcs == 1 else Second()

    class Second:
        def execute_rpc(self, request: str, uri: str, user: str) -> str:
            return request

    first = waiting()
    with serving(path, Init()):
        assert bare(give_up, path, "cancel") == "again"
        assert first.cancelled.wait(10)


@pytest.mark.parametrize("waiting", [Waiting, AsyncWaiting])
def test_a_killed_client_cancels_its_calls(path: Path, waiting: type[Waiting]) -> None:
    init = waiting()
    with serving(path, init) as listener:
        child = start_bare(give_up, path, "wait")
        assert init.began.wait(30)
        child.kill()
        assert init.cancelled.wait(10)
        until(lambda: not listener.connections, "the connection is still there")
        child.communicate()
    assert current_call() is None


async def cancel_queued(peer: Bare) -> Any:
    echo, context = await peer.echo()
    slow = asyncio.ensure_future(_await(echo.echo(context, "slow")))
    await asyncio.sleep(0.1)
    queued = [asyncio.ensure_future(_await(echo.echo(context, f"queued {number}"))) for number in range(20)]
    await asyncio.sleep(0.1)
    for one in queued[::2]:
        one.cancel()
    return [await slow, *[await one for one in queued[1::2]]]


def test_calls_that_wait_for_their_thread_can_be_cancelled(path: Path) -> None:
    with serving(path, SlowInit()):
        assert bare(cancel_queued, path) == ["slow", *[f"queued {number}" for number in range(1, 20, 2)]]


async def hang_up_at_once(peer: Bare) -> Any:
    context = await peer.context()
    calls = [asyncio.ensure_future(_await(peer.init.makeEcho(context))) for _ in range(50)]
    await asyncio.sleep(0)
    for call in calls:
        call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return "gone"


def test_a_disconnect_amid_calls(path: Path) -> None:
    init = Recorder()
    with serving(path, init) as listener:
        children = [start_bare(hang_up_at_once, path) for _ in range(4)]
        assert [result_of(child) for child in children] == ["gone"] * 4
        until(lambda: not listener.connections, "connections are still there")
        assert bare(echo_something, path, "alive") == "alive"
