"""How long after a node has a new tip does who waits for it know?

From the moment at which the node's log says that it has a new tip (`UpdateTip`, with microseconds), which is before it tells
anybody, until the call returns, by the same clock:

- "wait_tip_changed": a thread in zmqpub's sync client;
- "wait_tip_changed, asyncio": a coroutine in the asyncio client;
- "node's own hashblock": a pyzmq subscriber of the node itself;
- "source": the first event (BlockConnected, with the whole block) out of zmqpub.sources.bitcoin_node.

Needs a bitcoin-node (environment variable ZMQPUB_BITCOIN_NODE, or on PATH); skipped without one.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache, partial
from pathlib import Path

import pytest
import zmq
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("capnp", reason="zmqpub[ipc] is not installed")
sys.path.append(str(Path(__file__).parents[1] / "tests"))

from ipc_node import BITCOIN_NODE, IpcNode

from zmqpub import ipc
from zmqpub.sources.bitcoin_node import BitcoinNode

BLOCKS = 50
GAP = 0.02
"""Seconds between two blocks."""
NAMES = ["wait_tip_changed", "wait_tip_changed, asyncio", "node's own hashblock", "source"]
_TIP = re.compile(r"^(\S+Z) UpdateTip: new best=([0-9a-f]{64})", re.M)

Heard = dict[str, float]


@contextmanager
def node() -> Iterator[IpcNode]:
    if BITCOIN_NODE is None:
        pytest.skip("no bitcoin-node: set ZMQPUB_BITCOIN_NODE to the path of one, or put it on PATH")
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as directory:
        made = IpcNode(Path(directory), "-logtimemicros=1")
        try:
            made("generatetodescriptor", 5, "raw(51)")
            yield made
        finally:
            made.stop()


def log_of(made: IpcNode) -> dict[str, float]:
    """Seconds since the epoch of each tip."""
    text = (made.directory / "regtest" / "debug.log").read_text(errors="replace")
    return {found[2]: datetime.fromisoformat(found[1].replace("Z", "+00:00")).timestamp() for found in _TIP.finditer(text)}


def sync_waiter(made: IpcNode, ready: threading.Event, heard: Heard) -> None:
    with ipc.connect(made.socket) as init:
        mining = init.make_mining()
        tip = mining.get_tip()
        assert tip is not None
        ready.set()
        while len(heard) < BLOCKS:
            tip = mining.wait_tip_changed(tip.hash, timeout=10.0)
            assert tip is not None
            heard[tip.hash.hex()] = time.time()


def asyncio_waiter(made: IpcNode, ready: threading.Event, heard: Heard) -> None:
    async def wait() -> None:
        async with ipc.connect_async(made.socket) as init:
            mining = await init.make_mining()
            tip = await mining.get_tip()
            assert tip is not None
            ready.set()
            while len(heard) < BLOCKS:
                tip = await mining.wait_tip_changed(tip.hash, timeout=10.0)
                assert tip is not None
                heard[tip.hash.hex()] = time.time()

    asyncio.run(wait())


def subscriber(made: IpcNode, ready: threading.Event, heard: Heard) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe(b"hashblock")
        socket.connect(made.notifications)
        time.sleep(0.3)
        ready.set()
        while len(heard) < BLOCKS:
            _, body, _ = socket.recv_multipart()
            heard[body.hex()] = time.time()


def source(made: IpcNode, ready: threading.Event, heard: Heard) -> None:
    events = BitcoinNode(lambda: ipc.connect(made.socket))
    events.on_baseline = lambda snapshot: ready.set()
    for event in itertools.islice(events, 2 * BLOCKS):
        heard.setdefault(event.block.hash.hex(), time.time())  # type: ignore[union-attr]


def turn(waiter: Callable[[IpcNode, threading.Event, Heard], None]) -> Turn:
    heard: Heard = {}
    ready = threading.Event()
    with node() as made:
        thread = threading.Thread(target=waiter, args=(made, ready, heard))
        thread.start()
        assert ready.wait(30.0)
        for _ in range(BLOCKS):
            time.sleep(GAP)
            made("generatetodescriptor", 1, "raw(51)")
        thread.join(30.0)
        told = log_of(made)
    taken = sorted(when - told[name] for name, when in heard.items())
    count = len(taken)
    return Turn(taken, {"p50": taken[count // 2], "p99": taken[count * 99 // 100], "count": count})


@cache
def measure() -> dict[str, Outcome]:
    turns = [partial(turn, waiter) for waiter in (sync_waiter, asyncio_waiter, subscriber, source)]
    return interleave(dict(zip(NAMES, turns, strict=True)), rounds=3)


@pytest.mark.parametrize("contender", NAMES)
def test_tip(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "tip", "from the node's new tip to who waits for it", contender, measure()[contender])
