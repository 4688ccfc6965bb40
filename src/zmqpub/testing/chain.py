"""A regtest chain under a test's control, that tells publishers what happens and answers what a node would be asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random

from zmqpub._fast import Block, Transaction
from zmqpub.errors import RepairError
from zmqpub.repair import HeaderInfo, MempoolSnapshot
from zmqpub.replay.snapshot import Snapshot
from zmqpub.sources.events import BlockConnected, Event, EventSink, hand_over
from zmqpub.sources.regtest.chain import RegtestChain as Simulation
from zmqpub.sources.regtest.coins import Resolved
from zmqpub.sources.regtest.traffic import Traffic

__all__ = ["RegtestChain"]

_UNDO_DEPTH = 1_000
_COINS = 4_000
_START_TIME = 1_735_689_600  # 1 January 2025


class RegtestChain:
    """Blocks and transactions, valid in every byte under Bitcoin Core's regtest rules, when a test asks for them.

    What happens is told to each of ``sinks`` (a Publisher, a FaultyPublisher, anything with their event methods) before
    the method that caused it returns, in the order and with the mempool sequence numbers of Bitcoin Core. It begins at a
    height of about a hundred, with coins to spend; the blocks up to there are not told. The same ``seed`` and calls give
    the same chain, byte for byte. Any thread may call any method.

    It is a `zmqpub.Repair`, too: it answers what a node would be asked, of any block since regtest's first, in any branch.
    """

    def __init__(self, *sinks: EventSink, seed: int = 0) -> None:
        self._lock = threading.RLock()
        self._sinks: list[EventSink] = []
        self._blocks: dict[bytes, tuple[int, Block]] = {}
        self._reachable = True
        self.events: list[Event] = []
        """All that was told, in order, whoever listened."""
        self._simulation = Simulation(self._take, start_time=_START_TIME, undo_depth=_UNDO_DEPTH)
        self._blocks[self._simulation.tip.hash] = (0, self._simulation.tip)
        random = Random(seed)
        self._traffic = Traffic(self._simulation, Random(random.getrandbits(64)), coins=_COINS)
        self._traffic.fund()
        self._first_height = self._simulation.height
        self.events.clear()
        self._sinks.extend(sinks)

    def publish_to(self, sink: EventSink) -> None:
        """Tell ``sink``, too, what happens from now on."""
        with self._lock:
            self._sinks.append(sink)

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Meanwhile, tell nobody: what a node does while its publisher is down."""
        with self._lock:
            sinks, self._sinks = self._sinks, []
        try:
            yield
        finally:
            with self._lock:
                self._sinks[:0] = sinks

    # What there is

    @property
    def tip(self) -> Block:
        """The last block."""
        return self._simulation.tip

    @property
    def height(self) -> int:
        """Of the tip."""
        return self._simulation.height

    @property
    def mined(self) -> int:
        """Blocks above those with which it began."""
        return self.height - self._first_height

    @property
    def blocks(self) -> list[Block]:
        """The active chain from the first block that was told, the tip last."""
        with self._lock:
            return self._simulation.blocks[-self.mined :] if self.mined > 0 else []

    @property
    def mempool(self) -> list[Transaction]:
        """What waits, in the order of arrival."""
        with self._lock:
            return [entry.transaction for entry in self._simulation.mempool]

    @property
    def mempool_sequence(self) -> int:
        """The number that the next arrival or removal takes, as ``getrawmempool`` reports it."""
        return self._simulation.mempool.next_sequence

    # Blocks

    def mine(self, blocks: int = 1, txs: int | Sequence[Transaction] | None = None) -> list[Block]:
        """Mine so many blocks on the tip, and return them.

        ``txs``: None for what waits, a number for so many new transactions that arrive before each block, or exactly the
        transactions that the block (one) shall hold, waiting or not.
        """
        if not (txs is None or isinstance(txs, int)):
            if blocks != 1:
                raise ValueError("transactions are given for one block")
            with self._lock:
                return self._simulation.generate(1, txs)
        made = []
        with self._lock:
            for _ in range(blocks):
                self.add_transactions(txs or 0)
                self._traffic.pay_next_coinbase()
                made += self._simulation.generate()
        return made

    def reorg(self, depth: int = 1, txs: Sequence[Sequence[Transaction]] = ()) -> list[Block]:
        """Let a branch that is one block longer replace the last ``depth`` blocks; the blocks of the branch.

        ``txs``: what its first blocks hold. The others are empty, so that what was confirmed waits again.
        """
        with self._lock:
            return self._simulation.reorg(depth, txs)

    def disconnect(self, blocks: int = 1) -> None:
        """Take the last blocks off without another branch, as ``invalidateblock`` does: no new tip is told."""
        with self._lock:
            self._simulation.disconnect(blocks)

    # The mempool

    def add_transaction(self, transaction: Transaction | None = None) -> Transaction:
        """Let ``transaction``, by default a new one, enter the mempool.

        RefusedTransactionError when it may not enter.
        """
        with self._lock:
            if transaction is not None:
                return self._simulation.submit(transaction).transaction
            # Arrivals are random: one may find no coins, or none that pay for its outputs.
            for _ in range(100):
                entry = self._traffic.arrive()
                if entry is not None:
                    return entry.transaction
        raise ValueError("no coins are left to spend: mine a block")

    def add_transactions(self, count: int) -> list[Transaction]:
        """So many new ones."""
        return [self.add_transaction() for _ in range(count)]

    def replace(self, txid: bytes | None = None) -> Transaction:
        """Let a transaction that pays more replace one that waits, by default the last that can be; the new one.

        What depended on the old one goes with it.
        """
        with self._lock:
            candidates = [self._waiting(txid)] if txid is not None else list(self._simulation.mempool)
            for entry in reversed(candidates):
                replacement = self._traffic.replace(entry)
                if replacement is not None:
                    return replacement.transaction
        raise ValueError("nothing waits that could be replaced")

    def double_spend(self, txid: bytes) -> Transaction:
        """A transaction with the coins of one that waits, not told: mined (``mine(txs=[…])``) it removes that as a conflict."""
        with self._lock:
            return self._traffic.respend(self._waiting(txid)).transaction

    def evict(self, txid: bytes | None = None) -> list[Transaction]:
        """Push a transaction, by default what pays least, out of the full mempool; it and what depended on it."""
        return self._push_out(lambda: self._simulation.evict(None if txid is None else self._waiting(txid)))

    def expire(self) -> list[Transaction]:
        """Let the transaction that waited longest go; it and what depended on it."""
        return self._push_out(self._simulation.expire)

    def skip_mempool_sequence(self, numbers: int = 1) -> None:
        """Let numbers pass of which nobody hears: a mempool gap without a counter gap."""
        with self._lock:
            self._simulation.mempool.next_sequence += numbers

    # What a node would answer

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Meanwhile, every question below is answered with RepairError."""
        self._reachable = False
        try:
            yield
        finally:
            self._reachable = True

    def get_best_block_hash(self) -> bytes:
        """The tip's hash."""
        with self._answering():
            return self.tip.hash

    def get_block(self, block_hash: bytes, /) -> Block:
        """Any block that ever was in this chain."""
        with self._answering():
            return self._known(block_hash)[1]

    def get_block_header(self, block_hash: bytes, /) -> HeaderInfo:
        """The height and the parent of such a block."""
        with self._answering():
            height, block = self._known(block_hash)
            return HeaderInfo(height, block.header.prev_hash)

    def get_mempool(self) -> MempoolSnapshot:
        """What waits, and `mempool_sequence`."""
        with self._answering():
            return MempoolSnapshot([entry.txid for entry in self._simulation.mempool], self.mempool_sequence)

    def get_transaction(self, txid: bytes, /) -> Transaction | None:
        """One that waits."""
        with self._answering():
            entry = self._simulation.mempool.get(txid)
            return None if entry is None else entry.transaction

    def snapshot(self) -> Snapshot:
        """The state of it all, for ``publisher.set_snapshot(chain.snapshot)``."""
        with self._lock:
            txids = [entry.txid for entry in self._simulation.mempool]
            return Snapshot(self.tip.hash, self.height, txids, self.mempool_sequence)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        if not self._reachable:
            raise RepairError("the node does not answer")
        with self._lock:
            yield

    def _known(self, block_hash: bytes) -> tuple[int, Block]:
        try:
            return self._blocks[block_hash]
        except KeyError:
            raise RepairError(f"block {block_hash.hex()} is not known") from None

    # Inside

    def _waiting(self, txid: bytes) -> Resolved:
        entry = self._simulation.mempool.get(txid)
        if entry is None:
            raise ValueError(f"no transaction {txid.hex()} waits")
        return entry

    def _push_out(self, push: Callable[[], bool]) -> list[Transaction]:
        with self._lock:
            before = self.mempool
            if not push():
                raise ValueError("nothing waits")
            left = {transaction.txid for transaction in self.mempool}
            return [transaction for transaction in before if transaction.txid not in left]

    def _take(self, event: Event) -> None:
        """What the simulation tells."""
        if isinstance(event, BlockConnected):
            self._blocks[event.block.hash] = (event.height, event.block)
        self.events.append(event)
        for sink in self._sinks:
            hand_over(event, sink)
