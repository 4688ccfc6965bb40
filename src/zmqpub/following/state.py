"""From notifications of any mix of topics to one ordered story of chain and mempool. Does no I/O.

What each topic can tell decides who tells: of blocks ``sequence`` (every block, by its labels) before ``rawblock`` (every
tip with its parent, from which the blocks between are found) before ``hashblock`` (every tip); of transactions
``sequence`` before ``rawtx`` before ``hashtx``. The others bring bodies. Blocks are told by the best topic that was heard;
transactions by the best that is subscribed to, since ``rawtx`` does not say whether a transaction entered the mempool or
a block.

`ChainState.take` eats an item of a subscriber's stream, `ChainState.pop` gives the events that follow. Where a node has to
be asked, ``take`` returns a generator of questions (see chain_walk), which is to be run before the next item is taken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from zmqpub._fast import Block, HashBlock, HashTx, RawBlock, RawTx, Sequence
from zmqpub.chain_events import BlockConnected, BlockDisconnected, ChainEvent, MempoolReset, TransactionAdded, TransactionRemoved
from zmqpub.errors import RepairError
from zmqpub.following.blocks import BlockTeller
from zmqpub.following.line import ChainLine, Link
from zmqpub.following.mempool import BodyShelf, MempoolNumbers, Seen, Step, is_coinbase
from zmqpub.following.merge import Merge, Verdict
from zmqpub.following.queue import EventQueue
from zmqpub.following.walk import Work, ask_mempool
from zmqpub.stream_events import Connected, Disconnected, Lost, Malformed, MempoolGap, Restart, Stale
from zmqpub.wire import SequenceLabel, Topic

__all__ = ["ChainState", "StoryKey"]

_log = logging.getLogger("zmqpub")

StoryKey: TypeAlias = "tuple[str, bytes, int | None]"
"""A part of the story: a label, or ``tip``, the block or transaction, and the mempool sequence of a transaction."""

_ADDED, _REMOVED = SequenceLabel.ADDED, SequenceLabel.REMOVED
_TIP = "tip"
_BLOCK_TOPICS = (Topic.HASHBLOCK, Topic.RAWBLOCK)
_WARN_AFTER = 1000
_RETRY_SECONDS = 5.0


class ChainState:
    """One follower's knowledge.

    ``topics``: those subscribed to. ``sources``: addresses subscribed to. ``can_ask``: whether there is a Repair.
    ``walk_limit``: the most blocks that a way back is followed. ``clock``: seconds, for how soon a node that did not answer
    is asked again.
    """

    def __init__(
        self,
        topics: Collection[Topic],
        *,
        sources: int = 1,
        can_ask: bool = False,
        walk_limit: int = 2016,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = EventQueue()
        self.blocks = BlockTeller(self.queue, topics, can_ask=can_ask, walk_limit=walk_limit)
        self.numbers = MempoolNumbers()
        self.labels_heard = False
        """Whether a ``sequence`` message came: then its labels tell of blocks."""
        self.owes_blocks = False
        """Whether the chain has to be compared with the node's before anything more is told of it."""
        self.owes_mempool = False
        self.merge: Merge[StoryKey] | None = Merge() if sources > 1 else None
        self.started = False
        self.pop: Callable[[], ChainEvent | None] = self.queue.pop
        self._topics = frozenset(topics)
        self._can_ask = can_ask
        self._clock = clock
        self._retry_at: float | None = None  # after a node did not answer
        self._announced: tuple[bytes, str] | None = None
        self._shelf = BodyShelf()
        self._seen = Seen()
        self._label_sources: set[str] = set()
        self._body_sources: set[str] = set()
        self._unnamed = 0
        self.handlers: dict[type, Callable[[Any], Work[None] | None]] = {
            Sequence: self._sequence,
            RawBlock: self._rawblock,
            HashBlock: self._hashblock,
            RawTx: self._rawtx,
            HashTx: self._hashtx,
            Lost: self._lost,
            Malformed: self._malformed,
            MempoolGap: self._mempool_gap,
            Restart: self._restart,
            Stale: self._silence,
            Disconnected: self._silence,
            Connected: self._connection,
        }

    @property
    def line(self) -> ChainLine:
        """The chain as it was told last."""
        return self.blocks.line

    @property
    def block_topic(self) -> Topic:
        """Who tells of blocks, and with several addresses of all that they repeat."""
        if self.labels_heard:
            return Topic.SEQUENCE
        return Topic.RAWBLOCK if self.blocks.bodies_heard else Topic.HASHBLOCK

    # In

    def take(self, item: object) -> Work[None] | None:
        """An item of the stream. What is returned, if anything, is to be run to its end before the next call."""
        handler = self.handlers.get(type(item))
        if handler is None:
            return None
        return handler(item) if self.started else self._chain(self.start(), lambda: handler(item))

    def idle(self) -> Work[None] | None:
        """Nothing came for a while: bodies that are waited for will not come, and what is owed may be had now."""
        return self._settle_all() if self.waiting or self._may_mend else None

    @property
    def waiting(self) -> bool:
        """Does a block wait for its body, until ``idle`` lets it go?"""
        return self.queue.holding or self._announced is not None

    @property
    def owing(self) -> bool:
        """Is something to be asked of the node again, which did not answer?"""
        return self._can_ask and (self.owes_blocks or self.owes_mempool)

    def start(self) -> Work[None]:
        """What is to be asked first. Runs by itself with the first item that is taken."""
        if self.started:
            return
        self.started = True
        if not self._can_ask:
            return
        if self.line.tip is None and self._tells_blocks:
            self.owes_blocks = True
        if self._tells_mempool and not self.numbers.last and not self.numbers.floor:
            self.owes_mempool = True
        yield from self._mend("at the start")

    # Transactions

    @property
    def _tells_blocks(self) -> bool:
        return not self._topics.isdisjoint((*_BLOCK_TOPICS, Topic.SEQUENCE))

    @property
    def _tells_mempool(self) -> bool:
        return Topic.SEQUENCE in self._topics

    def _sequence(self, message: Sequence) -> Work[None] | None:
        number = message.mempool_sequence
        source = message.address
        if not self.labels_heard:
            self.labels_heard = True
            self._change_teller()
        if source not in self._label_sources:
            self._label_sources.add(source)
        if number is None:
            return self._label(source, message.label, message.hash)
        if self.queue.holding or self._announced is not None:
            return self._chain(self._settle(source), lambda: self._numbered(message, source, number))
        return self._numbered(message, source, number)

    def _numbered(self, message: Sequence, source: str, number: int) -> Work[None] | None:
        """An ``A`` or ``R``."""
        if self.merge is not None and not self._is_news(source, message.label.value, message.hash, number):
            self.numbers.last[source] = number
            return None
        step = self.numbers.take(source, number)
        if step is Step.RESTART:
            self.numbers.restart()
            self.numbers.last[source] = number
            self._owe(mempool=True)
            return self._mend_and_tell("the node's mempool sequence began anew", message, number)
        if self._may_mend:
            return self._mend_and_tell("the mempool is not known for sure", message, number)
        if step is Step.NEXT:
            self._tell_transaction(message, number)
        return None

    def _tell_transaction(self, message: Sequence, number: int) -> None:
        txid = message.hash
        if message.label is _ADDED:
            self.queue.put(TransactionAdded(txid, self._shelf.take(message.address, txid), number))
        else:
            self.queue.put(TransactionRemoved(txid, number))

    def _mend_and_tell(self, reason: str, message: Sequence, number: int) -> Work[None]:
        yield from self._mend(reason)
        if number >= self.numbers.floor:
            self._tell_transaction(message, number)

    def _rawtx(self, message: RawTx) -> Work[None] | None:
        source = message.address
        if self._tells_mempool:
            self._shelf.put(source, message, labels=source in self._label_sources)
            self._warn_unnamed()
        elif not is_coinbase(message.body) and self._seen.add(message.txid):
            self.queue.put(TransactionAdded(message.txid, message.transaction))
        return self._passed(source)

    def _hashtx(self, message: HashTx) -> Work[None] | None:
        if self._tells_mempool:
            self._warn_unnamed()
        elif Topic.RAWTX not in self._topics and self._seen.add(message.txid):
            self.queue.put(TransactionAdded(message.txid))
        return self._passed(message.address)

    def _warn_unnamed(self) -> None:
        if not self.labels_heard:
            self._unnamed += 1
            if self._unnamed == _WARN_AFTER:
                _log.warning(
                    "%d transactions came and no sequence message: the mempool is told from sequence alone while it is subscribed to; "
                    "where it is not published, leave it out of the topics",
                    _WARN_AFTER,
                )

    # Blocks by label

    def _label(self, source: str, label: SequenceLabel, block_hash: bytes) -> Work[None] | None:
        if not self._is_news(source, label.value, block_hash):
            return self._passed(source)
        if label is SequenceLabel.CONNECTED:
            return self._connected(block_hash, source)
        return self._disconnected(block_hash, source)

    def _connected(self, block_hash: bytes, source: str) -> Work[None]:
        yield from self._settle(source)
        yield from self._mend("the chain is not known for sure")
        if block_hash in self.line:
            self.blocks.caught_up(block_hash)
            return
        body = self.blocks.take_spare(block_hash)
        link = yield from self.blocks.place(block_hash, body)
        tip = self.line.tip
        if link.previous is None and tip is not None and not self.blocks.uncertain:
            link = link._replace(previous=tip.hash)  # by the label's rule; checked once the body is here
        teller = source if source in self._body_sources or not self.blocks.bodies_heard else None
        yield from self._follow_to(link, teller, hold=True)

    def _disconnected(self, block_hash: bytes, source: str) -> Work[None]:
        yield from self._settle(source)
        yield from self._mend("the chain is not known for sure")
        tip = self.line.tip
        if self.blocks.catching_up:
            if block_hash in self.line:
                yield from self._catch_up()
        elif tip is None or (self.blocks.uncertain and block_hash not in self.line):
            self.line.clear()
            self.queue.put(BlockDisconnected(block_hash))
        elif block_hash in self.line:
            self.blocks.disconnect_to(block_hash)
        else:
            self._owe(blocks=True)
            yield from self._mend(f"block {block_hash.hex()} was disconnected and had not been connected")

    # Blocks by tip

    def _rawblock(self, message: RawBlock) -> Work[None] | None:
        source, block_hash, block = message.address, message.hash, message.block
        if not self.blocks.bodies_heard:
            self.blocks.bodies_heard = True
            if not self.labels_heard:
                self._change_teller()
        self._body_sources.add(source)
        if self._announced is not None and self._announced[0] == block_hash:
            self._announced = None
        held = self.queue.held(block_hash)
        if held is not None:
            return self._body(held, block)
        if self.labels_heard:
            if block_hash in self.line:
                self.line.keep_body(block_hash, block)
                return None
            if source not in self._label_sources or self.merge is not None:
                self.blocks.keep_spare(block_hash, block)
                return None
        elif not self._is_news(source, _TIP, block_hash):
            return None
        return self._new_tip(Link(block_hash, None, block.header.prev_hash, block), source)

    def _body(self, held: BlockConnected, block: Block) -> Work[None]:
        link = yield from self.blocks.body_of(held, block)
        if link is not None:
            yield from self._follow_to(link)

    def _hashblock(self, message: HashBlock) -> Work[None] | None:
        if self.labels_heard or self.blocks.bodies_heard or message.hash in self.line:
            return None
        if not self._is_news(message.address, _TIP, message.hash):
            return None
        if self.blocks.may_have_bodies:
            self._announced = (message.hash, message.address)
            return None
        return self._announced_tip(message.hash, message.address)

    def _announced_tip(self, block_hash: bytes, source: str) -> Work[None]:
        link = yield from self.blocks.place(block_hash, None)
        yield from self._new_tip(link, source)

    def _new_tip(self, link: Link, source: str) -> Work[None]:
        yield from self._settle(source)
        yield from self._mend("the chain is not known for sure")
        if link.hash in self.line:
            self.blocks.caught_up(link.hash)
        else:
            yield from self._follow_to(link)

    # The chain

    def _change_teller(self) -> None:
        """A better topic tells of blocks from now on: what addresses said of the other one is nothing to it."""
        if self.merge is not None:
            self.merge = Merge()

    def _is_news(self, source: str, what: str, name: bytes, number: int | None = None) -> bool:
        """Was it not told by another address?"""
        if self.merge is None:
            return True
        verdict = self.merge.take(source, (what, name, number), unique=number is not None or what == _TIP)
        if verdict is Verdict.LEADS:
            self._owe(blocks=True, mempool=self._tells_mempool)
        return verdict is not Verdict.SEEN

    # Bodies

    def _follow_to(self, link: Link, teller: str | None = None, *, hold: bool = False) -> Work[None]:
        if self.blocks.is_behind(link):
            yield from self._catch_up()
        else:
            yield from self.blocks.follow_to(link, teller, hold=hold)

    def _catch_up(self) -> Work[None]:
        self._owe(blocks=True)
        yield from self._mend("while catching up with the node")

    # Bodies

    def _passed(self, source: str) -> Work[None] | None:
        """``source`` sent something else than a block: bodies that it would have sent next do not come."""
        return self._settle(source) if self.queue.holding or self._announced is not None else None

    @staticmethod
    def _chain(first: Work[None], then: Callable[[], Work[None] | None]) -> Work[None]:
        yield from first
        work = then()
        if work is not None:
            yield from work

    def _settle(self, source: str) -> Work[None]:
        yield from self.blocks.without_body(self.queue.waits_for(source))
        if self._announced is not None and self._announced[1] == source:
            block_hash = self._announced[0]
            self._announced = None
            self.blocks.fruitless += 1
            yield from self._announced_tip(block_hash, source)

    def _settle_all(self) -> Work[None]:
        yield from self.blocks.without_body([event.hash for event in self.queue.held_blocks()])
        if self._announced is not None:
            yield from self._settle(self._announced[1])
        yield from self._mend("after a pause")

    # Trouble

    def _lost(self, event: Lost) -> Work[None] | None:
        return self._missing(event.address, event.topic, f"{event.address}: {event.reason}")

    def _malformed(self, event: Malformed) -> Work[None] | None:
        topic = next((topic for topic in Topic if topic == event.topic), None)
        if topic is None or event.counter is None:
            return None
        return self._missing(event.address, topic, f"{event.address}: malformed: {event.reason}")

    def _mempool_gap(self, event: MempoolGap) -> Work[None] | None:
        if self._covered(event.address):
            return None
        self._owe(mempool=True)
        return self._mend(f"{event.address}: the mempool sequence went from {event.expected} to {event.got}")

    def _restart(self, event: Restart) -> Work[None] | None:
        if event.previous_epoch not in (None, event.epoch):
            return None  # one life was told to its end, the next from its beginning: what was lost in between was told before
        self.numbers.restart()
        self._owe(blocks=self._tells_blocks, mempool=self._tells_mempool)
        return self._mend(f"{event.address}: the publisher began anew")

    def _missing(self, source: str, topic: Topic, reason: str) -> Work[None] | None:
        """Messages of ``topic`` will not come: which part of the story do they leave open?"""
        blocks = topic in (self.block_topic, Topic.SEQUENCE)
        mempool = topic is self._mempool_topic
        if (blocks or mempool) and not self._covered(source):
            self._owe(blocks=blocks, mempool=mempool)
        return self._mend(reason) if self._may_mend else None

    @property
    def _mempool_topic(self) -> Topic:
        """Who tells of the mempool."""
        return next((topic for topic in (Topic.SEQUENCE, Topic.RAWTX) if topic in self._topics), Topic.HASHTX)

    def _covered(self, source: str) -> bool:
        """Does another address tell what ``source`` lost?"""
        return self.merge is not None and self.merge.lose(source)

    def _silence(self, event: Stale | Disconnected) -> None:
        if self.merge is not None:
            self.merge.silence(event.address)

    def _connection(self, _event: Connected) -> Work[None] | None:
        return None if self.started else self.start()

    def _owe(self, *, blocks: bool = False, mempool: bool = False) -> None:
        """Something new is missing, to be had before more is told."""
        self.owes_blocks = self.owes_blocks or blocks
        self.owes_mempool = self.owes_mempool or mempool
        self._retry_at = None

    @property
    def _may_mend(self) -> bool:
        return (self.owes_blocks or self.owes_mempool) and (self._retry_at is None or self._clock() >= self._retry_at)

    def _mend(self, reason: str) -> Work[None]:
        """Get what is owed from the node, or say that it is missing."""
        if not self._may_mend:
            return
        if not self._can_ask:
            self._tell_missing(reason)
            self.owes_blocks = self.owes_mempool = False
            return
        try:
            if self.owes_blocks:
                yield from self.blocks.walk_to_best(reason)
                self.owes_blocks = False
            if self.owes_mempool:
                yield from self._take_snapshot()
                self.owes_mempool = False
        except RepairError as error:
            if self._retry_at is None:
                self._tell_missing(f"{reason}; {error}")
            self._retry_at = self._clock() + _RETRY_SECONDS

    def _tell_missing(self, reason: str) -> None:
        self.blocks.tell_gap(reason, blocks=self.owes_blocks, mempool=self.owes_mempool)
        self.blocks.uncertain = self.blocks.uncertain or self.owes_blocks

    def _take_snapshot(self) -> Work[None]:
        txids, mempool_sequence = yield from ask_mempool()
        self.numbers.floor = mempool_sequence
        if not self._tells_mempool:
            for txid in txids:
                self._seen.add(txid)
        self.queue.put(MempoolReset(tuple(txids), mempool_sequence))
