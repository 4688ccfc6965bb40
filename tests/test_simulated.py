"""The simulated chain: valid to an independent auditor, deterministic, in Bitcoin Core's order, shaped like mainnet."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any

import pytest
from auditor import Auditor

from zmqpub.errors import ConfigError
from zmqpub.sources.events import (
    BlockConnected,
    BlockDisconnected,
    Event,
    Source,
    TransactionAdded,
    TransactionRemoved,
    UpdatedBlockTip,
)
from zmqpub.sources.simulated import Simulated

LIVELY: dict[str, Any] = {
    "reorg_rate": 0.4,
    "max_reorg_depth": 4,
    "conflict_rate": 0.4,
    "replacement_rate": 0.15,
    "eviction_rate": 0.05,
    "transactions_per_second": 5.0,
    "coins": 150,  # few, so that many spend what was made a moment ago
}


def digest(events: Iterable[Event]) -> str:
    """Over everything that the events say."""
    total = hashlib.sha256()
    for event in events:
        thing = event.transaction if isinstance(event, (TransactionAdded, TransactionRemoved)) else event.block
        rest = [repr(getattr(event, name)) for name in ("due", "height", "mempool_sequence", "reason") if hasattr(event, name)]
        total.update(f"{type(event).__name__} {rest} ".encode() + bytes(thing))
    return total.hexdigest()


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (0, {"blocks": 8}),
        (1, {"blocks": 60, **LIVELY}),
        (2, {"blocks": 60, **LIVELY}),
        (3, {"blocks": 2, "transactions_per_second": 150.0, "transactions_per_block": 700}),
        (4, {"blocks": 4, "mempool_limit": 60, "block_weight": 20_000}),
        (5, {"blocks": 400, "transactions_per_second": 0.1, "replacement_rate": 0.5}),
        (6, {"blocks": 5, "transactions_per_second": 0}),
    ],
)
def test_an_independent_auditor_finds_nothing_wrong(seed: int, settings: dict[str, Any]) -> None:
    auditor = Auditor()
    auditor.follow(Simulated(seed, publish_bootstrap=True, **settings))
    assert auditor.seen["UpdatedBlockTip"] - auditor.seen["depth 0"] == sum(auditor.seen[f"depth {depth}"] for depth in range(1, 10))


def test_everything_happens() -> None:
    """What the auditor looked at above was there to be looked at."""
    auditor = Auditor()
    auditor.follow(Simulated(1, blocks=150, publish_bootstrap=True, **LIVELY))
    for kind in ("replaced", "sizelimit", "expiry", "conflict", "reorg", "depth 1", "depth 2", "depth 3", "depth 4"):
        assert auditor.seen[kind], kind


def test_a_seed_gives_the_same_bytes_every_time() -> None:
    source = Simulated(7, blocks=12, **LIVELY)
    first = digest(source)
    assert digest(source) == first
    assert digest(Simulated(7, blocks=12, **LIVELY)) == first
    assert digest(Simulated(8, blocks=12, **LIVELY)) != first


def test_a_seed_gives_the_same_bytes_in_every_process() -> None:
    """Neither the hash seed nor the version of Python nor the machine matters."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); from test_simulated import *; print(digest(Simulated(11, blocks=12, **LIVELY)))"
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        # Changes with every change in what the generator chooses, and only then.
        assert done.stdout.strip() == "71746aad6513d6f6bab93935d2f2823a5bf2b78ca0e84ddc180146725d279d6b"


def test_transactions_are_shaped_like_mainnets() -> None:
    events = Simulated(3, blocks=12, transactions_per_second=100.0)
    transactions = [event.transaction for event in events if isinstance(event, TransactionAdded)]
    sizes = [transaction.size for transaction in transactions]
    assert len(sizes) > 5_000
    assert 215 <= statistics.median(sizes) <= 255
    assert 390 <= statistics.mean(sizes) <= 510
    assert max(sizes) > 20_000
    assert min(sizes) > 150
    assert 0.8 <= sum(transaction.has_witness for transaction in transactions) / len(sizes) <= 0.9
    kinds = {output.script_pubkey[:2] for transaction in transactions for output in transaction.outputs}
    assert {b"\x00\x20", b"\x51\x20", b"\xa9\x14"} <= kinds
    assert any(output.script_pubkey[0] == 0x6A for transaction in transactions for output in transaction.outputs)


def test_a_full_block_is_nearly_four_million_weight_units() -> None:
    events = Simulated(3, blocks=6, transactions_per_second=600.0, reorg_rate=0.0)
    largest = max((event.block for event in events if isinstance(event, BlockConnected)), key=len)
    weight = sum(4 * tx.size - 3 * sum(_witness_size(tx.inputs)) for tx in largest)
    assert 3_980_000 <= weight <= 4_000_000


def _witness_size(inputs: Iterable[Any]) -> list[int]:
    if not any(entry.witness for entry in inputs):
        return []
    sizes = [sum(len(item) + (1 if len(item) < 253 else 3) for item in entry.witness) + 1 for entry in inputs]
    return [2, *sizes]


def test_rates_are_kept() -> None:
    events = list(Simulated(5, blocks=200, block_interval=2.0, transactions_per_second=20.0, reorg_rate=0.3))
    tips = [event for event in events if isinstance(event, UpdatedBlockTip)]
    assert len(tips) == 200
    assert isinstance(events[-1], UpdatedBlockTip)
    assert 1.6 <= events[-1].due / 200 <= 2.4
    added = sum(isinstance(event, TransactionAdded) for event in events)
    disconnected = sum(isinstance(event, BlockDisconnected) for event in events)
    assert 17 <= added / events[-1].due <= 27  # what reorganizations give back to the mempool comes on top
    assert 40 <= disconnected <= 160
    assert not any(tip.initial_download for tip in tips)


def test_the_bootstrap_is_silent_unless_asked_for() -> None:
    first = next(event for event in Simulated(0) if isinstance(event, BlockConnected))
    loud = list(islice(Simulated(0, publish_bootstrap=True), 2 * (first.height - 1)))
    assert [type(event) for event in loud] == [BlockConnected, UpdatedBlockTip] * (first.height - 1)
    assert {event.due for event in loud} == {0.0}
    assert all(event.initial_download for event in loud if isinstance(event, UpdatedBlockTip))
    assert isinstance(loud[-1], UpdatedBlockTip)
    assert loud[-1].block.hash == first.block.header.prev_hash
    assert 100 < loud[-1].height < 200


def test_no_reorganization_reaches_below_what_was_published() -> None:
    known: set[bytes] = set()
    for event in Simulated(9, blocks=20, reorg_rate=1.0, max_reorg_depth=100, transactions_per_second=0.5):
        if isinstance(event, BlockConnected):
            known.add(event.block.hash)
        elif isinstance(event, BlockDisconnected):
            assert event.block.hash in known


def test_block_times_follow_the_virtual_time() -> None:
    start = 1_600_000_000
    for event in Simulated(2, blocks=20, start_time=start, transactions_per_second=1.0):
        if isinstance(event, BlockConnected):
            assert start + int(event.due) <= event.block.header.time <= start + int(event.due) + 120


def test_memory_stays_bounded() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    events = iter(Simulated(4, transactions_per_second=2.0, coins=300))
    for _ in range(5_000):
        next(events)
    tracemalloc.start()
    try:
        for _ in range(5_000):
            next(events)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20_000):
            next(events)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after < before + 2_000_000  # these 20,000 events are about 10 MB of transactions


def test_close_ends_every_iteration() -> None:
    source = Simulated(0)
    events = iter(source)
    next(events)
    source.close()
    assert list(events) == []
    assert list(source) == []


def test_it_is_a_source() -> None:
    source = Simulated(12, block_interval=2.5, transactions_per_second=40)
    assert isinstance(source, Source)
    assert source.describe() == "a simulated regtest chain (seed 12, a block every 2.5 s, 40 transactions/s)"


def test_all_bad_arguments_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Simulated(
            -1,
            blocks=-1,
            block_interval=0.0,
            transactions_per_second=float("nan"),
            reorg_rate=1.5,
            mempool_limit=0,
            coins=3,
        )
    assert [problem.option for problem in caught.value.problems] == [
        "seed",
        "blocks",
        "block_interval",
        "transactions_per_second",
        "reorg_rate",
        "mempool_limit",
        "coins",
    ]
    assert caught.value.problems[4].value == "1.5"
    assert "0 to 1" in caught.value.problems[4].message
