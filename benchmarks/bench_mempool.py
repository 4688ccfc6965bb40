"""How many transactions a second enter the mempool and reach one TCP subscriber, as hashtx, rawtx and sequence each?

The transactions of the blocks, as raw bytes, flat out. Whoever loses some is timed until its own last message is with libzmq.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import pytest
from contenders import CONTENDERS, Contender
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import transactions
from subscribers import Subscribers

COUNTS = {"zmqpub": 20_000, "pyzmq by hand": 10_000, "python-bitcoinlib": 4_000}


def turn(make: Callable[[int], Contender], count: int) -> Turn:
    stream = (transactions() * (count // len(transactions()) + 1))[:count]
    contender = make(1000)
    try:
        with Subscribers(contender.address) as drain:
            drain.begin(3 * count)
            began = time.monotonic_ns()
            for number, raw in enumerate(stream):
                contender.transaction(raw, number)
            called = time.monotonic_ns()
            contender.flush()
            flushed = time.monotonic_ns()
            end = drain.finished(0.5) or flushed
            report = drain.report()
        info = {
            "per_second": count / (end - began) * 1e9,
            "call": (called - began) / 1e9 / count,
            "share": min(report["received"]) / (3 * count),
            "count": count,
            "megabytes_per_second": sum(map(len, stream)) / (end - began) * 1e3,
        }
        return Turn([(end - began) / 1e9 / count], info)
    finally:
        contender.close()


@cache
def measure() -> dict[str, Outcome]:
    return interleave({who: partial(turn, CONTENDERS[who], count) for who, count in COUNTS.items()}, rounds=3)


@pytest.mark.parametrize("contender", COUNTS)
def test_mempool(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "mempool", "a transaction, one subscriber", contender, measure()[contender])
