"""The stream of a subscriber: batches of a receiver in, items for the user out, in order. Does no I/O, see mending_steps."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, TypeVar

from zmqpub._fast import HashBlock, RawBlock, Received
from zmqpub.mending.block_walk import BlockWalk
from zmqpub.mending.mender import Mender
from zmqpub.mending.positions import Place
from zmqpub.mending.steps import Entries, Feed, HandOut, Step, Steps, Take, Tell
from zmqpub.receiving.cursor import SavedPosition
from zmqpub.receiving.source_counts import SourceCounts
from zmqpub.receiving.state import SourceState, Status
from zmqpub.repair import Repair
from zmqpub.stream_events import (
    EVENT_TYPES,
    Connected,
    CounterGap,
    Disconnected,
    Duplicate,
    Lost,
    Malformed,
    MempoolGap,
    Reconnected,
    Refused,
    Reorg,
    Restart,
    Stale,
)
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["Stream"]

_T = TypeVar("_T")

_TOPICS: Final = tuple(Topic)
_INDEX: Final = {topic: index for index, topic in enumerate(Topic)}
_NAMED: Final = {topic.value: topic for topic in Topic}
_OF_BLOCKS: Final = (Topic.HASHBLOCK, Topic.RAWBLOCK)
_FOREVER: Final = 1e9
_NOWHERE: Final = "there is no replay endpoint to ask"


class Stream:
    """What goes on at all places. ``run()`` is the logic; the rest is what happened."""

    def __init__(
        self,
        places: Sequence[Place],
        settings: SubscriberSettings,
        rpc: Repair | None,
        resume: Mapping[str, SavedPosition] | None,
        clock: Callable[[], float],
    ) -> None:
        self._places = places
        self._settings = settings
        self._clock = clock
        self._feed: Feed
        self._menders = {place.index: Mender(place, settings, clock) for place in places if place.replay is not None}
        self._walks = (
            {} if rpc is None else {place.index: BlockWalk(place, rpc, settings, clock) for place in places if place.replay is None}
        )
        self._index_of = {place.text: place.index for place in places}
        self._counts = [SourceCounts(clock) for _ in places]
        self._stale: set[int] = set()
        self._resume = dict(resume or {})
        for place in places:
            if place.index in self._menders and place.text in self._resume:
                saved = self._resume[place.text]
                self._menders[place.index].resume(saved.epoch, saved.numbers)

    # ---- the logic ----

    def open(self) -> Generator[Step, Any, list[dict[int, int]]]:
        """Before anything is received; returns the counters that each place is to expect, by topic index. CursorError."""
        expected: list[dict[int, int]] = []
        for place in self._places:
            mender = self._menders.get(place.index)
            saved = self._resume.get(place.text)
            if mender is not None:
                expected.append((yield from mender.open()))
            else:
                expected.append({} if saved is None else dict(saved.numbers))
        return expected

    def attach(self, feed: Feed) -> None:
        """What is received from now on."""
        self._feed = feed
        for mender in self._menders.values():
            mender.attach(feed)

    def run(self) -> Steps:
        """For ever."""
        while True:
            yield from self._look()
            batch = yield Take(min((mender.next_look for mender in self._menders.values()), default=self._clock() + _FOREVER))
            if batch is not None:
                yield from self._pass_on(batch)

    def _look(self) -> Steps:
        if all(mender.next_look > self._clock() for mender in self._menders.values()):
            return
        # What came before is handed out before anything is taken for missing.
        batch = yield Take(self._clock())
        if batch is not None:
            yield from self._pass_on(batch)
        for mender in self._menders.values():
            if mender.next_look <= self._clock():
                yield from self._noted(mender.look(idle=batch is None))

    def _pass_on(self, batch: Entries) -> Steps:
        while True:
            if self._walks or any(mender.unproven for mender in self._menders.values()):
                item = next(batch, None)
            else:
                yield HandOut(batch)
                item = next(batch, None)
            if item is None:
                return
            if type(item) is tuple:
                yield from self._noted(self._entry(item))
            else:
                yield from self._pass_on_singly(item)

    def _pass_on_singly(self, item: Received) -> Steps:
        """A message before which others may be due. Until they were handed out, the position stays before it, for a cursor."""
        index, topic, counter = self._index_of[item.address], _INDEX[item.topic], item.counter
        mender, walk = self._menders.get(index), self._walks.get(index)
        if mender is not None and mender.unproven:
            self._feed.set_delivered(index, topic, counter)
            if not (yield from self._noted(mender.prove(topic, counter))):
                return
        elif walk is not None and isinstance(item, (HashBlock, RawBlock)):
            self._feed.set_delivered(index, topic, walk.first_missing(item.topic, counter))
            yield from self._noted(walk.mend(item))
        self._feed.set_delivered(index, topic, (counter + 1) % COUNTER_MODULUS)
        yield Tell(item)

    def _noted(self, steps: Generator[Step, Any, _T]) -> Generator[Step, Any, _T]:
        """``steps``, with what they tell counted."""
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                result: _T = stop.value
                return result
            if isinstance(step, Tell) and isinstance(step.item, EVENT_TYPES):
                self._counts[self._index_of[step.item.address]].note(step.item)
            answer = yield step

    # ---- what the receiver noticed ----

    def _entry(self, entry: tuple[Any, ...]) -> Steps:
        kind, index, *rest = entry
        return _HANDLERS[kind](self, index, *rest)

    def _gap(self, index: int, topic: Topic, expected: int, got: int, cause: Any) -> Steps:
        address = self._places[index].text
        if index in self._menders:
            yield from self._menders[index].gap(_INDEX[topic], expected, got, cause)
        elif index in self._walks and topic in _OF_BLOCKS:
            yield from self._walks[index].gap(topic, expected, got, cause)
        else:
            yield Tell(CounterGap(address, topic, expected, got, cause))
            yield Tell(Lost(address, topic, expected, got, _NOWHERE))

    def _restart(self, index: int, topic: Topic, expected: int, got: int) -> Steps:
        if index in self._menders:
            yield from self._menders[index].restart(_INDEX[topic], expected, got)
            return
        if index in self._walks:
            yield from self._walks[index].restart()
        yield Tell(Restart(self._places[index].text, topic, expected, got))

    def _connected(self, index: int, generation: int, endpoint: str) -> Steps:
        address = self._places[index].text
        self._stale.discard(index)
        yield Tell(Connected(address, endpoint) if generation == 1 else Reconnected(address, endpoint, generation))
        if index in self._menders:
            yield from self._menders[index].connected(generation)

    def _disconnected(self, index: int, _generation: int) -> Steps:
        yield Tell(Disconnected(self._places[index].text))

    def _refused(self, index: int) -> Steps:
        yield Tell(Refused(self._places[index].text))

    def _stale_source(self, index: int, silence: float) -> Steps:
        self._stale.add(index)
        yield Tell(Stale(self._places[index].text, silence))
        if index in self._menders:
            yield from self._menders[index].stale()

    def _duplicate(self, index: int, topic: Topic, counter: int) -> Steps:
        yield Tell(Duplicate(self._places[index].text, topic, counter))

    def _mempool_gap(self, index: int, expected: int, got: int) -> Steps:
        yield Tell(MempoolGap(self._places[index].text, expected, got))

    def _reorg(self, index: int, old_tip: bytes, parent: bytes | None) -> Steps:
        topic = Topic.SEQUENCE if parent is None else Topic.RAWBLOCK
        yield Tell(Reorg(self._places[index].text, topic, old_tip, old_tip if parent is None else parent))

    def _malformed(self, index: int, topic: str, counter: int | None, reason: str) -> Steps:
        yield Tell(Malformed(self._places[index].text, _NAMED.get(topic, topic), counter, reason))

    # ---- what happened ----

    def positions(self) -> dict[str, SavedPosition]:
        """By address the position after the last item that was handed out."""
        return {place.text: self._position(place) for place in self._places}

    def _position(self, place: Place) -> SavedPosition:
        mender = self._menders.get(place.index)
        if mender is not None:
            return SavedPosition(mender.epoch, mender.numbers())
        return SavedPosition(None, self._feed.delivered(place.index))

    def source_states(self) -> tuple[SourceState, ...]:
        """Of each place."""
        return tuple(self._source_state(place) for place in self._places)

    def _source_state(self, place: Place) -> SourceState:
        mender = self._menders.get(place.index)
        walk = self._walks.get(place.index)
        positions = self._feed.delivered(place.index)
        return SourceState(
            address=place.text,
            status=self._status(place, mender, walk),
            connections=self._feed.generation(place.index),
            next_counters={_TOPICS[topic]: counter for topic, counter in positions.items()},
            epoch=None if mender is None else mender.epoch,
            replay=None if place.replay is None else place.replay.text,
            error=mender.error if mender is not None else walk.error if walk is not None else None,
            **self._counts[place.index].fields(),
        )

    def _status(self, place: Place, mender: Mender | None, walk: BlockWalk | None) -> Status:
        index = place.index
        lost_at = self._counts[index].lost_at
        if (mender is not None and mender.busy) or (walk is not None and walk.busy):
            return "repairing"
        if mender is not None and mender.is_in_doubt():
            return "degraded"
        if lost_at is not None and self._clock() - lost_at < self._settings.check_interval:
            return "degraded"
        if index in self._stale:
            return "stale"
        return "live" if self._feed.connected(index) else "connecting"


_HANDLERS: Final[dict[str, Callable[..., Steps]]] = {
    "gap": Stream._gap,
    "restart": Stream._restart,
    "connected": Stream._connected,
    "disconnected": Stream._disconnected,
    "refused": Stream._refused,
    "stale": Stream._stale_source,
    "duplicate": Stream._duplicate,
    "mempool-gap": Stream._mempool_gap,
    "reorg": Stream._reorg,
    "malformed": Stream._malformed,
}
