"""A regtest chain with its mempool, under its caller's control, that tells what happens in Bitcoin Core's order.

Events come in the order in which Bitcoin Core's validation tells its listeners, with the same mempool sequence numbers
(validation.cpp, txmempool.cpp). Amounts, coins, maturity, lock times and weights are checked; scripts are not executed,
so that a block is as valid as the scripts of the transactions that were submitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from zmqpub._fast import Block, Transaction
from zmqpub.errors import RefusedTransactionError
from zmqpub.primitives import TxOut
from zmqpub.sources.events import (
    BlockConnected,
    BlockDisconnected,
    Event,
    RemovalReason,
    TransactionAdded,
    TransactionRemoved,
    UpdatedBlockTip,
)
from zmqpub.sources.regtest.coins import Coin, Outpoint, Resolved, created_by
from zmqpub.sources.regtest.consensus import COINBASE_MATURITY, MAX_BLOCK_WEIGHT, assemble, coinbase, subsidy
from zmqpub.sources.regtest.mempool import Mempool
from zmqpub.sources.regtest.resolve import resolve
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND, push
from zmqpub.sources.regtest.state import ChainState, Record
from zmqpub.sources.regtest.template import RESERVED_WEIGHT, Template, fill, is_final

__all__ = ["Branch", "RegtestChain"]

_MINER = b"/zmqpub/"
_MIN_REPLACEMENT_RATE = 0.1  # satoshis per virtual byte above what is replaced: Bitcoin Core's -incrementalrelayfee


class RegtestChain:
    """A chain from regtest's genesis block on.

    ``on_event`` is called with every event as it happens. ``start_time`` is the earliest time of a block (seconds since
    the Unix epoch), ``undo_depth`` how many blocks a reorganization may take back, ``mempool_limit`` how many
    transactions may wait. Blocks below ``undo_depth`` are not kept.

    Attributes that may be set at any time: ``clock``, the ``due`` of the events to come, which also moves the time of
    the blocks on; ``reward_script``, the output script that the next coinbases pay; ``initial_download``, what
    UpdatedBlockTip says of it; ``on_coins``, called with coins that are confirmed, matured or given back by a
    transaction that left the mempool, of which some may be spent already.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None] | None = None,
        *,
        start_time: int = 0,
        undo_depth: int = 100,
        mempool_limit: int = 50_000,
    ) -> None:
        self.on_event = on_event
        self.on_coins: Callable[[Sequence[Coin]], None] | None = None
        self.clock = 0.0
        self.reward_script = ANYONE_CAN_SPEND
        self.initial_download = False
        self.mempool = Mempool()
        self._state = ChainState(undo_depth)
        self._start_time = start_time
        self._mempool_limit = mempool_limit
        self._blocks_made = 0

    # What there is

    @property
    def tip(self) -> Block:
        return self._state.tip

    @property
    def height(self) -> int:
        return self._state.height

    @property
    def coins(self) -> Mapping[Outpoint, Coin]:
        """The unspent outputs of the chain; read only."""
        return self._state.coins

    @property
    def state(self) -> ChainState:
        """The active chain with its coins; read only."""
        return self._state

    @property
    def next_time(self) -> int:
        """The time of a block that is mined now, seconds since the Unix epoch."""
        return max(self._start_time + int(self.clock), self._state.median_time + 1)

    @property
    def blocks(self) -> list[Block]:
        """Those that are kept, the oldest first, the tip last."""
        return [record.block for record in self._state.records]

    def spendable(self, outpoint: Outpoint) -> Coin | None:
        """The coin there, of the chain or the mempool, if the next block could spend it and nothing waits to."""
        coin = self._find_coin(outpoint)
        if coin is None or self.mempool.spender(outpoint) is not None or not self._is_mature(coin):
            return None
        return coin

    def _find_coin(self, outpoint: Outpoint) -> Coin | None:
        return self._state.coins.get(outpoint) or self.mempool.coin(outpoint)

    def _is_mature(self, coin: Coin) -> bool:
        return not coin.coinbase_height or self.height + 1 - coin.coinbase_height >= COINBASE_MATURITY

    def resolve(self, transaction: Transaction) -> Resolved:
        """``transaction`` with its coins, of chain or mempool; RefusedTransactionError if they do not add up."""
        return resolve(transaction, self._find_coin)

    # Transactions

    def submit(self, transaction: Transaction | Resolved) -> Resolved:
        """Take a transaction into the mempool, in place of those that it replaces.

        RefusedTransactionError when it may not enter; nothing has changed then, unless the mempool was full: room may
        have been made in vain.
        """
        entry = transaction if isinstance(transaction, Resolved) else self.resolve(transaction)
        conflicts = self._check(entry)
        if conflicts:
            replaced = self.mempool.with_descendants(conflicts)
            self._check_replacement(entry, conflicts, replaced)
            self._remove(sorted(replaced, key=_internal_order), "replaced")
        elif len(self.mempool) >= self._mempool_limit:
            self._make_room(entry)
        self._admit(entry)
        return entry

    def evict(self, entry: Resolved | None = None) -> bool:
        """Push ``entry``, by default what pays least, out of the mempool with all that depend on it; False if it is empty."""
        return self._push_out(entry or self.mempool.worst(), "sizelimit")

    def expire(self) -> bool:
        """Let the transaction that has waited longest go with all that depend on it; False if the mempool is empty."""
        return self._push_out(self.mempool.oldest(), "expiry")

    def _push_out(self, entry: Resolved | None, reason: RemovalReason) -> bool:
        if entry is None:
            return False
        self._remove(sorted(self.mempool.with_descendants([entry]), key=_internal_order), reason)
        return True

    def _check(self, entry: Resolved) -> list[Resolved]:
        """The mempool's entries that spend the same coins; RefusedTransactionError if ``entry`` is no candidate."""
        mempool, coins = self.mempool, self._state.coins
        if entry.txid in mempool:
            raise RefusedTransactionError(entry.txid, "txn-already-in-mempool")
        conflicts = {}
        for coin in entry.spent:
            outpoint = coin.outpoint
            if outpoint not in coins and mempool.coin(outpoint) is None:
                raise RefusedTransactionError(entry.txid, "bad-txns-inputs-missingorspent")
            other = mempool.spender(outpoint)
            if other is not None:
                conflicts[other.txid] = other
        self._check_next_block(entry)
        return list(conflicts.values())

    def _check_next_block(self, entry: Resolved) -> None:
        if entry.weight > MAX_BLOCK_WEIGHT - RESERVED_WEIGHT:
            raise RefusedTransactionError(entry.txid, "tx-size")
        if not self._is_final(entry):
            raise RefusedTransactionError(entry.txid, "non-final")
        for coin in entry.spent:
            if coin.coinbase_height and not self._is_mature(coin):
                raise RefusedTransactionError(entry.txid, "bad-txns-premature-spend-of-coinbase")

    def _is_final(self, entry: Resolved) -> bool:
        return not entry.locktime or is_final(entry.locktime, self.height + 1, self._state.median_time)

    def _check_replacement(self, entry: Resolved, conflicts: list[Resolved], replaced: list[Resolved]) -> None:
        doomed = {other.txid for other in replaced}
        if any(coin.outpoint[0] in doomed for coin in entry.spent):
            raise RefusedTransactionError(entry.txid, "bad-txns-spends-conflicting-tx")
        least = sum(other.fee for other in replaced) + _MIN_REPLACEMENT_RATE * entry.weight / 4
        if entry.fee < least or any(entry.rate <= other.rate for other in conflicts):
            raise RefusedTransactionError(entry.txid, "insufficient fee")

    def _make_room(self, entry: Resolved) -> None:
        parents = {coin.outpoint[0] for coin in entry.spent}
        while len(self.mempool) >= self._mempool_limit:
            worst = self.mempool.worst()
            if worst is None or worst.rate >= entry.rate:
                raise RefusedTransactionError(entry.txid, "mempool full")
            group = self.mempool.with_descendants([worst])
            if any(other.txid in parents for other in group):
                raise RefusedTransactionError(entry.txid, "mempool full")
            self._remove(sorted(group, key=_internal_order), "sizelimit")

    def _admit(self, entry: Resolved) -> None:
        number = self.mempool.add(entry)
        self._tell(TransactionAdded(self.clock, entry.transaction, number))

    def _remove(self, entries: Iterable[Resolved], reason: RemovalReason) -> None:
        for entry in entries:
            number = self.mempool.remove(entry)
            self._tell(TransactionRemoved(self.clock, entry.transaction, number, reason))
            if self.on_coins is not None:
                self.on_coins(entry.spent)

    # Blocks

    def template(self, max_weight: int = MAX_BLOCK_WEIGHT - RESERVED_WEIGHT, max_transactions: int | None = None) -> Template:
        """An empty template of the next block; it is good until the chain changes."""
        state = self._state
        return Template(state.coins, state.height + 1, state.median_time, max_weight, max_transactions)

    def generate(self, count: int = 1, transactions: Sequence[Transaction] | None = None) -> list[Block]:
        """Mine ``count`` blocks on the tip: of what pays best in the mempool, or of exactly ``transactions``, in order.

        Those need not be in the mempool; RefusedTransactionError names the one that makes the block invalid.
        """
        made = []
        for _ in range(count):
            template = self.template()
            if transactions is None:
                fill(template, self.mempool)
            else:
                self._fill_exactly(template, transactions, {})
            made.append(self.extend(template))
        return made

    def extend(self, template: Template) -> Block:
        """Mine ``template`` and make it the tip."""
        record = self._connect(template)
        self._tell_connected(record)
        self._tell_tip(record)
        return record.block

    def reorganize(self, depth: int) -> Branch:
        """Disconnect ``depth`` blocks, tip first, and let the branch that is returned take their place."""
        if not 1 <= depth < len(self._state.records):
            most = len(self._state.records) - 1
            raise ValueError(f"a reorganization of {depth} blocks, expected 1 to {most}, those that can be undone")
        return Branch(self, self._state, depth)

    def reorg(self, depth: int, contents: Sequence[Sequence[Transaction]] = ()) -> list[Block]:
        """Let a branch that is one block longer replace the last ``depth`` blocks.

        ``contents`` are the transactions of its first blocks; those left out are empty, so that what was confirmed
        returns to the mempool.
        """
        with self.reorganize(depth) as branch:
            return [branch.connect(transactions) for transactions in [*contents, *[()] * (depth + 1 - len(contents))]]

    def adopt(self, branch: Sequence[tuple[Block, Sequence[Resolved]]], depth: int = 0) -> None:
        """Let blocks that others mined, with their transactions (coinbase first), take the place of the last ``depth`` blocks.

        They must be valid there, and more than ``depth``: see block_checks.
        """
        disconnected: list[Resolved] = []
        for _ in range(depth):
            disconnected[:0] = self._disconnect()
        leftovers = {entry.txid: entry for entry in disconnected}
        records = []
        for block, entries in branch:
            records.append(self._apply(block, entries))
            for entry in entries:
                leftovers.pop(entry.txid, None)
        if depth:
            self._readmit(leftovers.values())
        for record in records:
            self._tell_connected(record)
        self._tell_tip(records[-1])

    def disconnect(self, count: int = 1) -> None:
        """Take the last blocks off without replacement, as ``invalidateblock`` does: no new tip is told."""
        for _ in range(count):
            self._readmit(self._disconnect())

    def _fill_exactly(self, template: Template, transactions: Sequence[Transaction], known: Mapping[bytes, Resolved]) -> None:
        made: dict[Outpoint, Coin] = {}
        for transaction in transactions:
            entry = known.get(transaction.txid) or self.mempool.get(transaction.txid)
            if entry is None or entry.transaction != transaction:  # same txid, other witness
                entry = resolve(transaction, lambda outpoint: made.get(outpoint) or self._find_coin(outpoint))
            refusal = template.refusal(entry)
            if refusal is not None:
                raise RefusedTransactionError(entry.txid, refusal)
            template.add(entry)
            made.update({coin.outpoint: coin for coin in entry.created})

    def _connect(self, template: Template) -> Record:
        """Mine and apply, and clear the mempool of what the block holds or contradicts; the block is not told yet."""
        height = self.height + 1
        self._blocks_made += 1
        outputs = [TxOut(subsidy(height) + template.fees, self.reward_script)]
        # The count keeps apart the coinbases, and so the blocks, of two branches.
        tag = push(_MINER) + push(self._blocks_made.to_bytes(8, "little"))
        transactions = [entry.transaction for entry in template.entries]
        reward = coinbase(height, outputs, tag, [transaction.wtxid for transaction in transactions])
        block = assemble(self.tip.hash, self.next_time, [reward, *transactions])
        first = Resolved(reward, (), created_by(reward.txid, outputs, height), 0, 4 * reward.size, height - 1)
        return self._apply(block, [first, *template.entries])

    def _apply(self, block: Block, entries: Sequence[Resolved]) -> Record:
        """Put a block on top, and clear the mempool of what it holds or contradicts; the block is not told yet."""
        record = self._state.connect(block, entries)
        self._clear_mempool(entries[1:])
        if self.on_coins is not None:
            self.on_coins([coin for entry in entries[1:] for coin in entry.created])
            self.on_coins(self._state.matured())
        return record

    def _clear_mempool(self, entries: Iterable[Resolved]) -> None:
        """What CTxMemPool::removeForBlock does: inclusion takes a sequence number in silence, a conflict is told."""
        mempool = self.mempool
        for entry in entries:
            waiting = mempool.get(entry.txid)
            if waiting is not None:
                mempool.remove(waiting)
                continue
            for coin in entry.spent:
                conflict = mempool.spender(coin.outpoint)
                if conflict is not None:
                    self._remove(mempool.with_descendants([conflict]), "conflict")

    def _disconnect(self) -> list[Resolved]:
        """Take the tip off and tell it; returns its transactions, the coinbase first."""
        record = self._state.disconnect()
        self._tell(BlockDisconnected(self.clock, record.block, record.height))
        return list(record.entries)

    def _readmit(self, entries: Iterable[Resolved]) -> None:
        """What Chainstate::MaybeUpdateMempoolForReorg does with the disconnected transactions, the oldest first."""
        mempool = self.mempool
        for entry in entries:
            try:
                if not entry.spent or self._check(entry):  # a coinbase, or a conflict: it stays out
                    raise RefusedTransactionError(entry.txid, "txn-mempool-conflict")
            except RefusedTransactionError:
                self._remove(mempool.with_descendants(mempool.children(entry)), "reorg")
            else:
                self._admit(entry)
        early = [entry for entry in mempool if not self._may_stay(entry)]
        self._remove(mempool.with_descendants(early), "reorg")
        while len(mempool) > self._mempool_limit:
            self.evict()

    def _may_stay(self, entry: Resolved) -> bool:
        return self._is_final(entry) and all(map(self._is_mature, entry.spent))

    # Telling

    def _tell(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def _tell_connected(self, record: Record) -> None:
        self._tell(BlockConnected(self.clock, record.block, record.height))

    def _tell_tip(self, record: Record) -> None:
        self._tell(UpdatedBlockTip(self.clock, record.block, record.height, self.initial_download))


class Branch:
    """The branch that overtakes ``depth`` blocks of a chain: a context manager, made by RegtestChain.reorganize().

    Entering it disconnects. Each ``connect`` adds a block, up to one more than were disconnected. Leaving it adds empty
    blocks for those that lack, returns to the mempool what none of them took, and only then tells of the new blocks and
    of the tip: in Bitcoin Core's order, which changes the chain and its mempool first.
    """

    def __init__(self, chain: RegtestChain, state: ChainState, depth: int) -> None:
        self._chain = chain
        self._state = state
        self._depth = depth
        self._leftovers: dict[bytes, Resolved] = {}
        self._records: list[Record] = []

    @property
    def leftovers(self) -> list[Resolved]:
        """The disconnected transactions that no block of the branch holds, oldest first, without coinbases."""
        return [entry for entry in self._leftovers.values() if entry.spent]

    def __enter__(self) -> Branch:
        disconnected: list[Resolved] = []
        for _ in range(self._depth):
            disconnected[:0] = self._chain._disconnect()
        self._leftovers = {entry.txid: entry for entry in disconnected}
        return self

    def template(self, max_weight: int = MAX_BLOCK_WEIGHT - RESERVED_WEIGHT, max_transactions: int | None = None) -> Template:
        """An empty template of the branch's next block."""
        return self._chain.template(max_weight, max_transactions)

    def connect(self, contents: Template | Sequence[Transaction] = ()) -> Block:
        """Mine the next block, of a template or of exactly these transactions."""
        if len(self._records) > self._depth:
            raise ValueError(f"the branch has overtaken the {self._depth} blocks that it replaces")
        if isinstance(contents, Template):
            template = contents
        else:
            template = self.template()
            self._chain._fill_exactly(template, contents, self._leftovers)
        record = self._chain._connect(template)
        self._records.append(record)
        for entry in template.entries:
            self._leftovers.pop(entry.txid, None)
        return record.block

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while len(self._records) <= self._depth:
            self.connect()
        self._chain._readmit(self._leftovers.values())
        for record in self._records:
            self._chain._tell_connected(record)
        self._chain._tell_tip(self._records[-1])


def _internal_order(entry: Resolved) -> bytes:
    """Bitcoin Core keeps what it removes together in a set ordered by the txid's bytes as they are hashed."""
    return entry.txid[::-1]
