"""AsyncSubscriber: Subscriber for asyncio. One callback for each batch that arrives, no thread for each message."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Final

import zmq

from zmqpub.errors import ClosedError, ZmqPubError
from zmqpub.mending.steps import Ask, Call, Failure, HandOut, Item, Pause, Reply, Step, Take, Tell
from zmqpub.receiving.driving import Driver, call
from zmqpub.receiving.state import SubscriberState
from zmqpub.receiving.subscription import Subscription
from zmqpub.repair import Repair
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import Topic

__all__ = ["AsyncSubscriber"]

_FOREVER: Final = float("inf")
_NOTHING: Final = "nothing was received in time"
_FAIR_SHARE: Final = 256
"""Items that are handed out before other tasks of the loop have their turn, where more are there."""


class AsyncSubscriber:
    """As `zmqpub.Subscriber`, with the same arguments: an async iterator and an async context manager.

    It connects when it is entered, or first asked for something; CursorError is raised then. One task at a time may wait for
    items; state(), cursor() and close() may be called by others. Waiting may be canceled at any time: no item is lost by it.
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
        self._opening: _Driver | None = _Driver(self._subscription, self._subscription.stream.open())
        self._driver = _Driver(self._subscription, self._subscription.stream.run())
        self._turns = 0
        """Items that were handed out since other tasks of the loop had their turn."""

    async def open(self) -> None:
        """Connect; a second call does nothing. Waits at most two seconds for a replay endpoint."""
        if self._opening is not None:
            expected = await self._opening.finish()
            self._opening = None
            self._subscription.start(expected)

    # ---- the stream ----

    async def __aiter__(self) -> AsyncIterator[Item]:
        driver = self._driver
        try:
            while True:
                step = await self._reach(_FOREVER)
                if isinstance(step, Tell):
                    yield driver.tell(step)
                    continue
                self._turns = _FAIR_SHARE  # a batch is many
                for item in step.batch.notifications():
                    yield item
                    if driver.step is not step:  # recv() was called meanwhile, and went on beyond
                        break
                else:
                    driver.used_up(step)
        except ClosedError:
            if not self._subscription.closed:
                raise

    async def __anext__(self) -> Item:
        try:
            return await self.recv()
        except ClosedError:
            if self._subscription.closed:
                raise StopAsyncIteration from None
            raise

    async def recv(self, timeout: float | None = None) -> Item:
        """The next item; TimeoutError after ``timeout`` seconds, ClosedError when the subscriber is, or was, closed."""
        driver = self._driver
        end = _FOREVER if timeout is None else time.monotonic() + timeout
        while True:
            step = await self._reach(end)
            if isinstance(step, Tell):
                return driver.tell(step)
            for item in step.batch.notifications():
                return item
            driver.used_up(step)

    async def recv_batch(self, n: int, timeout: float | None = None) -> list[Item]:
        """From 1 to ``n`` items, as many as are there; TimeoutError where there is none within ``timeout`` seconds."""
        if n < 1:
            raise ValueError(f"at least one item is asked for, not {n}")
        driver = self._driver
        items: list[Item] = []
        end = _FOREVER if timeout is None else time.monotonic() + timeout
        while len(items) < n:
            step = driver.ready() if items else await self._reach(end)
            if step is None:
                break
            if isinstance(step, Tell):
                items.append(driver.tell(step))
                continue
            taken = step.batch.take(n - len(items))
            items.extend(taken)
            if len(items) < n:
                driver.used_up(step)
        return items

    async def _reach(self, end: float) -> HandOut | Tell:
        if self._opening is not None:
            await self.open()
        step = self._driver.ready()
        if step is None:
            return await self._driver.reach(end)
        self._turns += 1
        if self._turns >= _FAIR_SHARE:
            self._turns = 0
            await asyncio.sleep(0)
            return await self._driver.reach(end)  # the other tasks may have asked for something, too
        return step

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

    async def close(self) -> None:
        """Close all connections; whoever waits for an item gets ClosedError, an iteration ends. A second call does nothing."""
        first = self._subscription.end()
        drivers = [driver for driver in (self._opening, self._driver) if driver is not None]
        for driver in drivers:
            driver.wake()
        if first:
            await asyncio.get_running_loop().run_in_executor(None, self._subscription.release)
        for driver in drivers:
            await driver.come_to_rest()

    async def __aenter__(self) -> AsyncSubscriber:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __del__(self) -> None:
        if hasattr(self, "_driver") and not self._subscription.closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            self._subscription.close()

    def __repr__(self) -> str:
        return f"<AsyncSubscriber {self._subscription!r}>"


class _Driver(Driver):
    """Does what the logic's steps say, for a task that awaits."""

    def __init__(self, subscription: Subscription, steps: Generator[Step, Any, Any]) -> None:
        super().__init__(subscription, steps)
        self._under_way: tuple[Step, asyncio.Future[Any]] | None = None
        """A call in an executor's thread: it goes on when who waits for it is canceled, and the next one waits for it."""
        self._waiter: asyncio.Future[None] | None = None

    def ready(self) -> HandOut | Tell | None:
        """What there is for the user without waiting; None where there is nothing, or something to raise."""
        try:
            while True:
                step = self.current()
                if isinstance(step, (HandOut, Tell)):
                    return step
                if not isinstance(step, Take) or not self._take(step):
                    return None
        except ZmqPubError:
            return None  # reach() raises it again

    async def reach(self, end: float) -> HandOut | Tell:
        """Go on until there is something for the user; TimeoutError where that is not reached by the time ``end``."""
        while True:
            step = self.current()
            if isinstance(step, (HandOut, Tell)):
                return step
            await self._work(step, end)

    async def finish(self) -> Any:
        """Go on to the end; its result."""
        try:
            while True:
                await self._work(self.current(), _FOREVER)
        except _Finished as finished:
            return finished.value

    def go_on(self, answer: Any) -> None:
        """As Driver.go_on; a StopIteration would not leave a coroutine alive."""
        try:
            super().go_on(answer)
        except StopIteration as stop:
            raise _Finished(stop.value) from None

    def wake(self) -> None:
        """Let who waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def come_to_rest(self) -> None:
        """After the end: wait for what goes on in a thread."""
        if self._under_way is not None:
            await asyncio.wait((self._under_way[1],))
            self._under_way[1].exception()  # nobody else may want to know

    async def _work(self, step: Step, end: float) -> None:
        if isinstance(step, Take):
            if not self._take(step):
                await self._until_readable(min(step.until, end))
                self._done_by(step.until, end)
        elif isinstance(step, Ask):
            await self._in_thread(step, lambda: self._ask(step), end)
        elif isinstance(step, Call):
            await self._in_thread(step, lambda: call(step), end)
        elif isinstance(step, Pause):
            await self._wait(min(step.until, end))
            self._done_by(step.until, end)

    def _take(self, step: Take) -> bool:
        """Take what is there; whether that was something."""
        assert self.subscription.receiver is not None
        batch = self.subscription.receiver.take(0)
        if batch is not None:
            self.go_on(batch)
        return batch is not None

    def _done_by(self, until: float, end: float) -> None:
        now = time.monotonic()
        if now >= until:
            self.go_on(None)
        elif now >= end:
            raise TimeoutError(_NOTHING)

    async def _until_readable(self, end: float) -> None:
        """Until something was received, or the time ``end``."""
        assert self.subscription.receiver is not None
        loop, descriptor = asyncio.get_running_loop(), self.subscription.receiver.fileno()
        loop.add_reader(descriptor, self.wake)
        try:
            await self._wait(end)
        finally:
            loop.remove_reader(descriptor)

    async def _wait(self, end: float) -> None:
        """Until wake(), or the time ``end``."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(max(0.0, end - time.monotonic()), self.wake) if end < _FOREVER else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def _in_thread(self, step: Step, function: Callable[[], Any], end: float) -> None:
        """Go on with what ``function`` returns; TimeoutError at ``end``, while it goes on."""
        if self._under_way is None or self._under_way[0] is not step:
            self._under_way = step, asyncio.get_running_loop().run_in_executor(None, function)
        future = self._under_way[1]
        # Who waits may be canceled; the future is not.
        await asyncio.wait((future,), timeout=None if end == _FOREVER else max(0.0, end - time.monotonic()))
        if not future.done():
            raise TimeoutError(_NOTHING)
        if self.step is step:
            self._under_way = None
            self.go_on(future.result())

    def _ask(self, step: Ask) -> Reply | Failure:
        """In a thread."""
        client = self.subscription.clients[step.source]
        if (failure := client.ask(step.request, step.timeout)) is not None:
            return failure
        while True:
            reply = client.receive(step.timeout, self.subscription.receiver)
            if reply is not None:
                return reply


class _Finished(Exception):
    """The logic came to its end."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value
