"""How long does a block take, from raw bytes to five topics: until libzmq has everything, until a subscriber has everything?

- no subscriber: nobody wants anything, and zmqpub then makes neither hashes nor frames; "zmqpub, hashes too" asks for every txid;
- one subscriber, until libzmq has everything: all frames are made, without a high-water mark, which is limit.c's work exactly;
- one subscriber, until it has the last message, at the default mark of 1000 (limit.c: without one).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
from bursts import burst_turn, limit_turn
from contenders import CONTENDERS
from contenders.core import Core
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import blocks

from zmqpub import Block

CASES = {
    "no subscriber": (0, 1000, "total"),
    "one subscriber, until libzmq has it": (1, 0, "total"),
    "one subscriber, until it has it": (1, 1000, "delivered"),
}
HASHES_TOO = "zmqpub, hashes too"
NAMES = ["limit.c", "zmqpub", HASHES_TOO, "pyzmq by hand", "python-bitcoinlib"]
RUNS = {"pyzmq by hand": 3, "python-bitcoinlib": 2}
PAIRS = [(case, name) for case in CASES for name in NAMES if name != HASHES_TOO or case == "no subscriber"]


class HashesToo(Core):
    """Nobody subscribed, but every hash is made."""

    def burst(self, raw: bytes) -> None:
        block = Block(raw)
        _ = block.txids, block.hash
        self.publisher.block_connected(block)
        self.publisher.updated_block_tip(block)
        self.publisher.flush()


@cache
def measure(case: str, name: str) -> dict[str, Outcome]:
    subscribers, hwm, until = CASES[case]
    raw = blocks()[name]

    turns: dict[str, Callable[[], Turn]] = {"limit.c": lambda: limit_turn(raw, subscribers, 7, until)}
    for one, who in PAIRS:
        if one == case and who != "limit.c":
            make = partial(HashesToo if who == HASHES_TOO else CONTENDERS[who], hwm)
            turns[who] = partial(burst_turn, make, raw, subscribers, RUNS.get(who, 7), until)
    return interleave(turns, rounds=3)


@pytest.mark.parametrize(("case", "contender"), PAIRS)
@pytest.mark.parametrize("block", blocks())
def test_block_burst(benchmark: BenchmarkFixture, case: str, block: str, contender: str) -> None:
    record(benchmark, "block burst", case, contender, measure(case, block)[contender], block=block)
