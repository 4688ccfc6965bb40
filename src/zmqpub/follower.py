"""ChainFollower and AsyncChainFollower: the active chain and the mempool as one ordered stream of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from zmqpub.chain_events import ChainEvent
from zmqpub.errors import ClosedError, ConfigError, ConfigProblem, RepairError
from zmqpub.following.cursor import pack_cursor, subscriber_part, unpack_cursor
from zmqpub.following.line import Link
from zmqpub.following.state import ChainState
from zmqpub.following.walk import Questions, Work, answer
from zmqpub.repair import Repair

if TYPE_CHECKING:
    from zmqpub.async_subscriber import AsyncSubscriber
    from zmqpub.subscriber import Subscriber

__all__ = ["AsyncChainFollower", "ChainFollower"]

_BODY_PATIENCE: Final = 2.0
_RETRY: Final = 5.0


class _Follower:
    """What both have in common: the state, what it asks, and the cursor."""

    def __init__(
        self,
        subscriber: Subscriber | AsyncSubscriber,
        repair: Repair | None,
        cursor: Mapping[str, Any] | None,
        walk_limit: int,
        body_patience: float,
    ) -> None:
        if repair is not None and not isinstance(repair, Repair):
            raise ConfigError(ConfigProblem("repair", repr(repair), "it has not the methods of zmqpub.Repair"))
        if subscriber.settings.only_notifications:
            raise ConfigError(
                ConfigProblem("only_notifications", "True", "a follower has to see what the subscriber's stream says is lost")
            )
        if subscriber.settings.latest_only:
            raise ConfigError(ConfigProblem("latest_only", "True", "it leaves messages out, and a follower needs them all"))
        self._repair = repair
        self._state = ChainState(subscriber.topics, sources=len(subscriber.addresses), can_ask=repair is not None, walk_limit=walk_limit)
        self._body_patience = body_patience
        self._questions: Questions | None = None
        self._pause_end: float | None = None
        if cursor is not None:
            unpack_cursor(cursor, self._state)

    @property
    def tip(self) -> Link | None:
        """The newest block that is known: hash, height, previous, block; None before the first."""
        return self._state.line.tip

    @staticmethod
    def subscriber_cursor(cursor: Mapping[str, Any]) -> Any:
        """The part of a saved cursor that the subscriber is to be made with: ``Subscriber(…, resume=…)``."""
        return subscriber_part(cursor)

    def _take(self, item: object | None) -> bool:
        """Let the state take an item, or None for a pause; whether it has questions then."""
        state = self._state
        more = self._begin(state.idle() if item is None else state.take(item))
        pause = self._body_patience if state.waiting else _RETRY if state.owing else None
        self._pause_end = None if pause is None else time.monotonic() + pause
        return more

    def _begin(self, work: Work[None] | None) -> bool:
        """Whether ``work`` has questions."""
        if work is None:
            return False
        questions = Questions(work)
        if questions.ask is None:
            return False
        self._questions = questions
        return True

    def _timeout(self, end: float | None) -> float | None:
        """How long to wait for the next item, if the caller waits until ``end``."""
        ends = [moment for moment in (end, self._pause_end) if moment is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _is_pause(self) -> bool:
        """Nothing came in time: was that time the state's, not the caller's?"""
        return self._pause_end is not None and time.monotonic() >= self._pause_end

    def _pack(self, subscriber: dict[str, Any]) -> dict[str, Any]:
        # An address that lags so far that it was not heard yet has to repeat all that the others told.
        topic = self._state.block_topic.value
        placed = [address for address, source in subscriber["sources"].items() if source["next"].get(topic) is not None]
        return pack_cursor(self._state, subscriber, placed=placed, unfinished=self._questions is not None)


class ChainFollower(_Follower):
    """Follows the active chain and the mempool through a `Subscriber`, whatever mix of topics it is subscribed to.

    ``subscriber``: stays the caller's, who closes it; it has to yield its events (``only_notifications=False``). ``repair``:
    a `zmqpub.Repair`, for blocks that were not published and for what was lost; without one, what cannot be known is told
    as a `ChainGap`. ``cursor``: what cursor() returned, of a follower whose subscriber's part was given to this subscriber
    (``Subscriber(…, resume=ChainFollower.subscriber_cursor(cursor))``). ``walk_limit``: the most blocks that are walked
    back to find the chain that is known. ``body_patience``: seconds that a connected block waits for its rawblock, if
    nothing else comes.

    An iterator over `ChainEvent` values (zmqpub.chain_events): every block connected or disconnected, each once and in the
    chain's order, and every transaction that entered or left the mempool. With a repair the stream begins at the node's tip,
    which is not told, and with a MempoolReset where ``sequence`` is subscribed to; without, with what comes first.

    Raises CursorError for a cursor that is damaged or from another chain. Like its subscriber it is for one thread at a time.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        repair: Repair | None = None,
        cursor: Mapping[str, Any] | None = None,
        *,
        walk_limit: int = 2016,
        body_patience: float = _BODY_PATIENCE,
    ) -> None:
        super().__init__(subscriber, repair, cursor, walk_limit, body_patience)
        self._subscriber = subscriber
        self._items: Iterator[object] = iter(())
        if self._begin(self._state.blocks.check_cursor()):
            self._ask()

    def __iter__(self) -> ChainFollower:
        return self

    def __next__(self) -> ChainEvent:
        try:
            return self.recv()
        except ClosedError:
            if self._subscriber.closed:
                raise StopIteration from None
            raise

    def recv(self, timeout: float | None = None) -> ChainEvent:
        """The next event; TimeoutError after ``timeout`` seconds, ClosedError when the subscriber is, or was, closed.

        Questions to the repair are not bounded by ``timeout``: that is the repair's own business.
        """
        state = self._state
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._questions is not None:
                self._ask()
            event = state.pop()
            if event is not None:
                return event
            item = self._next_item(end)
            if self._take(item):
                self._ask()

    def cursor(self) -> dict[str, Any]:
        """A small JSON value: the position after the last event that was handed out."""
        return self._pack(self._subscriber.cursor())

    def _next_item(self, end: float | None) -> object | None:
        """The subscriber's next item; None when it was quiet for so long that the state wants to know."""
        timeout = self._timeout(end)
        if timeout is not None:
            try:
                item: object = self._subscriber.recv(timeout)
            except TimeoutError:
                if self._is_pause():
                    return None
                raise
            return item
        for item in self._items:
            return item
        self._items = iter(self._subscriber)  # the first time, and after an interrupt
        for item in self._items:
            return item
        raise ClosedError("the subscriber was closed")

    def _ask(self) -> None:
        """Put the state's questions to the repair. What interrupts this leaves the question for the next time."""
        questions = self._questions
        assert questions is not None
        while questions.ask is not None:
            assert self._repair is not None
            try:
                reply = answer(self._repair, questions.ask)
            except RepairError as error:
                questions.fail(error)
            else:
                questions.reply(reply)
        self._questions = None

    def __repr__(self) -> str:
        return f"<ChainFollower {_describe(self.tip)}>"


class AsyncChainFollower(_Follower):
    """A `ChainFollower` for asyncio, over an `AsyncSubscriber`: an asynchronous iterator.

    The repair's methods may block: each call runs in a thread of the loop's executor. A cursor from another chain raises its
    CursorError at the first event.
    """

    def __init__(
        self,
        subscriber: AsyncSubscriber,
        repair: Repair | None = None,
        cursor: Mapping[str, Any] | None = None,
        *,
        walk_limit: int = 2016,
        body_patience: float = _BODY_PATIENCE,
    ) -> None:
        super().__init__(subscriber, repair, cursor, walk_limit, body_patience)
        self._subscriber = subscriber
        self._begin(self._state.blocks.check_cursor())

    def __aiter__(self) -> AsyncIterator[ChainEvent]:
        return self

    async def __anext__(self) -> ChainEvent:
        try:
            return await self.recv()
        except ClosedError:
            if self._subscriber.closed:
                raise StopAsyncIteration from None
            raise

    async def recv(self, timeout: float | None = None) -> ChainEvent:
        """The next event; TimeoutError after ``timeout`` seconds, ClosedError when the subscriber is, or was, closed."""
        state = self._state
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._questions is not None:
                await self._ask()
            event = state.pop()
            if event is not None:
                return event
            item = await self._next_item(end)
            if self._take(item):
                await self._ask()

    def cursor(self) -> dict[str, Any]:
        """A small JSON value: the position after the last event that was handed out."""
        return self._pack(self._subscriber.cursor())

    async def _next_item(self, end: float | None) -> object | None:
        try:
            item: object = await self._subscriber.recv(self._timeout(end))
        except TimeoutError:
            if self._is_pause():
                return None
            raise
        return item

    async def _ask(self) -> None:
        questions = self._questions
        assert questions is not None
        loop = asyncio.get_running_loop()
        while questions.ask is not None:
            assert self._repair is not None
            try:
                reply = await loop.run_in_executor(None, answer, self._repair, questions.ask)
            except RepairError as error:
                questions.fail(error)
            else:
                questions.reply(reply)
        self._questions = None

    def __repr__(self) -> str:
        return f"<AsyncChainFollower {_describe(self.tip)}>"


def _describe(tip: Link | None) -> str:
    if tip is None:
        return "no block yet"
    return f"at {tip.hash.hex()}" if tip.height is None else f"at {tip.hash.hex()}, height {tip.height}"
