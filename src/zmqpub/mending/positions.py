"""How far one address has come, topic by topic: a receiver's 32-bit counters, as 64-bit numbers of a publisher's life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from zmqpub.addresses import Address
from zmqpub.mending.steps import Feed
from zmqpub.replay.protocol import number_near
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["Numbers", "Place", "Positions", "is_ahead"]

_TOPICS: Final = tuple(Topic)

Numbers: TypeAlias = "dict[int, int]"
"""By topic index."""


def is_ahead(counter: int, position: int) -> bool:
    """Is a counter beyond a position, the shorter way round?"""
    return 0 < (counter - position) % COUNTER_MODULUS < COUNTER_MODULUS // 2


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

    @property
    def topic_indices(self) -> list[int]:
        return [_TOPICS.index(topic) for topic in self.topics]


class Positions:
    """The next message of each topic. A topic of which nothing was handed out has none."""

    def __init__(self, place: Place) -> None:
        self._source = place.index
        self.feed: Feed
        self._near: Numbers = {}
        """A number of each topic that is not far from its position, to make 64 bits of 32."""
        self._baseline: Numbers = {}
        """Where topics without a position stood when first heard of."""

    def counters(self) -> Numbers:
        """As on the wire."""
        return self.feed.delivered(self._source)

    def counter(self, topic: int) -> int | None:
        return self.counters().get(topic)

    def numbers(self) -> Numbers:
        return {topic: self._numbered(topic, counter) for topic, counter in self.counters().items()}

    def number(self, topic: int) -> int:
        """KeyError for a topic without a position."""
        return self._numbered(topic, self.counters()[topic])

    def start(self, topic: int) -> int | None:
        """The number from which on its messages are missing or yet to come; None where nothing is known of it."""
        counter = self.counter(topic)
        return self._baseline.get(topic) if counter is None else self._numbered(topic, counter)

    def missing(self, targets: Mapping[int, int]) -> Numbers:
        """The topics that have not reached their target, with where they are."""
        starts = {topic: self.start(topic) for topic in targets}
        return {topic: start for topic, start in starts.items() if start is not None and start < targets[topic]}

    def set(self, topic: int, number: int) -> None:
        """Handed out, or lost, up to there."""
        self._near[topic] = number
        self.set_counter(topic, number % COUNTER_MODULUS)

    def set_counter(self, topic: int, counter: int | None) -> None:
        """The same where only the wire's counter is known; None: the next message is taken as it comes."""
        self.feed.set_delivered(self._source, topic, counter)

    def restore_before_restart(self, topics: Iterable[int]) -> None:
        """Undo what the feed did when it told of a restart."""
        before = self.feed.delivered_before_restart(self._source)
        for topic in topics:
            self.set_counter(topic, before.get(topic))

    def count_anew(self, topics: Iterable[int]) -> None:
        """A new count, from 0."""
        for topic in topics:
            self.set(topic, 0)
            self._baseline.pop(topic, None)

    def know(self, nexts: Mapping[int, int]) -> None:
        """Where the publisher is with some topics: all positions are within 2**31 messages of that."""
        self._near.update(nexts)

    def begin_at(self, nexts: Mapping[int, int]) -> None:
        """Topics without a position: their messages are missed from there on."""
        known = self.counters()
        for topic, number in nexts.items():
            if topic not in known:
                self._baseline.setdefault(topic, number)

    def _numbered(self, topic: int, counter: int) -> int:
        return number_near(counter, self._near.get(topic, counter))
