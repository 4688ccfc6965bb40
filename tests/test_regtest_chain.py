"""The regtest chain under a test's control: what it takes, what it refuses, and what it tells in which order."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest

from zmqpub import Transaction, build_transaction
from zmqpub.errors import RefusedTransactionError
from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.events import (
    BlockConnected,
    BlockDisconnected,
    Event,
    TransactionAdded,
    TransactionRemoved,
    UpdatedBlockTip,
)
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.coins import Coin
from zmqpub.sources.regtest.consensus import COIN
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND

FEE = 10_000


class Bench:
    """A chain with mature coinbases of 50 BTC, and what it has told since."""

    def __init__(self, mature: int = 5, **settings: int) -> None:
        self.events: list[Event] = []
        self.chain = RegtestChain(self.events.append, **settings)
        self.chain.generate(100 + mature - 1)
        self.coins = [coin for coin in self.chain.coins.values() if self.chain.spendable(coin.outpoint)]
        assert len(self.coins) == mature
        self.events.clear()

    def told(self) -> list[str]:
        """One word an event, since the last call: A, R with number and reason, C and D with height, T for a new tip."""
        words = []
        for event in self.events:
            if isinstance(event, TransactionAdded):
                words.append(f"A{event.mempool_sequence}")
            elif isinstance(event, TransactionRemoved):
                words.append(f"R{event.mempool_sequence} {event.reason}")
            elif isinstance(event, BlockConnected):
                words.append(f"C{event.height}")
            elif isinstance(event, BlockDisconnected):
                words.append(f"D{event.height}")
            else:
                words.append(f"T{event.height}")
        self.events.clear()
        return words


def spend(
    coins: Sequence[Coin],
    *,
    fee: int = FEE,
    outputs: int = 1,
    sequence: int = 0xFFFFFFFD,
    locktime: int = 0,
    value: int | None = None,
) -> Transaction:
    inputs = [TxIn(*coin.outpoint, b"", sequence, (b"\x51",)) for coin in coins]
    share = (sum(coin.value for coin in coins) - fee) // outputs if value is None else value
    return build_transaction(inputs, [TxOut(share, ANYONE_CAN_SPEND)] * outputs, locktime=locktime)


def coin_of(bench: Bench, transaction: Transaction, index: int = 0) -> Coin:
    coin = bench.chain.spendable((transaction.txid, index))
    assert coin is not None
    return coin


def refusal(bench: Bench, transaction: Transaction) -> str:
    before = list(bench.chain.mempool)
    with pytest.raises(RefusedTransactionError) as caught:
        bench.chain.submit(transaction)
    assert caught.value.txid == transaction.txid
    assert list(bench.chain.mempool) == before
    return caught.value.reason


def test_an_arrival_and_its_block() -> None:
    bench = Bench()
    transaction = spend(bench.coins[:1])
    bench.chain.submit(transaction)
    (block,) = bench.chain.generate()
    assert bench.told() == ["A1", "C105", "T105"]
    assert block.txids[1:] == [transaction.txid]
    assert block == bench.chain.tip
    assert block[0].outputs[0].value == 50 * COIN + FEE
    assert len(bench.chain.mempool) == 0
    bench.chain.submit(spend([coin_of(bench, transaction)]))
    assert bench.told() == ["A3"]  # 2 went to the removal by the block, which nobody tells


def test_the_numbers_that_bitcoin_core_gave() -> None:
    """The events 7 to 44 of a recorded regtest session of Bitcoin Core 31.99, played again."""
    bench = Bench(10)
    chain, coins = bench.chain, bench.coins
    for coin in coins[:6]:
        chain.submit(spend([coin]))
    chain.generate()
    assert bench.told() == ["A1", "A2", "A3", "A4", "A5", "A6", "C110", "T110"]
    chain.submit(spend(coins[6:7]))
    chain.submit(spend(coins[6:7], fee=2 * FEE))
    chain.generate()
    assert bench.told() == ["A13", "R14 replaced", "A15", "C111", "T111"]
    again = spend(coins[7:8])
    chain.submit(again)
    chain.generate(2)
    assert bench.told() == ["A17", "C112", "T112", "C113", "T113"]
    chain.reorg(2)
    assert bench.told() == ["D113", "D112", "A19", "C112", "C113", "C114", "T114"]
    chain.reorg(3, [[again]])
    assert bench.told() == ["D114", "D113", "D112", "C112", "C113", "C114", "C115", "T115"]
    chain.submit(spend(coins[8:9]))
    assert bench.told() == ["A21"]


def test_what_is_replaced_goes_with_all_that_depends_on_it() -> None:
    bench = Bench()
    first = spend(bench.coins[:1], outputs=2)
    bench.chain.submit(first)
    for index in range(2):
        bench.chain.submit(spend([coin_of(bench, first, index)]))
    bench.told()
    assert refusal(bench, spend(bench.coins[:1], fee=3 * FEE)) == "insufficient fee"
    assert bench.told() == []
    bench.chain.submit(spend(bench.coins[:1], fee=3 * FEE + 20))
    removed = [event.transaction.txid[::-1] for event in bench.events if isinstance(event, TransactionRemoved)]
    assert removed == sorted(removed)
    assert bench.told() == ["R4 replaced", "R5 replaced", "R6 replaced", "A7"]


def test_a_replacement_cannot_spend_what_it_replaces() -> None:
    bench = Bench()
    first = spend(bench.coins[:1])
    bench.chain.submit(first)
    own = coin_of(bench, first)
    assert refusal(bench, spend([bench.coins[0], own], fee=COIN)) == "bad-txns-spends-conflicting-tx"


def test_a_block_that_contradicts_the_mempool() -> None:
    bench = Bench()
    first, second = spend(bench.coins[:1]), spend(bench.coins[1:2])
    bench.chain.submit(first)
    bench.chain.submit(spend([coin_of(bench, first)]))
    bench.chain.submit(second)
    bench.told()
    rival = spend(bench.coins[:1], fee=2 * FEE)
    (block,) = bench.chain.generate(transactions=[second, rival])
    assert block.txids[1:] == [second.txid, rival.txid]
    assert bench.told() == ["R5 conflict", "R6 conflict", "C105", "T105"]  # 4 is the inclusion of the second
    assert bench.chain.resolve(spend([coin_of(bench, rival)])).fee == FEE


def test_a_block_may_hold_a_chain_that_no_mempool_saw() -> None:
    bench = Bench()
    parent = spend(bench.coins[:1])
    entry = bench.chain.resolve(parent)
    child = spend(entry.created)
    with pytest.raises(RefusedTransactionError, match="missingorspent"):
        bench.chain.generate(transactions=[child, parent])
    assert bench.told() == []
    (block,) = bench.chain.generate(transactions=[parent, child])
    assert block.txids[1:] == [parent.txid, child.txid]


def test_blocks_take_parents_first_and_the_best_paying_otherwise() -> None:
    bench = Bench()
    cheap, dear = spend(bench.coins[:1], fee=1_000), spend(bench.coins[1:2], fee=5_000)
    bench.chain.submit(cheap)
    bench.chain.submit(dear)
    rescue = spend([coin_of(bench, cheap)], fee=9_000)
    bench.chain.submit(rescue)
    (block,) = bench.chain.generate()
    assert block.txids[1:] == [cheap.txid, rescue.txid, dear.txid]


def test_evictions() -> None:
    bench = Bench()
    assert not bench.chain.evict()
    assert not bench.chain.expire()
    for number, coin in enumerate(bench.coins[:3]):
        bench.chain.submit(spend([coin], fee=(2_000, 1_000, 3_000)[number]))
    worst = list(bench.chain.mempool)[1]
    bench.chain.submit(spend(worst.created, fee=50_000))
    bench.told()
    assert bench.chain.evict()
    assert bench.told() == ["R5 sizelimit", "R6 sizelimit"]
    assert [entry.fee for entry in bench.chain.mempool] == [2_000, 3_000]
    assert bench.chain.expire()
    assert bench.told() == ["R7 expiry"]
    assert [entry.fee for entry in bench.chain.mempool] == [3_000]
    assert bench.chain.spendable(bench.coins[1].outpoint) == bench.coins[1]


def test_a_full_mempool_makes_room_for_what_pays_more() -> None:
    bench = Bench(mempool_limit=2)
    for coin, fee in zip(bench.coins, (2_000, 3_000), strict=False):
        bench.chain.submit(spend([coin], fee=fee))
    bench.told()
    assert refusal(bench, spend(bench.coins[2:3], fee=2_000)) == "mempool full"
    lowest = next(iter(bench.chain.mempool))
    assert refusal(bench, spend([*lowest.created], fee=9_000)) == "mempool full"
    bench.chain.submit(spend(bench.coins[2:3], fee=4_000))
    assert bench.told() == ["R3 sizelimit", "A4"]
    assert [entry.fee for entry in bench.chain.mempool] == [3_000, 4_000]


def test_a_reorganization_returns_the_oldest_first_and_drops_what_lost_its_coins() -> None:
    bench = Bench()
    chain = bench.chain
    parent = spend(bench.coins[:1], outputs=2)
    chain.submit(parent)
    chain.generate()
    child = spend([coin_of(bench, parent)])
    chain.submit(child)
    other = spend(bench.coins[1:2])
    chain.submit(other)
    chain.generate()
    waiting = spend([coin_of(bench, parent, 1)])
    chain.submit(waiting)
    bench.told()
    chain.reorg(2)
    assert bench.told() == ["D106", "D105", "A8", "A9", "A10", "C105", "C106", "C107", "T107"]
    assert [entry.transaction for entry in chain.mempool] == [waiting, parent, child, other]
    (block,) = chain.generate()
    assert list(block)[1:] == [parent, waiting, child, other]
    chain.submit(spend([coin_of(bench, waiting)]))
    bench.told()
    chain.reorg(1, [[spend(bench.coins[:1], fee=3 * FEE)]])
    assert bench.told() == ["D108", "R16 reorg", "A17", "C108", "C109", "T109"]
    assert [entry.transaction for entry in chain.mempool] == [other]


def test_a_reorganization_by_hand() -> None:
    bench = Bench()
    chain = bench.chain
    first, second = spend(bench.coins[:1]), spend(bench.coins[1:2])
    (old,) = chain.generate(transactions=[first, second])
    bench.told()
    with chain.reorganize(1) as branch:
        assert [entry.txid for entry in branch.leftovers] == [first.txid, second.txid]
        template = branch.template()
        assert template.add(branch.leftovers[1])
        assert not template.add(branch.leftovers[1])
        new = branch.connect(template)
        assert [entry.txid for entry in branch.leftovers] == [first.txid]
    assert new.header.prev_hash == old.header.prev_hash
    assert bench.told() == ["D105", "A1", "C105", "C106", "T106"]
    assert chain.tip.header.prev_hash == new.hash
    with chain.reorganize(1) as branch:
        branch.connect()
        branch.connect()
        with pytest.raises(ValueError, match="overtaken"):
            branch.connect()


def test_the_same_contents_make_other_blocks_on_another_branch() -> None:
    bench = Bench()
    bench.chain.generate(3)
    old = [block.hash for block in bench.chain.blocks[-3:]]
    new = [block.hash for block in bench.chain.reorg(3)]
    assert not set(old) & set(new)


def test_disconnecting_tells_no_tip() -> None:
    bench = Bench()
    bench.chain.submit(spend(bench.coins[:1]))
    bench.chain.generate(2)
    bench.told()
    bench.chain.disconnect(2)
    assert bench.told() == ["D106", "D105", "A3"]
    assert bench.chain.height == 104


def test_what_is_early_again_leaves_the_mempool() -> None:
    bench = Bench(mature=2)
    chain = bench.chain
    (young,) = [coin for coin in bench.coins if coin.coinbase_height == 2]
    chain.submit(spend([young]))
    chain.submit(spend(bench.coins[:1], locktime=chain.height))
    bench.told()
    chain.disconnect(1)
    assert bench.told() == ["D101", "R3 reorg", "R4 reorg"]
    assert len(chain.mempool) == 0


def test_only_what_is_kept_can_be_undone() -> None:
    chain = RegtestChain(undo_depth=3)
    chain.generate(10)
    assert len(chain.blocks) == 4
    with pytest.raises(ValueError, match="4 blocks, expected 1 to 3"):
        chain.reorg(4)
    with pytest.raises(ValueError, match="expected 1 to 3"):
        chain.reorg(0)
    chain.reorg(3)
    assert chain.height == 11


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("txn-already-in-mempool", lambda b: spend(b.coins[4:5])),
        ("bad-txns-vin-empty", lambda b: Transaction(bytes.fromhex("02000000000000000000"))),
        ("bad-txns-vout-empty", lambda b: build_transaction([TxIn(*b.coins[0].outpoint)], [])),
        ("bad-txns-vout-outofrange", lambda b: spend(b.coins[:1], value=-1)),
        ("bad-txns-vout-outofrange", lambda b: spend(b.coins[:1], value=21_000_001 * COIN)),
        ("bad-txns-txouttotal-toolarge", lambda b: spend(b.coins[:1], value=20_000_000 * COIN, outputs=2)),
        ("bad-txns-inputs-duplicate", lambda b: spend([b.coins[0], b.coins[0]])),
        ("bad-txns-inputs-missingorspent", lambda b: spend([Coin((bytes(32), 0), COIN, b"")])),
        (
            "bad-txns-inputs-missingorspent",
            lambda b: spend([b.coins[0]._replace(outpoint=(b.coins[0].outpoint[0], 1))]),
        ),
        ("bad-txns-in-belowout", lambda b: spend(b.coins[:1], fee=-1)),
        (
            "bad-txns-premature-spend-of-coinbase",
            lambda b: spend([c for c in b.chain.coins.values() if c.coinbase_height == 6]),
        ),
        ("non-final", lambda b: spend(b.coins[:1], locktime=b.chain.height + 1)),
        ("non-final", lambda b: spend(b.coins[:1], locktime=2_000_000_000)),
        ("a relative lock time, which this chain does not follow", lambda b: spend(b.coins[:1], sequence=1)),
        ("tx-size", lambda b: spend(b.coins[:1], outputs=30_000)),
    ],
)
def test_refusals(reason: str, make: object) -> None:
    bench = Bench()
    bench.chain.submit(spend(bench.coins[4:5]))
    bench.told()
    assert callable(make)
    assert refusal(bench, make(bench)) == reason
    assert bench.told() == []


def test_lock_times_that_have_passed_are_none() -> None:
    bench = Bench()
    bench.chain.submit(spend(bench.coins[:1], locktime=bench.chain.height))
    bench.chain.submit(spend(bench.coins[1:2], locktime=bench.chain.height + 50, sequence=0xFFFFFFFF))
    bench.chain.submit(spend(bench.coins[2:3], locktime=1_000_000_000))
    assert len(bench.chain.generate()[0]) == 4


def test_the_clock_moves_due_and_block_times() -> None:
    bench = Bench(start_time=1_700_000_000)
    bench.chain.clock = 5_000.75
    bench.chain.generate()
    assert bench.events[-1].due == 5_000.75
    assert bench.chain.tip.header.time == 1_700_005_000
    assert isinstance(bench.events[-1], UpdatedBlockTip)


def test_refusals_survive_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(RefusedTransactionError(b"\x01" * 32, "non-final")))
    assert (error.txid, error.reason) == (b"\x01" * 32, "non-final")
    assert str(error) == f"transaction {'01' * 32} refused: non-final"


def test_what_returns_may_be_more_than_fits() -> None:
    bench = Bench(mempool_limit=2)
    fees = (3_000, 1_000, 2_000, 4_000)
    transactions = [spend([coin], fee=fee) for coin, fee in zip(bench.coins, fees, strict=False)]
    bench.chain.generate(transactions=transactions)
    bench.told()
    bench.chain.reorg(1)
    assert bench.told() == ["D105", "A1", "A2", "A3", "A4", "R5 sizelimit", "R6 sizelimit", "C105", "C106", "T106"]
    assert [entry.fee for entry in bench.chain.mempool] == [3_000, 4_000]
