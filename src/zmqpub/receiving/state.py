"""What Subscriber.state() returns: plain values, read without stopping anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zmqpub.wire import Topic

__all__ = ["SourceState", "Status", "SubscriberState"]

Status = Literal["connecting", "live", "stale", "repairing", "degraded", "closed"]
"""``connecting``: no connection yet, or none at the moment; ``live``: nothing is missing that is known of; ``stale``: silent for too
long; ``repairing``: something is missing and being asked for; ``degraded``: something was lost since the last proof that nothing is
missing, or that proof cannot be had as the replay endpoint does not answer."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """One address."""

    address: str
    status: Status
    connections: int
    """So far."""
    next_counters: Mapping[Topic, int]
    """Of each topic that a message of was handed out, the counter of the next one."""
    epoch: bytes | None
    """The name of the publisher's present life, 16 bytes, where a replay endpoint told."""
    replay: str | None
    """Its replay endpoint."""
    error: str | None
    """What went wrong last with the replay endpoint or the node; None once it works again."""
    gaps: int
    missed: int
    """Messages that gaps left out, repaired or not."""
    repaired: int
    """Messages handed out that had been missed."""
    lost: int
    """Messages known to be lost. See ``losses`` for those that cannot be counted."""
    losses: int
    """`Lost` events."""
    restarts: int
    disconnects: int
    stales: int
    mempool_gaps: int
    reorgs: int
    malformed: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class SubscriberState:
    """Subscriber.state()."""

    status: Status
    """Of all sources the worst: ``degraded``, ``repairing``, ``stale``, ``connecting``, ``live``; ``closed`` after close()."""
    sources: tuple[SourceState, ...]
    queued_bytes: int
    """Received and not yet handed out."""
    byte_bound: int

    def source(self, address: str) -> SourceState:
        """That of an address; KeyError where there is none."""
        for source in self.sources:
            if source.address == address:
                return source
        raise KeyError(address)
