"""Event loops that Cap'n Proto runs on, and the one thread of zmqpub's own that has one.

pycapnp ends the process when the last reference to a capability, a response or a promise goes away in any other thread than that of
its loop, be it by garbage collection. So all of them hang on a `KjLoop`, which nothing but the end of its loop lets go, and nothing
else may hold them: other threads name them by number, and get plain values.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ClassVar, Final, TypeVar

import capnp

from zmqpub.errors import ClosedError, ForkedError

__all__ = ["KjLoop", "LoopThread", "kj_loop_here", "strip"]

_T = TypeVar("_T")
_END_PATIENCE: Final = 5.0
"""Seconds that the interpreter's exit waits for the thread."""


class KjLoop:
    """An asyncio loop in which Cap'n Proto runs, and all that belongs to it. `kj_loop_here` makes them; users hold them by reference.

    It outlives whoever holds it: as long as Cap'n Proto runs, a reference that nobody can drop keeps it, so that neither garbage
    collection, nor a fork, nor the interpreter's end lets a capability go in the wrong thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ident = threading.get_ident()
        self.forked = False
        self.connections: dict[int, Any] = {}
        """What is open, by number: see `zmqpub.ipc.connection`."""
        self.listening: set[socket.socket] = set()
        """Where peers may connect: not in a forked child, where nobody would answer them."""
        self.tasks: set[asyncio.Task[Any]] = set()
        self._users = 0
        self._manager: Any = None
        """None where the host of the loop runs Cap'n Proto itself."""
        self._kj: Any = None
        self._pinned = False
        self._changing: asyncio.Future[None] | None = None

    @property
    def alive(self) -> bool:
        """Does Cap'n Proto still run here?"""
        return not self.forked and self._kj is not None and getattr(self.loop, "_kj_loop", None) is self._kj and not self.loop.is_closed()

    def check(self) -> None:
        """Raise ForkedError in a forked child, ClosedError when the loop has ended."""
        if self.forked:
            raise ForkedError("the connection belongs to the process that this one was forked from; connect again here")
        if not self.alive:
            raise ClosedError("the event loop of this connection has ended")

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Call ``function`` in the loop, from any thread; False, and nothing else, if the loop is gone."""
        if self.forked:
            return False
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def start(self, awaitable: Awaitable[Any]) -> asyncio.Task[Any]:
        """A task of the loop's own, which begins in its next turn. To be called in the loop."""
        # Not by the host's task factory: its tasks may begin at once, or be none of asyncio's.
        task = asyncio.Task(awaitable, loop=self.loop) if asyncio.iscoroutine(awaitable) else asyncio.ensure_future(awaitable)
        assert isinstance(task, asyncio.Task)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def outcome(self, awaitable: Awaitable[_T]) -> asyncio.Future[_T]:
        """A task of the loop's own, seen through a future that holds nothing of it; when that is cancelled, so is the task."""
        outcome: asyncio.Future[_T] = self.loop.create_future()
        task = self.start(awaitable)

        def done(task: asyncio.Task[Any]) -> None:
            if outcome.done():
                return
            if task.cancelled():
                outcome.cancel()
            elif (error := task.exception()) is not None:
                outcome.set_exception(strip(error))
                outcome.exception()  # retrieved: whoever waited may have gone
            else:
                outcome.set_result(task.result())

        task.add_done_callback(done)
        outcome.add_done_callback(lambda outcome: task.cancel() if outcome.cancelled() else None)
        return outcome

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            strip(error)

    async def _enter(self) -> None:
        while self._changing is not None:
            await self._changing
        self._users += 1
        if self._users > 1:
            return
        existing = getattr(self.loop, "_kj_loop", None)
        if existing is not None:
            self._kj = existing
        else:
            self._changing = self.loop.create_future()
            try:
                self._manager = capnp.kj_loop()
                await self._manager.__aenter__()
                self._kj = getattr(self.loop, "_kj_loop", None)
            except BaseException:
                self._users -= 1
                raise
            finally:
                self._changed()
        _immortalize(self)

    async def _leave(self) -> None:
        self._users -= 1
        if self._users or self.forked:
            return
        if self.alive and self._manager is not None:
            self._changing = self.loop.create_future()
            try:
                await self._manager.__aexit__(None, None, None)
            finally:
                self._changed()
        self._manager = self._kj = None
        _loops.pop(id(self.loop), None)
        _mortalize(self)

    def _changed(self) -> None:
        changing, self._changing = self._changing, None
        if changing is not None and not changing.done():
            changing.set_result(None)


_loops: dict[int, KjLoop] = {}
"""By the identity of the asyncio loop. Only the thread of a loop touches its entry."""


class kj_loop_here:
    """``async with kj_loop_here() as kj``: Cap'n Proto runs in the running loop, started if it has to be, and ends with its last user.

    A Cap'n Proto that the host of the loop has started itself is used, and left running.
    """

    _kj: KjLoop

    async def __aenter__(self) -> KjLoop:
        loop = asyncio.get_running_loop()
        kj = _loops.get(id(loop))
        if kj is None or kj.loop is not loop or (kj._users and not kj.alive and kj._changing is None):
            kj = _loops[id(loop)] = KjLoop(loop)
        self._kj = kj
        await kj._enter()
        return kj

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._kj._leave()


class _Waiting:
    """A call() that waits in another thread."""

    __slots__ = ("abandoned", "done", "error", "result", "task")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.result: Any = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[Any] | None = None
        self.abandoned = False

    def finish(self, result: Any, error: BaseException | None) -> None:
        self.result, self.error = result, error
        self.done.release()


class LoopThread:
    """A daemon thread with an event loop in which Cap'n Proto runs. `shared` is the one that everything uses."""

    _shared: ClassVar[LoopThread | None] = None
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Whether the thread has ended does not change while something is handed to it."""
        self._ended = False
        self._waiting: set[_Waiting] = set()
        self._failure: BaseException | None = None
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="zmqpub-ipc", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # since Python 3.12, once the interpreter has begun to exit
            raise ClosedError(f"the IPC thread cannot start: {error}") from None
        started.wait()
        if self._failure is not None:
            raise self._failure

    @classmethod
    def shared(cls) -> LoopThread:
        """The process's own, started when it is first asked for; a forked child gets a new one."""
        with cls._shared_lock:
            if cls._shared is None or cls._shared._ended:
                cls._shared = cls()
            return cls._shared

    @property
    def here(self) -> bool:
        """Is this the thread itself?"""
        return threading.get_ident() == self.kj.ident

    def check(self) -> None:
        """Raise ForkedError in a forked child, ClosedError when the thread has ended."""
        if self.kj.forked:
            raise ForkedError("the IPC thread belongs to the process that this one was forked from; connect again here")
        if self._ended:
            raise ClosedError("the IPC thread has ended: the interpreter is about to exit")

    def call(self, function: Callable[..., Awaitable[_T]], *args: Any, timeout: float | None = None) -> _T:
        """Await ``function(*args)`` in the thread, and return what it gives, or raise what it raises, without its traceback.

        It must not give capabilities, responses or anything that holds one. After ``timeout`` seconds TimeoutError is raised;
        then, as on KeyboardInterrupt, the coroutine is cancelled. Not to be called in the thread itself.
        """
        if self.here:
            raise RuntimeError("the IPC thread cannot wait for itself; use the asyncio client, or another thread")
        waiting = _Waiting()
        self._hand_over(self._begin, waiting, function, args)
        try:
            answered = waiting.done.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        except BaseException:
            self.post(self._abandon, waiting)
            raise
        if not answered:
            self.post(self._abandon, waiting)
            raise TimeoutError(f"not done within {timeout:g} s")
        error, waiting.error = waiting.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        result: _T = waiting.result
        return result

    def post(self, function: Callable[..., object], *args: Any) -> bool:
        """Call ``function`` in the thread, and do not wait; False, and nothing else, if the thread is gone. Safe in finalizers."""
        return self.kj.post(function, *args)

    def start_task(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Await ``function(*args)`` in the thread, and do not wait. What it raises is lost."""
        self._hand_over(self._start, function, args)

    def hand_over(self, function: Callable[..., object], *args: Any) -> None:
        """As post(), for what somebody waits for: raises ForkedError or ClosedError where it could not be called. Never in finalizers."""
        self._hand_over(function, *args)

    def _hand_over(self, function: Callable[..., object], *args: Any) -> None:
        if self.kj.forked:
            self.check()
        with self._lock:
            if self._ended:
                self.check()
            self.kj.loop.call_soon_threadsafe(function, *args)

    def _start(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        if not self._ended:
            self.kj.start(function(*args))

    def _begin(self, waiting: _Waiting, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        if self._ended:
            waiting.finish(None, ClosedError("the IPC thread has ended: the interpreter is about to exit"))
            return
        if waiting.abandoned:
            return
        self._waiting.add(waiting)
        try:
            waiting.task = self.kj.start(function(*args))
        except BaseException as error:
            self._waiting.discard(waiting)
            waiting.finish(None, strip(error))
            return
        waiting.task.add_done_callback(lambda task: self._answer(waiting, task))

    def _answer(self, waiting: _Waiting, task: asyncio.Task[Any]) -> None:
        waiting.task = None
        self._waiting.discard(waiting)
        if task.cancelled():
            waiting.finish(None, ClosedError("the call was cancelled, as the IPC thread ends"))
        elif (error := task.exception()) is not None:
            waiting.finish(None, strip(error))
        else:
            waiting.finish(task.result(), None)

    def _abandon(self, waiting: _Waiting) -> None:
        waiting.abandoned = True
        if waiting.task is not None:
            waiting.task.cancel()

    # ---- the thread ----

    def _run(self, started: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._live(started))
            loop.run_until_complete(asyncio.sleep(0))  # what was handed over last is answered
        except BaseException as error:
            if started.is_set():
                raise
            self._failure = error
        finally:
            loop.close()
            started.set()

    async def _live(self, started: threading.Event) -> None:
        async with kj_loop_here() as self.kj:
            self._stop = asyncio.Event()
            started.set()
            await self._stop.wait()
            with self._lock:
                self._ended = True
            for connection in list(self.kj.connections.values()):
                connection.close()
            while self.kj.tasks:
                for task in tuple(self.kj.tasks):
                    task.cancel()
                await asyncio.wait(tuple(self.kj.tasks), timeout=_END_PATIENCE)
            await asyncio.sleep(0)  # their callbacks

    def _end(self) -> None:
        if self.post(self._stop.set):
            self._thread.join(_END_PATIENCE)


def strip(error: BaseException) -> BaseException:
    """An exception, and its causes, without tracebacks: their frames hold what must not leave the loop. To be called there."""
    seen = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            pending += one.__cause__, one.__context__
    return error


# ---- what must not go away by itself ----


def _immortalize(kj: KjLoop) -> None:
    if not kj._pinned:
        kj._pinned = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kj))


def _mortalize(kj: KjLoop) -> None:
    if kj._pinned:
        kj._pinned = False
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(kj))


@atexit.register
def _at_exit() -> None:
    thread = LoopThread._shared
    if thread is not None and not thread.kj.forked:
        thread._end()


def _in_forked_child() -> None:
    for kj in _loops.values():
        kj.forked = True
        for connection in kj.connections.values():
            with contextlib.suppress(OSError):
                connection.forget_descriptor()
        for sock in kj.listening:
            sock.close()
    _loops.clear()
    LoopThread._shared = None
    LoopThread._shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_in_forked_child)
