"""What a listener knows of each notifier: counts, gaps, restarts. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zmqpub._fast import Block, Transaction
from zmqpub.errors import DecodeError
from zmqpub.wire import CounterStep, Notification, Topic, compare_counters, decode

__all__ = ["Happening", "Malformed", "Received", "Row", "Tally"]

_NO_STEP = CounterStep(0, False)


@dataclass(slots=True)
class Row:
    """One topic at one address."""

    topic: Topic
    address: str
    messages: int = 0
    size: int = 0
    """Bytes of bodies."""
    malformed: int = 0
    """Whose body is none of this topic."""
    missed: int = 0
    restarts: int = 0
    counter: int | None = None
    """Of the last message."""
    last: Received | None = None
    """The last message that was sound."""

    def count(self, counter: int) -> CounterStep:
        """Take note of a message's counter. The first one says nothing of what was before it."""
        step = _NO_STEP if self.counter is None else compare_counters(self.counter, counter)
        self.counter = counter
        self.missed += step.missed
        self.restarts += step.restarted
        return step


@dataclass(frozen=True, slots=True)
class Received:
    """A message, and how its counter stands to the one before."""

    row: Row
    notification: Notification
    content: Block | Transaction | None
    """Of a raw topic."""
    previous: int | None
    """The counter before, None for the first message."""
    step: CounterStep

    @property
    def hash(self) -> bytes:
        """The block hash or txid that it is about, 32 bytes, display order. Computed for raw topics, each time."""
        content = self.content
        if content is None:
            return bytes(self.notification.body[:32])
        return content.hash if isinstance(content, Block) else content.txid


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that is none, or whose body is none. ``row``, ``previous`` and ``step`` where topic and counter are sound."""

    address: str
    error: DecodeError
    row: Row | None = None
    previous: int | None = None
    step: CounterStep = _NO_STEP


Happening = Received | Malformed


@dataclass(slots=True)
class Tally:
    """All notifiers of some addresses; a row for each of ``topics`` at each of ``addresses`` from the start."""

    addresses: Sequence[str]
    topics: Sequence[Topic]
    rows: dict[tuple[str, Topic], Row] = field(init=False)
    malformed: int = 0

    def __post_init__(self) -> None:
        self.rows = {(address, topic): Row(topic, address) for address in self.addresses for topic in self.topics}

    @property
    def messages(self) -> int:
        """Sound ones, all together."""
        return sum(row.messages for row in self.rows.values())

    @property
    def missed(self) -> int:
        """Messages that the counters say were sent and that never came."""
        return sum(row.missed for row in self.rows.values())

    @property
    def restarts(self) -> int:
        """Counters that began anew."""
        return sum(row.restarts for row in self.rows.values())

    def take(self, address: str, frames: Sequence[bytes]) -> Happening:
        """Count a message that came from ``address``."""
        try:
            notification = decode(frames)
        except DecodeError as error:
            self.malformed += 1
            return self._salvage(address, frames, error)
        row = self._row(address, notification.topic)
        previous = row.counter
        step = row.count(notification.counter)
        content: Block | Transaction | None = None
        try:
            if notification.topic is Topic.RAWTX:
                content = Transaction(notification.body)
            elif notification.topic is Topic.RAWBLOCK:
                content = Block(notification.body)
        except DecodeError as error:
            self.malformed += 1
            row.malformed += 1
            return Malformed(address, error, row, previous, step)
        row.messages += 1
        row.size += len(notification.body)
        row.last = Received(row, notification, content, previous, step)
        return row.last

    def _salvage(self, address: str, frames: Sequence[bytes], error: DecodeError) -> Malformed:
        """A bad body must not look like a gap, too, when the next message comes."""
        if len(frames) != 3 or len(frames[2]) != 4:
            return Malformed(address, error)
        topic = next((topic for topic in Topic if topic.frame == frames[0]), None)
        if topic is None:
            return Malformed(address, error)
        row = self._row(address, topic)
        previous = row.counter
        row.malformed += 1
        return Malformed(address, error, row, previous, row.count(int.from_bytes(frames[2], "little")))

    def _row(self, address: str, topic: Topic) -> Row:
        """A prefix may bring topics that were not asked for."""
        key = (address, topic)
        if key not in self.rows:
            self.rows[key] = Row(topic, address)
        return self.rows[key]
