"""What does it cost that the publisher lives in a process of its own?

Bursts of a block, each a different one, from raw bytes to five topics, until one subscriber over TCP has the last message:

- "in process": zmqpub.Publisher;
- "spawned": zmqpub.ipc.SpawnedPublisher, the block going through the memory that both processes share;
- "spawned, no shared memory": the block going through the socket, inside the Cap'n Proto message;
- both of the first with the journal in a file, which is what makes a killed publisher lose nothing.

And transactions entering the mempool one by one, until the subscriber's libzmq has them all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from bursts import burst_turn
from contenders import TOPICS
from contest import Outcome, Turn, interleave, record
from native import HERE
from pytest_benchmark.fixture import BenchmarkFixture
from samples import blocks, renonced, transactions
from subscribers import Subscribers

from zmqpub import Block, Publisher

pytest.importorskip("capnp", reason="zmqpub[ipc] is not installed")

from zmqpub.ipc.notifications import SpawnedPublisher

ADDRESS = "tcp://127.0.0.1:*"
VARIANTS = 12
"""More than the journal looks back for a block that it has already."""
MEMPOOL = 20_000

NAMES: Mapping[str, tuple[type[Publisher] | type[SpawnedPublisher], bool, Mapping[str, Any]]] = {
    "in process": (Publisher, False, {}),
    "spawned": (SpawnedPublisher, False, {}),
    "spawned, no shared memory": (SpawnedPublisher, False, {"shared_memory": False}),
    "in process, journal in a file": (Publisher, True, {}),
    "spawned, journal in a file": (SpawnedPublisher, True, {}),
}


class Contender:
    """A publisher of either kind, and another block at each burst."""

    def __init__(self, name: str, hwm: int) -> None:
        kind, in_file, settings = NAMES[name]
        (HERE / ".cache").mkdir(exist_ok=True)
        self.directory = TemporaryDirectory(prefix="journal-", dir=HERE / ".cache")
        path = {"journal_path": str(Path(self.directory.name) / "journal")} if in_file else {}
        options: dict[str, object] = {f"zmqpub{topic}": ADDRESS for topic in TOPICS}
        options.update({f"zmqpub{topic}hwm": hwm for topic in TOPICS})
        self.publisher = kind(options, **path, **settings)
        self.address = self.publisher.active_notifiers()[0].address
        self.bursts = 0

    def burst(self, raw: bytes) -> None:
        self.bursts += 1
        block = Block(variants(raw)[self.bursts % VARIANTS])
        self.publisher.block_connected(block)
        self.publisher.updated_block_tip(block)
        self.publisher.flush()

    def transaction(self, raw: bytes, mempool_sequence: int) -> None:
        self.publisher.transaction_added_to_mempool(raw, mempool_sequence)

    def flush(self) -> None:
        self.publisher.flush()

    def close(self) -> None:
        self.publisher.close()
        self.directory.cleanup()


@cache
def variants(raw: bytes) -> list[bytes]:
    """The same block with other nonces."""
    return [renonced(raw, nonce) for nonce in range(VARIANTS)]


@cache
def measure(name: str) -> dict[str, Outcome]:
    raw = blocks()[name]
    variants(raw)
    return interleave({one: partial(burst_turn, partial(Contender, one, 1000), raw, 1, 9) for one in NAMES}, rounds=5)


def mempool_turn(name: str) -> Turn:
    """Seconds until one subscriber's libzmq has so many transactions, five topics."""
    contender = Contender(name, 0)
    sample = transactions()
    try:
        with Subscribers(contender.address, 1):
            began = time.perf_counter()
            for number in range(MEMPOOL):
                contender.transaction(sample[number % len(sample)], number)
            handed_over = time.perf_counter() - began
            contender.flush()
            return Turn([time.perf_counter() - began], {"handed_over": handed_over, "transactions": MEMPOOL})
    finally:
        contender.close()


@cache
def measure_mempool() -> dict[str, Outcome]:
    return interleave({name: partial(mempool_turn, name) for name in NAMES}, rounds=3)


@pytest.mark.parametrize("contender", NAMES)
@pytest.mark.parametrize("block", blocks())
def test_block_burst(benchmark: BenchmarkFixture, block: str, contender: str) -> None:
    record(benchmark, "notifications over ipc", "one subscriber, until it has it", contender, measure(block)[contender], block=block)


@pytest.mark.parametrize("contender", NAMES)
def test_mempool(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "notifications over ipc", "mempool", contender, measure_mempool()[contender])
