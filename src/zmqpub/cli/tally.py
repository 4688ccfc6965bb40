"""What a listener knows of each notifier: messages, what was missed of them, what was mended. Does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from zmqpub._fast import HashTx, RawTx, Received
from zmqpub.cli.screen import plural
from zmqpub.stream_events import CounterGap, Lost, Malformed, Restart, StreamEvent
from zmqpub.wire import Topic

__all__ = ["Item", "Row", "Tally", "hash_of"]

Item: TypeAlias = "Received | StreamEvent"
"""What a Subscriber's stream consists of."""


def hash_of(message: Received) -> bytes:
    """The block hash or txid that it is about, 32 bytes, display order."""
    if isinstance(message, (HashTx, RawTx)):
        return message.txid
    return message.hash  # type: ignore[attr-defined, no-any-return]


@dataclass(slots=True)
class Row:
    """One topic at one address."""

    topic: Topic
    address: str
    messages: int = 0
    """Sound ones, repaired ones included."""
    size: int = 0
    """Bytes of bodies."""
    malformed: int = 0
    missed: int = 0
    """Messages that gaps left out, mended or not."""
    repaired: int = 0
    lost: int = 0
    """Messages that did not come, and will not."""
    lost_before: int = 0
    """Of these, those since the last message."""
    losses: int = 0
    """How often some were lost, also where nobody knows how many."""
    restarts: int = 0
    counter: int | None = None
    """Of the last message, sound or malformed."""
    last: Received | None = None


@dataclass(slots=True)
class Tally:
    """All notifiers of some addresses; a row for each of ``topics`` at each of ``addresses`` from the start."""

    addresses: Sequence[str]
    topics: Sequence[Topic]
    rows: dict[tuple[str, Topic], Row] = field(init=False)
    malformed: int = 0
    restarts: int = 0

    def __post_init__(self) -> None:
        self.rows = {(address, topic): Row(topic, address) for address in self.addresses for topic in self.topics}

    @property
    def messages(self) -> int:
        """Sound ones, all together."""
        return sum(row.messages for row in self.rows.values())

    @property
    def missed(self) -> int:
        """Messages that the counters say were sent and that did not come when it was their turn."""
        return sum(row.missed for row in self.rows.values())

    @property
    def repaired(self) -> int:
        """Messages that came after all."""
        return sum(row.repaired for row in self.rows.values())

    @property
    def lost(self) -> int:
        """Messages that never came."""
        return sum(row.lost for row in self.rows.values())

    @property
    def losses(self) -> int:
        """How often messages were lost; that may be when it is not known how many."""
        return sum(row.losses for row in self.rows.values())

    def in_words(self) -> str:
        """What went wrong, all together."""
        return (
            f"{self.missed:,} missed, {self.repaired:,} repaired, {self.lost:,} lost, {plural(self.restarts, 'restart')}, "
            f"{self.malformed:,} malformed"
        )

    def take(self, item: Item) -> int:
        """Count ``item``; of a message, how many were lost between the one before and it, else 0."""
        if isinstance(item, Received):
            return self._take_message(item)
        if isinstance(item, CounterGap):
            self.rows[item.address, item.topic].missed += item.missed
        elif isinstance(item, Lost):
            row = self.rows[item.address, item.topic]
            row.losses += 1
            row.lost += item.messages or 0
            row.lost_before += item.messages or 0
        elif isinstance(item, Restart):
            self.restarts += 1
            if item.topic is not None:
                self.rows[item.address, item.topic].restarts += 1
        elif isinstance(item, Malformed):
            self._take_malformed(item)
        return 0

    def _take_message(self, message: Received) -> int:
        row = self.rows[message.address, message.topic]
        row.messages += 1
        row.size += len(message.body)
        row.repaired += message.repaired
        row.counter = message.counter
        row.last = message
        lost, row.lost_before = row.lost_before, 0
        return lost

    def _take_malformed(self, malformed: Malformed) -> None:
        self.malformed += 1
        if isinstance(malformed.topic, Topic):
            row = self.rows[malformed.address, malformed.topic]
            row.malformed += 1
            if malformed.counter is not None:
                row.counter = malformed.counter
