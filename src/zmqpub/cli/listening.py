"""The loop of a listener: from a subscriber to its tally and to whoever tells of it, until it is enough."""

from __future__ import annotations

import math
from time import monotonic
from typing import Final

from zmqpub._fast import Received
from zmqpub.cli.hearing import Hearing
from zmqpub.cli.signals import Signals
from zmqpub.cli.tally import Item, Tally
from zmqpub.stream_events import Malformed
from zmqpub.subscriber import Subscriber

__all__ = ["Listening"]

_LAST_CALL: Final = 0.5  # seconds after a signal
_SLICE: Final = 0.1  # seconds until a signal is seen
_MOST_AT_ONCE: Final = 1000


class Listening:
    """Takes what ``subscriber`` has, counts it and lets ``hearing`` tell of it."""

    def __init__(self, subscriber: Subscriber, tally: Tally, hearing: Hearing, signals: Signals) -> None:
        self._subscriber = subscriber
        self._tally = tally
        self._hearing = hearing
        self._signals = signals

    def until(self, count: int | None, timeout: float | None) -> bool:
        """Until a signal, or so many messages, or so many seconds; whether what was asked for came in time."""
        end = math.inf if timeout is None else monotonic() + timeout
        left = math.inf if count is None else count
        last_call = math.inf
        self._hearing.show()
        while True:
            items = self.take(min(self._hearing.due, end) - monotonic())
            for item in items:
                self.note(item)
                left -= isinstance(item, (Received, Malformed))
                if not left:
                    return True
            self.look()
            now = monotonic()
            if now >= end:
                return count is None and self._tally.messages + self._tally.malformed > 0
            if self._signals.received is not None:
                # What has arrived by now still counts.
                last_call = min(last_call, now + _LAST_CALL)
                if not items or now >= last_call:
                    return True
            elif now >= self._hearing.due:
                self._hearing.show()

    def take(self, seconds: float) -> list[Item]:
        """What is there within ``seconds``, and in any case soon enough to see a signal."""
        try:
            return self._subscriber.recv_batch(_MOST_AT_ONCE, max(0.0, min(seconds, _SLICE)))
        except TimeoutError:
            return []

    def note(self, item: Item) -> None:
        """Count it and tell of it."""
        self._hearing.happening(item, self._tally.take(item))

    def look(self) -> None:
        """At how the subscriptions stand; and let what was told be seen."""
        self._hearing.state(self._subscriber.state())
        self._hearing.flush()
