"""How long does it take to take a block apart: the structural walk alone, and with all txids?"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from time import perf_counter

import pytest
from bursts import limit_turn
from contenders.by_hand import compact_size, transactions
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import usual

from zmqpub import Block

WALK, TXIDS = "walk", "walk and txids"


def walk(raw: bytes) -> object:
    return Block(raw)


def walk_and_hash(raw: bytes) -> object:
    return Block(raw).txids


def by_hand(raw: bytes) -> object:
    number, at = compact_size(raw, 80)
    return [txid for txid, _ in transactions(raw, at, number)]


def bitcoinlib_walk(raw: bytes) -> object:
    core = pytest.importorskip("bitcoin.core", reason="python-bitcoinlib is not installed")
    return core.CBlock.deserialize(raw)


def bitcoinlib(raw: bytes) -> object:
    core = pytest.importorskip("bitcoin.core", reason="python-bitcoinlib is not installed")
    return [transaction.GetTxid() for transaction in core.CBlock.deserialize(raw).vtx]


def turn(parse: Callable[[bytes], object], runs: int) -> Turn:
    _, raw = usual()
    taken = []
    for _ in range(runs):
        began = perf_counter()
        parse(raw)
        taken.append(perf_counter() - began)
    return Turn(taken)


def c_turn() -> Turn:
    """limit.c's walk, which hashes as it goes."""
    return Turn([limit_turn(usual()[1], 0, 7, "total").info["walk"]])


CASES: dict[str, dict[str, Callable[[], Turn]]] = {
    WALK: {"zmqpub": partial(turn, walk, 20), "python-bitcoinlib": partial(turn, bitcoinlib_walk, 2)},
    TXIDS: {
        "limit.c": c_turn,
        "zmqpub": partial(turn, walk_and_hash, 20),
        "pyzmq by hand": partial(turn, by_hand, 5),
        "python-bitcoinlib": partial(turn, bitcoinlib, 2),
    },
}


@cache
def measure(case: str) -> dict[str, Outcome]:
    return interleave(CASES[case], rounds=4)


@pytest.mark.parametrize(("case", "contender"), [(case, who) for case, turns in CASES.items() for who in turns])
def test_parsing(benchmark: BenchmarkFixture, case: str, contender: str) -> None:
    name, raw = usual()
    record(benchmark, "parsing", case, contender, measure(case)[contender], block=name, bytes=len(raw))
