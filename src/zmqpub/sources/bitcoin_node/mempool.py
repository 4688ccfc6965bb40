"""A node's mempool as it was last seen, and the events that lead from one look at it to the next.

Between two looks a node numbers every arrival and every removal, inclusion in a block among them. The difference between two
looks says what came and what left, not in which order; these are put in an order that Bitcoin Core could have had: what is
replaced or contradicted leaves before what takes its place, parents come before their children. What both came and left between
two looks nobody tells: the numbers that it took are counted, and missing from the stream.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from zmqpub._fast import Block, Transaction
from zmqpub.sources.events import Event, RemovalReason, TransactionAdded, TransactionRemoved

__all__ = ["Change", "MempoolImage"]

_COINBASE = 1  # transactions of a block that were in no mempool


class Change(NamedTuple):
    """What a listing says that is not known yet."""

    gone: list[str]
    added: list[str]
    """In the order of the listing: parents first."""


class MempoolImage:
    """The mempool: transactions by txid in hex, who spends what, and the number that the next event has.

    Its size is that of the node's mempool, up to -maxmempool (300 MB, a third of it serialized transactions).
    """

    def __init__(self) -> None:
        self.transactions: dict[str, Transaction] = {}
        self.next_sequence = 0
        self._spenders: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self.transactions)

    # What it holds

    def load(self, transactions: Iterable[Transaction], sequence: int) -> None:
        """Begin with these."""
        self.transactions.clear()
        self._spenders.clear()
        for transaction in transactions:
            self._insert(transaction)
        self.next_sequence = sequence

    def compare(self, txids: Sequence[str]) -> Change:
        """With a listing of the node's."""
        there = set(txids)
        known = self.transactions
        return Change([txid for txid in known if txid not in there], [txid for txid in txids if txid not in known])

    def _insert(self, transaction: Transaction) -> None:
        txid = transaction.txid.hex()
        self.transactions[txid] = transaction
        for place in _spent_by(transaction):
            self._spenders[place] = txid

    def _discard(self, txid: str) -> Transaction:
        transaction = self.transactions.pop(txid)
        for place in _spent_by(transaction):
            if self._spenders.get(place) == txid:
                del self._spenders[place]
        return transaction

    def with_descendants(self, txids: Iterable[str]) -> list[str]:
        """``txids`` and all that spend their outputs, directly or not; sorted as Bitcoin Core sorts what it removes together."""
        found = dict.fromkeys(txids)
        queue = list(found)
        while queue:
            transaction = self.transactions[queue.pop()]
            for index in range(len(transaction.outputs)):
                child = self._spenders.get(_place(transaction.txid, index))
                if child is not None and child not in found:
                    found[child] = None
                    queue.append(child)
        return sorted(found, key=_internal_order)

    def rivals(self, transaction: Transaction) -> list[str]:
        """Who spends what ``transaction`` spends, with all that depend on them."""
        txid = transaction.txid.hex()
        direct = (self._spenders.get(place) for place in _spent_by(transaction))
        return self.with_descendants(other for other in direct if other is not None and other != txid)

    # Events

    def add(self, transaction: Transaction) -> TransactionAdded:
        number = self._number()
        self._insert(transaction)
        return TransactionAdded(0.0, transaction, number)

    def remove(self, txids: Iterable[str], reason: RemovalReason) -> Iterator[TransactionRemoved]:
        for txid in txids:
            yield TransactionRemoved(0.0, self._discard(txid), self._number(), reason)

    def admit_late(self, block: Block, arrived: Container[bytes]) -> Iterator[Event]:
        """Those transactions of ``block`` that are known to have arrived before it was found."""
        for place, txid in enumerate(block.txids):
            if txid in arrived and txid.hex() not in self.transactions:
                transaction = Transaction(bytes(block[place]))  # one that does not keep the block alive
                yield from self.remove(self.rivals(transaction), "replaced")
                yield self.add(transaction)

    def confirm(self, block: Block) -> Iterator[TransactionRemoved]:
        """What CTxMemPool::removeForBlock does: inclusion takes a number in silence, what the block contradicts is told."""
        for place, txid in enumerate(block.txids):
            name = txid.hex()
            if name in self.transactions:
                self._discard(name)
                self._number()
            elif place >= _COINBASE and self._spenders:
                rivals = self.rivals(block[place])
                yield from self.remove(rivals, "conflict")

    def update(self, change: Change, bodies: Mapping[str, Transaction], reason: RemovalReason = "unknown") -> Iterator[Event]:
        """The events of a change: ``bodies`` are those of what was added, as far as they could be had."""
        gone = dict.fromkeys(change.gone)
        added = [bodies[txid] for txid in change.added if txid in bodies]
        replaced = {txid: self._replaced_by(transaction, gone) for transaction in added if (txid := transaction.txid.hex())}
        of_rivals = {txid for txids in replaced.values() for txid in txids}
        yield from self.remove(sorted((txid for txid in gone if txid not in of_rivals), key=_internal_order), reason)
        for transaction in added:
            waiting = [txid for txid in replaced[transaction.txid.hex()] if txid in self.transactions]
            yield from self.remove(waiting, "replaced")
            yield self.add(transaction)

    def _replaced_by(self, transaction: Transaction, gone: Mapping[str, None]) -> list[str]:
        return [txid for txid in self.rivals(transaction) if txid in gone]

    def _number(self) -> int:
        number = self.next_sequence
        self.next_sequence += 1
        return number


def _place(txid: bytes, index: int) -> bytes:
    return txid + index.to_bytes(4, "little")


def _spent_by(transaction: Transaction) -> list[bytes]:
    return [_place(given.prev_txid, given.prev_index) for given in transaction.inputs]


def _internal_order(txid: str) -> bytes:
    return bytes.fromhex(txid)[::-1]
