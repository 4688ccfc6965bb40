"""What the logic of a subscriber asks of whoever drives it. The logic does no I/O: steps come out, answers go in.

The logic is a generator. A driver takes a step from it, does what the step says, and sends the answer in; between two steps it
may wait, hand something to its user, or go away for good.

=========  ==========================================================================  =====================================
step       what to do                                                                  answer
=========  ==========================================================================  =====================================
`Take`     wait for a batch until the given time                                       the batch, or None
`HandOut`  hand the batch's notifications to the user, up to its next tuple or end     None
`Tell`     hand one item to the user                                                   None
`Ask`      ask a replay endpoint                                                       `Reply`, or `Failure`
`Call`     call a function that may block                                              its result, or `Failure` (RepairError)
`Pause`    wait until the given time                                                   None
=========  ==========================================================================  =====================================

Times are those of the clock that the logic was given, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from zmqpub.replay.protocol import Answer, Request
from zmqpub.stream_events import StreamEvent

if TYPE_CHECKING:
    from zmqpub._fast import Received

__all__ = ["Ask", "Call", "Entries", "Failure", "Feed", "HandOut", "Item", "Pause", "Reply", "Step", "Steps", "Take", "Tell"]

Item: TypeAlias = "Received | StreamEvent"


class Entries(Protocol):
    """What is asked of a `zmqpub._fast.Batch`."""

    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...
    def notifications(self) -> Iterator[Received]: ...
    def take(self, limit: int, /) -> list[Received]: ...
    @property
    def messages(self) -> int: ...
    @property
    def spans(self) -> dict[int, tuple[int, int, bool]]: ...
    @property
    def malformed(self) -> str | None: ...


class Feed(Protocol):
    """What is asked of a `zmqpub._fast.Receiver` besides batches: positions, and which connection is the present one."""

    def delivered(self, source: int, /) -> dict[int, int]: ...
    def set_delivered(self, source: int, topic: int, counter: int | None, /) -> None: ...
    def generation(self, source: int, /) -> int: ...
    def connected(self, source: int, /) -> bool: ...
    def skip_before(self, source: int, generation: int, /) -> None: ...
    def delivered_before_restart(self, source: int, /) -> dict[int, int]: ...


@dataclass(frozen=True, slots=True)
class Take:
    until: float


@dataclass(frozen=True, slots=True)
class HandOut:
    batch: Entries


@dataclass(frozen=True, slots=True)
class Tell:
    item: Item


@dataclass(frozen=True, slots=True)
class Ask:
    source: int
    request: Request
    """Its id is the driver's affair."""
    timeout: float


@dataclass(frozen=True, slots=True)
class Call:
    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    until: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is well-formed. Whether it is true is looked into by who asked."""

    answer: Answer
    batch: Entries | None = None
    """The messages of a RangeAnswer."""


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer, or one that is none."""

    reason: str


Step: TypeAlias = "Take | HandOut | Tell | Ask | Call | Pause"

Steps: TypeAlias = Generator[Step, Any, None]
