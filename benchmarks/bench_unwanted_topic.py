"""What does a topic cost that nobody subscribed to, beside the same topic with one subscriber?

One notifier for the topic, at the default mark, and one subscriber: of this topic, or of another one. Ten blocks, each a new Block,
from the first call until all is with libzmq. Afterwards a late subscriber's first counter has to be the number of messages before.
"""

from __future__ import annotations

import time
from functools import cache, partial
from typing import Any

import pytest
import zmq
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import usual
from subscribers import Subscribers

from zmqpub import Block, Publisher

TOPICS = ["hashtx", "rawtx"]
BLOCKS = 10
RUNS = 5


def turn(topic: str, wanted: bool) -> Turn:
    _, raw = usual()
    taken = []
    with Publisher({f"zmqpub{topic}": "tcp://127.0.0.1:*"}) as publisher:
        address = publisher.active_notifiers()[0].address
        with Subscribers(address, topics=[topic if wanted else "hashblock"]):
            for _ in range(RUNS):
                made = [Block(raw) for _ in range(BLOCKS)]
                time.sleep(0.02)
                began = time.perf_counter()
                for block in made:
                    publisher.block_connected(block)
                publisher.flush()
                taken.append((time.perf_counter() - began) / BLOCKS)
        before = len(Block(raw)) * BLOCKS * RUNS
        first = _first_counter(publisher, address, topic)
    return Turn(taken, {"counter_right": first == before})


def _first_counter(publisher: Publisher, address: str, topic: str) -> int:
    """The counter of the first message that a subscriber gets which comes late."""
    with zmq.Context[Any]() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe(topic)
        socket.rcvtimeo = 5000
        socket.connect(address)
        while not publisher.stats().notifiers[0].wanted:
            time.sleep(0.01)
        time.sleep(0.1)
        publisher.block_connected(usual()[1])
        return int.from_bytes(socket.recv_multipart()[2], "little")


@cache
def measure(topic: str) -> dict[str, Outcome]:
    return interleave({"one subscriber": partial(turn, topic, True), "nobody": partial(turn, topic, False)}, rounds=4)


@pytest.mark.parametrize("subscriber", ["one subscriber", "nobody"])
@pytest.mark.parametrize("topic", TOPICS)
def test_unwanted_topic(benchmark: BenchmarkFixture, topic: str, subscriber: str) -> None:
    record(benchmark, "unwanted topic", topic, subscriber, measure(topic)[subscriber], block=usual()[0])
