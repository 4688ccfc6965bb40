"""The loop of `zmqpub listen --follow`: a listener whose subscriber is read by a ChainFollower."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from zmqpub.chain_events import ChainEvent
from zmqpub.cli.chain_hearing import ChainHearing
from zmqpub.cli.chain_telling import ChainTally
from zmqpub.cli.listening import MOST_AT_ONCE, SLICE, Listening
from zmqpub.cli.signals import Signals
from zmqpub.cli.tally import Item, Tally
from zmqpub.follower import ChainFollower
from zmqpub.subscriber import Subscriber

__all__ = ["Following", "Overheard"]


class Overheard(Subscriber):
    """A subscriber that shows each item to somebody else before its reader has it."""

    overhear: Callable[[Item], None]

    def __enter__(self) -> Overheard:
        return self

    def recv(self, timeout: float | None = None) -> Item:
        """As Subscriber's."""
        item = super().recv(timeout)
        self.overhear(item)
        return item


class Following(Listening[ChainEvent]):
    """Takes what the chain does; the messages that tell it are counted, and events of the stream are told, on the way."""

    def __init__(self, subscriber: Overheard, tally: Tally, chain: ChainTally, hearing: ChainHearing, signals: Signals) -> None:
        super().__init__(subscriber, tally, hearing, signals)
        subscriber.overhear = self.hear
        self._chain = chain
        self._chain_hearing = hearing
        self._follower = ChainFollower(subscriber)

    def take(self, seconds: float) -> list[ChainEvent]:
        """As Listening's."""
        events: list[ChainEvent] = []
        end = monotonic() + max(0.0, min(seconds, SLICE))
        try:
            while len(events) < MOST_AT_ONCE:
                events.append(self._follower.recv(max(0.0, end - monotonic())))
        except TimeoutError:
            pass
        return events

    def note(self, item: ChainEvent) -> None:
        """Count it and tell of it."""
        self._chain.take(item)
        self._chain_hearing.chain(item)

    def counts(self, item: ChainEvent) -> bool:
        """All of them."""
        return True
