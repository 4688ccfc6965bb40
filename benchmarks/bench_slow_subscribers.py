"""One of four subscribers is stopped (SIGSTOP), or reads 500 messages a second: what becomes of the other three, and of that one?

A block every 50 ms, 100,000 messages a second for each. The seconds are: until the stopped one was disconnected, since its kernel last
took anything; and the others' largest lag, from the call until the tip's hashblock, which follows all of a block's transactions.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import pytest
from contenders import CONTENDERS, Contender
from contenders.core import Core
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import messages, usual
from subscribers import Subscribers

GAP = 0.05
"""Seconds between two blocks."""
STOPPED, SLOW = "one of 4 stopped", "one of 4 reads 500 messages a second"
RATES = {STOPPED: None, SLOW: 500.0}
COUNTS = {STOPPED: 50, SLOW: 80}
SETTINGS: dict[str, dict[str, Any]] = {STOPPED: {"stall_timeout": 1.0}, SLOW: {"max_lag": 2.0}}
NAMES = ["zmqpub", "pyzmq by hand"]


class Watcher(threading.Thread):
    """Looks every few milliseconds whether a publisher disconnected anybody, and what subscribers' kernels took meanwhile."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.stalled_for: float | None = None
        """Seconds for which the kernel of the first one that was disconnected had taken nothing."""
        self._publisher = core.publisher
        self._port = int(core.address.rpartition(":")[2])
        self._end = threading.Event()

    def run(self) -> None:
        queues: dict[int, int] = {}
        changed: dict[int, float] = {}
        while not self._end.wait(0.002):
            now = time.monotonic()
            if self._publisher.stats().evictions:
                self.stalled_for = now - changed[max(queues, key=lambda port: queues[port])]
                return
            for port, queue in receive_queues(self._port).items():
                if queues.get(port) != queue:
                    queues[port], changed[port] = queue, now

    def close(self) -> None:
        self._end.set()
        self.join()


def receive_queues(port: int) -> dict[int, int]:
    """Bytes that wait in the kernel for each subscriber of a port of this machine, by the subscriber's own port."""
    result = {}
    with open("/proc/net/tcp") as file:
        for line in file.readlines()[1:]:
            _, local, remote, _, queues = line.split()[:5]
            if int(remote.rpartition(":")[2], 16) == port:
                result[int(local.rpartition(":")[2], 16)] = int(queues.rpartition(":")[2], 16)
    return result


def publish(contender: Contender, count: int) -> list[int]:
    """``count`` blocks, GAP apart; when each tip was announced, time.monotonic_ns()."""
    _, raw = usual()
    began, announced = time.monotonic(), []
    for number in range(count):
        time.sleep(max(0.0, began + number * GAP - time.monotonic()))
        announced.append(time.monotonic_ns())
        if isinstance(contender, Core):
            contender.publisher.block_connected(raw)
            contender.publisher.updated_block_tip(raw)
        else:
            contender.burst(raw)
    return announced


def turn(case: str, name: str) -> Turn:
    """Four subscribers, of whom the last one reads slowly, or is stopped after a few blocks."""
    rate, count = RATES[case], COUNTS[case]
    contender: Contender = Core(1000, **SETTINGS[case]) if name == "zmqpub" else CONTENDERS[name](1000)
    with ExitStack() as stack:
        stack.callback(contender.close)
        others = stack.enter_context(Subscribers(contender.address, 3, timed="hashblock"))
        last = stack.enter_context(Subscribers(contender.address, 1, rate=rate))
        watcher = None
        if isinstance(contender, Core):
            watcher = Watcher(contender)
            stack.callback(watcher.close)
            watcher.start()
        expected = messages(usual()[1]) * count
        others.begin(expected)
        announced = publish(contender, 5)
        if rate is None:
            last.stop()
        announced += publish(contender, count - 5)
        contender.flush()
        others.finished(5.0 if name == "zmqpub" else 0.5)
        report = others.report()
        lags = [(when - announced[counter]) / 1e9 for one in others.arrivals() for counter, when in one]
        stalled_for = watcher.stalled_for if watcher is not None else None
        info = {
            "others_share": min(report["received"]) / expected,
            "others_lag": max(lags),
            "evictions": contender.publisher.stats().evictions if isinstance(contender, Core) else None,
            "stalled_for": stalled_for,
            "blocks": count,
        }
        return Turn([stalled_for if case == STOPPED and stalled_for is not None else max(lags)], info)


@cache
def measure(case: str) -> dict[str, Outcome]:
    return interleave({name: partial(turn, case, name) for name in NAMES}, rounds=2)


@pytest.mark.parametrize("contender", NAMES)
@pytest.mark.parametrize("case", SETTINGS)
def test_slow_subscribers(benchmark: BenchmarkFixture, case: str, contender: str) -> None:
    record(benchmark, "slow subscribers", case, contender, measure(case)[contender], block=usual()[0], **SETTINGS[case])
