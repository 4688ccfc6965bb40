"""RegtestChain: what it does, what it tells, and what it answers afterwards."""

from __future__ import annotations

import pytest

from zmqpub import Block, Repair, RepairError, Snapshot, Transaction
from zmqpub.errors import RefusedTransactionError
from zmqpub.sources.events import (
    BlockConnected,
    BlockDisconnected,
    Event,
    TransactionAdded,
    TransactionRemoved,
    UpdatedBlockTip,
)
from zmqpub.testing import RegtestChain


class Recorder:
    """A sink that keeps what it is told: a letter and a hash for each event."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []
        self.numbers: list[int] = []

    def transaction_added_to_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None:
        self.told.append(("A", tx.txid))
        self.numbers.append(mempool_sequence)

    def transaction_removed_from_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None:
        self.told.append(("R", tx.txid))
        self.numbers.append(mempool_sequence)

    def block_connected(self, block: Block, /) -> None:
        self.told.append(("C", block.hash))

    def block_disconnected(self, block: Block, /) -> None:
        self.told.append(("D", block.hash))

    def updated_block_tip(self, block: Block, /, initial_download: bool = False) -> None:
        assert not initial_download
        self.told.append(("T", block.hash))

    def letters(self) -> str:
        letters = "".join(letter for letter, _ in self.told)
        self.told.clear()
        return letters


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def chain(recorder: Recorder) -> RegtestChain:
    return RegtestChain(recorder)


def test_it_begins_in_silence(chain: RegtestChain, recorder: Recorder) -> None:
    assert recorder.told == []
    assert chain.events == []
    assert (chain.mined, chain.blocks, chain.mempool) == (0, [], [])
    assert chain.height >= 100


def test_blocks(chain: RegtestChain, recorder: Recorder) -> None:
    before = chain.tip
    (one,) = chain.mine()
    two, three = chain.mine(2, txs=3)
    assert [block.header.prev_hash for block in (one, two, three)] == [before.hash, one.hash, two.hash]
    assert [len(block) for block in (one, two, three)] == [1, 4, 4]
    assert recorder.letters() == "CT" + "AAACT" * 2
    assert chain.blocks == [one, two, three]
    assert (chain.mined, chain.tip) == (3, three)
    assert chain.mempool == []


def test_exactly_these_transactions(chain: RegtestChain, recorder: Recorder) -> None:
    first, second = chain.add_transaction(), chain.add_transaction()
    (block,) = chain.mine(txs=[second])
    assert list(block)[1:] == [second]
    assert chain.mempool == [first]
    assert recorder.letters() == "AACT"
    with pytest.raises(ValueError, match="one block"):
        chain.mine(2, txs=[first])


def test_mempool_sequence_numbers_are_those_of_bitcoin_core(chain: RegtestChain, recorder: Recorder) -> None:
    assert chain.mempool_sequence == 1
    chain.add_transactions(2)
    chain.mine()  # inclusion takes two numbers in silence
    chain.add_transaction()
    chain.skip_mempool_sequence(10)
    chain.add_transaction()
    assert recorder.numbers == [1, 2, 5, 16]
    assert chain.mempool_sequence == 17


def test_reorganizations(chain: RegtestChain, recorder: Recorder) -> None:
    chain.mine(2, txs=2)
    old = chain.blocks
    recorder.letters()
    branch = chain.reorg(2)
    assert len(branch) == 3
    assert branch[0].header.prev_hash == old[0].header.prev_hash
    assert chain.blocks == branch
    assert recorder.letters() == "DDAAAACCCT"
    assert {tx.txid for tx in chain.mempool} == {tx.txid for block in old for tx in list(block)[1:]}


def test_a_branch_with_contents(chain: RegtestChain) -> None:
    (block,) = chain.mine(txs=2)
    kept = block[1]
    branch = chain.reorg(1, txs=[[kept]])
    assert list(branch[0])[1:] == [kept]
    assert [tx.txid for tx in chain.mempool] == [block[2].txid]


def test_a_disconnected_tip_has_no_successor(chain: RegtestChain, recorder: Recorder) -> None:
    chain.mine(2)
    recorder.letters()
    chain.disconnect(2)
    assert recorder.letters() == "DD"
    assert chain.blocks == []


def test_replacement(chain: RegtestChain, recorder: Recorder) -> None:
    old = chain.add_transaction()
    other = chain.add_transaction()
    recorder.letters()
    new = chain.replace(old.txid)
    assert recorder.told[-2:] == [("R", old.txid), ("A", new.txid)]
    assert {entry.prev_txid for entry in new.inputs} == {entry.prev_txid for entry in old.inputs}
    assert other in chain.mempool
    chain.replace()
    with pytest.raises(ValueError, match="no transaction"):
        chain.replace(bytes(32))


def test_nothing_to_replace_or_push_out(chain: RegtestChain) -> None:
    for attempt in (chain.replace, chain.evict, chain.expire):
        with pytest.raises(ValueError, match="nothing waits"):
            attempt()


def test_eviction_and_expiry(chain: RegtestChain, recorder: Recorder) -> None:
    waiting = chain.add_transactions(8)
    gone = chain.evict(waiting[3].txid)
    assert gone[0] == waiting[3]
    gone += chain.evict()
    gone += chain.expire()
    removed = [txid for letter, txid in recorder.told if letter == "R"]
    assert sorted(removed) == sorted(tx.txid for tx in gone)
    assert {tx.txid for tx in chain.mempool} == {tx.txid for tx in waiting} - set(removed)
    reasons = [event.reason for event in chain.events if isinstance(event, TransactionRemoved)]
    assert set(reasons) == {"sizelimit", "expiry"}


def test_a_conflict(chain: RegtestChain, recorder: Recorder) -> None:
    victim = chain.add_transaction()
    thief = chain.double_spend(victim.txid)
    recorder.letters()
    (block,) = chain.mine(txs=[thief])
    assert block[1] == thief
    assert recorder.letters() == "RCT"
    assert chain.mempool == []


def test_a_transaction_that_may_not_enter(chain: RegtestChain) -> None:
    known = chain.add_transaction()
    with pytest.raises(RefusedTransactionError, match="already-in-mempool"):
        chain.add_transaction(known)


def test_many_transactions_between_blocks(chain: RegtestChain) -> None:
    """There are always coins for the next one, whether or not blocks come."""
    chain.add_transactions(1_000)
    chain.mine(5, txs=400)
    assert len(chain.mempool) < 3_000


def test_all_that_was_told(chain: RegtestChain, recorder: Recorder) -> None:
    chain.mine(1, txs=1)
    chain.reorg()
    letters = {TransactionAdded: "A", TransactionRemoved: "R", BlockConnected: "C", BlockDisconnected: "D", UpdatedBlockTip: "T"}
    assert "".join(letters[type(event)] for event in chain.events) == recorder.letters()


def test_several_listen_and_later_ones_hear_what_follows(chain: RegtestChain, recorder: Recorder) -> None:
    chain.mine()
    late = Recorder()
    chain.publish_to(late)
    chain.mine()
    with chain.unheard():
        chain.mine()
    chain.mine()
    assert recorder.letters() == "CTCTCT"
    assert late.letters() == "CTCT"
    assert len([event for event in chain.events if isinstance(event, BlockConnected)]) == 4


def test_what_a_node_would_answer(chain: RegtestChain) -> None:
    assert isinstance(chain, Repair)
    stale = chain.mine(2, txs=2)
    chain.reorg(1)
    waiting = chain.mempool
    assert chain.get_best_block_hash() == chain.tip.hash
    for block, height in ((chain.tip, chain.height), (stale[1], chain.height - 1)):
        assert chain.get_block(block.hash) == block
        assert chain.get_block_header(block.hash) == (height, block.header.prev_hash)
    assert chain.get_mempool() == ([tx.txid for tx in waiting], chain.mempool_sequence)
    assert chain.get_transaction(waiting[0].txid) == waiting[0]
    assert chain.get_transaction(chain.tip[0].txid) is None
    with pytest.raises(RepairError, match=f"block {bytes(32).hex()} is not known"):
        chain.get_block(bytes(32))


def test_the_state_of_it_all(chain: RegtestChain) -> None:
    chain.mine()
    waiting = chain.add_transactions(2)
    assert chain.snapshot() == Snapshot(chain.tip.hash, chain.height, [tx.txid for tx in waiting], chain.mempool_sequence)


def test_parents_lead_to_the_first_block_of_all(chain: RegtestChain) -> None:
    chain.mine()
    block_hash, heights = chain.get_best_block_hash(), []
    while block_hash != bytes(32):
        height, previous = chain.get_block_header(block_hash)
        assert chain.get_block(block_hash).hash == block_hash
        heights.append(height)
        block_hash = previous
    assert heights == list(range(chain.height, -1, -1))


def test_a_node_that_does_not_answer(chain: RegtestChain) -> None:
    with chain.unreachable():
        for ask in (chain.get_best_block_hash, chain.get_mempool, lambda: chain.get_transaction(bytes(32))):
            with pytest.raises(RepairError, match="does not answer"):
                ask()
        chain.mine()
    assert chain.get_best_block_hash() == chain.tip.hash


def test_the_same_seed_is_the_same_chain() -> None:
    def play(seed: int) -> list[Event]:
        chain = RegtestChain(seed=seed)
        chain.mine(3, txs=5)
        chain.reorg(2)
        chain.add_transactions(5)
        chain.replace()
        chain.evict()
        return chain.events

    assert play(1) == play(1)
    assert play(1) != play(2)
