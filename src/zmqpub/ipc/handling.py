"""Calls that are served: one after the other in the thread that the peer names, each knowing when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from zmqpub.ipc.errors_out import log, refusal_of

__all__ = ["Call", "Lane", "current_call", "inline", "kind_of", "on_cancel", "run_async", "run_inline"]

_F = TypeVar("_F", bound=Callable[..., Any])

_current: ContextVar[Call | None] = ContextVar("zmqpub.ipc.current_call", default=None)


def current_call() -> Call | None:
    """The call that is being served where this is called from: in a handler, sync or async. None elsewhere."""
    return _current.get()


def inline(method: _F) -> _F:
    """Marks a plain method that never blocks: it is served in the event loop itself, without the cost of another thread."""
    method._zmqpub_inline = True  # type: ignore[attr-defined]
    return method


class Call:
    """A call under way. Any thread may use it."""

    __slots__ = ("_callbacks", "_lock", "cancelled", "interface", "method")

    def __init__(self, interface: str, method: str) -> None:
        self.interface = interface
        """As in the schema: ``Mining``."""
        self.method = method
        """As in the schema: ``waitTipChanged``."""
        self.cancelled = False
        """Nobody waits for the answer: the caller gave up or is gone, or the server ends."""
        self._callbacks: list[Callable[[], object]] | None = []
        self._lock = threading.Lock()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called once when the call is cancelled, in the event loop's thread: it must not block. At once, if it was."""
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        if self.cancelled:
            callback()

    def cancel(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, None
            if callbacks is None:
                return
            self.cancelled = True
        for callback in callbacks:
            try:
                callback()
            except BaseException as error:
                refusal_of(error, f"the cancellation of {self}")

    def finish(self) -> None:
        """It is answered: what is cancelled later is not told."""
        with self._lock:
            self._callbacks = None

    def __str__(self) -> str:
        return f"{self.interface}.{self.method}"


INLINE: Final = 0
ASYNC: Final = 1
THREAD: Final = 2


def kind_of(method: Any) -> int:
    """How a handler's method is run."""
    if getattr(method, "_zmqpub_inline", False):
        return INLINE
    return ASYNC if inspect.iscoroutinefunction(method) else THREAD


class Lane:
    """One thread as the peer sees it: its calls run in order of arrival, one at a time. For the loop's thread only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._worker: _Worker | None = None
        self._closed = False

    @property
    def load(self) -> int:
        """Calls that run or wait here."""
        return self.busy + len(self._waiting)

    async def enter(self) -> None:
        """Wait for one's turn; leave() has to follow, unless this is cancelled."""
        if not self.busy:
            self.busy = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                # Thousands may be cancelled at once: the one whose turn it is skips them.
                turn.cancel()
            raise

    def leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.busy = False
        if self._closed and self._worker is not None:
            self._worker.stop()
            self._worker = None

    def run(self, call: Call, method: Callable[..., Any], args: tuple[Any, ...], done: Callable[[], None]) -> asyncio.Future[Any]:
        """Call a method that may block in this lane's own thread. ``done`` is called in the loop at its very end, even when the future
        was cancelled. The future's result is the method's, or a `Refusal`."""
        if self._worker is None:
            self._worker = _Worker(self.name)
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._worker.put((loop, future, call, method, args, done))
        return future

    def close(self) -> None:
        """No more calls come. The thread ends after the one that it may be in."""
        self._closed = True
        if not self.busy and self._worker is not None:
            self._worker.stop()
            self._worker = None


_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Call, Callable[..., Any], "tuple[Any, ...]", Callable[[], None]]


class _Worker:
    """A thread for what may block. A daemon: a handler that never returns does not keep the interpreter from its exit."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.put = self._jobs.put
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(*job)
            # While it waits for the next one it holds nothing of the last one.
            del job

    def _do(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        call: Call,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        done: Callable[[], None],
    ) -> None:
        result: Any
        _current.set(call)
        try:
            # A call that was cancelled while it waited for this thread is not begun.
            result = None if call.cancelled else method(*args)
        except BaseException as error:
            # As much as SystemExit is a handler's failure, not an end of the server's.
            result = refusal_of(error, str(call))
        _current.set(None)
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_finish, future, result, done)


def _finish(future: asyncio.Future[Any], result: Any, done: Callable[[], None]) -> None:
    if not future.done():
        future.set_result(result)
    done()


async def run_async(call: Call, method: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Await a handler's coroutine; its result, or a `Refusal`. In a function of its own, so that the frames of an exception hold no
    more than this."""
    token = _current.set(call)
    try:
        return await method(*args)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            log.error("IPC: %s raised %s, which ends no more than the call", call, type(error).__name__)
        return refusal_of(error, str(call))
    finally:
        _current.reset(token)


def run_inline(call_name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return method(*args)
    except BaseException as error:  # SystemExit, too, which would end the loop
        return refusal_of(error, call_name)


def on_cancel(callback: Callable[[], object]) -> None:
    """`Call.on_cancel` of the present call; nothing where none is being served."""
    call = _current.get()
    if call is not None:
        call.on_cancel(callback)
