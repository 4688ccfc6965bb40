"""What happened to one source of a subscriber so far, counted from the events of its stream."""

from __future__ import annotations

from collections.abc import Callable

from zmqpub.stream_events import (
    CounterGap,
    Disconnected,
    Duplicate,
    Lost,
    Malformed,
    MempoolGap,
    Reorg,
    Repaired,
    Restart,
    Stale,
    StreamEvent,
)

__all__ = ["SourceCounts"]


class SourceCounts:
    """Counts, by the type of event."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events: dict[type[StreamEvent], int] = {}
        self.repaired = 0
        self.lost = 0
        self.lost_at: float | None = None
        """When something was lost last."""

    def note(self, event: StreamEvent) -> None:
        """It was told."""
        self._events[type(event)] = self._events.get(type(event), 0) + 1
        if isinstance(event, Repaired):
            self.repaired += event.messages
        elif isinstance(event, Lost):
            self.lost += event.messages or 0
            self.lost_at = self._clock()

    def fields(self) -> dict[str, int]:
        """The counts of a `SourceState`, by their names there."""
        count = self._events.get
        return {
            "gaps": count(CounterGap, 0),
            "missed": self.repaired + self.lost,
            "repaired": self.repaired,
            "lost": self.lost,
            "losses": count(Lost, 0),
            "restarts": count(Restart, 0),
            "disconnects": count(Disconnected, 0),
            "stales": count(Stale, 0),
            "mempool_gaps": count(MempoolGap, 0),
            "reorgs": count(Reorg, 0),
            "malformed": count(Malformed, 0),
            "duplicates": count(Duplicate, 0),
        }
