"""How what is missing is had from a replay endpoint: the decisions, for one address. Does no I/O, see mending_steps.

The rules that keep the stream in order, whole, and free of duplicates:

- A position is the number of the next message of a topic, within one life (epoch) of the publisher. Whatever is handed out
  moves it, live or repaired, so that a repair that was broken off goes on where it stopped.
- A question names the life, and asks for all topics of the address at once, from their positions on: the answer is merged in the
  order of publication, and whatever precedes the message that showed a gap comes before it.
- Live messages name no life. They are those of a life only on a connection after whose making the replay endpoint named that life
  as the present one. Before the first message of a new connection is handed out, the endpoint is asked. Where the present life
  is new, and the receiver is known to have connected once more since, nobody can tell which life the messages of this
  connection are from: they are skipped, the endpoint has them.
- What cannot be had is told as `Lost`, once, and the position moves behind it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from zmqpub.addresses import Address
from zmqpub.errors import CursorError
from zmqpub.mending_steps import Ask, Entries, Feed, HandOut, Pause, Step, Steps, Tell
from zmqpub.notifier_match import AmbiguousError, match_notifiers
from zmqpub.patience import Patience
from zmqpub.replay_checks import NotHeldError, UntrueError, check_hello, check_range
from zmqpub.replay_protocol import (
    EpochInfo,
    HelloAnswer,
    HelloRequest,
    NotifierInfo,
    RangeAnswer,
    RangeRequest,
    RangeStart,
    RangeUntil,
    number_near,
)
from zmqpub.stream_events import CounterGap, GapCause, Lost, Repaired, Restart
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["Mender", "Place", "is_ahead"]

_TOPICS: Final = tuple(Topic)

_GRACE: Final = 0.25
"""Seconds that what was published gets to arrive before it counts as missing without a later message to show it."""
_SOON: Final = 1.0
"""Seconds after a connection was made when it is asked once more: a subscription takes effect a little after its connection."""
_OPENING: Final = 2.0
"""Seconds that the first question may take, before anything is received."""

_LEFT: Final = "the messages have left the publisher's journal"
_NOT_HELD: Final = "the publisher does not hold them"
_WENT_BACK: Final = "counters went back within one life of the publisher: it lost what it had sent"

_Numbers = dict[int, int]
"""By topic index."""


class _Why(enum.Enum):
    """What made us ask for the present state of the publisher."""

    CONNECTED = 1
    STALE = 2
    RESTART = 3
    GAP = 4
    LOOK = 5


class _Outcome(enum.Enum):
    DONE = 1
    SHORT = 2
    """The publisher's history ends before what was asked for: it is another one than that of the live messages."""
    NOT_HELD = 3
    GIVEN_UP = 4


@dataclass(frozen=True, slots=True)
class Place:
    """An address that is subscribed to, and where what it lost can be had."""

    index: int
    address: Address
    topics: tuple[Topic, ...]
    replay: Address | None
    alone: bool = True
    """Does no other place have this replay endpoint?"""

    @property
    def text(self) -> str:
        """The address as the user wrote it."""
        return self.address.text


def is_ahead(counter: int, position: int) -> bool:
    """Is a counter beyond a position, the shorter way round?"""
    return 0 < (counter - position) % COUNTER_MODULUS < COUNTER_MODULUS // 2


def _is_all_gone(answer: RangeAnswer, notifier: int, target: int) -> bool:
    """Has all that was asked of a notifier left the journal? Then how much of the others did before that cannot be known from it."""
    return any(one.notifier == notifier and one.gone and one.first >= target for one in answer.notifiers)


class Mender:
    """The mending of one place that has a replay endpoint."""

    def __init__(self, place: Place, settings: SubscriberSettings, clock: Callable[[], float]) -> None:
        self._place = place
        self._settings = settings
        self._clock = clock
        self._feed: Feed
        self.epoch: bytes | None = None
        """The life that the positions are within, None while it is not known."""
        self.error: str | None = None
        """What went wrong last; None once it works again."""
        self.busy = 0
        """How many repairs are under way, one within the other."""
        self.next_look = clock() + settings.check_interval
        """When to call look()."""
        self.unproven = False
        """Is the next live message the first after a connection was made? Then prove() comes before it."""
        self._started_ms = 0
        self._ids: _Numbers = {}
        self._near: _Numbers = {}
        """A number of each notifier that is not far from its position, to make 64 bits of 32."""
        self._baseline: _Numbers = {}
        """Where topics of which nothing was handed out stood when first heard of."""
        self._trusted = False
        """Are live messages known to be of `epoch`?"""
        self._adrift: _Numbers | None = None
        """The positions when that ceased to be known."""
        self._resuming = False
        self._resumed: _Numbers = {}
        self._generation = 0
        """Of the live messages that come next."""
        self._owed_restart = False
        """Is it due to a new count, which was learned of otherwise, if the receiver tells of a restart?"""
        self._targets: _Numbers = {}
        """Numbers that must be reached without further messages, or something is missing."""
        self._targets_from: _Numbers = {}
        self._suspect: tuple[bytes, float] | None = None
        """A new life that was heard of without a new connection, and when."""
        self._guessed: dict[int, bool] = {}
        """Topics whose counters went back (true) or jumped (false) while the endpoint could not be asked: of a new life, it seems."""
        self._skipped_before = 0
        """Live messages of older connections are skipped."""
        self._unreachable = False
        self._told: set[int] = set()
        """The topics that the present repair told a gap of."""
        self._repaired = 0
        """Messages handed out that no Repaired told of yet."""

    # ---- before anything is received ----

    def resume(self, epoch: bytes | None, numbers: Mapping[int, int]) -> None:
        """Go on from a saved position."""
        self.epoch = epoch
        self._resumed = dict(numbers)
        self._near = dict(numbers)
        self._resuming = epoch is not None

    def open(self) -> Generator[Step, Any, _Numbers]:
        """Ask where the publisher stands; returns the counters to expect, by topic index. CursorError."""
        patience = Patience(self._clock, min(_OPENING, self._settings.repair_timeout), 0)
        hello = yield from self._hello(patience)
        if hello is not None:
            self._begin(hello)
        return {topic: number % COUNTER_MODULUS for topic, number in self._resumed.items()}

    def attach(self, feed: Feed) -> None:
        """What is received from now on."""
        self._feed = feed
        if self._resuming:
            self.next_look = self._clock()

    def _begin(self, hello: HelloAnswer) -> None:
        if self._resuming:
            self._check_resumed(hello)
            return
        table = self._table(hello.epochs[-1])
        if table is None:
            return
        if not self._resumed:  # the stream begins with what is published from now on
            self._take_life(hello.epochs[-1], table)
            self._resumed = {topic: info.next for topic, info in table.items()}

    def _check_resumed(self, hello: HelloAnswer) -> None:
        if self.epoch not in [life.epoch for life in hello.epochs]:
            raise CursorError(
                self._place.text,
                f"the publisher does not hold the life {(self.epoch or b'').hex()} (any more); what came after the cursor cannot be had. "
                "Begin without the cursor, from the publisher's present state",
            )

    # ---- what the receiver tells ----

    def connected(self, generation: int) -> Steps:
        """A connection was made."""
        self._generation = generation
        self._trusted = False
        yield from self._verify(_Why.CONNECTED)
        self.unproven = True

    def stale(self) -> Steps:
        """The socket was made anew after silence."""
        yield from self._verify(_Why.STALE)
        if self._trusted:
            yield from self._repair_to_targets()

    def restart(self, topic: int, expected: int, got: int) -> Steps:
        """A counter went back, and the feed set all positions to 0."""
        before = self._feed.delivered_before_restart(self._place.index)
        for one in self._place_indices():
            self._feed.set_delivered(self._place.index, one, before.get(one))
        if (yield from self._verify(_Why.RESTART)):
            position = self._positions().get(topic)
            known, self._owed_restart = self._owed_restart, False
            if position is not None and is_ahead(position, got) and not known and not self._is_skipping():
                yield from self._rewound(topic, expected, got)
            return
        yield Tell(Restart(self._place.text, _TOPICS[topic], expected, got))
        self._count_anew(self._place_indices())
        self._guessed = dict.fromkeys(self._place_indices(), True)

    def gap(self, topic: int, expected: int, got: int, cause: GapCause) -> Steps:
        """Messages are missing before the one with counter ``got``."""
        position = self._positions().get(topic, expected)
        if not is_ahead(got, position):
            return
        yield from self._mending(self._mend_gap(topic, position, got, cause))

    def prove(self, topic: int, counter: int) -> Generator[Step, Any, bool]:
        """The first message since a connection was made: what was published before it, of any topic, comes before it.

        Its own counter shows what is missing of its own topic only. The feed's position is before that message; false when it is
        not to be handed out after all.
        """
        yield from self._mending(self._mend_until(topic, counter))
        return self._positions().get(topic) == counter and not self._is_skipping()

    def look(self, idle: bool) -> Steps:
        """It is time to see whether something is missing that no later message shows. ``idle``: nothing received waits."""
        if self._targets and not idle:
            self.next_look = self._clock() + _GRACE
            return
        self.next_look = self._clock() + self._settings.check_interval
        if self._targets:
            if self._is_standing_still():
                yield from self._repair_to_targets()
            return
        yield from self._verify(_Why.LOOK)

    def is_in_doubt(self) -> bool:
        """Can it not be known whether something is missing?"""
        return self.error is not None or (self._adrift is not None and not self._trusted)

    def numbers(self) -> dict[int, int]:
        """By topic index the number of the next message, for a cursor: of life `epoch`, or of the wire where that is not known."""
        return {topic: self._number(topic) if self.epoch is not None else counter for topic, counter in self._positions().items()}

    # ---- which life is it? ----

    def _verify(self, why: _Why) -> Generator[Step, Any, bool]:
        """Ask for the present life, and enter it if it is new. False: the endpoint cannot be asked."""
        self.busy += 1
        try:
            hello = yield from self._hello(self._patience())
            table = None if hello is None else self._table(hello.epochs[-1])
            if hello is None or table is None:
                self._lose_trust()
                return False
            return (yield from self._settle(hello, table, why))
        finally:
            self.busy -= 1

    def _patience(self) -> Patience:
        """Where the last question was given up, one attempt is enough to see whether things are better: the stream waits for it."""
        timeout, retries = self._settings.repair_timeout, self._settings.repair_retries
        return Patience(self._clock, timeout / (retries + 1), 0) if self._unreachable else Patience(self._clock, timeout, retries)

    def _settle(self, hello: HelloAnswer, table: dict[int, NotifierInfo], why: _Why) -> Generator[Step, Any, bool]:
        life = hello.epochs[-1]
        if self.epoch is None:
            yield from self._first_life(life, table)
        elif life.epoch == self.epoch:
            yield from self._same_life(life, table)
        elif why is _Why.LOOK and not self._confirmed(life.epoch):
            return True
        else:
            yield from self._new_life(hello, why)
        self._trusted = True
        self._adrift = self._suspect = None
        self._guessed.clear()
        self._resuming = False
        self._set_targets(table)
        if why is _Why.LOOK and not self._targets:
            self.unproven = False  # all that was published before that question was handed out
        if why is _Why.CONNECTED and not self._targets:
            self.next_look = min(self.next_look, self._clock() + _SOON)
        return True

    def _first_life(self, life: EpochInfo, table: dict[int, NotifierInfo]) -> Steps:
        """The positions are those of live messages; where they are beyond the present life, that is newer than they are."""
        positions = self._positions()
        self._take_life(life, table)
        if any(topic in table and self._number(topic) > table[topic].next for topic in positions):
            self._count_anew(list(table))
            yield Tell(Restart(self._place.text, epoch=life.epoch))
        self._baseline = {topic: info.next for topic, info in table.items() if topic not in positions}

    def _same_life(self, life: EpochInfo, table: dict[int, NotifierInfo]) -> Steps:
        for topic, info in table.items():
            known = self._ids.get(topic)
            if self._guessed.get(topic):
                yield from self._end_of_guess(topic, info)
            elif known is not None and known != info.id:
                yield from self._changed_notifier(topic, info, life)
            elif topic in self._positions() and self._number(topic) > info.next:
                yield from self._went_back(topic, info)
        kept = {topic: near for topic, near in self._near.items() if topic in self._positions()}
        self._take_life(life, table)
        self._baseline.update({topic: info.next for topic, info in table.items() if topic not in kept and topic not in self._baseline})

    def _end_of_guess(self, topic: int, info: NotifierInfo) -> Steps:
        """It went on within the same life after all: what was missed meanwhile has no name."""
        if self._positions().get(topic) == 0 and info.next:
            former = 0 if self._adrift is None else self._adrift.get(topic, 0)
            yield Tell(self._lost(topic, former, None, "counters went back while the replay endpoint did not answer"))
            self._feed.set_delivered(self._place.index, topic, info.next % COUNTER_MODULUS)

    def _changed_notifier(self, topic: int, info: NotifierInfo, life: EpochInfo) -> Steps:
        """A notifier was removed and added again: its counter began anew within the same life."""
        former = next((one for one in life.notifiers if one.id == self._ids[topic]), None)
        position = self._positions().get(topic)
        if position is not None and former is None:
            yield from self._lose_rest(topic, position, "the notifier was removed, and what it sent last is not held")
        elif former is not None:
            yield from self._rest_of(life, {topic: former})
        self._count_anew([topic])
        self._ids[topic] = info.id
        yield Tell(Restart(self._place.text, _TOPICS[topic], position, 0, self.epoch, self.epoch))

    def _new_life(self, hello: HelloAnswer, why: _Why) -> Steps:
        """What is left of the life that ended, then all of those that came after it; the present one up to where it is held."""
        self._skip_untrusted(why)
        positions = self._positions()
        ended = next((life for life in hello.epochs if life.epoch == self.epoch), None)
        if ended is None and self._resuming:
            self._check_resumed(hello)
        if self._guessed or ended is None:
            for topic, counter in (positions if self._adrift is None else {**positions, **self._adrift}).items():
                yield from self._lose_rest(topic, counter, "the publisher began anew and does not hold what it sent last before")
        else:
            yield from self._rest_of(ended, self._table(ended) or {})
        for life in self._later_lives(hello):
            table = self._table(life) or {}
            previous = self.epoch
            self._take_life(life, table)
            self._count_anew(self._place_indices())
            yield Tell(Restart(self._place.text, epoch=life.epoch, previous_epoch=previous))
            if life.current:
                yield from self._keep_guessed(positions)
            if not life.current:
                yield from self._rest_of(life, table)

    def _keep_guessed(self, positions: Mapping[int, int]) -> Steps:
        """What was handed out in the belief that it is of a new life is not handed out again."""
        for topic, went_back in self._guessed.items():
            if topic in positions:
                self._feed.set_delivered(self._place.index, topic, positions[topic])
                if not went_back:
                    yield Tell(self._lost(topic, 0, positions[topic], "the publisher began anew while the replay endpoint did not answer"))

    def _later_lives(self, hello: HelloAnswer) -> list[EpochInfo]:
        names = [life.epoch for life in hello.epochs]
        if self.epoch in names:
            return list(hello.epochs[names.index(self.epoch) + 1 :])
        later = [life for life in hello.epochs[:-1] if self._started_ms and life.started_ms > self._started_ms]
        return [*later, hello.epochs[-1]]

    def _rest_of(self, life: EpochInfo, table: dict[int, NotifierInfo]) -> Steps:
        """Hand out what is left of a life, or of one of its notifiers, that ended."""
        ids = {topic: info.id for topic, info in table.items()}
        targets = {topic: info.next for topic, info in table.items()}
        self._near.update(targets)
        yield from self._mending(self._mend_to(life.epoch, ids, targets))

    def _skip_untrusted(self, why: _Why) -> None:
        """Live messages whose life cannot be known are left to the replay endpoint."""
        index = self._place.index
        present = self._feed.generation(index)
        if why is _Why.STALE and present == self._generation:
            trusted = present + 1
        else:
            trusted = present if self._feed.connected(index) else present + 1
        if trusted > self._generation:
            self._feed.skip_before(index, trusted)
            self._skipped_before = trusted

    def _is_skipping(self) -> bool:
        return self._skipped_before > self._generation

    def _confirmed(self, epoch: bytes) -> bool:
        """A new life without a new connection: the connection is given time to break. Behind a proxy it never does."""
        now = self._clock()
        if self._suspect is None or self._suspect[0] != epoch:
            self._suspect = (epoch, now)
        if now - self._suspect[1] >= _SOON:
            return True
        self.next_look = min(self.next_look, self._suspect[1] + _SOON)
        return False

    def _rewound(self, topic: int, expected: int, got: int) -> Steps:
        """Counters went back, and the endpoint knows of no new life: what it knew of it, it lost."""
        positions = self._positions()
        for one, counter in positions.items():
            yield from self._lose_rest(one, counter, _WENT_BACK)
        for one in positions:
            self._feed.set_delivered(self._place.index, one, got if one == topic else None)
        yield Tell(Restart(self._place.text, _TOPICS[topic], expected, got, self.epoch, self.epoch))

    def _went_back(self, topic: int, info: NotifierInfo) -> Steps:
        counter, following = self._positions()[topic], info.next % COUNTER_MODULUS
        yield from self._lose_rest(topic, counter, _WENT_BACK)
        self._feed.set_delivered(self._place.index, topic, following)
        self._near[topic] = info.next
        self._owed_restart = True
        yield Tell(Restart(self._place.text, _TOPICS[topic], counter, following, self.epoch, self.epoch))

    def _take_life(self, life: EpochInfo, table: dict[int, NotifierInfo]) -> None:
        self.epoch = life.epoch
        self._started_ms = life.started_ms
        self._ids = {topic: info.id for topic, info in table.items()}
        self._near = {topic: info.next for topic, info in table.items()}

    def _count_anew(self, topics: list[int]) -> None:
        for topic in topics:
            self._feed.set_delivered(self._place.index, topic, 0)
            self._near[topic] = 0
            self._owed_restart = True
            self._baseline.pop(topic, None)

    def _lose_trust(self) -> None:
        if self._adrift is None:
            self._adrift = self._positions()
        self._trusted = False
        self._targets = {}
        self.next_look = min(self.next_look, self._clock() + max(_SOON, self._settings.check_interval / 10))

    # ---- what is missing ----

    def _mend_gap(self, topic: int, position: int, got: int, cause: GapCause) -> Steps:
        yield self._tell_gap(topic, position, got, cause)
        yield from self._mend_until(topic, got)
        position = self._positions().get(topic, got)
        if is_ahead(got, position) and not self._is_skipping():
            self._feed.set_delivered(self._place.index, topic, got)
            if not self._trusted:
                self._guessed.setdefault(topic, False)
            yield Tell(self._lost(topic, position, got, self.error or _NOT_HELD))

    def _mend_until(self, topic: int, got: int) -> Steps:
        """All that precedes a message, which was received."""
        self.unproven = False
        for _attempt in range(2):
            if not self._trusted and not (yield from self._verify(_Why.GAP)):
                return
            position = self._positions().get(topic, got)
            if self._is_skipping() or is_ahead(position, got):
                return
            outcome = yield from self._fetch_until(topic, position, got)
            if outcome in (_Outcome.DONE, _Outcome.GIVEN_UP) or not self._is_present():
                return
            self._trusted = False  # another life, perhaps

    def _is_present(self) -> bool:
        """Is there no newer connection, whose turn to be looked into is yet to come?"""
        index = self._place.index
        return self._feed.generation(index) == self._generation and self._feed.connected(index)

    def _fetch_until(self, topic: int, position: int, got: int) -> Generator[Step, Any, _Outcome]:
        if self.epoch is None or topic not in self._ids:
            return _Outcome.NOT_HELD
        until = self._number(topic) + (got - position) % COUNTER_MODULUS
        return (yield from self._fetch(self.epoch, self._ids, {topic: until}, topic))

    def _set_targets(self, table: dict[int, NotifierInfo]) -> None:
        """Remember what must arrive by itself, as it was published, or is missing."""
        self._targets = self._missing({topic: info.next for topic, info in table.items()}, ends=True)
        self._targets_from = self._positions()
        if self._targets:
            self.next_look = self._clock() + _GRACE

    def _is_standing_still(self) -> bool:
        """Does a topic that should have moved on not do so? If all do, a later message shows what is missing, or the next look."""
        self._targets = self._missing(self._targets, ends=True)
        before, self._targets_from = self._targets_from, self._positions()
        if any(self._targets_from.get(topic) == before.get(topic) for topic in self._targets):
            return True
        if self._targets:
            self.next_look = self._clock() + _GRACE
        return False

    def _repair_to_targets(self) -> Steps:
        targets, self._targets = self._targets, {}
        if self._trusted and self.epoch is not None and targets:
            yield from self._mending(self._mend_to(self.epoch, self._ids, targets))

    def _mend_to(self, epoch: bytes, ids: _Numbers, targets: _Numbers) -> Steps:
        """Up to numbers that were announced; what cannot be had is lost."""
        missing = self._missing(targets)
        if not missing:
            return
        for topic, start in missing.items():
            yield self._tell_gap(topic, start, targets[topic])
        yield from self._fetch(epoch, ids, targets, None)
        for topic, start in self._missing(targets).items():
            yield from self._pass_over(topic, start, targets[topic], self.error or _NOT_HELD)

    def _missing(self, targets: _Numbers, ends: bool = False) -> _Numbers:
        """The topics that have not reached their target, with where they are, or with the target."""
        starts = {topic: self._start(topic) for topic in targets}
        return {topic: targets[topic] if ends else start for topic, start in starts.items() if start is not None and start < targets[topic]}

    def _fetch(self, epoch: bytes, ids: _Numbers, targets: _Numbers, until: int | None) -> Generator[Step, Any, _Outcome]:
        """Hand out the messages of ``ids`` until ``targets`` are reached; ``until``: the topic whose target nothing may pass."""
        patience = Patience(self._clock, self._settings.repair_timeout, self._settings.repair_retries)
        topics = {number: topic for topic, number in ids.items()}
        while True:
            starts = {topic: start for topic in ids if (start := self._start(topic)) is not None}
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
                return _Outcome.NOT_HELD
            except UntrueError as error:
                self.error = str(error)
                again = patience.pause()
                if again is None:
                    return _Outcome.GIVEN_UP
                yield Pause(again)
                continue
            self.error = None
            patience.renew()
            if until is not None and _is_all_gone(answer, ids[until], targets[until]):
                self.error = _LEFT
                return _Outcome.GIVEN_UP
            yield from self._hand_out(answer, reply.batch, starts, topics)
            reached = not self._missing(targets)
            # Before the message that showed a gap, the other topics have some that come after the last of its own.
            if not answer.more or (reached and until is None):
                return _Outcome.DONE if reached else _Outcome.SHORT

    def _hand_out(self, answer: RangeAnswer, batch: Entries | None, starts: _Numbers, topics: _Numbers) -> Steps:
        for one in answer.notifiers:
            topic = topics[one.notifier]
            if one.next > starts[topic] and topic not in self._told:
                yield self._tell_gap(topic, starts[topic], one.next)
            if one.first > starts[topic]:
                yield from self._pass_over(topic, starts[topic], one.first, _LEFT)
        if answer.messages and batch is not None:
            self._repaired += answer.messages
            yield HandOut(batch)
        for one in answer.notifiers:
            topic = topics[one.notifier]
            self._near[topic] = one.next
            if one.next > one.first:
                self._feed.set_delivered(self._place.index, topic, one.next % COUNTER_MODULUS)

    def _pass_over(self, topic: int, start: int, first: int, reason: str) -> Steps:
        self._feed.set_delivered(self._place.index, topic, first % COUNTER_MODULUS)
        self._near[topic] = first
        yield Tell(self._lost(topic, start % COUNTER_MODULUS, first % COUNTER_MODULUS, reason))

    def _lose_rest(self, topic: int, position: int, reason: str) -> Steps:
        yield Tell(self._lost(topic, position, None, reason))

    def _tell_gap(self, topic: int, first: int, until: int, cause: GapCause = "network") -> Tell:
        self._told.add(topic)
        return Tell(CounterGap(self._place.text, _TOPICS[topic], first % COUNTER_MODULUS, until % COUNTER_MODULUS, cause))

    def _lost(self, topic: int, first: int, until: int | None, reason: str) -> Lost:
        return Lost(self._place.text, _TOPICS[topic], first, until, reason)

    def _mending(self, steps: Steps) -> Steps:
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

    # ---- small things ----

    def _hello(self, patience: Patience) -> Generator[Step, Any, HelloAnswer | None]:
        while True:
            reply = yield Ask(self._place.index, HelloRequest(), patience.attempt())
            try:
                hello = check_hello(reply)
            except UntrueError as error:
                self.error = str(error)
                again = patience.pause()
                if again is None:
                    self._unreachable = True
                    return None
                yield Pause(again)
                continue
            self.error = None
            self._unreachable = False
            return hello

    def _table(self, life: EpochInfo) -> dict[int, NotifierInfo] | None:
        """The notifiers of our address and topics in a life; None, with `error`, where there are none."""
        called = (self._settings.publisher_addresses or {}).get(self._place.text)
        try:
            table = match_notifiers(life.notifiers, self._place.topics, self._place.address, called, self._place.alone)
        except AmbiguousError as error:
            self.error = str(error)
            return None
        if not table:
            self.error = f"the replay endpoint knows nothing of the topics subscribed to at {called or self._place.address.endpoint}"
        return table or None

    def _place_indices(self) -> list[int]:
        return [_TOPICS.index(topic) for topic in self._place.topics]

    def _positions(self) -> _Numbers:
        return self._feed.delivered(self._place.index)

    def _number(self, topic: int) -> int:
        counter = self._positions()[topic]
        return number_near(counter, self._near.get(topic, counter))

    def _start(self, topic: int) -> int | None:
        """The number of the first message that is missing or yet to come; None where the stream of the topic has not begun."""
        if topic in self._positions():
            return self._number(topic)
        return self._baseline.get(topic)
