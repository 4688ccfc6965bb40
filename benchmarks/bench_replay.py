"""How many megabytes a second does a replay of the chain from Bitcoin Core's block files reach, five topics, flat out?

A blk*.dat of 60 connected blocks, the same transactions in each. Until libzmq has everything, with no subscriber; until the one TCP
subscriber has its last message. python-bitcoinlib stops after 6 blocks.
"""

from __future__ import annotations

import math
import mmap
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from contenders import CONTENDERS, Contender
from contenders.core import Core
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import messages, usual
from subscribers import Subscribers

from zmqpub import Block, mine, serialize_header
from zmqpub.sources.blocks import BlockFiles
from zmqpub.sources.pace import pump

COUNTS = {"zmqpub": 60, "pyzmq by hand": 60, "python-bitcoinlib": 6}
CASES = {"no subscriber": 0, "one subscriber": 1}
_MAGIC = bytes.fromhex("fabfb5da")
"""Of regtest, whose proof of work a benchmark can make."""


def write_chain(directory: Path, count: int) -> None:
    """blk00000.dat with ``count`` blocks, each the parent of the next; all but the headers is the usual block's."""
    _, raw = usual()
    header = Block(raw).header._replace(bits=0x207FFFFF)
    with (directory / "blk00000.dat").open("wb") as file:
        for _ in range(count):
            header = mine(header._replace(nonce=0))
            block = serialize_header(header) + raw[80:]
            file.write(_MAGIC + len(block).to_bytes(4, "little") + block)
            header = header._replace(prev_hash=Block(block).hash)


def records(directory: Path) -> Iterator[bytes]:
    """The blocks of the file, as a reader by hand takes them: it knows that they stand in order."""
    with (directory / "blk00000.dat").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            yield data[at + 8 : at + 8 + size]
            at += 8 + size


def replay(contender: Contender, directory: Path) -> None:
    if isinstance(contender, Core):
        pump(BlockFiles(directory), contender.publisher, speed=math.inf, stop=threading.Event())
        contender.flush()
    else:
        for raw in records(directory):
            contender.burst(raw)


def turn(make: Callable[[int], Contender], subscribers: int, count: int) -> Turn:
    _, raw = usual()
    expected = messages(raw) * count
    share = None
    with TemporaryDirectory() as directory:
        write_chain(Path(directory), count)
        contender = make(1000)
        try:
            if subscribers:
                with Subscribers(contender.address) as drain:
                    drain.begin(expected)
                    began = time.monotonic_ns()
                    replay(contender, Path(directory))
                    flushed = time.monotonic_ns()
                    end = drain.finished(2.0) or flushed
                    share = drain.report()["received"][0] / expected
            else:
                began = time.monotonic_ns()
                replay(contender, Path(directory))
                end = time.monotonic_ns()
        finally:
            contender.close()
    seconds = (end - began) / 1e9
    return Turn([seconds / count], {"megabytes_per_second": len(raw) * count / seconds / 1e6, "share": share, "count": count})


@cache
def measure(case: str) -> dict[str, Outcome]:
    turns = {who: partial(turn, CONTENDERS[who], CASES[case], count) for who, count in COUNTS.items()}
    return interleave(turns, rounds=3)


@pytest.mark.parametrize("contender", COUNTS)
@pytest.mark.parametrize("case", CASES)
def test_replay(benchmark: BenchmarkFixture, case: str, contender: str) -> None:
    record(benchmark, "replay", case, contender, measure(case)[contender], block=usual()[0])
