"""A reorganization in the order in which Bitcoin Core tells it, from what is known before and after.

There are two kinds (validation.cpp). A branch with more work takes over in one step: all is disconnected, the first blocks of the
new branch are connected in silence until it has more work, what they contradict leaves the mempool, disconnected transactions
return to it, then those blocks are told, then the tip; each further block is a step of its own. Where a block was invalidated, each
block is disconnected by itself, its transactions return at once, and each block of the branch that follows is a step of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from zmqpub._fast import Block, Transaction
from zmqpub.interfaces import BlockRef
from zmqpub.sources.bitcoin_node.mempool import Change, MempoolImage
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, UpdatedBlockTip

__all__ = ["Reorganization", "Step"]

_LOCKTIME_THRESHOLD = 500_000_000  # below: a height
_FINAL = 0xFFFFFFFF

Step = tuple[BlockRef, Block]


@dataclass(slots=True)
class Reorganization:
    """What has to be told."""

    disconnected: list[Step]
    """The highest first."""
    together: list[Step]
    """Blocks of the new branch that took over in one step; none where a block was invalidated."""
    singly: list[Step]
    """Those that followed, each a step of its own."""
    initial_download: bool = False
    change: Change | None = None
    """Of the mempool, from before to after; None where that is not known, and told later."""
    bodies: Mapping[str, Transaction] = field(default_factory=dict)
    spare: int = 0
    """How many mempool sequence numbers the change does not explain."""
    unexplained: int = 0
    """How many of them are still not explained when all is told: they are passed over at the beginning."""

    def events(self, image: MempoolImage | None) -> Iterator[Event]:
        """In order; ``image`` goes along."""
        back = self._returning()
        if image is not None:
            image.next_sequence += self.unexplained
        if not self.together:
            for reference, block in self.disconnected:
                yield BlockDisconnected(0.0, block, reference.height)
                if image is not None and self.change is not None:
                    yield from self._readmit(image, [block], back, reference.height)
        else:
            for reference, block in self.disconnected:
                yield BlockDisconnected(0.0, block, reference.height)
            if image is not None:
                for _, block in self.together:
                    yield from image.confirm(block)
                if self.change is not None:
                    oldest_first = [block for _, block in reversed(self.disconnected)]
                    yield from self._readmit(image, oldest_first, back, self.together[-1][0].height + 1)
            for reference, block in self.together:
                yield BlockConnected(0.0, block, reference.height)
            reference, block = self.together[-1]
            yield UpdatedBlockTip(0.0, block, reference.height, self.initial_download)
        for reference, block in self.singly:
            if image is not None:
                yield from image.confirm(block)
            yield BlockConnected(0.0, block, reference.height)
            yield UpdatedBlockTip(0.0, block, reference.height, self.initial_download)
        if image is not None and self.change is not None:
            rest = Change(
                [txid for txid in self.change.gone if txid in image.transactions],
                [txid for txid in self.change.added if txid not in image.transactions],
            )
            yield from image.update(rest, self.bodies)

    def _returning(self) -> dict[str, Transaction]:
        """What of the disconnected blocks returns to the mempool: what is there afterwards, and, where the numbers say that much
        more happened, what a later block took again."""
        if self.change is None:
            return {}
        added = set(self.change.added)
        taken = {txid for _, block in self.together for txid in block.txids}
        again = {txid for _, block in self.singly for txid in block.txids}
        back: dict[str, Transaction] = {}
        retaken: dict[str, Transaction] = {}
        for _, block in self.disconnected:
            for place, txid in enumerate(block.txids):
                name = txid.hex()
                if place == 0 or txid in taken:
                    continue
                if name in added:
                    back[name] = self.bodies.get(name) or _copy(block[place])
                elif txid in again:
                    retaken[name] = _copy(block[place])
        explained = 2 * len(retaken) <= self.spare
        self.unexplained = max(self.spare - 2 * len(retaken) if explained else self.spare, 0)
        return back | retaken if explained else back

    def _readmit(self, image: MempoolImage, blocks: Iterable[Block], back: Mapping[str, Transaction], height: int) -> Iterator[Event]:
        """What Chainstate::MaybeUpdateMempoolForReorg does; ``height`` is that of the next block."""
        assert self.change is not None
        lost: set[bytes] = set()
        for block in blocks:
            for txid in block.txids:
                transaction = back.get(txid.hex())
                if transaction is None:
                    lost.add(txid)
                elif txid.hex() not in image.transactions:
                    yield image.add(transaction)
        gone = [txid for txid in self.change.gone if txid in image.transactions]
        doomed = [txid for txid in gone if _falls(image.transactions[txid], lost, height)]
        doomed = [txid for txid in image.with_descendants(doomed) if txid in self.change.gone]
        yield from image.remove(doomed, "reorg")


def _falls(transaction: Transaction, lost: set[bytes], height: int) -> bool:
    """Whether it spends what is no more, or may not be in the next block yet."""
    inputs = transaction.inputs
    if any(given.prev_txid in lost for given in inputs):
        return True
    return height <= transaction.locktime < _LOCKTIME_THRESHOLD and any(given.sequence != _FINAL for given in inputs)


def _copy(transaction: Transaction) -> Transaction:
    """One that does not keep its block alive."""
    return Transaction(bytes(transaction))
