"""Questions to a replay endpoint, until they are answered truly or given up; and what is had by them, handed out. Does no I/O."""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from zmqpub.mending.checks import NotHeldError, UntrueError, check_hello, check_range
from zmqpub.mending.patience import Patience
from zmqpub.mending.positions import Numbers, Place, Positions
from zmqpub.mending.steps import Ask, Entries, HandOut, Pause, Step, Steps, Tell
from zmqpub.replay.protocol import HelloAnswer, HelloRequest, RangeAnswer, RangeRequest, RangeStart, RangeUntil
from zmqpub.stream_events import CounterGap, GapCause, Lost, Repaired
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["Fetching", "Outcome"]

_TOPICS: Final = tuple(Topic)

_OPENING: Final = 2.0
"""Seconds that the first question may take, before anything is received."""
_PROBE: Final = 1.0
"""Seconds that a question may take which only sees whether an endpoint is there: the stream waits for it."""

_LEFT: Final = "the messages have left the publisher's journal"
_NOT_HELD: Final = "the publisher does not hold them"


class Outcome(enum.Enum):
    """How a range was met."""

    DONE = 1
    SHORT = 2
    """The publisher's history ends before what was asked for: it is another one than that of the live messages."""
    NOT_HELD = 3
    GIVEN_UP = 4


class Fetching:
    """What one place asks its replay endpoint."""

    def __init__(self, place: Place, positions: Positions, settings: SubscriberSettings, clock: Callable[[], float]) -> None:
        self._place = place
        self._positions = positions
        self._settings = settings
        self._clock = clock
        self.error: str | None = None
        """What went wrong last; None once it works again."""
        self.busy = 0
        """How many repairs are under way, one within the other."""
        self.given_up = False
        """Was a question given up, and none answered since?"""
        self._pause = 0.0
        """Seconds between questions after that."""
        self._next_try = 0.0
        self._told: set[int] = set()
        """The topics that the present repair told a gap of."""
        self._repaired = 0
        """Messages handed out that no Repaired told of yet."""

    # ---- asking ----

    def opening_hello(self) -> Generator[Step, Any, HelloAnswer | None]:
        """Before anything is received: one attempt."""
        return (yield from self._hello(Patience(self._clock, min(_OPENING, self._settings.repair_timeout), 0)))

    def probing_hello(self) -> Generator[Step, Any, HelloAnswer | None]:
        """Nothing is known to be missing: one short attempt, as the stream waits for it."""
        return (yield from self._hello(self._probe()))

    def hello(self, hopeful: bool = False) -> Generator[Step, Any, HelloAnswer | None]:
        """The publisher's present state; None, with `error`, where it cannot be had. ``hopeful``: things may have changed just now."""
        patience = self._patience(hopeful)
        if patience is None:
            return None
        self.busy += 1
        try:
            answer = yield from self._hello(patience)
        finally:
            self.busy -= 1
        if answer is None:
            self._give_up()
        return answer

    @property
    def retry_in(self) -> float:
        """Seconds after which it is worth while to ask again, where a question was given up."""
        return self._pause if self.given_up else 0.0

    def _probe(self) -> Patience:
        return Patience(self._clock, min(_PROBE, self._settings.repair_timeout), 0)

    def _patience(self, hopeful: bool) -> Patience | None:
        """Who waits for what was given up a moment ago makes the stream wait in vain: then none, or little."""
        if not self.given_up:
            return Patience(self._clock, self._settings.repair_timeout, self._settings.repair_retries)
        return self._probe() if hopeful or self._clock() >= self._next_try else None

    def _give_up(self) -> None:
        self.given_up = True
        self._pause = min(max(2 * self._pause, 1.0), max(self._settings.check_interval, 1.0))
        self._next_try = self._clock() + self._pause

    def _answered(self) -> None:
        self.error = None
        self.given_up = False
        self._pause = 0.0

    def _hello(self, patience: Patience) -> Generator[Step, Any, HelloAnswer | None]:
        while True:
            reply = yield Ask(self._place.index, HelloRequest(), patience.attempt())
            try:
                hello = check_hello(reply)
            except UntrueError as error:
                if not (yield from self._may_try_again(error, patience)):
                    return None
            else:
                self._answered()
                return hello

    def _may_try_again(self, error: UntrueError, patience: Patience) -> Generator[Step, Any, bool]:
        self.error = str(error)
        again = patience.pause()
        if again is not None:
            yield Pause(again)
        return again is not None

    # ---- repairing ----

    def repair(self, steps: Steps) -> Steps:
        """``steps`` as one repair, with what it achieved told at its end."""
        began = self._clock()
        self._told.clear()
        self.busy += 1
        try:
            yield from steps
        finally:
            self.busy -= 1
        if self._repaired:
            messages, self._repaired = self._repaired, 0
            yield Tell(Repaired(self._place.text, messages, "replay", self._clock() - began))

    def repair_to(self, epoch: bytes, ids: Numbers, targets: Mapping[int, int]) -> Steps:
        """Up to numbers that were announced; what cannot be had is lost."""
        if self._positions.missing(targets):
            yield from self.repair(self._repair_to(epoch, ids, targets))

    def _repair_to(self, epoch: bytes, ids: Numbers, targets: Mapping[int, int]) -> Steps:
        for topic, start in self._positions.missing(targets).items():
            yield self.tell_gap(topic, start, targets[topic])
        yield from self._fetch(epoch, ids, targets, None)
        for topic, start in self._positions.missing(targets).items():
            yield from self._pass_over(topic, start, targets[topic], self.error or _NOT_HELD)

    def fetch_until(self, epoch: bytes, ids: Numbers, topic: int, number: int) -> Generator[Step, Any, Outcome]:
        """Hand out what precedes message ``number`` of ``topic``, of all topics."""
        return (yield from self._fetch(epoch, ids, {topic: number}, topic))

    def _fetch(self, epoch: bytes, ids: Numbers, targets: Mapping[int, int], until: int | None) -> Generator[Step, Any, Outcome]:
        """Hand out the messages of ``ids`` until ``targets`` are reached; ``until``: the topic whose target nothing may pass."""
        patience = self._patience(hopeful=False)
        if patience is None:
            return Outcome.GIVEN_UP
        topics = {number: topic for topic, number in ids.items()}
        while True:
            starts = {topic: start for topic in ids if (start := self._positions.start(topic)) is not None}
            request = RangeRequest(
                epoch,
                tuple(RangeStart(ids[topic], start) for topic, start in starts.items()),
                None if until is None else RangeUntil(ids[until], targets[until]),
            )
            reply = yield Ask(self._place.index, request, patience.attempt())
            try:
                answer = check_range(request, reply, topics)
            except NotHeldError as error:
                self.error = str(error)
                return Outcome.NOT_HELD
            except UntrueError as error:
                if (yield from self._may_try_again(error, patience)):
                    continue
                self._give_up()
                return Outcome.GIVEN_UP
            self._answered()
            patience.renew()
            if until is not None and _is_all_gone(answer, ids[until], targets[until]):
                self.error = _LEFT
                return Outcome.GIVEN_UP
            yield from self._hand_out(answer, reply.batch, starts, topics)
            reached = not self._positions.missing(targets)
            # Before the message that showed a gap, the other topics have some that come after the last of its own.
            if not answer.more or (reached and until is None):
                return Outcome.DONE if reached else Outcome.SHORT

    def _hand_out(self, answer: RangeAnswer, batch: Entries | None, starts: Numbers, topics: Numbers) -> Steps:
        for one in answer.notifiers:
            topic = topics[one.notifier]
            if one.next > starts[topic] and topic not in self._told:
                yield self.tell_gap(topic, starts[topic], one.next)
            if one.first > starts[topic]:
                yield from self._pass_over(topic, starts[topic], one.first, _LEFT)
        self._positions.know({topics[one.notifier]: one.next for one in answer.notifiers})
        if answer.messages and batch is not None:
            self._repaired += answer.messages
            yield HandOut(batch)

    # ---- telling ----

    def tell_gap(self, topic: int, first: int, until: int, cause: GapCause = "network") -> Tell:
        """Numbers or counters."""
        self._told.add(topic)
        return Tell(CounterGap(self._place.text, _TOPICS[topic], first % COUNTER_MODULUS, until % COUNTER_MODULUS, cause))

    def lose(self, topic: int, first: int, until: int | None, reason: str | None = None) -> Tell:
        """Counters; without a reason the last error's."""
        return Tell(Lost(self._place.text, _TOPICS[topic], first, until, reason or self.error or _NOT_HELD))

    def _pass_over(self, topic: int, start: int, number: int, reason: str) -> Steps:
        self._positions.set(topic, number)
        yield self.lose(topic, start % COUNTER_MODULUS, number % COUNTER_MODULUS, reason)


def _is_all_gone(answer: RangeAnswer, notifier: int, target: int) -> bool:
    """Has all that was asked of a notifier left the journal? Then how much of the others did before that cannot be known from it."""
    return any(one.notifier == notifier and one.gone and one.first >= target for one in answer.notifiers)
