"""Subscriber: notifications in, with whatever goes wrong told and mended."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final

import zmq

from zmqpub.errors import ClosedError, ZmqPubError
from zmqpub.mending.steps import Ask, Call, HandOut, Item, Pause, Step, Take, Tell
from zmqpub.receiving.driving import Driver, call
from zmqpub.receiving.state import SubscriberState
from zmqpub.receiving.subscription import Subscription
from zmqpub.repair import Repair
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import Topic

__all__ = ["Subscriber"]

_FOREVER: Final = float("inf")
_LONGEST_WAIT: Final = 3600.0
_NOTHING: Final = "nothing was received in time"


class Subscriber:
    """Receives Bitcoin's notifications from any publisher, in order; tells what goes wrong, and mends it where it can.

    ``addresses``: ``tcp://host:port``, ``unix:path`` or ``ipc://path``, one or more. ``topics``: by default all five.
    ``replay``: the address of the publisher's replay endpoint, or a mapping of addresses to replay endpoints. ``rpc``: a
    `zmqpub.Repair`, asked for blocks where there is no replay endpoint. ``resume``: what cursor() returned. ``context``: a
    zmq.Context to use, by default one of its own. Keywords are the fields of `zmqpub.SubscriberSettings`.

    An iterator over typed notifications (HashBlock, HashTx, RawBlock, RawTx, Sequence) and `StreamEvent` values, see
    zmqpub.stream_events. With a replay endpoint that answers, the stream begins with what is published after the construction;
    else with what arrives. Waits at most two seconds for that answer.

    Raises ConfigError for arguments that make no sense, all problems at once, and CursorError for a cursor that cannot be gone on
    from: at once where the replay endpoint answers, else from the first call that learns of it. Threads may share it only if
    they take turns; close() and state() may be called by any thread at any time.
    """

    def __init__(
        self,
        *addresses: str,
        topics: Iterable[Topic | str] | None = None,
        replay: str | Mapping[str, str] | None = None,
        rpc: Repair | None = None,
        resume: Mapping[str, Any] | None = None,
        context: zmq.Context[Any] | None = None,
        **settings: Any,
    ) -> None:
        self._subscription = Subscription(addresses, topics, replay, rpc, resume, context, settings)
        try:
            self._subscription.start(self._drive_opening())
        except BaseException:
            self._subscription.close()
            raise
        self._driver = _Driver(self._subscription, self._subscription.stream.run())

    def _drive_opening(self) -> list[dict[int, int]]:
        expected: list[dict[int, int]] = _Driver(self._subscription, self._subscription.stream.open()).finish()
        return expected

    # ---- the stream ----

    def __iter__(self) -> Iterator[Item]:
        driver = self._driver
        try:
            while True:
                step = driver.reach(_FOREVER)
                if isinstance(step, Tell):
                    yield driver.tell(step)
                    continue
                for item in step.batch.notifications():
                    yield item
                    if driver.step is not step:  # recv() was called meanwhile, and went on beyond
                        break
                else:
                    driver.used_up(step)
        except ClosedError:
            if not self._subscription.closed:
                raise

    def __next__(self) -> Item:
        try:
            return self.recv()
        except ClosedError:
            if self._subscription.closed:
                raise StopIteration from None
            raise

    def recv(self, timeout: float | None = None) -> Item:
        """The next item; TimeoutError after ``timeout`` seconds, ClosedError when the subscriber is, or was, closed."""
        driver = self._driver
        end = _FOREVER if timeout is None else time.monotonic() + timeout
        while True:
            step = driver.reach(end)
            if isinstance(step, Tell):
                return driver.tell(step)
            for item in step.batch.notifications():
                return item
            driver.used_up(step)

    def recv_batch(self, n: int, timeout: float | None = None) -> list[Item]:
        """From 1 to ``n`` items, as many as are there; TimeoutError where there is none within ``timeout`` seconds."""
        if n < 1:
            raise ValueError(f"at least one item is asked for, not {n}")
        driver = self._driver
        items: list[Item] = []
        end = _FOREVER if timeout is None else time.monotonic() + timeout
        while len(items) < n:
            try:
                step = driver.reach(0.0 if items else end)
            except (TimeoutError, ZmqPubError):
                if items:  # what went wrong is raised by the next call, too
                    break
                raise
            if isinstance(step, Tell):
                items.append(driver.tell(step))
                continue
            taken = step.batch.take(n - len(items))
            items.extend(taken)
            if len(items) < n:
                driver.used_up(step)
        return items

    # ---- what is going on ----

    def state(self) -> SubscriberState:
        """Connections, what was missing, repaired and lost, and what is held."""
        return self._subscription.state()

    def cursor(self) -> dict[str, Any]:
        """A small JSON value: the position after the last item that was handed out, for ``resume``."""
        return self._subscription.cursor()

    @property
    def topics(self) -> tuple[Topic, ...]:
        """What it subscribes to."""
        return self._subscription.topics

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where, as the user wrote it."""
        return tuple(place.text for place in self._subscription.places)

    @property
    def settings(self) -> SubscriberSettings:
        """How it behaves."""
        return self._subscription.settings

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._subscription.closed

    # ---- the end ----

    def close(self) -> None:
        """Close all connections; whoever waits for an item gets ClosedError, an iteration ends. A second call does nothing."""
        self._subscription.close()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_driver") and not self._subscription.closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<Subscriber {self._subscription!r}>"


class _Driver(Driver):
    """Does what the logic's steps say, for a caller that waits."""

    def __init__(self, subscription: Subscription, steps: Generator[Step, Any, Any]) -> None:
        super().__init__(subscription, steps)
        self._asked: Ask | None = None
        """The question that was sent."""

    def reach(self, end: float) -> HandOut | Tell:
        """Go on until there is something for the user; TimeoutError where that is not reached by the time ``end``."""
        while True:
            step = self.current()
            if isinstance(step, (HandOut, Tell)):
                return step
            self._work(step, end)

    def finish(self) -> Any:
        """Go on to the end; its result."""
        try:
            while True:
                self._work(self.current(), _FOREVER)
        except StopIteration as stop:
            return stop.value

    def _work(self, step: Step, end: float) -> None:
        """Do a part of what the step says; TimeoutError at ``end``."""
        if isinstance(step, Take):
            self._take(step, end)
        elif isinstance(step, Ask):
            self._ask(step, end)
        elif isinstance(step, Call):
            self.go_on(call(step))
        elif isinstance(step, Pause):
            self.subscription.ended.wait(max(0.0, min(step.until, end) - time.monotonic()))
            self._done_by(step.until, end)

    def _take(self, step: Take, end: float) -> None:
        assert self.subscription.receiver is not None
        left = min(step.until, end) - time.monotonic()
        batch = self.subscription.receiver.take(max(0.0, min(left, _LONGEST_WAIT)))
        if batch is not None:
            self.go_on(batch)
        else:
            self._done_by(step.until, end)

    def _ask(self, step: Ask, end: float) -> None:
        client = self.subscription.clients[step.source]
        if self._asked is not step:
            self._asked = step
            if (failure := client.ask(step.request, step.timeout)) is not None:
                self.go_on(failure)
                return
        reply = client.receive(max(0.0, min(end - time.monotonic(), _LONGEST_WAIT)), self.subscription.receiver)
        if reply is not None:
            self.go_on(reply)
        elif time.monotonic() >= end:
            raise TimeoutError(_NOTHING)

    def _done_by(self, until: float, end: float) -> None:
        now = time.monotonic()
        if now >= until:
            self.go_on(None)
        elif now >= end:
            raise TimeoutError(_NOTHING)
