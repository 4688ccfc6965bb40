"""The active chain as a follower tells it: blocks connected and disconnected, and the ways between them. Does no I/O."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection

from zmqpub._fast import Block
from zmqpub.chain_events import BlockConnected, BlockDisconnected, ChainGap
from zmqpub.errors import CursorError, RepairError
from zmqpub.following.line import RECENT_BLOCKS, ChainLine, Link
from zmqpub.following.queue import EventQueue
from zmqpub.following.walk import NoWayError, Work, ask_best, ask_block, ask_header, known_link, walk
from zmqpub.wire import Topic

__all__ = ["BlockTeller"]

_log = logging.getLogger("zmqpub")

_FRUITLESS = 2  # blocks that waited in vain for their bodies, before rawblock is taken for not published
_KNOWN_AT_START = 12
_SPARE_BODIES = 8


class BlockTeller:
    """Keeps the chain coherent: what it puts into ``queue`` always connects to the tip or disconnects it, or is a ChainGap."""

    def __init__(self, queue: EventQueue, topics: Collection[Topic], *, can_ask: bool, walk_limit: int) -> None:
        self.line = ChainLine()
        self.bodies_heard = False
        """Whether a ``rawblock`` came."""
        self.catching_up = False
        """Whether the chain was taken from the node, so that what was published before that may still be on its way."""
        self.uncertain = False
        """Whether something is missing before the next block, which was told already."""
        self.fruitless = 0
        """How many blocks waited in vain for their bodies, while no ``rawblock`` came."""
        self._queue = queue
        self._expects_bodies = Topic.RAWBLOCK in topics
        self._can_ask = can_ask
        self._walk_limit = walk_limit
        self._forgotten: OrderedDict[bytes, Link] = OrderedDict()
        self._spare: OrderedDict[bytes, Block] = OrderedDict()

    # Where blocks belong

    def place(self, block_hash: bytes, block: Block | None) -> Work[Link]:
        """A block's place, as far as it can be known."""
        link = known_link(block_hash, block, self._forgotten)
        if link is not None:
            return link
        if self._can_ask:
            try:
                height, previous = yield from ask_header(block_hash)
            except RepairError as error:
                _log.warning("block %s: its parent is not known: %s", block_hash.hex(), error)
            else:
                return Link(block_hash, height, previous)
        return Link(block_hash)

    def is_behind(self, link: Link) -> bool:
        """Is ``link`` a block that was published before the chain was taken from the node? Then only the node can tell."""
        tip = self.line.tip
        return self.catching_up and tip is not None and link.previous != tip.hash

    def follow_to(self, link: Link, teller: str | None = None, *, hold: bool = False) -> Work[None]:
        """Make ``link`` the tip, over all that lies between; only if it is not `is_behind`."""
        tip = self.line.tip
        self.catching_up = False
        if tip is None or link.previous == tip.hash:
            self._connect(link, teller, hold)
        elif link.previous is None and not self.uncertain:
            self._connect(link, teller, hold)  # hashblock alone: the parent cannot be known
        else:
            yield from self._walk_to(link)
        self.uncertain = False

    def _walk_to(self, link: Link) -> Work[None]:
        reason = "something is missing before it"
        if link.previous is not None:
            try:
                path = yield from self._path(link)
            except RepairError as error:
                reason = str(error)
            else:
                yield from self._take_path(path)
                return
        if not self.uncertain:
            self.tell_gap(f"block {link.hash.hex()}: {reason}", blocks=True)
        self.line.clear()
        self._connect(link, None, hold=False)

    def walk_to_best(self, reason: str) -> Work[None]:
        """Follow the node to its tip. RepairError where it does not answer."""
        best = yield from ask_best()
        tip = self.line.tip
        self.catching_up = True
        if tip is None:
            yield from self._begin_at(best)
        elif best in self.line:
            # The node is where we are, or went back without a new tip (invalidateblock).
            while (tip := self.line.tip) is not None and tip.hash != best:
                self.disconnect_tip()
        else:
            height, previous = yield from ask_header(best)
            try:
                path = yield from self._path(Link(best, height, previous))
            except NoWayError as error:
                self.tell_gap(f"{reason}; {error}", blocks=True)
                self.line.clear()
                path = [Link(best, height, previous)]
            _log.info("%d blocks taken from the node: %s", len(path), reason)
            yield from self._take_path(path)

    def _begin_at(self, best: bytes) -> Work[None]:
        """Take the node's last blocks for known, without telling them: a fork below them would have no other way back."""
        links: list[Link] = []
        previous = best
        while len(links) < _KNOWN_AT_START and any(previous):
            block_hash = previous
            try:
                height, previous = yield from ask_header(block_hash)
            except RepairError:
                if not links:
                    raise
                break
            links.append(Link(block_hash, height, previous))
        for link in reversed(links):
            self.line.connect(link)

    def _path(self, link: Link) -> Work[list[Link]]:
        return walk(link, self.line, self._forgotten, ask=self._can_ask, bodies=self._wants_bodies, limit=self._walk_limit)

    def _take_path(self, path: list[Link]) -> Work[None]:
        if self._wants_bodies and path[-1].block is None and self._can_ask:
            try:
                path[-1] = path[-1]._replace(block=(yield from ask_block(path[-1].hash)))
            except RepairError as error:
                _log.warning("block %s has no body: %s", path[-1].hash.hex(), error)
        while (tip := self.line.tip) is not None and tip.hash != path[0].previous:
            self.disconnect_tip()
        for link in path:
            self._connect(link, None, hold=False)

    def _connect(self, link: Link, teller: str | None, hold: bool) -> None:
        link = self.line.connect(link)
        self._forgotten.pop(link.hash, None)
        event = BlockConnected(link.hash, link.height, link.previous, link.block)
        if hold and link.block is None and self.may_have_bodies:
            self._queue.hold(event, teller)
        else:
            self._queue.put(event)

    def disconnect_tip(self) -> Link:
        link = self.line.disconnect()
        self._forgotten[link.hash] = link._replace(block=None)
        while len(self._forgotten) > RECENT_BLOCKS:
            self._forgotten.popitem(last=False)
        self._queue.put(BlockDisconnected(link.hash, link.height, link.block))
        return link

    def disconnect_to(self, block_hash: bytes) -> None:
        """Take blocks off, down to and with the one of this hash."""
        while self.disconnect_tip().hash != block_hash:
            pass

    def caught_up(self, block_hash: bytes) -> None:
        """A block that is known already was told; the tip itself: from here on the stream is ahead."""
        if self.line.tip is not None and self.line.tip.hash == block_hash:
            self.catching_up = False

    # Bodies

    @property
    def may_have_bodies(self) -> bool:
        """May a block that was told of be followed by its body?"""
        return self._expects_bodies and (self.bodies_heard or self.fruitless < _FRUITLESS)

    @property
    def _wants_bodies(self) -> bool:
        return self.bodies_heard and self._expects_bodies

    def keep_spare(self, block_hash: bytes, block: Block) -> None:
        """A body that came before its label, from another address."""
        self._spare[block_hash] = block
        while len(self._spare) > _SPARE_BODIES:
            self._spare.popitem(last=False)

    def take_spare(self, block_hash: bytes) -> Block | None:
        """A body that was kept."""
        return self._spare.pop(block_hash, None)

    def body_of(self, held: BlockConnected, block: Block) -> Work[Link | None]:
        """The body of a block that waits for it; bodies come in order, so those before it have none.

        If it contradicts what was taken for the block's parent, the block is taken back; it is returned, to be followed.
        """
        block_hash, previous = held.hash, block.header.prev_hash
        self.fruitless = 0
        yield from self.without_body(self._queue.before(block_hash))
        tip = self.line.tip
        if previous == held.previous or tip is None or tip.hash != block_hash:
            self.line.keep_body(block_hash, block)
            self._queue.settle(block_hash, block)
            return None
        self._queue.withdraw(block_hash)
        self.line.disconnect()
        return Link(block_hash, None, previous, block)

    def without_body(self, hashes: list[bytes]) -> Work[None]:
        """Let blocks go that no rawblock brought; a node that can be asked has them."""
        for block_hash in hashes:
            block = None
            if self._can_ask and self._wants_bodies:
                try:
                    block = yield from ask_block(block_hash)
                except RepairError as error:
                    _log.warning("block %s has no body: %s", block_hash.hex(), error)
            if not self.bodies_heard:
                self.fruitless += 1
            if block is not None:
                self.line.keep_body(block_hash, block)
            self._queue.settle(block_hash, block)

    # Trouble

    def tell_gap(self, reason: str, *, blocks: bool = False, mempool: bool = False) -> None:
        _log.warning("the chain's story has a gap: %s", reason)
        self._queue.put(ChainGap(reason, blocks, mempool))

    def check_cursor(self) -> Work[None]:
        """CursorError where the node knows none of the blocks that the cursor names."""
        if not self._can_ask or self.line.tip is None:
            return
        try:
            yield from ask_best()
        except RepairError as error:
            _log.warning("the cursor was not compared with the node's chain: %s", error)
            return
        links = [link.hash for link in self.line]
        for block_hash in (links[-1], links[len(links) // 2], links[0]):
            try:
                yield from ask_header(block_hash)
            except RepairError:
                continue
            return
        raise CursorError("recent", f"another chain: the node knows none of these blocks, the last of which is {links[-1].hex()}")
