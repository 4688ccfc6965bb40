"""A simulated chain in real time, on which others mine, too."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic

from zmqpub.sources.events import BlockConnected, Event
from zmqpub.sources.regtest.consensus import genesis
from zmqpub.sources.regtest.shared import SharedChain
from zmqpub.sources.simulated import Simulated

__all__ = ["LiveSimulated"]

_UNDO_DEPTH = 100  # blocks that a miner's branch may replace
_MOST_WAITING = 256  # events; a block that is handed in makes two or more


class LiveSimulated:
    """A source of what happens to `shared`: what ``simulated`` lets happen when its time has come, and what miners hand in.

    Where Simulated makes an event and leaves it to its reader to wait for the moment, here a thing happens at its moment and is told
    then, so that who looks at the chain sees what was told and nothing that is still to come (bar what the reader is just taking).
    Iterate it once, from one thread; ``due`` is the chain's time, so a reader that waits for it never waits. Time runs ``speed`` times
    as fast as the clock, from the beginning of the iteration on; before, miners may mine already. With math.inf things happen as fast
    as they are read.

    ``on_event`` hears of all blocks from the genesis block on, of what happens at the very moment, and before whoever waits for the
    chain to change. It is called within the lock of the chain and must not block.

    A reader that lags stops the chain: nothing happens while events wait, except that miners may go a few blocks ahead.
    """

    def __init__(self, simulated: Simulated, *, speed: float = 1.0, on_event: Callable[[Event], None] = lambda event: None) -> None:
        if not speed > 0:
            raise ValueError(f"speed={speed}: expected more than 0, math.inf for flat out")
        self._simulated = simulated
        self._speed = speed
        self._on_event = on_event
        self._start = math.inf
        self._moves = 0
        self._waiting: deque[Event] = deque()
        first = genesis()
        on_event(BlockConnected(0.0, first, 0))
        self._run = simulated.begin(on_event, undo_depth=_UNDO_DEPTH)
        self.shared = SharedChain(self._run.chain, self._take, now=self._now, has_room=lambda: len(self._waiting) < _MOST_WAITING)
        """The chain; sources.regtest.mining lets others mine on it."""

    def close(self) -> None:
        """End the iteration at its next event, and whoever waits for the chain."""
        self._simulated.close()
        self.shared.close()

    def describe(self) -> str:
        return self._simulated.describe()

    def __iter__(self) -> Iterator[Event]:
        shared = self.shared
        with shared.condition:
            self._start = min(self._start, monotonic())
        while True:
            with shared.condition:
                events = self._next_events()
                shared.condition.notify_all()  # there is room again
            for event in events:
                if shared.closed:
                    return
                yield event
            if not events:
                return

    def _next_events(self) -> list[Event]:
        """Those that wait, or else those of the next thing, once its time has come; none at the end. Within the lock."""
        shared = self.shared
        while not self._waiting and not shared.closed and self._moves < self._simulated.blocks:
            seconds = self._until(self._run.due)
            if seconds > 0:
                shared.condition.wait(min(seconds, threading.TIMEOUT_MAX))
            else:
                with shared.changing():
                    self._moves += self._run.step()
        events = list(self._waiting)
        self._waiting.clear()
        return events

    def _take(self, event: Event) -> None:
        self._on_event(event)
        self._waiting.append(event)

    def _now(self) -> float:
        if math.isinf(self._speed) or math.isinf(self._start):
            return self._run.chain.clock
        return (monotonic() - self._start) * self._speed

    def _until(self, due: float) -> float:
        return 0.0 if math.isinf(self._speed) else self._start + due / self._speed - monotonic()
