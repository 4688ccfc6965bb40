"""What a subscriber's stream says besides the notifications themselves: everything that went wrong, and how it was mended.

All are frozen values that compare by their fields. ``address`` is the publisher's address as the user wrote it. Counters
are those of the wire: unsigned 32 bits that wrap; a range is ``first`` (included) to ``until`` (excluded), modulo 2**32.

The order of events tells what they are about: a `CounterGap` comes before what mends it (repaired notifications, then
`Repaired`; or `Lost`), and before the message that showed it. Nothing is missing without one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = [
    "EVENT_TYPES",
    "Connected",
    "CounterGap",
    "Disconnected",
    "Duplicate",
    "GapCause",
    "Lost",
    "Malformed",
    "MempoolGap",
    "Reconnected",
    "Refused",
    "Reorg",
    "Repaired",
    "RepairedBy",
    "Restart",
    "Stale",
    "StreamEvent",
]

GapCause = Literal["network", "overflow"]
"""Why messages are missing: they did not arrive, or arrived above the ``byte_bound`` of a consumer that was too slow."""

RepairedBy = Literal["replay", "rpc"]


@dataclass(frozen=True, slots=True)
class CounterGap:
    """Messages are missing: the counter moved on by more than one."""

    address: str
    topic: Topic
    expected: int
    """The counter that would have been next."""
    got: int
    """The counter that came."""
    cause: GapCause = "network"

    @property
    def missed(self) -> int:
        """How many messages are missing."""
        return (self.got - self.expected) % COUNTER_MODULUS


@dataclass(frozen=True, slots=True)
class MempoolGap:
    """The mempool sequence of `A` and `R` messages moved on by more than one, with no block between: see ``docs/subscribing.md``."""

    address: str
    expected: int
    got: int


@dataclass(frozen=True, slots=True)
class Restart:
    """The publisher began anew: its counters went back, or its replay endpoint told of a new life.

    What follows are messages of the new life, from its first on where they can be had.
    """

    address: str
    topic: Topic | None = None
    """The topic whose counter went back; None where the replay endpoint told."""
    expected: int | None = None
    got: int | None = None
    epoch: bytes | None = None
    """The new life's name, 16 bytes, where a replay endpoint told."""
    previous_epoch: bytes | None = None


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing came for longer than ``stale_after``: the socket was made anew, and the name was resolved anew."""

    address: str
    silence: float
    """Seconds without a message, by the receiving thread's clock: the time that the consumer took does not count."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The first connection to an address."""

    address: str
    endpoint: str
    """What it is connected to, as libzmq reports it."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """A connection after the first: what was sent in between did not arrive here."""

    address: str
    endpoint: str
    connections: int
    """Connections so far, this one included."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection was lost; libzmq makes a new one."""

    address: str


@dataclass(frozen=True, slots=True)
class Refused:
    """What listens there speaks no ZeroMQ, or does not take us: handshake after handshake failed. It is tried again all the same.

    Told once until there is a connection. (Nobody listening at all is no event: see state().)
    """

    address: str


@dataclass(frozen=True, slots=True)
class Reorg:
    """The chain took another branch: a block's parent is not the last block, or the sequence topic told of a disconnected block."""

    address: str
    topic: Topic
    """``rawblock``, or ``sequence`` for a disconnected block."""
    old_tip: bytes
    """32 bytes, display order: the last block before."""
    block: bytes
    """32 bytes, display order: with ``rawblock`` the parent of the new block, with ``sequence`` the disconnected block."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that is none of Bitcoin's notifications, left out; the stream goes on."""

    address: str
    topic: Topic | str
    """The topic; for an unknown one its first bytes, as a printable text."""
    counter: int | None
    """Where the third frame is a counter."""
    reason: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same counter and the same body as the message before, left out."""

    address: str
    topic: Topic
    counter: int


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was missing was had after all: the ``messages`` notifications before this event, each with ``repaired`` true."""

    address: str
    messages: int
    by: RepairedBy
    seconds: float
    """From when it was seen to be missing."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Messages that could not be had. The stream goes on after them."""

    address: str
    topic: Topic
    first: int
    until: int | None
    """None: how many there were cannot be known, as the publisher began anew and does not hold its former life."""
    reason: str

    @property
    def messages(self) -> int | None:
        """How many; None where that cannot be known."""
        return None if self.until is None else (self.until - self.first) % COUNTER_MODULUS


StreamEvent: TypeAlias = (
    "CounterGap | MempoolGap | Restart | Stale | Connected | Reconnected | Disconnected | Refused | Reorg "
    "| Malformed | Duplicate | Repaired | Lost"
)

EVENT_TYPES = (
    CounterGap,
    MempoolGap,
    Restart,
    Stale,
    Connected,
    Reconnected,
    Disconnected,
    Refused,
    Reorg,
    Malformed,
    Duplicate,
    Repaired,
    Lost,
)
"""For isinstance()."""
