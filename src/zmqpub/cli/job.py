"""A source pumped into a publisher by a thread of its own, so that the main thread can watch, and end it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from zmqpub.errors import ClosedError
from zmqpub.publisher import Publisher
from zmqpub.sources.bitcoin_node import BitcoinNode
from zmqpub.sources.blocks import BlockFiles
from zmqpub.sources.events import BlockConnected, Event, Source, TransactionAdded
from zmqpub.sources.pace import pump
from zmqpub.sources.view import ChainView

__all__ = ["PUBLISHING", "WAITING", "Job"]

WAITING = "waiting for subscribers"
PUBLISHING = "publishing"

_SETTLE = 0.5  # seconds from a connection until its subscriptions are surely there
_LOOK_EVERY = 0.05


class Job:
    """One run of a source. The attributes are written by its thread and may be read at any time.

    ``on_change`` is called, in that thread, when the phase changes and at the end; ``on_event`` when an event was handed over.
    """

    def __init__(
        self,
        source: Source,
        publisher: Publisher,
        *,
        speed: float = 1.0,
        wait_subscribers: int = 0,
        on_change: Callable[[], None] = lambda: None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.source = source
        self.phases = ["starting"]
        """What it did so far, and at the end what it does."""
        self.events = 0
        self.blocks = 0
        """Blocks connected."""
        self.transactions = 0
        """Transactions added to the mempool."""
        self.height: int | None = None
        self.finished = False
        self.complete = False
        """The source came to its end, and all of it is with libzmq."""
        self.error: BaseException | None = None
        """What ended it, unless stop() did."""
        self._publisher = publisher
        self._speed = speed
        self._wait_subscribers = wait_subscribers
        self._on_change = on_change
        self._on_event = on_event
        self._view = ChainView(mempool=not isinstance(source, BlockFiles | BitcoinNode)) if publisher.replay_address else None
        if self._view is not None:
            if isinstance(source, BitcoinNode):  # nothing is known before
                source.on_baseline = self._view.begin
            publisher.set_snapshot(self._view.snapshot)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zmqpub-source", daemon=True)

    @property
    def phase(self) -> str:
        """What it does, or did last."""
        return self.phases[-1]

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, patience: float = 1.0) -> bool:
        """End before the next event; whether that was done within ``patience`` seconds.

        It is not while the journal is full: closing the publisher ends that, too.
        """
        self._stop.set()
        # While it looks for its first event, a source does not ask for the stop.
        self.source.close()
        if self._thread.ident is not None:
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            # After stop(), the publisher may be closed under it.
            if not (self._stop.is_set() and isinstance(error, ClosedError)):
                self.error = error
        finally:
            self.finished = True
            self._on_change()

    def _work(self) -> None:
        if isinstance(self.source, BlockFiles):
            self._enter("indexing")
            try:
                self.source.index()
            except Exception:
                if self._stop.is_set():  # closed before it was indexed
                    return
                raise
        if self._wait_subscribers:
            self._enter(WAITING)
            while not self._subscribers_are_there():
                if self._stop.wait(_LOOK_EVERY):
                    return
        self._enter(PUBLISHING)
        pump(self.source, self._publisher, speed=self._speed, stop=self._stop, on_event=self._count)
        if not self._stop.is_set():
            self._enter("flushing")
            while not self._stop.is_set():
                if self._publisher.flush(_LOOK_EVERY):
                    self.complete = True
                    return

    def _enter(self, phase: str) -> None:
        self.phases.append(phase)
        self._on_change()

    def _subscribers_are_there(self) -> bool:
        stats = self._publisher.stats()
        settled = sum(subscriber.connected_for >= _SETTLE for endpoint in stats.endpoints for subscriber in endpoint.subscribers)
        return settled >= self._wait_subscribers and any(notifier.wanted for notifier in stats.notifiers)

    def _count(self, event: Event) -> None:
        self.events += 1
        if self._view is not None:
            self._view.note(event)
        if self._on_event is not None:
            self._on_event(event)
        if isinstance(event, BlockConnected):
            self.blocks += 1
            self.height = event.height
        elif isinstance(event, TransactionAdded):
            self.transactions += 1
