"""What the events amount to: headers of all blocks, bodies within a bound, the active chain through reorganizations, the mempool."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmqpub import Block
from zmqpub.errors import DamagedRecordError
from zmqpub.node.headers import UNKNOWN, Headers
from zmqpub.node.view import NodeView
from zmqpub.sources.block_networks import work_of_bits
from zmqpub.sources.blocks import BlockFiles
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, UpdatedBlockTip
from zmqpub.sources.regtest.consensus import genesis
from zmqpub.sources.simulated import Simulated
from zmqpub.testing import RegtestChain


def feed(view: NodeView, events: list[Event]) -> None:
    for event in events:
        view.note(event)


def whole_chain(blocks: int = 30, reorg_rate: float = 0.3) -> list[Event]:
    """From the genesis block on."""
    source = Simulated(3, blocks=blocks, reorg_rate=reorg_rate, transactions_per_second=1.0, coins=100, publish_bootstrap=True)
    return [BlockConnected(0.0, genesis(), 0), *source]


def test_nothing_is_known_at_first() -> None:
    view = NodeView()
    assert view.tip is None
    assert view.hash_at(0) is None
    assert view.find(bytes(32)) is None
    assert view.body(bytes(32)) is None
    assert view.mempool() == ({}, 1)
    assert view.waiting(bytes(32)) is None
    assert view.initial_download


def test_active_chain_follows_reorganizations() -> None:
    view = NodeView()
    active: list[Block] = []
    stale: set[bytes] = set()
    for event in whole_chain():
        view.note(event)
        if isinstance(event, BlockConnected):
            active.append(event.block)
        elif isinstance(event, BlockDisconnected):
            stale.add(active.pop().hash)
        elif isinstance(event, UpdatedBlockTip):
            tip = view.tip
            assert tip is not None
            assert (tip.row.hash, tip.row.height, tip.confirmations, tip.next_hash) == (event.block.hash, event.height, 1, None)
    assert stale
    assert [view.hash_at(height) for height in range(len(active) + 1)] == [*(block.hash for block in active), None]
    for height, block in enumerate(active):
        place = view.find(block.hash)
        assert place is not None
        assert place.confirmations == len(active) - height
        assert place.row.header == block.header
        assert place.raw == bytes(block)[:80]
        assert place.row.transactions == len(block)
        assert place.row.work == (height + 1) * work_of_bits(block.header.bits)
        before = [one.header.time for one in active[max(height - 10, 0) : height + 1]]
        assert place.median_time == sorted(before)[len(before) // 2]
        assert view.body(block.hash) == block
    for block_hash in stale:
        place = view.find(block_hash)
        assert place is not None
        assert (place.confirmations, place.next_hash) == (-1, None)
    assert not view.initial_download


def test_mempool_is_the_chains() -> None:
    view = NodeView()
    chain = RegtestChain(seed=1)
    told = 0

    def check() -> None:
        nonlocal told
        feed(view, chain.events[told:])
        told = len(chain.events)
        waiting, sequence = view.mempool()
        assert list(waiting) == [transaction.txid for transaction in chain.mempool]
        assert sequence == chain.mempool_sequence
        assert all(view.waiting(txid) == entry.transaction for txid, entry in waiting.items())

    chain.add_transactions(20)
    check()
    chain.mine(1)
    check()
    chain.add_transactions(8)
    check()
    victims = [transaction.txid for transaction in chain.mempool]
    chain.mine(1, txs=[chain.mempool[0], chain.double_spend(victims[1]), chain.mempool[2]])
    check()
    chain.add_transactions(8)
    chain.replace()
    check()
    chain.evict()
    check()
    chain.reorg(2)
    check()
    chain.reorg(1, [chain.mempool[:3]])
    check()
    chain.add_transactions(1)
    check()
    waiting, _ = view.mempool()
    assert list(waiting.values())[-1].height == chain.height


def test_chain_that_does_not_begin_with_a_genesis_block() -> None:
    events = [event for event in whole_chain(15, 0.0) if isinstance(event, BlockConnected)][50:80]
    view = NodeView()
    feed(view, list(events))
    first, tenth, eleventh = (view.find(events[place].block.hash) for place in (0, 9, 10))
    assert first is not None
    assert tenth is not None
    assert eleventh is not None
    assert (first.row.work, first.median_time, tenth.median_time) == (None, None, None)
    assert eleventh.median_time is not None
    assert view.hash_at(events[0].height - 1) is None
    assert view.hash_at(events[0].height) == events[0].block.hash


def test_bodies_stay_within_their_bound() -> None:
    blocks = [event for event in whole_chain(30, 0.0) if isinstance(event, BlockConnected)]
    bound = sum(event.block.size for event in blocks[-5:])
    asked: list[bytes] = []

    def read(block_hash: bytes) -> Block | None:
        asked.append(block_hash)
        if block_hash == blocks[2].block.hash:
            raise DamagedRecordError("file", 0, "damaged")
        return blocks[1].block

    view, reading = NodeView(body_bytes=bound), NodeView(body_bytes=0, read_block=read)
    feed(view, list(blocks))
    feed(reading, list(blocks))
    kept = [event.block for event in blocks if view.body(event.block.hash) is not None]
    assert kept == [event.block for event in blocks[-5:]]
    assert view.find(blocks[0].block.hash) is not None
    assert reading.body(blocks[1].block.hash) == blocks[1].block
    assert reading.body(blocks[2].block.hash) is None
    assert asked == [blocks[1].block.hash, blocks[2].block.hash]


def test_bodies_come_from_the_files(tmp_path: Path) -> None:
    events = [event for event in whole_chain(5, 0.0) if isinstance(event, BlockConnected)]
    for event in events:
        (tmp_path / f"{event.height:05}").write_bytes(bytes(event.block))
    source = BlockFiles(tmp_path)
    view = NodeView(body_bytes=0, read_block=source.block, mempool=False)
    feed(view, list(source))
    assert view.tip is not None
    assert view.tip.row.height == events[-1].height
    assert all(view.body(event.block.hash) == event.block for event in events)
    assert source.block(bytes(32)) is None
    (tmp_path / "00001").write_bytes(b"gone")
    assert view.body(events[1].block.hash) is None
    with pytest.raises(DamagedRecordError):
        source.block(events[1].block.hash)


def test_height_that_is_told_again_takes_the_place() -> None:
    blocks = [event for event in whole_chain(5, 0.0) if isinstance(event, BlockConnected)]
    view = NodeView()
    feed(view, list(blocks))
    view.note(BlockDisconnected(0.0, blocks[3].block, 3))  # not the tip: the source left something out
    assert view.tip is not None
    assert view.tip.row.hash == blocks[-1].block.hash
    view.note(blocks[7])
    assert view.tip.row.height == 7
    assert view.hash_at(8) is None


def test_many_headers_are_found_again() -> None:
    headers = Headers()
    template = genesis().header
    hashes = [number.to_bytes(32, "big") for number in range(1, 5_001)]
    for height, block_hash in enumerate(hashes):
        assert headers.add(block_hash, template._replace(version=-height, nonce=height), height, height + 1) == height
    assert len(headers) == 5_000
    assert [headers.find(block_hash) for block_hash in hashes] == list(range(5_000))
    assert headers.find(bytes(32)) == UNKNOWN
    assert headers.add(hashes[17], template, 0, 0) == 17
    row = headers[4_321]
    assert (row.hash, row.height, row.transactions, row.header.version, row.header.nonce) == (hashes[4_321], 4_321, 4_322, -4_321, 4_321)
