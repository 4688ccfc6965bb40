"""How many notifications a second does a Python program receive over TCP, and how long does a block take until its txids are listed?

A publisher in a process of its own sends as fast as it can; time runs from the first message to the last. The hashes are 32-byte
bodies, the block is the largest sample.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import receivers
from contest import Outcome, Turn, interleave, record
from feeder import Feeder
from pytest_benchmark.fixture import BenchmarkFixture
from samples import blocks, usual

HASHES = {
    "zmqpub receiver": (receivers.typed, 1_000_000),
    "zmqpub receiver, lists": (receivers.typed_lists, 1_000_000),
    "zmqpub Subscriber": (receivers.subscriber, 1_000_000),
    "pyzmq": (receivers.pyzmq, 200_000),
}
BLOCKS = {
    "zmqpub receiver": (receivers.typed_txids, 100),
    "pyzmq + python-bitcoinlib": (receivers.bitcoinlib_txids, 8),
}


def turn(make: Callable[..., receivers.Receive], topic: str, raw: bytes, messages: int) -> Turn:
    """Seconds for each message."""
    with Feeder(topic, raw) as feeder, make(feeder.address, topic) as receive:
        count = feeder.send(messages)
        seconds = receive(count) / count
    return Turn([seconds], {"per_second": 1 / seconds})


@cache
def hashes() -> dict[str, Outcome]:
    turns = {who: partial(turn, make, "hashtx", usual()[1], messages) for who, (make, messages) in HASHES.items()}
    return interleave(turns, rounds=5)


@cache
def txids() -> dict[str, Outcome]:
    turns = {who: partial(turn, make, "rawblock", largest()[1], messages) for who, (make, messages) in BLOCKS.items()}
    return interleave(turns, rounds=4)


def largest() -> tuple[str, bytes]:
    return max(blocks().items(), key=lambda item: len(item[1]))


@pytest.mark.parametrize("contender", HASHES)
def test_hashes(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "receive", "hashtx", contender, hashes()[contender])


@pytest.mark.parametrize("contender", BLOCKS)
def test_txids_of_a_block(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "receive", "rawblock, txids listed", contender, txids()[contender], block=largest()[0])
