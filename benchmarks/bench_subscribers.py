"""How long until each of 1, 4 and 16 subscribers has all of a block, and do they get all of it?

At the default mark of 1000; limit.c without one, as it would lose most otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
from bursts import burst_turn, limit_turn
from contenders import CONTENDERS
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture
from samples import usual

RUNS = {"zmqpub": 7, "pyzmq by hand": 3}


@cache
def measure(subscribers: int) -> dict[str, Outcome]:
    _, raw = usual()
    turns: dict[str, Callable[[], Turn]] = {"limit.c": partial(limit_turn, raw, subscribers, 7)}
    for who, runs in RUNS.items():
        turns[who] = partial(burst_turn, partial(CONTENDERS[who], 1000), raw, subscribers, runs)
    return interleave(turns, rounds=4)


@pytest.mark.parametrize("contender", ["limit.c", *RUNS])
@pytest.mark.parametrize("subscribers", [1, 4, 16])
def test_subscribers(benchmark: BenchmarkFixture, subscribers: int, contender: str) -> None:
    outcome = measure(subscribers)[contender]
    record(benchmark, "subscribers", f"{subscribers:2}", contender, outcome, subscribers=subscribers, block=usual()[0])
