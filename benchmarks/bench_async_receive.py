"""How many notifications a second does a program on asyncio receive over TCP?

A publisher in a process of its own sends bodies of 32 bytes as fast as it can; time runs from the first message to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial

import async_receivers
import pytest
from bench_receive import turn
from contest import Outcome, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from receivers import Receive
from samples import usual

CONTENDERS: dict[str, tuple[Callable[..., AbstractContextManager[Receive]], int]] = {
    "zmqpub AsyncSubscriber": (async_receivers.iterated, 1_000_000),
    "zmqpub AsyncSubscriber, batches": (async_receivers.batches, 1_000_000),
    "zmq.asyncio": (async_receivers.zmq_asyncio, 60_000),
}


@cache
def hashes() -> dict[str, Outcome]:
    turns = {who: partial(turn, make, "hashtx", usual()[1], messages) for who, (make, messages) in CONTENDERS.items()}
    return interleave(turns, rounds=5)


@pytest.mark.parametrize("contender", CONTENDERS)
def test_hashes(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "receive on asyncio", "hashtx", contender, hashes()[contender])
