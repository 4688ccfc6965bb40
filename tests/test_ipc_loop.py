"""The thread with the loop that Cap'n Proto runs in."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from ipc_peers import run_python

from zmqpub.ipc import schema
from zmqpub.ipc.loop import LoopThread, kj_loop_here


async def give(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fail(message: str) -> None:
    local = [message]
    raise ValueError(local[0])


def test_call_returns_and_raises_without_the_frames_of_the_thread() -> None:
    thread = LoopThread.shared()
    assert LoopThread.shared() is thread
    assert thread.call(give, 3) == 3
    with pytest.raises(ValueError, match="x") as caught:
        thread.call(fail, "x")
    names = []
    trace = caught.value.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "fail" not in names


def test_call_gives_up_and_cancels() -> None:
    thread = LoopThread.shared()
    cancelled = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"not done within 0.1 s"):
        thread.call(slow, timeout=0.1)
    assert cancelled.wait(20)
    assert time.monotonic() - start < 20


def test_post_and_start_task() -> None:
    thread = LoopThread.shared()
    done = threading.Event()
    assert thread.post(done.set)
    assert done.wait(20)
    done.clear()

    async def task() -> None:
        done.set()

    thread.start_task(task)
    assert done.wait(20)


def test_capn_proto_runs_as_long_as_somebody_uses_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with kj_loop_here() as first:
            async with kj_loop_here() as second:
                assert first is second
            assert hasattr(loop, "_kj_loop")
            assert first.alive
        assert not hasattr(loop, "_kj_loop")
        assert not first.alive
        async with kj_loop_here() as third:
            assert third.alive

        async def user() -> None:
            for _ in range(20):
                async with kj_loop_here() as kj:
                    assert kj.alive
                    await asyncio.sleep(0)

        await asyncio.gather(*(user() for _ in range(10)))
        assert not hasattr(loop, "_kj_loop")

    asyncio.run(main())


def test_an_outcome_holds_nothing_of_its_task() -> None:
    async def main() -> None:
        async with kj_loop_here() as kj:
            assert await kj.outcome(give(1)) == 1
            with pytest.raises(ValueError, match="y"):
                await kj.outcome(fail("y"))
            outcome = kj.outcome(asyncio.sleep(60))
            await asyncio.sleep(0)
            outcome.cancel()
            await asyncio.sleep(0.01)
            assert not kj.tasks

    asyncio.run(main())


def test_schemas_are_loaded_once_whoever_comes_first() -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(schema.load())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1
    assert schema.load_v30() is schema.load_v30()
    assert schema.load_v30() is not schema.load()


def test_exit_waits_for_nobody_and_answers_who_waits() -> None:
    done = run_python(
        """
import asyncio, atexit, os, threading, time
waiters = []
atexit.register(lambda: [waiter.join(10) for waiter in waiters])  # runs after the thread's own
from zmqpub import errors
from zmqpub.ipc.loop import LoopThread
thread = LoopThread.shared()
def wait():
    try: thread.call(asyncio.sleep, 3600)
    except errors.ClosedError as error: os.write(1, f"{error}\\n".encode())  # in one piece, as others write, too
waiters += [threading.Thread(target=wait, daemon=True) for _ in range(3)]
for waiter in waiters: waiter.start()
time.sleep(0.2)
@atexit.register
def last():  # runs before the thread's own
    print("leaving", flush=True)
""",
        timeout=30,
    )
    assert done.returncode == 0, done
    assert done.stderr == ""
    assert done.stdout == "leaving\n" + "the call was cancelled, as the IPC thread ends\n" * 3


def test_a_call_after_the_end_says_so() -> None:
    done = run_python(
        """
import asyncio, atexit
from zmqpub import errors
def late():
    try: LoopThread.shared().call(asyncio.sleep, 0); print("works")
    except errors.ClosedError as error: print(error)
    assert thread.post(print) is False
    try: thread.call(asyncio.sleep, 0)
    except errors.ClosedError as error: print(error)
atexit.register(late)  # after the thread's own, as that is registered later
from zmqpub.ipc.loop import LoopThread
thread = LoopThread.shared()
""",
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "has ended" in done.stdout
