"""Notifications made by hand, of what a source tells, for tests that need no publisher and no socket; and a node to ask.

They have what the core's typed notifications have, and follow the order of docs/wire.md, written down here once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from zmqpub import Block, SequenceLabel, Topic, Transaction, _fast
from zmqpub.chain_events import BlockConnected, BlockDisconnected, ChainEvent, MempoolReset, TransactionAdded, TransactionRemoved
from zmqpub.errors import RepairError
from zmqpub.following.state import ChainState
from zmqpub.following.walk import Work, answer
from zmqpub.repair import HeaderInfo, MempoolSnapshot, Repair
from zmqpub.sources import events as source_events
from zmqpub.sources.simulated import Simulated

ALL = tuple(Topic)
HERE = "tcp://127.0.0.1:28332"
THERE = "tcp://127.0.0.1:28333"


@dataclass(frozen=True)
class FakeHashBlock:
    hash: bytes
    address: str = HERE


@dataclass(frozen=True)
class FakeHashTx:
    txid: bytes
    address: str = HERE


@dataclass(frozen=True)
class FakeRawBlock:
    block: Block
    address: str = HERE

    @property
    def hash(self) -> bytes:
        return self.block.hash


@dataclass(frozen=True)
class FakeRawTx:
    transaction: Transaction
    address: str = HERE

    @property
    def txid(self) -> bytes:
        return self.transaction.txid

    @property
    def body(self) -> memoryview:
        return self.transaction.raw


@dataclass(frozen=True)
class FakeSequence:
    hash: bytes
    label: SequenceLabel
    mempool_sequence: int | None = None
    address: str = HERE


Message: TypeAlias = "FakeHashBlock | FakeHashTx | FakeRawBlock | FakeRawTx | FakeSequence"
_KINDS: dict[type, type] = {
    FakeHashBlock: _fast.HashBlock,
    FakeHashTx: _fast.HashTx,
    FakeRawBlock: _fast.RawBlock,
    FakeRawTx: _fast.RawTx,
    FakeSequence: _fast.Sequence,
}


def make_state(topics: Collection[Topic] = ALL, **options: Any) -> ChainState:
    """A state that takes the notifications of this module, too."""
    state = ChainState(topics, **options)
    for fake, real in _KINDS.items():
        state.handlers[fake] = state.handlers[real]
    return state


class Story(list[source_events.Event]):
    """What is published; ``before`` are the events of the blocks below."""

    before: list[source_events.Event]


def simulate(seed: int, blocks: int = 20, **options: Any) -> Story:
    """A short and lively life of a chain: every third block reorganizes."""
    settings: dict[str, Any] = {
        "block_interval": 4.0,
        "transactions_per_second": 2.0,
        "reorg_rate": 0.35,
        "replacement_rate": 0.1,
        "eviction_rate": 0.05,
        "coins": 400,
    }
    events = list(Simulated(seed, blocks=blocks, publish_bootstrap=True, **(settings | options)))
    start = max(place for place, event in enumerate(events) if isinstance(event, source_events.UpdatedBlockTip) and event.initial_download)
    story = Story(events[start + 1 :])
    story.before = events[: start + 1]
    return story


def messages_of(event: source_events.Event, topics: Collection[Topic] = ALL, address: str = HERE) -> Iterator[Message]:
    """What a node publishes of an event."""
    if isinstance(event, source_events.TransactionAdded):
        yield from _transaction(event.transaction, topics, address)
        if Topic.SEQUENCE in topics:
            yield FakeSequence(event.transaction.txid, SequenceLabel.ADDED, event.mempool_sequence, address)
    elif isinstance(event, source_events.TransactionRemoved):
        if Topic.SEQUENCE in topics:
            yield FakeSequence(event.transaction.txid, SequenceLabel.REMOVED, event.mempool_sequence, address)
    elif isinstance(event, source_events.UpdatedBlockTip):
        if Topic.HASHBLOCK in topics:
            yield FakeHashBlock(event.block.hash, address)
        if Topic.RAWBLOCK in topics:
            yield FakeRawBlock(event.block, address)
    else:
        for transaction in event.block:
            yield from _transaction(transaction, topics, address)
        connected = isinstance(event, source_events.BlockConnected)
        if Topic.SEQUENCE in topics:
            label = SequenceLabel.CONNECTED if connected else SequenceLabel.DISCONNECTED
            yield FakeSequence(event.block.hash, label, None, address)


def _transaction(transaction: Transaction, topics: Collection[Topic], address: str) -> Iterator[Message]:
    if Topic.HASHTX in topics:
        yield FakeHashTx(transaction.txid, address)
    if Topic.RAWTX in topics:
        yield FakeRawTx(transaction, address)


def published(events: Iterable[source_events.Event], topics: Collection[Topic] = ALL, address: str = HERE) -> list[Message]:
    return [message for event in events for message in messages_of(event, topics, address)]


def told(event: source_events.Event) -> ChainEvent | None:
    """What a follower should make of an event that is published on ``sequence``."""
    if isinstance(event, source_events.TransactionAdded):
        return TransactionAdded(event.transaction.txid, event.transaction, event.mempool_sequence)
    if isinstance(event, source_events.TransactionRemoved):
        return TransactionRemoved(event.transaction.txid, event.mempool_sequence)
    if isinstance(event, source_events.BlockConnected):
        return BlockConnected(event.block.hash, event.height, event.block.header.prev_hash, event.block)
    if isinstance(event, source_events.BlockDisconnected):
        return BlockDisconnected(event.block.hash, event.height, event.block)
    return None


class SimulatedNode:
    """A Repair that knows everything that a source told up to a moment, which `see` moves on. ``down``: it does not answer."""

    def __init__(self, events: Iterable[source_events.Event] = ()) -> None:
        self.down = False
        self.asked: list[str] = []
        self._chain: list[Block] = []
        self._blocks: dict[bytes, tuple[int, Block]] = {}
        self._mempool: dict[bytes, Transaction] = {}
        self._next_sequence = 1
        for event in events:
            self.see(event)

    def see(self, event: source_events.Event) -> None:
        if isinstance(event, source_events.TransactionAdded):
            self._mempool[event.transaction.txid] = event.transaction
            self._next_sequence = event.mempool_sequence + 1
        elif isinstance(event, source_events.TransactionRemoved):
            self._mempool.pop(event.transaction.txid, None)
            self._next_sequence = event.mempool_sequence + 1
        elif isinstance(event, source_events.BlockConnected):
            self._blocks[event.block.hash] = (event.height, event.block)
            self._chain.append(event.block)
            for txid in event.block.txids:
                self._next_sequence += self._mempool.pop(txid, None) is not None
        elif isinstance(event, source_events.BlockDisconnected):
            self._blocks[event.block.hash] = (event.height, event.block)
            if self._chain:
                self._chain.pop()

    @property
    def active(self) -> list[bytes]:
        return [block.hash for block in self._chain]

    def get_best_block_hash(self) -> bytes:
        self._ask("best")
        if not self._chain:
            raise RepairError("there is no block yet")
        return self._chain[-1].hash

    def get_block(self, block_hash: bytes, /) -> Block:
        self._ask("block")
        return self._find(block_hash)[1]

    def get_block_header(self, block_hash: bytes, /) -> HeaderInfo:
        self._ask("header")
        height, block = self._find(block_hash)
        return HeaderInfo(height, block.header.prev_hash)

    def get_mempool(self) -> MempoolSnapshot:
        self._ask("mempool")
        return MempoolSnapshot(list(self._mempool), self._next_sequence)

    def get_transaction(self, txid: bytes, /) -> Transaction | None:
        self._ask("transaction")
        return self._mempool.get(txid)

    def _find(self, block_hash: bytes) -> tuple[int, Block]:
        if block_hash not in self._blocks:
            raise RepairError(f"unknown block {block_hash.hex()}")
        return self._blocks[block_hash]

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.down:
            raise RepairError("the node does not answer")


def run(work: Work[None] | None, repair: Repair | None) -> None:
    """Answer what is asked."""
    if work is None:
        return
    try:
        ask = next(work)
        while True:
            assert repair is not None, f"asked {ask} though there is nobody to ask"
            try:
                reply = answer(repair, ask)
            except RepairError as error:
                ask = work.throw(error)
            else:
                ask = work.send(reply)
    except StopIteration:
        pass


def drain(state: ChainState) -> list[ChainEvent]:
    events = []
    while (event := state.pop()) is not None:
        events.append(event)
    return events


def feed(
    state: ChainState, items: Iterable[object], repair: Repair | None = None, each: Callable[[], None] | None = None
) -> list[ChainEvent]:
    """All that ``state`` makes of ``items``, as long as no pause is needed."""
    events = []
    for item in items:
        run(state.take(item), repair)
        events += drain(state)
        if each is not None:
            each()
    return events


def finish(state: ChainState, repair: Repair | None = None) -> list[ChainEvent]:
    """What a pause lets go."""
    run(state.idle(), repair)
    return drain(state)


class Consumer:
    """A reader's own book of chain and mempool, which fails at the first event that cannot follow the ones before."""

    def __init__(self) -> None:
        self.chain: list[bytes] = []
        self.mempool: set[bytes] = set()
        self.gaps = 0

    def read(self, events: Iterable[ChainEvent]) -> None:
        for event in events:
            if isinstance(event, BlockConnected):
                assert event.hash not in self.chain
                assert not self.chain or event.previous in (None, self.chain[-1])
                self.chain.append(event.hash)
                if event.block is not None:
                    assert event.block.hash == event.hash
                    self.mempool.difference_update(event.block.txids)
            elif isinstance(event, BlockDisconnected):
                if self.chain:
                    assert event.hash == self.chain.pop()
            elif isinstance(event, TransactionAdded):
                assert event.transaction is None or event.transaction.txid == event.txid
                self.mempool.add(event.txid)
            elif isinstance(event, TransactionRemoved):
                self.mempool.discard(event.txid)
            elif isinstance(event, MempoolReset):
                self.mempool = set(event.txids)
            else:
                self.gaps += 1
