"""The simulated chain's mempool as a book: numbers, order, families, what pays best and worst."""

from __future__ import annotations

from zmqpub import build_transaction
from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.regtest.coins import Coin, Resolved, resolved
from zmqpub.sources.regtest.mempool import Mempool

SCRIPT = b"\x51"


def entry(*spent: Coin, fee: int = 1_000, outputs: int = 1) -> Resolved:
    inputs = [TxIn(*coin.outpoint) for coin in spent]
    made = [TxOut((sum(coin.value for coin in spent) - fee) // outputs, SCRIPT)] * outputs
    return resolved(build_transaction(inputs, made), inputs, made, spent)


def coins(count: int) -> list[Coin]:
    return [Coin((bytes([number + 1]) * 32, 0), 1_000_000, SCRIPT) for number in range(count)]


def test_each_arrival_and_each_removal_takes_a_number() -> None:
    mempool = Mempool()
    first, second = (entry(coin) for coin in coins(2))
    assert mempool.next_sequence == 1
    assert [mempool.add(first), mempool.add(second), mempool.remove(first), mempool.add(first)] == [1, 2, 3, 4]
    assert mempool.next_sequence == 5
    assert list(mempool) == [second, first]
    assert mempool.oldest() is second


def test_lookups() -> None:
    mempool = Mempool()
    (coin,) = coins(1)
    parent = entry(coin, outputs=3)
    mempool.add(parent)
    assert parent.txid in mempool
    assert mempool.get(parent.txid) is parent
    assert mempool.spender(coin.outpoint) is parent
    assert mempool.coin((parent.txid, 2)) == parent.created[2]
    assert mempool.coin((parent.txid, 3)) is None
    mempool.remove(parent)
    assert len(mempool) == 0
    assert mempool.spender(coin.outpoint) is None
    assert mempool.coin((parent.txid, 2)) is None


def test_families() -> None:
    mempool = Mempool()
    left, right = coins(2)
    parent = entry(left, outputs=2)
    child = entry(parent.created[0], right)
    grandchild = entry(child.created[0], parent.created[1])
    for member in (parent, child, grandchild):
        mempool.add(member)
    assert mempool.children(parent) == [child, grandchild]
    assert mempool.parents(grandchild) == [child, parent]
    assert mempool.with_descendants([grandchild, parent]) == [parent, child, grandchild]
    assert mempool.with_descendants([child]) == [child, grandchild]
    assert mempool.with_descendants([]) == []
    assert [mempool.cluster_size(member, 10) for member in (parent, child, grandchild)] == [3, 3, 3]
    assert mempool.cluster_size(parent, 2) == 2


def test_what_pays_best_and_worst_through_many_changes() -> None:
    mempool = Mempool()
    assert mempool.worst() is None
    entries = [entry(coin, fee=1_000 + 7_919 * number % 5_003) for number, coin in enumerate(coins(200))]
    for number, member in enumerate(entries):
        mempool.add(member)
        if number % 3 == 2:
            mempool.remove(entries[number - 1])
        if number % 9 == 8:
            mempool.add(entries[number - 1])
        left = sorted(mempool, key=lambda member: member.rate)
        assert mempool.worst() is left[0]
        assert mempool.best_first() == left[::-1]
    while len(mempool):
        worst = mempool.worst()
        assert worst is min(mempool, key=lambda member: member.rate)
        mempool.remove(worst)
    assert mempool.worst() is None


def test_the_heap_does_not_outgrow_the_mempool() -> None:
    mempool = Mempool()
    (coin,) = coins(1)
    only = entry(coin)
    for _ in range(10_000):
        mempool.add(only)
        mempool.remove(only)
    assert len(mempool._by_rate) < 200
