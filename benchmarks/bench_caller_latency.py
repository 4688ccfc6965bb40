"""How long does the caller wait in block_connected: given a Block, given bytes, and whatever subscribers do?

A new Block for each call, made just before it, as a node would. The sender is done with the last block and asleep, unless somebody
holds it up: the call that wakes it is the dear one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial

import pytest
from contenders.core import Core
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import blocks, usual
from subscribers import Subscribers

from zmqpub import Block

CALLS = 50
GAP = 0.02
"""Seconds between two calls."""
SITUATIONS = ["no subscriber", "4 subscribers", "4 subscribers, one of them stopped"]


def turn(situation: str, prepare: Callable[[bytes], Block | bytes], raw: bytes) -> Turn:
    core = Core(1000)
    taken = []
    with ExitStack() as stack:
        stack.callback(core.close)
        if situation != SITUATIONS[0]:
            stopped = situation == SITUATIONS[2]
            stack.enter_context(Subscribers(core.address, 3))
            last = stack.enter_context(Subscribers(core.address, 1))
            if stopped:
                last.stop()
        for _ in range(CALLS):
            time.sleep(GAP)
            block = prepare(raw)
            began = time.perf_counter_ns()
            core.publisher.block_connected(block)
            taken.append((time.perf_counter_ns() - began) / 1e9)
        backlog = core.publisher.stats().journal.events
    ordered = sorted(taken)
    return Turn(taken, {"p50": ordered[CALLS // 2], "p99": ordered[CALLS * 99 // 100], "journal_events": backlog})


@cache
def measure_blocks() -> dict[str, Outcome]:
    _, raw = usual()
    return interleave({situation: partial(turn, situation, Block, raw) for situation in SITUATIONS}, rounds=3)


@cache
def measure_bytes() -> dict[str, Outcome]:
    return interleave({name: partial(turn, SITUATIONS[1], bytes, raw) for name, raw in blocks().items()}, rounds=3)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_given_a_block(benchmark: BenchmarkFixture, situation: str) -> None:
    record(benchmark, "caller", "given a Block", situation, measure_blocks()[situation], block=usual()[0])


@pytest.mark.parametrize("block", blocks())
def test_given_bytes(benchmark: BenchmarkFixture, block: str) -> None:
    size = len(blocks()[block])
    record(benchmark, "caller", "given bytes", block, measure_bytes()[block], block=block, bytes=size)
