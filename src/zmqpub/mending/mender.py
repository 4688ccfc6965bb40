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

from zmqpub.errors import CursorError
from zmqpub.mending.fetching import Fetching, Outcome
from zmqpub.mending.lives import Table, ids_of, later_lives, nexts_of
from zmqpub.mending.notifier_match import AmbiguousError, match_notifiers
from zmqpub.mending.positions import Numbers, Place, Positions, is_ahead
from zmqpub.mending.steps import Feed, Step, Steps, Tell
from zmqpub.replay.protocol import EpochInfo, HelloAnswer, NotifierInfo
from zmqpub.stream_events import GapCause, Restart
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["Mender"]

_TOPICS: Final = tuple(Topic)

_GRACE: Final = 0.25
"""Seconds that what was published gets to arrive before it counts as missing without a later message to show it."""
_SOON: Final = 1.0
"""Seconds after a connection was made when it is asked once more: a subscription takes effect a little after its connection."""

_BEGAN_ANEW: Final = "the publisher began anew and does not hold what it sent last before"
_REMOVED: Final = "the notifier was removed, and what it sent last is not held"
_UNHEARD: Final = "the publisher began anew while the replay endpoint did not answer"
_WENT_BACK: Final = "counters went back within one life of the publisher: it lost what it had sent"
_WENT_BACK_UNHEARD: Final = "counters went back while the replay endpoint did not answer"


class _Why(enum.Enum):
    """What made us ask for the present state of the publisher."""

    CONNECTED = 1
    STALE = 2
    RESTART = 3
    GAP = 4
    LOOK = 5


@dataclass(frozen=True, slots=True)
class _Guess:
    """What was handed out of a topic while the endpoint could not be asked is of a new life, it seems."""

    went_back: bool
    """Its counter went back to the beginning: what it counts since is known from there on. Else it jumped."""
    generation: int
    """The connection that brought it."""


class Mender:
    """The mending of one place that has a replay endpoint."""

    def __init__(self, place: Place, settings: SubscriberSettings, clock: Callable[[], float]) -> None:
        self._place = place
        self._settings = settings
        self._clock = clock
        self._feed: Feed
        self._positions = Positions(place)
        self._fetching = Fetching(place, self._positions, settings, clock)
        self.epoch: bytes | None = None
        """The life that the positions are within, None while it is not known."""
        self.next_look = clock() + settings.check_interval
        """When to call look()."""
        self.unproven = False
        """Is the next live message the first after a connection was made? Then prove() comes before it."""
        self._started_ms = 0
        self._ids: Numbers = {}
        self._trusted = False
        """Are live messages known to be of `epoch`?"""
        self._adrift: Numbers | None = None
        """The positions when that ceased to be known."""
        self._guessed: dict[int, _Guess] = {}
        """Topics whose messages since seem to be of a new life."""
        self._at_connection: Numbers = {}
        """The positions when the present connection's messages began."""
        self._resuming = False
        self._expected: Numbers = {}
        """Where the stream begins."""
        self._generation = 0
        """Of the live messages that come next."""
        self._skipped_before = 0
        """Live messages of older connections are skipped."""
        self._owed_restart = False
        """Is it due to a new count, which was learned of otherwise, if the receiver tells of a restart?"""
        self._targets: Numbers = {}
        """Numbers that must be reached without further messages, or something is missing."""
        self._targets_from: Numbers = {}
        """The positions when they were set."""
        self._suspect: tuple[bytes, float] | None = None
        """A new life that was heard of without a new connection, and when."""

    @property
    def busy(self) -> bool:
        """Is something being asked for that the stream waits for?"""
        return self._fetching.busy > 0 and not self._fetching.given_up

    @property
    def error(self) -> str | None:
        """What went wrong last; None once it works again."""
        return self._fetching.error

    def is_in_doubt(self) -> bool:
        """Can it not be known whether something is missing?"""
        return self.error is not None or (self._adrift is not None and not self._trusted)

    def numbers(self) -> Numbers:
        """By topic index the number of the next message, for a cursor: of life `epoch`, or of the wire where that is not known."""
        return self._positions.counters() if self.epoch is None else self._positions.numbers()

    # ---- before anything is received ----

    def resume(self, epoch: bytes | None, numbers: Mapping[int, int]) -> None:
        """Go on from a saved position."""
        self.epoch = epoch
        self._expected = dict(numbers)
        self._positions.know(numbers)
        self._resuming = epoch is not None

    def open(self) -> Generator[Step, Any, Numbers]:
        """Ask where the publisher stands; returns the counters to expect, by topic index. CursorError."""
        hello = yield from self._fetching.opening_hello()
        if hello is not None and self._resuming:
            self._check_resumed(hello)
        elif hello is not None and not self._expected:
            self._begin_with(hello.epochs[-1])
        return {topic: number % COUNTER_MODULUS for topic, number in self._expected.items()}

    def attach(self, feed: Feed) -> None:
        """What is received from now on."""
        self._feed = self._positions.feed = feed
        if self._resuming:
            self.next_look = self._clock()

    def _begin_with(self, life: EpochInfo) -> None:
        """The stream begins with what is published from now on."""
        table = self._table(life)
        if table is not None:
            self._take_life(life, table)
            self._expected = nexts_of(table)

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
        self._at_connection = self._positions.counters()
        self.unproven = True

    def stale(self) -> Steps:
        """The socket was made anew after silence."""
        if (yield from self._verify(_Why.STALE)):
            yield from self._repair_to_targets()

    def restart(self, topic: int, expected: int, got: int) -> Steps:
        """A counter went back, and the feed set all positions to 0."""
        self._positions.restore_before_restart(self._place.topic_indices)
        if (yield from self._verify(_Why.RESTART)):
            position = self._positions.counter(topic)
            known, self._owed_restart = self._owed_restart, False
            if position is not None and is_ahead(position, got) and not known and not self._is_skipping():
                yield from self._rewound(topic, expected, got)
            return
        yield Tell(Restart(self._place.text, _TOPICS[topic], expected, got))
        self._positions.count_anew(self._place.topic_indices)
        self._guessed = dict.fromkeys(self._place.topic_indices, _Guess(True, self._generation))

    def gap(self, topic: int, expected: int, got: int, cause: GapCause) -> Steps:
        """Messages are missing before the one with counter ``got``."""
        position = self._position(topic, expected)
        if is_ahead(got, position):
            yield from self._fetching.repair(self._mend_gap(topic, position, got, cause))

    def prove(self, topic: int, counter: int) -> Generator[Step, Any, bool]:
        """The first message since a connection was made: what was published before it, of any topic, comes before it.

        Its own counter shows what is missing of its own topic only. The feed's position is before that message; false when it is
        not to be handed out after all.
        """
        yield from self._fetching.repair(self._mend_until(topic, counter))
        return self._positions.counter(topic) == counter and not self._is_skipping()

    def look(self, idle: bool) -> Steps:
        """It is time to see whether something is missing that no later message shows. ``idle``: nothing received waits."""
        if self._targets and not idle:
            self.next_look = self._clock() + _GRACE
            return
        self.next_look = self._clock() + self._settings.check_interval
        if not self._targets:
            yield from self._verify(_Why.LOOK)
        elif self._is_standing_still():
            yield from self._repair_to_targets()

    # ---- what is missing ----

    def _mend_gap(self, topic: int, position: int, got: int, cause: GapCause) -> Steps:
        yield self._fetching.tell_gap(topic, position, got, cause)
        yield from self._mend_until(topic, got)
        position = self._position(topic, got)
        if is_ahead(got, position) and not self._is_skipping():
            self._positions.set_counter(topic, got)
            if not self._trusted:
                self._guessed.setdefault(topic, _Guess(False, self._generation))
            yield self._fetching.lose(topic, position, got)

    def _mend_until(self, topic: int, got: int) -> Steps:
        """All that precedes a message, which was received."""
        self.unproven = False
        for _attempt in range(2):
            if not self._trusted and not (yield from self._verify(_Why.GAP)):
                return
            position = self._position(topic, got)
            if self._is_skipping() or is_ahead(position, got):
                return
            outcome = yield from self._fetch_until(topic, position, got)
            if outcome in (Outcome.DONE, Outcome.GIVEN_UP) or not self._is_present():
                return
            self._trusted = False  # another life, perhaps

    def _fetch_until(self, topic: int, position: int, got: int) -> Generator[Step, Any, Outcome]:
        if self.epoch is None or topic not in self._ids or self._positions.counter(topic) is None:
            return Outcome.NOT_HELD
        number = self._positions.number(topic) + (got - position) % COUNTER_MODULUS
        return (yield from self._fetching.fetch_until(self.epoch, self._ids, topic, number))

    def _set_targets(self, table: Table) -> None:
        """Remember what must arrive by itself, as it was published, or is missing."""
        nexts = nexts_of(table)
        self._targets = {topic: nexts[topic] for topic in self._positions.missing(nexts)}
        self._targets_from = self._positions.counters()
        if self._targets:
            self.next_look = self._clock() + _GRACE

    def _is_standing_still(self) -> bool:
        """Does a topic that should have moved on not do so? If all do, a later message shows what is missing, or the next look."""
        self._targets = {topic: self._targets[topic] for topic in self._positions.missing(self._targets)}
        before, self._targets_from = self._targets_from, self._positions.counters()
        if any(self._targets_from.get(topic) == before.get(topic) for topic in self._targets):
            return True
        if self._targets:
            self.next_look = self._clock() + _GRACE
        return False

    def _repair_to_targets(self) -> Steps:
        targets, self._targets = self._targets, {}
        if self._trusted and self.epoch is not None:
            yield from self._fetching.repair_to(self.epoch, self._ids, targets)

    # ---- which life is it? ----

    def _verify(self, why: _Why) -> Generator[Step, Any, bool]:
        """Ask for the present life, and enter it if it is new. False: it cannot be known."""
        if why in (_Why.LOOK, _Why.STALE):
            hello = yield from self._fetching.probing_hello()
        else:
            hello = yield from self._fetching.hello(hopeful=why is _Why.CONNECTED)
        table = None if hello is None else self._table(hello.epochs[-1])
        if hello is None or table is None:
            self._lose_trust(why)
            return False
        return (yield from self._settle(hello, table, why))

    def _settle(self, hello: HelloAnswer, table: Table, why: _Why) -> Generator[Step, Any, bool]:
        life = hello.epochs[-1]
        if self.epoch is None:
            yield from self._first_life(life, table)
        elif life.epoch == self.epoch:
            yield from self._same_life(life, table)
        elif why is _Why.LOOK and not self._confirmed(life.epoch):
            return self._trusted
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

    def _lose_trust(self, why: _Why) -> None:
        if why not in (_Why.LOOK, _Why.STALE):  # a connection is of one life for as long as it stands
            self._trusted = False
        if not self._trusted and self._adrift is None:
            self._adrift = self._positions.counters()
        self._targets = {}
        self.next_look = min(self.next_look, self._clock() + max(_SOON, self._fetching.retry_in))

    def _first_life(self, life: EpochInfo, table: Table) -> Steps:
        """The positions are those of live messages; where they are beyond the present life, that is newer than they are."""
        self._take_life(life, table)
        if any(topic in table and number > table[topic].next for topic, number in self._positions.numbers().items()):
            self._count_anew(list(table))
            yield Tell(Restart(self._place.text, epoch=life.epoch))
        self._positions.begin_at(nexts_of(table))

    def _same_life(self, life: EpochInfo, table: Table) -> Steps:
        numbers = self._positions.numbers()
        for topic, info in table.items():
            guess = self._guessed.get(topic)
            if guess is not None and guess.went_back:
                yield from self._end_of_guess(topic, info)
            elif self._ids.get(topic, info.id) != info.id:
                yield from self._changed_notifier(topic, info, life)
            elif numbers.get(topic, 0) > info.next:
                yield from self._went_back(topic, info)
        self._take_life(life, table)
        self._positions.begin_at(nexts_of(table))

    def _new_life(self, hello: HelloAnswer, why: _Why) -> Steps:
        """What is left of the life that ended, then all of those that came after it; the present one up to where it is held."""
        self._skip_untrusted(why)
        positions = self._positions.counters()
        ended = next((life for life in hello.epochs if life.epoch == self.epoch), None)
        if ended is None and self._resuming:
            self._check_resumed(hello)
        later = later_lives(hello, self.epoch, self._started_ms)
        self._guess_by_positions(ended)
        if ended is None or self._guessed:
            for topic, counter in {**positions, **(self._adrift or {})}.items():
                yield self._fetching.lose(topic, counter, None, _BEGAN_ANEW)
        else:
            yield from self._rest_of(ended, self._table(ended) or {})
        if self._guessed:  # what of the lives between was handed out cannot be known
            yield from self._enter(later[-1])
            nexts = nexts_of(self._table(later[-1]) or {})
            yield from self._keep_guessed(positions, nexts, certain=ended is not None and len(later) == 1)
            return
        for life in later:
            yield from self._enter(life)
            if not life.current:
                yield from self._rest_of(life, self._table(life) or {})

    def _enter(self, life: EpochInfo) -> Steps:
        """A life that follows."""
        previous = self.epoch
        self._take_life(life, self._table(life) or {})
        self._count_anew(self._place.topic_indices)
        yield Tell(Restart(self._place.text, epoch=life.epoch, previous_epoch=previous))

    def _guess_by_positions(self, ended: EpochInfo | None) -> None:
        """A topic that went on while the endpoint could not be asked may have done so in a new life, whose counter happened to fit."""
        if self._adrift is None:
            return
        table = {} if ended is None else self._table(ended) or {}
        for topic, number in self._positions.numbers().items():
            counter = number % COUNTER_MODULUS
            moved = self._adrift.get(topic) != counter
            if moved and (topic not in table or number > table[topic].next):
                here = self._at_connection.get(topic) != counter
                self._guessed.setdefault(topic, _Guess(False, self._generation if here else -1))

    def _keep_guessed(self, positions: Numbers, nexts: Numbers, certain: bool) -> Steps:
        """What was handed out in the belief that it is of a new life is not handed out again.

        ``certain``: there is one new life only. Else what an earlier connection brought may be of another than the present one.
        """
        for topic, guess in self._guessed.items():
            if topic not in positions or topic not in nexts:
                continue
            if not certain and (guess.generation != self._generation or not self._is_present()):
                yield self._fetching.lose(topic, 0, nexts[topic] % COUNTER_MODULUS, _UNHEARD)
                self._positions.set(topic, nexts[topic])
                continue
            self._positions.set_counter(topic, positions[topic])
            if not guess.went_back:
                yield self._fetching.lose(topic, 0, positions[topic], _UNHEARD)

    def _rest_of(self, life: EpochInfo, table: Table) -> Steps:
        """Hand out what is left of a life that ended."""
        for topic, counter in self._positions.counters().items():
            if topic not in table and counter:
                yield self._fetching.lose(topic, counter, None, _BEGAN_ANEW)
        yield from self._rest_of_notifiers(life, table)

    def _rest_of_notifiers(self, life: EpochInfo, table: Table) -> Steps:
        self._positions.know(nexts_of(table))
        yield from self._fetching.repair_to(life.epoch, ids_of(table), nexts_of(table))

    def _changed_notifier(self, topic: int, info: NotifierInfo, life: EpochInfo) -> Steps:
        """A notifier was removed and added again: its counter began anew within the same life."""
        former = next((one for one in life.notifiers if one.id == self._ids[topic]), None)
        position = self._positions.counter(topic)
        if former is not None:
            yield from self._rest_of_notifiers(life, {topic: former})
        elif position is not None:
            yield self._fetching.lose(topic, position, None, _REMOVED)
        self._count_anew([topic])
        self._ids[topic] = info.id
        yield Tell(Restart(self._place.text, _TOPICS[topic], position, 0, self.epoch, self.epoch))

    def _end_of_guess(self, topic: int, info: NotifierInfo) -> Steps:
        """It went on within the same life after all: what was missed meanwhile has no name."""
        if self._positions.counter(topic) == 0 and info.next:
            yield self._fetching.lose(topic, (self._adrift or {}).get(topic, 0), None, _WENT_BACK_UNHEARD)
            self._positions.set(topic, info.next)

    def _rewound(self, topic: int, expected: int, got: int) -> Steps:
        """Counters went back, and the endpoint knows of no new life: what it knew of it, it lost."""
        for one, counter in self._positions.counters().items():
            yield self._fetching.lose(one, counter, None, _WENT_BACK)
            self._positions.set_counter(one, got if one == topic else None)
        yield Tell(Restart(self._place.text, _TOPICS[topic], expected, got, self.epoch, self.epoch))

    def _went_back(self, topic: int, info: NotifierInfo) -> Steps:
        counter = self._position(topic, 0)
        yield self._fetching.lose(topic, counter, None, _WENT_BACK)
        self._positions.set(topic, info.next)
        self._owed_restart = True
        yield Tell(Restart(self._place.text, _TOPICS[topic], counter, info.next % COUNTER_MODULUS, self.epoch, self.epoch))

    def _take_life(self, life: EpochInfo, table: Table) -> None:
        self.epoch = life.epoch
        self._started_ms = life.started_ms
        self._ids = ids_of(table)
        self._positions.know(nexts_of(table))

    def _count_anew(self, topics: list[int]) -> None:
        self._positions.count_anew(topics)
        self._owed_restart = True

    # ---- which connection is it? ----

    def _is_present(self) -> bool:
        """Is there no newer connection, whose turn to be looked into is yet to come?"""
        index = self._place.index
        return self._feed.generation(index) == self._generation and self._feed.connected(index)

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

    # ---- small things ----

    def _position(self, topic: int, otherwise: int) -> int:
        position = self._positions.counter(topic)
        return otherwise if position is None else position

    def _table(self, life: EpochInfo) -> Table | None:
        """The notifiers of our address and topics in a life; None, with `error`, where there are none."""
        called = (self._settings.publisher_addresses or {}).get(self._place.text)
        try:
            table = match_notifiers(life.notifiers, self._place.topics, self._place.address, called, self._place.alone)
        except AmbiguousError as error:
            self._fetching.error = str(error)
            return None
        if not table:
            where = called or self._place.address.endpoint
            self._fetching.error = f"the replay endpoint knows nothing of the topics subscribed to at {where}"
        return table or None
