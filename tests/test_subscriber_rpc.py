"""Subscriber without a replay endpoint, with a node to ask: blocks that were missed, by walking parents. And other trouble."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

from zmqpub import (
    AsyncSubscriber,
    CounterGap,
    Duplicate,
    HashBlock,
    HeaderInfo,
    Lost,
    Malformed,
    MempoolGap,
    RawBlock,
    Received,
    Reorg,
    Repaired,
    RepairError,
    Restart,
    Sequence,
    Subscriber,
    Topic,
)
from zmqpub.testing import FaultyPublisher, RegtestChain

PATIENCE = 20.0
OF_BLOCKS = ("hashblock", "rawblock")


@contextlib.contextmanager
def world(*topics: str, rpc: Any = True, **settings: Any) -> Iterator[tuple[FaultyPublisher, RegtestChain, Subscriber]]:
    """A chain, published by a publisher that misbehaves, and a subscriber that asks the chain's node. One block is mined."""
    with FaultyPublisher({f"zmqpub{topic}": "tcp://127.0.0.1:*" for topic in topics}) as publisher:
        chain = RegtestChain(publisher)
        settings = {"topics": topics, "repair_timeout": 1.0, "repair_retries": 2, **settings}
        with Subscriber(publisher.address, rpc=chain if rpc is True else rpc, **settings) as subscriber:
            publisher.wait_for_subscribers()
            chain.mine()
            yield publisher, chain, subscriber


def take(subscriber: Subscriber, last: bytes, topics: int = 1) -> list[Any]:
    """Items until the block ``last`` was seen in so many topics."""
    items: list[Any] = []
    seen = 0
    while seen < topics:
        items.append(subscriber.recv(PATIENCE))
        seen += isinstance(items[-1], (HashBlock, RawBlock)) and items[-1].hash == last and not items[-1].repaired
    return items


def kinds(items: list[Any], *types: type) -> list[Any]:
    return [item for item in items if isinstance(item, types)]


def blocks_of(items: list[Any], kind: type[HashBlock | RawBlock]) -> list[tuple[bytes, int, bool]]:
    return [(item.hash, item.counter, item.repaired) for item in items if isinstance(item, kind)]


def test_missed_blocks_are_had_from_the_node_in_order() -> None:
    with world(*OF_BLOCKS) as (publisher, chain, subscriber):
        first = chain.tip.hash
        with publisher.losing():
            chain.mine(3)
        chain.mine()
        items = take(subscriber, chain.tip.hash, 2)
        hashes = [block.hash for block in chain.blocks[-5:]]
    assert hashes[0] == first
    told = [(block, n, n in (1, 2, 3)) for n, block in enumerate(hashes)]
    assert blocks_of(items, HashBlock) == told
    assert blocks_of(items, RawBlock) == told
    assert [(event.topic, event.missed) for event in kinds(items, CounterGap)] == [(Topic.HASHBLOCK, 3), (Topic.RAWBLOCK, 3)]
    assert [(event.messages, event.by) for event in kinds(items, Repaired)] == [(3, "rpc"), (3, "rpc")]
    assert kinds(items, Lost) == []
    order = [type(item).__name__ for item in items if isinstance(item, (CounterGap, Repaired)) or getattr(item, "repaired", False)]
    assert order == ["CounterGap", *["HashBlock"] * 3, "Repaired", "CounterGap", *["RawBlock"] * 3, "Repaired"]
    state = subscriber.state().sources[0]
    assert (state.gaps, state.repaired, state.lost, state.error) == (2, 6, 0, None)


def test_the_raw_block_from_the_node_is_the_block() -> None:
    with world("rawblock") as (publisher, chain, subscriber):
        with publisher.losing():
            missed = chain.mine(1, txs=3)[0]
        chain.mine()
        (repaired,) = [item for item in take(subscriber, chain.tip.hash) if getattr(item, "repaired", False)]
        assert repaired.address == publisher.address
    assert repaired.block == missed
    assert repaired.body == bytes(missed)
    assert repaired.topic is Topic.RAWBLOCK


def test_blocks_of_a_reorganization_that_were_never_announced_are_had_too() -> None:
    """Bitcoin Core announces only the last of several blocks that it connects at once."""
    with world("hashblock") as (_, chain, subscriber):
        chain.mine(2)
        take(subscriber, chain.tip.hash)
        connected = chain.reorg(2)
        items = take(subscriber, chain.tip.hash)
    assert len(connected) == 3
    assert [one[0] for one in blocks_of(items, HashBlock)] == [block.hash for block in connected]
    assert [one[2] for one in blocks_of(items, HashBlock)] == [True, True, False]
    assert kinds(items, CounterGap, Lost) == []


def test_a_reorganization_is_told() -> None:
    with world("rawblock", "sequence", rpc=None) as (_, chain, subscriber):
        chain.mine(2)
        old = chain.tip.hash
        take(subscriber, old)
        connected = chain.reorg(1)
        items = take(subscriber, chain.tip.hash)
    told = kinds(items, Reorg)
    assert [event.topic for event in told] == [Topic.SEQUENCE, Topic.RAWBLOCK]
    assert [event.old_tip for event in told] == [old, old]
    assert told[1].block == connected[-1].header.prev_hash


def test_hashes_of_transactions_cannot_be_had_and_are_lost() -> None:
    with world("hashtx", "hashblock") as (publisher, chain, subscriber):
        with publisher.losing():
            chain.mine(2)
        chain.mine()
        items = take(subscriber, chain.tip.hash)
    assert [event.topic for event in kinds(items, Lost)] == [Topic.HASHTX]
    assert [event.messages for event in kinds(items, Lost)] == [2]
    assert [event.messages for event in kinds(items, Repaired)] == [2]


def test_a_node_that_does_not_answer_costs_the_blocks_but_not_the_stream() -> None:
    with world("hashblock") as (publisher, chain, subscriber), chain.unreachable():
        with publisher.losing():
            chain.mine(2)
        chain.mine()
        items = take(subscriber, chain.tip.hash)
        state = subscriber.state()
    assert [(event.first, event.until) for event in kinds(items, Lost)] == [(1, 3)]
    assert state.status == "degraded"
    assert state.sources[0].error


def test_a_node_that_comes_back_in_time_is_asked_again() -> None:
    with world("hashblock", repair_timeout=20.0, repair_retries=50) as (publisher, chain, subscriber):
        with chain.unreachable():
            with publisher.losing():
                chain.mine(2)
            chain.mine()
            items: list[Any] = []
            with contextlib.suppress(TimeoutError):
                while True:
                    items.append(subscriber.recv(0.5))
            assert blocks_of(items, HashBlock) == blocks_of(items, HashBlock)[:1]
            assert subscriber.state().status == "repairing"
        items = take(subscriber, chain.tip.hash)
    assert [event.messages for event in kinds(items, Repaired)] == [2]


def test_the_walk_is_bounded() -> None:
    with world("hashblock", repair_blocks=3) as (publisher, chain, subscriber):
        with publisher.losing():
            chain.mine(5)
        chain.mine()
        items = take(subscriber, chain.tip.hash)
    assert [event.messages for event in kinds(items, Lost)] == [5]
    assert "no block known among the 3 before" in kinds(items, Lost)[0].reason


def test_a_tip_of_a_branch_that_was_left_is_lost() -> None:
    with world("hashblock") as (publisher, chain, subscriber):
        with publisher.losing():
            chain.mine()
            chain.disconnect()
        chain.mine()
        items = take(subscriber, chain.tip.hash)
    assert [event.messages for event in kinds(items, Lost)] == [1]
    assert "of a branch that was left" in kinds(items, Lost)[0].reason


class _Liar:
    """A node that gives another block than it was asked for."""

    def __init__(self) -> None:
        self.chain: RegtestChain

    def get_best_block_hash(self) -> bytes:
        return self.chain.get_best_block_hash()

    def get_block(self, block_hash: bytes, /) -> Any:
        return self.chain.tip

    def get_block_header(self, block_hash: bytes, /) -> HeaderInfo:
        return self.chain.get_block_header(block_hash)

    def get_mempool(self) -> Any:
        raise RepairError("none")

    def get_transaction(self, txid: bytes, /) -> Any:
        return None


def test_a_node_that_gives_another_block_is_not_believed() -> None:
    liar = _Liar()
    with world("rawblock", rpc=liar) as (publisher, chain, subscriber):
        liar.chain = chain
        with publisher.losing():
            chain.mine()
        chain.mine()
        items = take(subscriber, chain.tip.hash)
    assert [one[2] for one in blocks_of(items, RawBlock)] == [False, False]
    assert "and gave" in kinds(items, Lost)[0].reason


def test_a_cursor_that_is_saved_in_the_midst_of_a_walk_goes_on_with_it() -> None:
    with world("hashblock") as (publisher, chain, subscriber):
        with publisher.losing():
            chain.mine(3)
        chain.mine()
        items: list[Any] = []
        while not isinstance(items[-1] if items else None, CounterGap):
            items.append(subscriber.recv(PATIENCE))
        items.append(subscriber.recv(PATIENCE))
        assert items[-1].repaired
        cursor = json.loads(json.dumps(subscriber.cursor()))
    assert next(iter(cursor["sources"].values()))["next"] == {"hashblock": 1}


def test_a_gap_at_the_end_of_one_life_is_lost_when_the_next_begins() -> None:
    with world("hashblock", byte_bound=1) as (publisher, chain, subscriber):
        chain.mine(30)
        publisher.set_counter("hashblock", 0)
        chain.mine(5)
        items: list[Any] = []
        with contextlib.suppress(TimeoutError):
            while True:
                items.append(subscriber.recv(0.5))
        chain.mine()
        items += take(subscriber, chain.tip.hash)
    assert kinds(items, Restart) != []
    told = sum(event.messages for event in kinds(items, Lost)) + sum(1 for item in items if isinstance(item, Received))
    assert told >= 31 + 6


def test_trouble_with_messages_is_told_and_the_stream_goes_on() -> None:
    with world("hashtx", "sequence", rpc=None) as (publisher, chain, subscriber):
        publisher.publish("hashtx")
        publisher.duplicate("hashtx")
        publisher.fourth_frame("hashtx")
        publisher.two_frames("hashtx")
        publisher.wrong_length("hashtx")
        chain.add_transaction()
        chain.skip_mempool_sequence(2)
        last = chain.add_transaction().txid
        items: list[Any] = []
        while not (items and isinstance(items[-1], Sequence) and items[-1].hash == last):
            items.append(subscriber.recv(PATIENCE))
        state = subscriber.state().sources[0]
    assert len(kinds(items, Duplicate)) == 1
    assert [event.topic for event in kinds(items, Malformed)] == [Topic.HASHTX] * 3
    assert [event.got - event.expected for event in kinds(items, MempoolGap)] == [2]
    assert (state.duplicates, state.malformed, state.mempool_gaps) == (1, 3, 1)
    # A message without a counter was counted by its publisher.
    assert [event.missed for event in kinds(items, CounterGap)] == [1]


def test_the_asynchronous_twin_asks_the_node_in_a_thread() -> None:
    async def main() -> list[Any]:
        with FaultyPublisher({"zmqpubhashblock": "tcp://127.0.0.1:*"}) as publisher:
            chain = RegtestChain(publisher)
            async with AsyncSubscriber(publisher.address, topics=["hashblock"], rpc=chain) as subscriber:
                await asyncio.to_thread(publisher.wait_for_subscribers)
                chain.mine()
                with publisher.losing():
                    chain.mine(3)
                chain.mine()
                items: list[Any] = []
                async for item in subscriber:
                    items.append(item)
                    if isinstance(item, HashBlock) and item.counter == 4:
                        assert [one.hash for one in kinds(items, HashBlock)] == [block.hash for block in chain.blocks[-5:]]
                        return items
                raise AssertionError

    items = asyncio.run(asyncio.wait_for(main(), 60))
    assert [event.messages for event in kinds(items, Repaired)] == [3]
