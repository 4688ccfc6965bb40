"""What is asked of a replay endpoint and what it answers, as plain values; zmqpub.replay.protocol packs and unpacks them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = [
    "DEFAULT_BYTES",
    "DEFAULT_MESSAGES",
    "EPOCH_SIZE",
    "MAGIC",
    "MAX_BYTES",
    "MAX_MESSAGES",
    "MAX_REQUEST",
    "Answer",
    "EpochInfo",
    "ErrorAnswer",
    "HelloAnswer",
    "HelloRequest",
    "NotifierInfo",
    "Operation",
    "RangeAnswer",
    "RangeNotifier",
    "RangeRequest",
    "RangeStart",
    "RangeUntil",
    "Request",
    "SnapshotAnswer",
    "SnapshotRequest",
    "Status",
    "number_near",
]

MAGIC: Final = b"ZPR1"
"""The first four bytes of each request and answer; the digit is the version."""
EPOCH_SIZE: Final = 16
MAX_REQUEST: Final = 4096
"""Bytes that a request has at most."""
DEFAULT_MESSAGES: Final = 4096
DEFAULT_BYTES: Final = 1024 * 1024
"""What an answer to RANGE holds at most where the request leaves it to the publisher: bytes of all frames of its messages."""
MAX_MESSAGES: Final = 65_536
MAX_BYTES: Final = 8 * 1024 * 1024
"""What it holds at most, whatever the request asks. One message, however large, is always in."""


class Operation(enum.IntEnum):
    """What is asked for."""

    HELLO = 1
    """The epochs that are held, their notifiers, and from where to where."""
    RANGE = 2
    """The messages of some notifiers, merged in the order in which they were published."""
    SNAPSHOT = 3
    """The tip of the chain and the mempool, as of now."""


class Status(enum.IntEnum):
    """How a request was met."""

    OK = 0
    BAD_REQUEST = 1
    """It makes no sense; asking again gives the same."""
    UNKNOWN_EPOCH = 2
    """Nothing of that life of the publisher is held (any more)."""
    UNKNOWN_NOTIFIER = 3
    """The epoch has no such notifier (any more)."""
    UNSUPPORTED = 4
    """Another version of the protocol, or an operation that this version does not know."""
    NO_SNAPSHOT = 5
    """The source of the events has none, or it could not be had."""
    BUSY = 6
    """Too much is under way; ask again later."""


# ---- requests ----


@dataclass(frozen=True, slots=True)
class HelloRequest:
    """What is held?"""

    request_id: int = 0
    """Chosen by the asker, unsigned 32 bits; the answer repeats it."""


@dataclass(frozen=True, slots=True)
class RangeStart:
    """From which number on the messages of a notifier are asked for."""

    notifier: int
    """Its id within the epoch, from `NotifierInfo.id`."""
    first: int


@dataclass(frozen=True, slots=True)
class RangeUntil:
    """The message before which the answer ends, itself not included."""

    notifier: int
    number: int


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """The messages of some notifiers, each from a number on. At most one notifier of each topic."""

    epoch: bytes
    starts: tuple[RangeStart, ...]
    until: RangeUntil | None = None
    """None: all there is."""
    max_messages: int = 0
    """0 leaves it to the publisher (`DEFAULT_MESSAGES`); more than `MAX_MESSAGES` is as much as that."""
    max_bytes: int = 0
    """Likewise with `DEFAULT_BYTES` and `MAX_BYTES`."""
    request_id: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """The tip and the mempool."""

    request_id: int = 0


Request: TypeAlias = "HelloRequest | RangeRequest | SnapshotRequest"


# ---- answers ----


@dataclass(frozen=True, slots=True)
class NotifierInfo:
    """A notifier of an epoch."""

    id: int
    """Names it within its epoch; never used again there."""
    topic: Topic
    first: int
    """The number of the oldest message that is held."""
    next: int
    """The number after the newest."""
    address: str
    """As Publisher.active_notifiers() reports it: with the real port."""


@dataclass(frozen=True, slots=True)
class EpochInfo:
    """One life of a publisher's counters."""

    epoch: bytes
    started_ms: int
    """When it began, by the publisher's clock: Unix time in milliseconds."""
    current: bool
    """Does it still go on? The last of an answer's epochs does."""
    notifiers: tuple[NotifierInfo, ...]


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    """What is held."""

    epochs: tuple[EpochInfo, ...]
    """The oldest first."""
    request_id: int = 0


@dataclass(frozen=True, slots=True)
class RangeNotifier:
    """Where an answer stands with one of the notifiers asked for: the messages [first, next) are in it."""

    notifier: int
    first: int
    """``RangeStart.first + gone``."""
    next: int
    """Ask again from here."""
    gone: int
    """So many, from the asked number on, have left the journal."""


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """The header of an answer to RANGE; the messages follow it, three frames each."""

    epoch: bytes
    more: bool
    """It ended for a limit: ask again, from each notifier's ``next`` on."""
    gone: bool
    """Some of what was asked for has left the journal: see each notifier's ``gone``."""
    notifiers: tuple[RangeNotifier, ...]
    """In the order of the request."""
    request_id: int = 0

    @property
    def messages(self) -> int:
        """How many messages follow the header."""
        return sum(notifier.next - notifier.first for notifier in self.notifiers)


@dataclass(frozen=True, slots=True)
class SnapshotAnswer:
    """The state of the source at one moment. What it does not know is None."""

    epoch: bytes
    """The current one."""
    tip: bytes | None
    """The hash of the last block of the active chain, 32 bytes in display order."""
    height: int | None
    mempool_sequence: int | None
    """Mempool events with a sequence below it are contained in ``txids``, all others are yet to come."""
    txids: tuple[bytes, ...] | None
    """The mempool, 32 bytes each in display order; None exactly where ``mempool_sequence`` is None."""
    request_id: int = 0


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A request that was not met."""

    operation: int
    """What was asked, as far as the publisher could tell; 0 where it could not. Usually an `Operation`."""
    status: Status
    text: str
    request_id: int = 0


Answer: TypeAlias = "HelloAnswer | RangeAnswer | SnapshotAnswer | ErrorAnswer"


# ---- numbers ----


def number_near(counter: int, near: int) -> int:
    """The number whose lower 32 bits are ``counter`` and that is nearest to ``near``: a notifier's count in 64 bits.

    ``near`` is any number of the same notifier within 2**31 messages, such as `NotifierInfo.next`.
    """
    distance = (counter - near + COUNTER_MODULUS // 2) % COUNTER_MODULUS - COUNTER_MODULUS // 2
    return near + distance if near + distance >= 0 else near + distance + COUNTER_MODULUS
