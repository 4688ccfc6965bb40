"""Calls that a client has under way. They live in the loop; who waits for one gets a plain value, or an error that was built anew."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from zmqpub.ipc.codec import Operation

__all__ = ["AsyncCall", "Call", "SyncCall"]


class Call:
    """A call, from when it is handed to the loop until it is answered, which may be long after whoever made it has given up."""

    # Nothing of Cap'n Proto's: a call is in the frame of its caller, who may be anywhere.
    __slots__ = ("abandoned", "done", "fields", "interrupted", "kept", "operation", "target")

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

    def succeed(self, value: Any) -> int | None:
        """Hand the value over. Returns the object that was made where nobody takes it."""
        if self.done:
            return None
        self.done = True
        if self.operation.makes is not None:
            self.kept = value
        if self.abandoned or not self.deliver(value, None):
            return self.left_behind()
        return None

    def fail(self, error: BaseException) -> None:
        if self.done:
            return
        self.done = True
        if not self.abandoned:
            error.__context__ = None
            self.deliver(None, error)

    def left_behind(self) -> int | None:
        """The object that was made, which nobody takes."""
        kept, self.kept = self.kept, None
        return kept

    def deliver(self, value: Any, error: BaseException | None) -> bool:
        """False where nobody takes it."""
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

    def deliver(self, value: Any, error: BaseException | None) -> bool:
        self.value, self.error = value, error
        self.answer.release()
        return True


class AsyncCall(Call):
    """One that a task in the same loop waits for: ``outcome`` is a future that holds nothing of Cap'n Proto's."""

    __slots__ = ("outcome",)

    def __init__(self, operation: Operation, target: int, fields: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(operation, target, fields)
        self.outcome: asyncio.Future[Any] = loop.create_future()

    def deliver(self, value: Any, error: BaseException | None) -> bool:
        if self.outcome.done():  # its waiter was cancelled just now
            return False
        if error is None:
            self.outcome.set_result(value)
        else:
            self.outcome.set_exception(error)
            self.outcome.exception()  # retrieved: whoever waited may have gone
        return True
