"""What the events told so far amount to, for JSON-RPC: headers of all blocks, bodies of some, the active chain, the mempool."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from time import time
from typing import NamedTuple

from zmqpub._fast import Block, Transaction
from zmqpub.errors import SourceError
from zmqpub.node.headers import UNKNOWN, HeaderRow, Headers
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, TransactionAdded, TransactionRemoved, UpdatedBlockTip

__all__ = ["NodeView", "Place", "Waiting"]

BODY_BYTES = 256 << 20


class Waiting(NamedTuple):
    """A transaction in the mempool."""

    transaction: Transaction
    time: int
    """When it was told, seconds since the Unix epoch."""
    height: int
    """Of the tip then."""


class Place(NamedTuple):
    """A block, and where it is in the chain as of now."""

    row: HeaderRow
    raw: bytes
    """Its serialized header."""
    median_time: int | None
    """The median time past; None where not enough blocks before it are known."""
    confirmations: int
    """-1 where it is not in the active chain."""
    next_hash: bytes | None
    """Of the block that follows it in the active chain."""


class NodeView:
    """Follows the events of a source; any thread may ask.

    ``body_bytes``: how many bytes of blocks are kept, the youngest; what is older comes from ``read_block``, which a source of files
    has, or not at all. ``mempool``: whether the source tells of a mempool, which is empty before its first event.
    """

    def __init__(
        self, *, body_bytes: int = BODY_BYTES, read_block: Callable[[bytes], Block | None] | None = None, mempool: bool = True
    ) -> None:
        self._lock = threading.Lock()
        self._read_block = read_block
        self._body_bytes = body_bytes
        self._headers = Headers()
        self._bodies: OrderedDict[bytes, Block] = OrderedDict()
        self._kept = 0
        self._active = array("I")  # rows, by height
        self._heights = array("I")  # theirs: increasing, by one except where blocks are missing
        self._waiting: dict[bytes, Waiting] = {}
        self._sequence: int | None = None  # what the mempool's next change takes
        self._unexplained = 0  # numbers that passed without an event since the last block
        self._has_mempool = mempool
        self._initial_download = True

    # Events

    def begin(
        self, block: Block, height: int, transactions: Iterable[Transaction] | None, mempool_sequence: int | None, initial_download: bool
    ) -> None:
        """This is what the next event finds: of a source that begins in the midst of things. The mempool only where it is known."""
        with self._lock:
            self._connect(block, height)
            self._initial_download = initial_download
            self._unexplained = 0
            if transactions is not None and mempool_sequence is not None:
                now = int(time())
                self._waiting = {one.txid: Waiting(one, now, height) for one in transactions}
                self._sequence = mempool_sequence

    def note(self, event: Event) -> None:
        """It happened."""
        with self._lock:
            if isinstance(event, BlockConnected):
                self._connect(event.block, event.height)
            elif isinstance(event, BlockDisconnected):
                self._disconnect(event)
            elif isinstance(event, UpdatedBlockTip):
                self._initial_download = event.initial_download
                self._unexplained = 0
            elif self._has_mempool:
                self._change(event)

    def _connect(self, block: Block, height: int) -> None:
        row = self._headers.add(block.hash, block.header, height, len(block))
        self._keep(block)
        # A source that begins anew, or that was not heard for a while, may tell a height that is there already.
        place = bisect_left(self._heights, height)
        del self._active[place:], self._heights[place:]
        self._active.append(row)
        self._heights.append(height)
        confirmed = sum(self._waiting.pop(txid, None) is not None for txid in block.txids) if self._waiting else 0
        # What leaves the mempool for a block takes numbers in silence. Conflicts, told before the block, may have shown some of them.
        explained = min(confirmed, self._unexplained)
        self._unexplained -= explained
        if self._sequence is not None:
            self._sequence += confirmed - explained

    def _disconnect(self, event: BlockDisconnected) -> None:
        if self._active and self._headers.hash(self._active[-1]) == event.block.hash:
            self._active.pop()
            self._heights.pop()

    def _change(self, event: TransactionAdded | TransactionRemoved) -> None:
        txid = event.transaction.txid
        if isinstance(event, TransactionAdded):
            self._waiting[txid] = Waiting(event.transaction, int(time()), self._heights[-1] if self._heights else 0)
        else:
            self._waiting.pop(txid, None)
        if self._sequence is not None:
            self._unexplained += max(event.mempool_sequence - self._sequence, 0)
        self._sequence = event.mempool_sequence + 1

    def _keep(self, block: Block) -> None:
        if block.hash in self._bodies:
            return
        self._bodies[block.hash] = block
        self._kept += block.size
        while self._kept > self._body_bytes:
            _, oldest = self._bodies.popitem(last=False)
            self._kept -= oldest.size

    # Questions

    @property
    def initial_download(self) -> bool:
        """Whether the last tip was told as that of a node that catches up; so it is before the first."""
        return self._initial_download

    @property
    def tip(self) -> Place | None:
        """The last block of the active chain; None before the first event."""
        with self._lock:
            return self._place(self._active[-1]) if self._active else None

    def hash_at(self, height: int) -> bytes | None:
        """Of the active chain's block there; None where it has none, or where it is not known."""
        with self._lock:
            row = self._row_at(height)
            return None if row == UNKNOWN else self._headers.hash(row)

    def find(self, block_hash: bytes) -> Place | None:
        """A block, in any branch."""
        with self._lock:
            row = self._headers.find(block_hash)
            return None if row == UNKNOWN else self._place(row)

    def body(self, block_hash: bytes) -> Block | None:
        """A block with its transactions; None where they are gone."""
        with self._lock:
            block = self._bodies.get(block_hash)
        if block is None and self._read_block is not None:
            try:
                block = self._read_block(block_hash)
            except SourceError:  # damaged, or the file is gone
                block = None
        return block

    def mempool(self) -> tuple[dict[bytes, Waiting], int]:
        """What waits by txid, in the order of arrival, and the number that the next change takes: 1 before the first event."""
        with self._lock:
            return dict(self._waiting), self._sequence or 1

    def waiting(self, txid: bytes) -> Transaction | None:
        """A transaction of the mempool."""
        with self._lock:
            entry = self._waiting.get(txid)
            return None if entry is None else entry.transaction

    def _row_at(self, height: int) -> int:
        place = bisect_left(self._heights, height)
        return self._active[place] if place < len(self._heights) and self._heights[place] == height else UNKNOWN

    def _place(self, row: int) -> Place:
        header = self._headers[row]
        confirmations, following = -1, None
        if self._row_at(header.height) == row:
            confirmations = self._heights[-1] - header.height + 1
            after = self._row_at(header.height + 1)
            following = None if after == UNKNOWN else self._headers.hash(after)
        return Place(header, self._headers.raw(row), self._headers.median_time(row), confirmations, following)
