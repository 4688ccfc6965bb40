"""Contenders measured in turns, ABAB, and what comes of it handed to pytest-benchmark.

Most of what is measured here ends elsewhere than where it began (in a subscriber's process, in a C program), so pytest-benchmark's
own stopwatch cannot take it: its timer stands still, except where a measured duration moves it (`record`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

_measured = 0.0


def measured_time() -> float:
    """The timer that pytest-benchmark is given: the sum of what was measured so far."""
    return _measured


@dataclass
class Turn:
    """What one turn of a contender gave."""

    seconds: Sequence[float]
    """Its runs. A C program tells the best of its runs only: then one number."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else; numbers are kept with their best and median over all turns."""


@dataclass
class Outcome:
    """All turns of a contender."""

    turns: list[Turn] = field(default_factory=list)
    absent: str | None = None
    """Why it could not take part."""

    @property
    def best(self) -> float:
        """Seconds, of all runs."""
        return min(min(turn.seconds) for turn in self.turns)

    @property
    def median(self) -> float:
        """Seconds: of the best run of each turn, so that a contender that tells its best only can be compared."""
        return statistics.median(min(turn.seconds) for turn in self.turns)

    def info(self) -> dict[str, Any]:
        """The turns' numbers: the least under their own name, the median as ``<name>_median``, the most as ``<name>_most``."""
        result: dict[str, Any] = {}
        for name in self.turns[0].info:
            values = [turn.info[name] for turn in self.turns if turn.info[name] is not None]
            if not values:
                result[name] = None
            elif isinstance(values[0], bool):
                result[name] = all(values)
            elif isinstance(values[0], (int, float)):
                result[name] = min(values)
                result[f"{name}_median"] = statistics.median(values)
                result[f"{name}_most"] = max(values)
            else:
                result[name] = values[-1]
        return result


Contender = Callable[[], Turn]


def interleave(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Outcome]:
    """``rounds`` turns of each, one after the other. One that skips (no compiler, not installed) is absent."""
    outcomes = {name: Outcome() for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            outcome = outcomes[name]
            if outcome.absent is not None:
                continue
            try:
                outcome.turns.append(contender())
            except pytest.skip.Exception as reason:
                outcome.absent = str(reason)
    return outcomes


def record(benchmark: BenchmarkFixture, question: str, case: str, contender: str, outcome: Outcome, **info: Any) -> None:
    """Give an outcome to pytest-benchmark; skip the test where the contender was absent."""
    if outcome.absent is not None:
        pytest.skip(outcome.absent)
    seconds = iter([run for turn in outcome.turns for run in turn.seconds])
    rounds = sum(len(turn.seconds) for turn in outcome.turns)

    def replay() -> None:
        global _measured
        _measured += next(seconds)

    benchmark.group = f"{question}: {case}"
    benchmark.extra_info.update(
        question=question,
        case=case,
        contender=contender,
        best=outcome.best,
        median_of_turns=outcome.median,
        turns=len(outcome.turns),
        **outcome.info(),
        **info,
    )
    benchmark.pedantic(replay, rounds=rounds, iterations=1)
