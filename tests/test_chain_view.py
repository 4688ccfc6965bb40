"""What is known from the events alone is what the chain that made them says of itself."""

from __future__ import annotations

from random import Random

from synthetic import block

from zmqpub import Snapshot
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, TransactionAdded, TransactionRemoved
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.traffic import Traffic
from zmqpub.sources.simulated import Run, Simulated
from zmqpub.sources.view import ChainView


def test_nothing_is_known_before_the_first_event() -> None:
    assert ChainView().snapshot() == Snapshot(None, None, (), 0)
    assert ChainView(mempool=False).snapshot() == Snapshot()


def test_it_agrees_with_the_chain_after_every_step() -> None:
    view = ChainView()
    kinds: set[type[Event]] = set()
    last = 0

    def note(event: Event) -> None:
        nonlocal last
        kinds.add(type(event))
        view.note(event)
        last = event.mempool_sequence if isinstance(event, TransactionAdded | TransactionRemoved) else last

    chain = RegtestChain(note, undo_depth=3, mempool_limit=60)
    traffic = Traffic(chain, Random(1), coins=400)
    traffic.fund()
    source = Simulated(1, block_interval=4, reorg_rate=0.3, replacement_rate=0.1, eviction_rate=0.05, conflict_rate=0.3)
    run = Run(source, chain, traffic, Random(2))
    for _ in range(1500):
        run.step()
        snapshot = view.snapshot()
        assert (snapshot.tip, snapshot.height) == (chain.tip.hash, chain.height)
        assert snapshot.mempool_sequence == last + 1 <= chain.mempool.next_sequence
        assert set(snapshot.txids or ()) == {entry.txid for entry in chain.mempool}
    assert {BlockConnected, BlockDisconnected, TransactionAdded, TransactionRemoved} <= kinds


def test_a_source_without_a_mempool_says_so() -> None:
    view = ChainView(mempool=False)
    made = block(1)
    view.note(BlockConnected(0.0, made, 7))
    assert view.snapshot() == Snapshot(made.hash, 7)
    view.note(BlockDisconnected(0.0, made, 7))
    assert view.snapshot() == Snapshot(made.header.prev_hash, 6)


def test_a_source_that_begins_in_the_midst_of_things() -> None:
    view = ChainView()
    chain = RegtestChain(view.note)
    chain.generate(102)
    found = Snapshot(chain.tip.hash, chain.height, (b"\1" * 32, b"\2" * 32), 17)
    late = ChainView()
    late.begin(found)
    assert late.snapshot() == found
    chain.on_event = late.note
    chain.generate()
    assert late.snapshot() == Snapshot(chain.tip.hash, chain.height, (b"\1" * 32, b"\2" * 32), 17)
    late.begin(Snapshot(chain.tip.hash, chain.height))
    assert late.snapshot() == Snapshot(chain.tip.hash, chain.height)
