"""The loop of a listener: from a subscriber to its tally and to whoever tells of it, until it is enough."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from time import monotonic
from typing import Final, Generic, TypeVar

from zmqpub._fast import Received
from zmqpub.cli.hearing import Hearing
from zmqpub.cli.signals import Signals
from zmqpub.cli.tally import Item, Tally
from zmqpub.stream_events import Malformed
from zmqpub.subscriber import Subscriber

__all__ = ["MOST_AT_ONCE", "SLICE", "ItemListening", "Listening"]

SLICE: Final = 0.1
"""Seconds until a signal is seen."""
MOST_AT_ONCE: Final = 1000

_LAST_CALL: Final = 0.5  # seconds after a signal

_Taken = TypeVar("_Taken")


class Listening(ABC, Generic[_Taken]):
    """Takes what there is, counts it and lets ``hearing`` tell of it."""

    def __init__(self, subscriber: Subscriber, tally: Tally, hearing: Hearing, signals: Signals) -> None:
        self._subscriber = subscriber
        self._tally = tally
        self._hearing = hearing
        self._signals = signals
        self.taken = 0
        """Of what was asked for by number."""

    def until(self, count: int | None, timeout: float | None) -> bool:
        """Until a signal, or so many messages, or so many seconds; whether what was asked for came in time."""
        end = math.inf if timeout is None else monotonic() + timeout
        last_call = math.inf
        self._hearing.show()
        while True:
            items = self.take(min(self._hearing.due, end) - monotonic())
            for item in items:
                self.note(item)
                self.taken += self.counts(item)
                if self.taken == count:
                    return True
            self.look()
            now = monotonic()
            if now >= end:
                return count is None and self.taken > 0
            if self._signals.received is not None:
                # What has arrived by now still counts.
                last_call = min(last_call, now + _LAST_CALL)
                if not items or now >= last_call:
                    return True
            elif now >= self._hearing.due:
                self._hearing.show()

    @abstractmethod
    def take(self, seconds: float) -> list[_Taken]:
        """What is there within ``seconds``, and in any case soon enough to see a signal."""

    @abstractmethod
    def note(self, item: _Taken) -> None:
        """Count it and tell of it."""

    @abstractmethod
    def counts(self, item: _Taken) -> bool:
        """Whether it is one of those that were asked for by number."""

    def conclude(self) -> None:
        """Tell the result."""
        self._hearing.conclude(self._subscriber.state().queued_bytes)

    def hear(self, item: Item) -> None:
        """Count and tell what the subscriber has."""
        self._hearing.happening(item, self._tally.take(item))

    def look(self) -> None:
        """At how the subscriptions stand; and let what was told be seen."""
        self._hearing.state(self._subscriber.state())
        self._hearing.flush()


class ItemListening(Listening[Item]):
    """Takes messages and events as they are."""

    def take(self, seconds: float) -> list[Item]:
        try:
            return self._subscriber.recv_batch(MOST_AT_ONCE, max(0.0, min(seconds, SLICE)))
        except TimeoutError:
            return []

    def note(self, item: Item) -> None:
        self.hear(item)

    def counts(self, item: Item) -> bool:
        return isinstance(item, (Received, Malformed))
