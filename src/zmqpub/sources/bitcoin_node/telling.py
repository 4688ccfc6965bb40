"""From what a node answers to events: where the chain and the mempool stand, and what leads on from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from time import monotonic
from typing import TypeAlias

from zmqpub._fast import Block, Transaction
from zmqpub.interfaces import BlockRef
from zmqpub.replay.snapshot import Snapshot
from zmqpub.sources.bitcoin_node.calls import Listing, NodeCalls
from zmqpub.sources.bitcoin_node.counts import NodeCounts
from zmqpub.sources.bitcoin_node.mempool import MempoolImage
from zmqpub.sources.bitcoin_node.path import Path, Recent, find_path
from zmqpub.sources.bitcoin_node.reorganization import Reorganization, Step
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, UpdatedBlockTip

__all__ = ["OnBaseline", "Teller"]

logger = logging.getLogger("zmqpub")

_HELD_AT_ONCE = 100  # blocks of a reorganization; a deeper one is told block by block, and the mempool afterwards
_TOGETHER = 16  # blocks between two looks, up to which is found out what arrived and was confirmed in between
_QUICK_LOOK = 0.02  # seconds; with a mempool that takes longer, blocks do not wait for that
_PATIENCE = 3  # times that a tip which moved on meanwhile is followed before anything is told
_MAX_TIP_AGE = 24 * 3600  # seconds: Bitcoin Core's -maxtipage, beyond which it takes itself to be downloading still
_LOG_EVERY = 10.0  # seconds

OnBaseline: TypeAlias = Callable[[NodeCalls, Snapshot, Sequence[Transaction] | None], None]
"""Takes what the first event finds, the mempool's transactions too. It may ask; where that fails it is called once more later."""


class Teller:
    """Goes along with the node. Its state outlives connections: an exception of a call leaves it where it stood."""

    def __init__(self, counts: NodeCounts, *, mempool: bool, on_baseline: OnBaseline) -> None:
        self.counts = counts
        self.tip: BlockRef | None = None
        """What was told last."""
        self.look_seconds = 0.0
        """What the last look at the mempool took."""
        self.restarted = False
        """The node began anew since the last look at its mempool."""
        self.reconnected = False
        """It may have."""
        self._image: MempoolImage | None = None
        self._wants_mempool = mempool
        self._on_baseline = on_baseline
        self._recent = Recent()
        self._downloading = True
        self._mempool_state: object = None
        self._unlogged = 0
        self._log_after = 0.0

    @property
    def downloading(self) -> bool:
        """Whether the node was in initial download when asked last."""
        return self._downloading

    def begin(self, calls: NodeCalls, tip: BlockRef) -> None:
        """At this block, of which nothing is told."""
        if not self._wants_mempool:
            self._on_baseline(calls, Snapshot(tip.hash, tip.height), None)
        self.tip = tip

    def is_behind(self, target: BlockRef) -> bool:
        """Whether ``target`` is a block of the chain that was told, below its tip."""
        place = self.tip
        while place is not None and place.height > target.height:
            previous = self._recent.previous(place.hash)
            place = None if previous is None else BlockRef(previous, place.height - 1)
        return place == target and place != self.tip

    # The chain

    def ask_if_downloading(self, calls: NodeCalls) -> bool:
        """Whether it was when asked last. It is asked again until it is not any more: so it stays."""
        before = self._downloading
        if before:
            self._downloading = calls.mining.is_initial_block_download()
        return before

    def advance(self, calls: NodeCalls, target: BlockRef) -> Iterator[Event]:
        """Towards ``target``, which is or was the node's tip; at least one block, unless the chain changes meanwhile."""
        self.forget_state()
        yield from self._advance(calls, target, self.ask_if_downloading(calls), _PATIENCE)

    def _advance(self, calls: NodeCalls, target: BlockRef, was_downloading: bool, patience: int) -> Iterator[Event]:
        assert self.tip is not None
        if target.height == self.tip.height + 1 and (block := calls.block(target.hash)) and block.header.prev_hash == self.tip.hash:
            # What happens nearly always costs one question.
            path = Path([], [target])
            fetched: dict[bytes, Block | None] = {target.hash: block}
        else:
            path = find_path(calls, self._recent, self.tip, target)
            few = path.connect if len(path.connect) <= _TOGETHER and not path.disconnect else []
            fetched = {reference.hash: calls.block(reference.hash) for reference in few}
        if path.broken:
            logger.error("the node knows nothing of block %s, told last; going on at %s", self.tip.hash.hex(), target.hash.hex())
            self.counts.missing_blocks += max(target.height - self.tip.height - 1, 1)
        elif path.disconnect:
            yield from self._reorganize(calls, path, self.tip, target)
            return
        # Beyond a gap nobody knows what explains the numbers.
        blocks = [] if path.broken else [block for block in fetched.values() if block is not None]
        arrived, ahead = self._arrived_unseen(calls, blocks, target)
        if ahead is not None and patience:
            yield from self._advance(calls, ahead, was_downloading, patience - 1)
            return
        for reference in path.connect:
            block = fetched[reference.hash] if fetched else calls.block(reference.hash)
            if block is None:
                self._lack(reference)
                continue
            if not path.broken and block.header.prev_hash != self.tip.hash:
                return  # the chain changed while it was looked along
            old = was_downloading and reference != target and block.header.time < time.time() - _MAX_TIP_AGE
            yield from self._extend(reference, block, self._downloading or old, arrived)

    def _extend(self, reference: BlockRef, block: Block, initial_download: bool, arrived: Container[bytes]) -> Iterator[Event]:
        if self._image is not None:
            yield from self._noted(self._image.admit_late(block, arrived))
            yield from self._noted(self._image.confirm(block))
        yield from self._noted([BlockConnected(0.0, block, reference.height)])
        yield UpdatedBlockTip(0.0, block, reference.height, initial_download)

    def _arrived_unseen(self, calls: NodeCalls, blocks: list[Block], target: BlockRef) -> tuple[set[bytes], BlockRef | None]:
        """Transactions that came to the mempool since the last look, and are in these blocks already.

        Nothing lists them any more. But two numbers that nothing else explains, for each transaction of the blocks that was not known,
        say that all of them came that way; any other count does not say which did. Where the node's tip is another one than
        ``target`` by now, so that the numbers are not those of these blocks, it comes back instead.
        """
        image = self._image
        if image is None or self.restarted or self.look_seconds > _QUICK_LOOK:
            return set(), None
        unknown = {txid for block in blocks for txid in block.txids[1:] if txid.hex() not in image.transactions}
        if not unknown:
            return set(), None
        listing = calls.listing()
        if listing.tip != target.hash:
            header = calls.header(listing.tip)
            return set(), None if header is None else BlockRef(header.hash, header.height)
        change = image.compare(listing.txids)
        spare = listing.sequence - image.next_sequence - len(change.gone) - len(change.added)
        return unknown if spare == 2 * len(unknown) else set(), None

    def _lack(self, reference: BlockRef) -> None:
        self.counts.missing_blocks += 1
        self.tip = reference

    def _reorganize(self, calls: NodeCalls, path: Path, old: BlockRef, target: BlockRef) -> Iterator[Event]:
        self.counts.reorganizations += 1
        logger.info("reorganization: %d blocks off, %d on, to %s", len(path.disconnect), len(path.connect), target.hash.hex())
        if len(path.disconnect) + len(path.connect) > _HELD_AT_ONCE:
            yield from self._take_off(calls, path.disconnect)
            return  # what is to be connected is found from there
        off, on = self._steps(calls, path.disconnect), self._steps(calls, path.connect)
        if len(off) < len(path.disconnect) or len(on) < len(path.connect):
            # Told as far as the bodies can be had; the chain goes on from where it ends.
            yield from self._noted(Reorganization(off, [], on, self._downloading).events(self._image))
            self.tip = target
            return
        together = self._overtaking(calls, path, old)
        told = Reorganization(off, on[:together], on[together:], self._downloading)
        image = self._image
        if image is not None and not self.restarted:
            listing = calls.listing()
            if listing.tip == target.hash:
                told.change = image.compare(listing.txids)
                told.spare = listing.sequence - image.next_sequence - len(told.change.gone) - len(told.change.added)
                of_blocks = {txid.hex() for _, block in off for txid in block.txids}
                told.bodies = self._bodies(calls, [txid for txid in told.change.added if txid not in of_blocks])
                missing = sum(txid not in told.bodies for txid in told.change.added if txid not in of_blocks)
                yield from self._noted(told.events(image))
                self._pass_over(told.unexplained + missing, listing.sequence)
                self._go_on_from(image, listing)
                return
        yield from self._noted(told.events(image))

    def _take_off(self, calls: NodeCalls, references: Iterable[BlockRef]) -> Iterator[Event]:
        for reference in references:
            for found, block in self._steps(calls, [reference]):
                yield from self._noted([BlockDisconnected(0.0, block, found.height)])
            previous = self._recent.previous(reference.hash)
            if previous is None:
                header = calls.header(reference.hash)
                if header is None:
                    return
                previous = header.previous
            self.tip = BlockRef(previous, reference.height - 1)

    def _steps(self, calls: NodeCalls, references: Iterable[BlockRef]) -> list[Step]:
        steps = []
        for reference in references:
            block = self._recent.block(reference.hash) or calls.block(reference.hash)
            if block is None:
                self.counts.missing_blocks += 1
            else:
                steps.append((reference, block))
        return steps

    def _overtaking(self, calls: NodeCalls, path: Path, old: BlockRef) -> int:
        """How many blocks of the new branch took over together: until it had more work; none where a block was invalidated."""
        before = calls.header(old.hash)
        if before is None or not path.connect:
            return len(path.connect)
        last = calls.header(path.connect[-1].hash)
        if last is not None and (last.work < before.work or (last.work == before.work and calls.is_invalid(old.hash))):
            return 0
        for count, reference in enumerate(path.connect, start=1):
            header = calls.header(reference.hash)
            if header is not None and header.work > before.work:
                return count
        return len(path.connect)

    # The mempool

    def look(self, calls: NodeCalls) -> Iterator[Event]:
        """What changed in the mempool since the last look, if the node has read it from disk and the chain is where it was told to be."""
        if not self._wants_mempool or self.tip is None:
            return
        loaded, state = calls.mempool_state()
        if not loaded or (state == self._mempool_state and not self.restarted):
            return
        start = monotonic()
        listing = calls.listing()
        if listing.tip != self.tip.hash:
            return
        self.counts.looks += 1
        image = self._image
        if image is None:
            self.look_seconds = monotonic() - start
            self._load(calls, listing)
            self._mempool_state = state
            return
        if self.reconnected and listing.sequence < image.next_sequence:
            self.restarted = True
        self.reconnected = False
        change = image.compare(listing.txids)
        self.look_seconds = monotonic() - start
        bodies = self._bodies(calls, change.added)
        if self.restarted:
            # What is gone left at the end of the node's former life; what came has the last numbers of the new one's beginning.
            yield from self._noted(image.remove(change.gone, "unknown"))
            image.next_sequence = max(listing.sequence - len(bodies), 0)
            yield from self._noted(image.add(bodies[txid]) for txid in change.added if txid in bodies)
            image.next_sequence = listing.sequence
            self.restarted = False
        else:
            # What nobody saw is put first, so that the gap in the numbers shows with the next event, and not one later.
            passed = max(listing.sequence - image.next_sequence - len(change.gone) - len(bodies), 0)
            self._pass_over(passed, listing.sequence)
            image.next_sequence += passed
            yield from self._noted(image.update(change, bodies))
            self._go_on_from(image, listing)
        self.counts.mempool = len(image)
        self._mempool_state = state

    def forget_state(self) -> None:
        """Let the next look list the mempool, whether or not it seems changed."""
        self._mempool_state = None

    def _load(self, calls: NodeCalls, listing: Listing) -> None:
        assert self.tip is not None
        bodies = self._bodies(calls, listing.txids)
        txids = tuple(bytes.fromhex(txid) for txid in bodies)
        snapshot = Snapshot(self.tip.hash, self.tip.height, txids, listing.sequence)
        self._on_baseline(calls, snapshot, list(bodies.values()))
        self._image = MempoolImage()
        self._image.load(bodies.values(), listing.sequence)
        self.restarted = False
        self.counts.mempool = len(bodies)

    def _bodies(self, calls: NodeCalls, txids: list[str]) -> dict[str, Transaction]:
        found = calls.transactions(txids)
        bodies = {txid: body for txid, body in zip(txids, found, strict=True) if body is not None}
        self.counts.unseen_bodies += len(txids) - len(bodies)
        return bodies

    def _go_on_from(self, image: MempoolImage, listing: Listing) -> None:
        if image.next_sequence > listing.sequence:
            self.counts.renumbered += 1
            logger.warning("mempool sequence set back from %d to the node's %d", image.next_sequence, listing.sequence)
        image.next_sequence = listing.sequence

    def _pass_over(self, numbers: int, until: int) -> None:
        self.counts.untold_numbers += numbers
        self._unlogged += numbers
        if self._unlogged and monotonic() >= self._log_after:
            logger.warning(
                "%d mempool events up to sequence %d came and left between two looks: nobody can tell what they were", self._unlogged, until
            )
            self._unlogged = 0
            self._log_after = monotonic() + _LOG_EVERY

    # Both

    def _noted(self, events: Iterable[Event]) -> Iterator[Event]:
        """``events``, each noted before it is handed on: where it leads is where one stands, even if nothing more is asked for."""
        counts = self.counts
        for event in events:
            if isinstance(event, BlockConnected):
                counts.blocks += 1
                self._recent.add(event.block)
                self.tip = BlockRef(event.block.hash, event.height)
            elif isinstance(event, BlockDisconnected):
                counts.disconnected += 1
                self._recent.add(event.block)
                self.tip = BlockRef(event.block.header.prev_hash, event.height - 1)
            yield event
