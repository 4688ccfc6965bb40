"""What do 100 blocks of 1.4 MB cost while they wait behind a stopped subscriber?

Each published by block_connected and updated_block_tip, five topics, the blocks' bytes objects held by the queue alone.
zmqpub: slow_subscriber="wait", so that the journal keeps them; pyzmq by hand: without a mark, so that libzmq keeps them. In a process
of its own; what was resident before the blocks existed is taken off. The seconds are the publishing call's, for each block.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache, partial

import pytest
from contest import Outcome, Turn, interleave, record
from native import HERE
from pytest_benchmark.fixture import BenchmarkFixture
from samples import usual
from subscribers import Subscribers

NAMES = ["zmqpub", "pyzmq by hand"]


def turn(name: str) -> Turn:
    command = [sys.executable, str(HERE / "memory_probe.py"), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
        assert probe.stdin is not None
        assert probe.stdout is not None
        try:
            with Subscribers(probe.stdout.readline().strip()) as drain:
                drain.stop()
                probe.stdin.write("\n")
                probe.stdin.flush()
                told = json.loads(probe.stdout.readline())
        finally:
            probe.kill()
    grown = told["after"] - told["before"]
    return Turn(
        [told["seconds"]],
        {
            "blocks": told["size"],
            "resident": grown,
            "resident_ratio": grown / told["size"],
            "journal_ratio": told["journal"] / told["size"],
            "waiting": told["waiting"],
            "per_message": (grown - told["size"]) / told["waiting"],
        },
    )


@cache
def measure() -> dict[str, Outcome]:
    return interleave({name: partial(turn, name) for name in NAMES}, rounds=2)


@pytest.mark.parametrize("contender", NAMES)
def test_memory(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "memory", "100 blocks behind a stopped subscriber", contender, measure()[contender], block=usual()[0])
