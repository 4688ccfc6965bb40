"""A block in the making: transactions that it may hold, in an order that makes it valid."""

from __future__ import annotations

from collections.abc import Mapping

from zmqpub.sources.regtest.coins import Coin, Outpoint, Resolved
from zmqpub.sources.regtest.consensus import COINBASE_MATURITY, LOCKTIME_THRESHOLD, MAX_BLOCK_WEIGHT
from zmqpub.sources.regtest.mempool import Mempool

__all__ = ["RESERVED_WEIGHT", "Template", "fill", "is_final"]

RESERVED_WEIGHT = 8_000
"""What a block keeps free for its header and coinbase."""

_GIVE_UP_AFTER = 100  # refusals in a row, once the block is nearly full


def is_final(locktime: int, height: int, median_time: int) -> bool:
    """Whether the block at ``height``, on top of one with this median time past (BIP 113), may hold the transaction."""
    return locktime < (height if locktime < LOCKTIME_THRESHOLD else median_time)


class Template:
    """The next block's transactions, the coinbase left out; it takes only what keeps the block valid.

    ``coins`` are those of the chain that it will extend, which must not change meanwhile.
    """

    def __init__(
        self,
        coins: Mapping[Outpoint, Coin],
        height: int,
        median_time: int,
        max_weight: int = MAX_BLOCK_WEIGHT - RESERVED_WEIGHT,
        max_transactions: int | None = None,
    ) -> None:
        self.height = height
        self.median_time = median_time
        self.entries: list[Resolved] = []
        self.fees = 0
        self.weight = 0
        self._coins = coins
        self._spent: set[Outpoint] = set()
        self._created: set[Outpoint] = set()
        self._txids: set[bytes] = set()
        self._max_weight = max_weight
        self._max_transactions = max_transactions

    def __contains__(self, txid: object) -> bool:
        return txid in self._txids

    @property
    def is_full(self) -> bool:
        """Whether not even the smallest transaction fits any more."""
        return self.weight + 250 > self._max_weight or len(self.entries) == self._max_transactions

    def refusal(self, entry: Resolved) -> str | None:
        """Why ``entry`` cannot come next, in Bitcoin Core's words where it has any; None when it can."""
        if self.weight + entry.weight > self._max_weight or len(self.entries) == self._max_transactions:
            return "the block is full"
        if entry.locktime and not is_final(entry.locktime, self.height, self.median_time):
            return "bad-txns-nonfinal"
        for coin in entry.spent:
            outpoint = coin.outpoint
            if outpoint in self._spent or (outpoint not in self._coins and outpoint not in self._created):
                return "bad-txns-inputs-missingorspent"
            if coin.coinbase_height and self.height - coin.coinbase_height < COINBASE_MATURITY:
                return "bad-txns-premature-spend-of-coinbase"
        return None

    def add(self, entry: Resolved) -> bool:
        """Append ``entry`` unless there is a reason not to."""
        if self.refusal(entry) is not None:
            return False
        self.entries.append(entry)
        self._txids.add(entry.txid)
        self._spent.update([coin.outpoint for coin in entry.spent])
        self._created.update([coin.outpoint for coin in entry.created])
        self.fees += entry.fee
        self.weight += entry.weight
        return True


def fill(template: Template, mempool: Mempool) -> None:
    """Add what pays best, each transaction after those of the mempool that it depends on."""
    refusals = 0
    for entry in mempool.best_first():
        if entry.txid in template:
            continue
        for member in _package(entry, template, mempool):
            if not template.add(member):
                refusals += 1
                break
        else:
            refusals = 0
        if template.is_full or refusals > _GIVE_UP_AFTER:
            break


def _package(entry: Resolved, template: Template, mempool: Mempool) -> list[Resolved]:
    """``entry`` behind its ancestors that the template lacks, parents before children."""
    if not any(coin.outpoint[0] in mempool for coin in entry.spent):
        return [entry]
    ordered: dict[bytes, Resolved] = {}
    waiting = [(entry, False)]
    while waiting:
        member, parents_done = waiting.pop()
        if parents_done:
            ordered[member.txid] = member
        elif member.txid not in ordered:
            waiting.append((member, True))
            for parent in mempool.parents(member):
                if parent.txid not in template:
                    waiting.append((parent, False))
    return list(ordered.values())
