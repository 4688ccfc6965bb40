"""What Publisher.stats() and Receiver.stats() return: plain numbers, read without stopping anything."""

from __future__ import annotations

from dataclasses import dataclass

from zmqpub.wire import Topic

__all__ = [
    "EndpointStats",
    "JournalStats",
    "LatencyStats",
    "NotifierStats",
    "ReceiverStats",
    "ReplayStats",
    "SourceStats",
    "Stats",
    "SubscriberStats",
]


@dataclass(frozen=True, slots=True)
class NotifierStats:
    """One notifier: a topic at an address. ``published`` is the sum of the three counts that follow it."""

    topic: Topic
    address: str
    """With the real port."""
    hwm: int
    """As configured; the socket's own is that of the first notifier on it."""
    published: int
    """Messages that its events have made since it was added, in this process; modulo 2**32 this is the next counter, unless
    that went on from a journal file."""
    sent: int
    """Handed to libzmq, for everyone who had subscribed."""
    unwanted: int
    """Counted, but not made: nobody had subscribed to the topic."""
    dropped: int
    """Not handed over, or known to have missed a subscriber: the journal was full (on_full="drop"), a subscriber was
    slow (slow_subscriber="drop", or inproc), or the publisher was closed before. Where one of several subscribers of an
    endpoint is being dropped for, libzmq does not tell each single message, and the true number may be higher."""
    wanted: bool
    """Does anybody subscribe to the topic now?"""


@dataclass(frozen=True, slots=True)
class SubscriberStats:
    """One connection of an endpoint. inproc has none to show."""

    address: str
    """Remote ``host:port``; ``pid N`` on a unix socket."""
    backlog_bytes: int
    """What the kernel holds for it: sent, and not taken by its kernel (tcp) or by itself (ipc)."""
    connected_for: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """From the call that handed an event over until its last frame was with libzmq; seconds, within 6 %."""

    events: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """One socket and its sender."""

    address: str
    state: str
    """``running``, ``stopped``, ``terminated`` (its context was) or ``failed``."""
    subscribers: tuple[SubscriberStats, ...]
    backlog_bytes: int
    """Of all its subscribers."""
    evictions: int
    """Subscribers that were disconnected: slow ones, and such as flooded it with subscriptions."""
    blocked: float
    """Seconds that it waited for full pipes, in all."""
    latency: LatencyStats


@dataclass(frozen=True, slots=True)
class JournalStats:
    """The queue between the calls and the senders."""

    events: int
    """Handed over by the embedding program, and not yet by every sender."""
    bytes: int
    """What the memory holds of them and, where events are retained there, of those."""
    bound: int
    """In bytes."""
    appended: int
    """Events ever appended."""
    dropped: int
    """Events that some endpoint never saw, because the bound was reached (on_full="drop")."""
    oldest: float
    """Age of the oldest event in seconds, 0.0 when empty."""
    retained_events: int = 0
    """Events that can be replayed, ``events`` among them; 0 where nothing is retained."""
    retained_bytes: int = 0
    """What these take."""
    recognized: int = 0
    """Events that were handed over again after a restart, and skipped, as the journal file had them."""
    path: str | None = None
    """The journal file; None for a journal in memory."""


@dataclass(frozen=True, slots=True)
class ReplayStats:
    """The replay endpoint, where subscribers ask for what they missed."""

    address: str
    """With the real port."""
    state: str
    """As of `EndpointStats`."""
    clients: int
    """Connected now; inproc ones are not seen."""
    requests: int
    """All that came, malformed ones among them."""
    answers: int
    """Handed to libzmq, those that are errors among them."""
    messages: int
    """Sent anew."""
    bytes: int
    """Of all frames of those messages."""
    malformed: int
    """Requests that made no sense."""
    dropped: int
    """Answers that were not sent: the client was gone, or did not take those before."""
    evictions: int
    """Clients that were disconnected, as they took nothing for ``stall_timeout``."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Publisher.stats()."""

    notifiers: tuple[NotifierStats, ...]
    endpoints: tuple[EndpointStats, ...]
    journal: JournalStats
    replay: ReplayStats | None = None
    """None where no replay endpoint was asked for."""

    @property
    def sent(self) -> int:
        """Messages handed to libzmq, all notifiers together."""
        return sum(notifier.sent for notifier in self.notifiers)

    @property
    def dropped(self) -> int:
        """Messages dropped, all notifiers together."""
        return sum(notifier.dropped for notifier in self.notifiers)

    @property
    def evictions(self) -> int:
        """Subscribers disconnected, all endpoints together."""
        return sum(endpoint.evictions for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class SourceStats:
    """One address of a receiver, since it was made."""

    address: str
    """As given."""
    connected: bool
    generation: int
    """Connections so far, the present one included."""
    messages: int
    """Well-formed messages, discarded ones included."""
    bytes: int
    """Of their bodies."""
    discarded: int
    """Messages not kept, as what was held had reached the bound in bytes."""
    gaps: int
    """Gaps in counters."""
    restarts: int
    duplicates: int
    malformed: int
    mempool_gaps: int
    reorgs: int
    stale: int
    """How often its socket was made anew because of silence."""
    silent_for: float
    """Seconds since the last message; while there was none, since the receiver was made."""


@dataclass(frozen=True, slots=True)
class ReceiverStats:
    """What a receiver holds, and its sources."""

    held_entries: int
    """Received and not taken."""
    held_bytes: int
    byte_bound: int
    sources: tuple[SourceStats, ...]
