"""Calls that a client has under way. They live in the loop; who waits for one gets a plain value, or an error that was built anew."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from zmqpub.errors import IpcProtocolError
from zmqpub.ipc.codec import Operation
from zmqpub.ipc.failures import failure, text_of

if TYPE_CHECKING:
    from zmqpub.ipc.connection import Link, Remote
    from zmqpub.ipc.wire import Lane, Wire

__all__ = ["AsyncCall", "Call", "SyncCall"]


class Call:
    """A call, from when it is handed to the loop until it is answered, which may be long after whoever made it has given up."""

    __slots__ = (
        "abandoned",
        "done",
        "fields",
        "future",
        "interrupted",
        "kept",
        "lane",
        "link",
        "operation",
        "remote",
        "target",
        "task",
        "wire",
    )

    def __init__(self, operation: Operation, target: int, fields: dict[str, Any]) -> None:
        self.operation = operation
        self.target = target
        """The number of the object."""
        self.fields = fields
        self.abandoned = False
        """Nobody waits for it any more."""
        self.interrupted = False
        """A wait that its own side has interrupted."""
        self.done = False
        self.kept: int | None = None
        """The object that it has made."""
        self.link: Link | None = None
        self.task: asyncio.Task[Any] | None = None
        """What prepares to send it."""
        self.future: asyncio.Future[Any] | None = None
        """Cap'n Proto's, once it is sent."""
        self.wire: Wire | None = None
        self.remote: Remote | None = None
        self.lane: Lane | None = None

    def answered(self, future: asyncio.Future[Any]) -> None:
        """The peer's answer is here, or will never come."""
        self.future = None
        wire, lane, remote = self.wire, self.lane, self.remote
        self.wire = self.lane = self.remote = None
        assert wire is not None
        assert remote is not None
        wire.inflight.discard(self)
        remote.pending -= 1
        if lane is not None:
            lane.answered(self)
        if self.done:
            return
        if future.cancelled():
            self.fail(wire.lost(self.operation))
            return
        exception = future.exception()
        if exception is not None:
            kind, text = text_of(exception)
            self.fail(failure(kind, text, wire.address, self.operation.interface, self.operation.method, wire.version))
            return
        try:
            value = self.operation.decode(future.result(), wire)
        except Exception as error:
            text = text_of(error)[1]
        else:
            self.succeed(value)
            return
        self.fail(IpcProtocolError(wire.address, self.operation.interface, self.operation.method, f"the answer cannot be read: {text}"))

    def succeed(self, value: Any) -> None:
        if self.done:
            return
        self.done = True
        if self.operation.makes is not None:
            self.kept = value
            if self.abandoned:
                self.drop()
                return
        if not self.abandoned:
            self.deliver(value, None)

    def fail(self, error: BaseException) -> None:
        if self.done:
            return
        self.done = True
        if not self.abandoned:
            error.__context__ = None
            self.deliver(None, error)

    def drop(self) -> None:
        """Nobody takes what was made."""
        kept, self.kept = self.kept, None
        if kept is not None and self.link is not None:
            self.link.release(kept)

    def deliver(self, value: Any, error: BaseException | None) -> None:
        raise NotImplementedError


class SyncCall(Call):
    """One that a thread waits for."""

    __slots__ = ("answer", "error", "value")

    def __init__(self, operation: Operation, target: int, fields: dict[str, Any]) -> None:
        super().__init__(operation, target, fields)
        self.answer = threading.Lock()  # a semaphore: half the price of an Event
        self.answer.acquire()
        self.value: Any = None
        self.error: BaseException | None = None

    def deliver(self, value: Any, error: BaseException | None) -> None:
        self.value, self.error = value, error
        self.answer.release()


class AsyncCall(Call):
    """One that a task in the same loop waits for: ``outcome`` is a future that holds nothing of Cap'n Proto's."""

    __slots__ = ("outcome",)

    def __init__(self, operation: Operation, target: int, fields: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(operation, target, fields)
        self.outcome: asyncio.Future[Any] = loop.create_future()

    def deliver(self, value: Any, error: BaseException | None) -> None:
        if self.outcome.done():  # its waiter was cancelled just now
            self.drop()
        elif error is None:
            self.outcome.set_result(value)
        else:
            self.outcome.set_exception(error)
            self.outcome.exception()  # retrieved: whoever waited may have gone
