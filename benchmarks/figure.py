"""One row of the table of figures, and how numbers are written in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from results import Results

NOT_MEASURED = "not measured"


class Figure(NamedTuple):
    what: str
    target: str
    measured: str
    ok: bool | None
    """None: no target, or nothing measured."""

    @property
    def verdict(self) -> str:
        return {True: "ok", False: "**missed**", None: "-"}[self.ok]


def ratio(
    results: Results,
    what: str,
    target: str,
    question: str,
    case: str,
    contenders: tuple[str, str],
    ok: Callable[[float], bool],
    note: str = "",
) -> Figure:
    """Seconds of the first contender over seconds of the second, for each block; the worst one decides."""
    best, median = [], []
    for block in [row["block"] for row in results.all(question, case, contenders[0])]:
        one, other = (results.one(question, case, contender, block=block) for contender in contenders)
        if one and other:
            best.append(one["best"] / other["best"])
            median.append(one["median_of_turns"] / other["median_of_turns"])
    if not best:
        return Figure(what, target, NOT_MEASURED, None)
    return Figure(what, target, f"{listed(best)} x (median {listed(median)} x){note}", all(map(ok, best)))


def listed(values: list[float]) -> str:
    """As many digits as say something."""
    return ", ".join(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values)


def percent(share: float) -> str:
    """Never rounded up to 100."""
    return "100 %" if share == 1.0 else f"{int(share * 1000) / 10:.1f} %"


def us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-4 else f"{seconds * 1e6:.0f} µs"
