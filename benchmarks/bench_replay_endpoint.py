"""What does the replay endpoint do, and what does it cost those who listen live?

- throughput: the same blocks, five topics over TCP, to one subscriber live (mark 1000, until it has the last message) and from the
  replay endpoint to one client in C (asker.c); and to four at once, all together;
- latency: a hashblock every millisecond from the call to a live subscriber, idle and while four clients replay without a pause. They
  stand for clients on other machines: what they themselves do is done with what the processors have left (SCHED_IDLE).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import native
import pytest
from bench_latency import COUNT, GAP, turn_of
from contenders.core import Core
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import messages, renonced, tiny, usual
from subscribers import Subscribers

from zmqpub import Publisher

REPLAY: dict[str, object] = {"zmqpubreplay": "tcp://127.0.0.1:*"}
BLOCKS = 40
RUNS = 3
THROUGHPUT = ["live", "replay", "replay, four clients"]
LATENCY = ["idle", "idle, with a replay endpoint", "four clients replay"]


@cache
def variants() -> list[bytes]:
    """The usual block under several nonces, so that each has hashes of its own to make."""
    _, raw = usual()
    return [renonced(raw, nonce) for nonce in range(BLOCKS)]


def ask(address: str | None, clients: int) -> dict[str, Any]:
    """What asker.c tells when all clients have everything."""
    command = [str(native.asker()), "-n", str(clients), str(address)]
    told: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["disorder"] == 0
    return told


def rate(count: int, seconds: list[float], **info: object) -> Turn:
    return Turn(seconds, {"messages_per_second": count / min(seconds), **info})


def live_turn() -> Turn:
    """The publisher is as the other's: it retains what it sends."""
    count = messages(usual()[1]) * BLOCKS
    seconds, share = [], 0.0
    core = Core(1000, options=REPLAY)
    try:
        with Subscribers(core.address) as drain:
            for _ in range(RUNS):
                drain.begin(count)
                began = time.monotonic_ns()
                for raw in variants():
                    core.publisher.block_connected(raw)
                    core.publisher.updated_block_tip(raw)
                end = drain.finished(10.0)
                seconds.append(((end or time.monotonic_ns()) - began) / 1e9)
            share = drain.report()["total"][0] / (count * RUNS)
    finally:
        core.close()
    return rate(count, seconds, share=share)


def replay_turn(clients: int) -> Turn:
    """Messages a second of all clients together."""
    core = Core(1000, options=REPLAY)
    try:
        for raw in variants():
            core.publisher.block_connected(raw)
            core.publisher.updated_block_tip(raw)
        core.flush()
        told = [ask(core.publisher.replay_address, clients) for _ in range(RUNS)]
        return rate(told[0]["messages"] * clients, [one["seconds"] for one in told])
    finally:
        core.close()


def _give_way() -> None:
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextmanager
def asking(address: str | None) -> Iterator[None]:
    """Four clients that replay until the end of the with statement."""
    process = subprocess.Popen([str(native.asker()), "-f", "-n", "4", str(address)], stdout=subprocess.PIPE, preexec_fn=_give_way)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def latency_turn(options: dict[str, object], busy: bool) -> Turn:
    tips = [tiny(number) for number in range(COUNT)]
    with Publisher({"zmqpubhashblock": "tcp://127.0.0.1:*", **options}) as publisher:
        for number in range(20_000 if busy else 0):
            publisher.updated_block_tip(tips[number % COUNT])
        publisher.flush()
        address = publisher.active_notifiers()[0].address
        with Subscribers(address, topics=["hashblock"], timed="hashblock") as drain:
            drain.begin(COUNT)
            sent = []
            with asking(publisher.replay_address) if busy else nullcontext():
                for raw in tips:
                    sent.append(time.monotonic_ns())
                    publisher.updated_block_tip(raw)
                    time.sleep(GAP)
                drain.finished(2.0)
            replayed = publisher.stats().replay
            first = publisher.stats().notifiers[0].published - COUNT
            taken = [(when - sent[counter - first]) / 1e9 for counter, when in drain.arrivals()[0]]
    turn = turn_of(taken)
    return Turn(turn.seconds, {**turn.info, "replayed": replayed.messages if replayed else 0})


@cache
def throughput() -> dict[str, Outcome]:
    variants()
    turns: list[Callable[[], Turn]] = [live_turn, partial(replay_turn, 1), partial(replay_turn, 4)]
    return interleave(dict(zip(THROUGHPUT, turns, strict=True)), rounds=3)


@cache
def latency() -> dict[str, Outcome]:
    turns: list[Callable[[], Turn]] = [
        partial(latency_turn, {}, False),
        partial(latency_turn, REPLAY, False),
        partial(latency_turn, REPLAY, True),
    ]
    return interleave(dict(zip(LATENCY, turns, strict=True)), rounds=3)


@pytest.mark.parametrize("contender", THROUGHPUT)
def test_replay_throughput(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "replay endpoint", "throughput", contender, throughput()[contender], block=usual()[0])


@pytest.mark.parametrize("contender", LATENCY)
def test_latency_beside_replay(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "replay endpoint", "latency", contender, latency()[contender])
