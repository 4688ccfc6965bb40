"""What does it cost that the journal lives in a file?

Bursts of a block, each a different one, so that its bytes have to be written; and transactions entering the mempool, one by one.
"in memory" lets go of what was sent, "in memory, retained" keeps it for replay, "in a file" writes it to journal_path (on the disk
under the project, without waiting for it), "in a file, synced" waits for the disk at each event.
"""

from __future__ import annotations

import time
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from bursts import burst_turn
from contenders.core import Core
from contest import Outcome, Turn, interleave, record
from native import HERE
from pytest_benchmark.fixture import BenchmarkFixture
from samples import blocks, transactions
from subscribers import Subscribers

VARIANTS = 12
"""More than the journal looks back for a block that it has already."""
CASES = {
    "no subscriber": (0, 1000, "total"),
    "one subscriber, until libzmq has it": (1, 0, "total"),
    "one subscriber, until it has it": (1, 1000, "delivered"),
}
NAMES = ["in memory", "in memory, retained", "in a file", "in a file, synced"]
MEMPOOL = 50_000


@cache
def variants(raw: bytes) -> list[bytes]:
    """The same block with other nonces."""
    return [raw[:76] + n.to_bytes(4, "little") + raw[80:] for n in range(VARIANTS)]


class Journal(Core):
    """zmqpub with the journal somewhere, and another block at each burst."""

    def __init__(self, where: str, hwm: int) -> None:
        self.directory = TemporaryDirectory(prefix="journal-", dir=HERE / ".cache")
        settings: dict[str, object] = {}
        if where.startswith("in a file"):
            settings = {
                "journal_path": str(Path(self.directory.name) / "journal"),
                "journal_sync": "event" if "synced" in where else "none",
            }
        replay = {"zmqpubreplay": "tcp://127.0.0.1:*"} if where == "in memory, retained" else {}
        super().__init__(hwm, options=replay, **settings)
        self.bursts = 0

    def burst(self, raw: bytes) -> None:
        self.bursts += 1
        super().burst(variants(raw)[self.bursts % VARIANTS])

    def close(self) -> None:
        super().close()
        self.directory.cleanup()


@cache
def measure(case: str, name: str) -> dict[str, Outcome]:
    subscribers, hwm, until = CASES[case]
    raw = blocks()[name]
    variants(raw)
    (HERE / ".cache").mkdir(exist_ok=True)
    turns = {where: partial(burst_turn, partial(Journal, where, hwm), raw, subscribers, 9, until) for where in NAMES}
    return interleave(turns, rounds=5)


def mempool_turn(where: str) -> Turn:
    """Seconds until one subscriber's libzmq has so many transactions, five topics."""
    contender = Journal(where, 0)
    sample = transactions()
    try:
        with Subscribers(contender.address, 1):
            began = time.perf_counter()
            for i in range(MEMPOOL):
                contender.transaction(sample[i % len(sample)], i)
            handed_over = time.perf_counter() - began
            contender.flush()
            return Turn([time.perf_counter() - began], {"handed_over": handed_over, "transactions": MEMPOOL})
    finally:
        contender.close()


@cache
def measure_mempool() -> dict[str, Outcome]:
    (HERE / ".cache").mkdir(exist_ok=True)
    return interleave({where: partial(mempool_turn, where) for where in NAMES[:3]}, rounds=3)


@pytest.mark.parametrize("where", NAMES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("block", blocks())
def test_block_burst(benchmark: BenchmarkFixture, case: str, block: str, where: str) -> None:
    record(benchmark, "journal file", case, where, measure(case, block)[where], block=block)


@pytest.mark.parametrize("where", NAMES[:3])
def test_mempool(benchmark: BenchmarkFixture, where: str) -> None:
    record(benchmark, "journal file", "mempool", where, measure_mempool()[where])
