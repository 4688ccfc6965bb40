"""What the drivers of a subscriber's logic have in common: which step is to be done, and handing out what it is about."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from zmqpub.errors import ClosedError, RepairError
from zmqpub.mending.steps import Call, Failure, HandOut, Item, Step, Tell
from zmqpub.receiving.subscription import Subscription

__all__ = ["Driver", "call"]


class Driver:
    """The present step of the logic. It goes on only when something more is asked for, so that a cursor is exact."""

    def __init__(self, subscription: Subscription, steps: Generator[Step, Any, Any]) -> None:
        self.subscription = subscription
        self.step: Step | None = None
        self._steps = steps
        self._error: BaseException | None = None
        self._told = True
        """Was the present step's item handed out, or is there no step yet?"""

    def current(self) -> Step:
        """The step to be done; ClosedError, or what ended the logic (CursorError)."""
        if self._error is not None:
            raise self._error
        if self.subscription.closed:
            raise ClosedError("the subscriber was closed")
        if self._told:
            self._told = False
            self.go_on(None)
        while isinstance(self.step, Tell) and not self.subscription.wanted(self.step.item):
            self.go_on(None)
        assert self.step is not None
        return self.step

    def go_on(self, answer: Any) -> None:
        """The step was done: the next one is due."""
        try:
            self.step = self._steps.send(answer)
        except StopIteration:
            raise
        except Exception as error:
            self._error = error
            raise
        except BaseException:  # an interrupt in the midst of the logic: where it stood is lost, but not the position
            self._error = ClosedError("the subscriber was interrupted at work; make another, from its cursor()")
            raise

    def tell(self, step: Tell) -> Item:
        """The item of the present step, which is done herewith."""
        self._told = True
        return step.item

    def used_up(self, step: HandOut) -> None:
        """The batch has no more notifications before its next tuple or end. Somebody else may have found that out before."""
        if self.step is step and not self._told:
            self.go_on(None)


def call(step: Call) -> Any:
    """What the function of a step returns, or why it does not."""
    try:
        return step.function()
    except RepairError as error:
        return Failure(str(error) or "the node cannot say")
