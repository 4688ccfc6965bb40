"""What the events handed over so far amount to: the tip of the chain, and the mempool."""

from __future__ import annotations

import threading

from zmqpub.replay.snapshot import Snapshot
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, TransactionAdded, TransactionRemoved, UpdatedBlockTip

__all__ = ["ChainView"]


class ChainView:
    """Follows the events of a source; any thread may ask for a snapshot.

    ``mempool``: whether the source tells of a mempool, which is empty before its first event.
    """

    def __init__(self, *, mempool: bool = True) -> None:
        self._lock = threading.Lock()
        self._tip: bytes | None = None
        self._height: int | None = None
        self._mempool: dict[bytes, None] | None = {} if mempool else None
        self._sequence = 0

    def begin(self, snapshot: Snapshot) -> None:
        """This is what the first event finds: of a source that begins in the midst of things."""
        with self._lock:
            self._tip, self._height = snapshot.tip, snapshot.height
            if snapshot.txids is not None and snapshot.mempool_sequence is not None:
                self._mempool = dict.fromkeys(snapshot.txids)
                self._sequence = snapshot.mempool_sequence
            else:
                self._mempool = None

    def note(self, event: Event) -> None:
        """The event was handed over."""
        with self._lock:
            if isinstance(event, BlockConnected | UpdatedBlockTip):
                self._tip, self._height = event.block.hash, event.height
                if isinstance(event, BlockConnected):
                    self._confirm(event)
            elif isinstance(event, BlockDisconnected):
                self._tip, self._height = event.block.header.prev_hash, event.height - 1
            elif self._mempool is not None:
                self._change(event, self._mempool)

    def snapshot(self) -> Snapshot:
        """As of the last event."""
        with self._lock:
            if self._mempool is None:
                return Snapshot(self._tip, self._height)
            return Snapshot(self._tip, self._height, tuple(self._mempool), self._sequence)

    def _confirm(self, event: BlockConnected) -> None:
        """What leaves the mempool for a block takes numbers, too, as in Bitcoin Core's CTxMemPool::removeUnchecked. No event has
        them, so the number after the last event's says as much."""
        if self._mempool:
            for txid in event.block.txids:
                self._mempool.pop(txid, None)

    def _change(self, event: TransactionAdded | TransactionRemoved, mempool: dict[bytes, None]) -> None:
        if isinstance(event, TransactionAdded):
            mempool[event.transaction.txid] = None
        else:
            mempool.pop(event.transaction.txid, None)
        self._sequence = event.mempool_sequence + 1
