"""The charts, from a run's JSON: SVG files in benchmarks/charts/.

python benchmarks/charts.py RESULTS.json
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import Results, Row, read

CHARTS = Path(__file__).parent / "charts"
COLORS = {
    "zmqpub": "#1f6feb",
    "zmqpub, hashes too": "#79b0f7",
    "zmqpub, GIL hogged": "#79b0f7",
    "zmqpub.sha256d": "#1f6feb",
    "zmqpub's core": "#1f6feb",
    "zmqpub's core, batches": "#79b0f7",
    "limit.c": "#6e7781",
    "bare libzmq in C": "#6e7781",
    "OpenSSL": "#6e7781",
    "pyzmq by hand": "#d9822b",
    "pyzmq by hand, GIL hogged": "#f0bb85",
    "hashlib twice": "#d9822b",
    "python-bitcoinlib": "#b5483a",
}
Unit = Callable[[float], str]


def milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def nanoseconds(seconds: float) -> str:
    return f"{seconds * 1e9:,.0f} ns"


def share_of(row: Row) -> str:
    share = row.get("share")
    if share is None or share == 1.0:
        return ""
    lost = f", {int(share * 1000) / 10:.1f} % delivered"
    return lost if row.get("delivered", 0.0) is not None else f" until libzmq had it{lost}"


def bars(
    ax: Axes, title: str, rows: Sequence[Row], value: Callable[[Row], float], text: Callable[[Row], str], *, log: bool = False
) -> None:
    """Horizontal bars, the first row on top, each with its value beside it."""
    ax.set_title(title, loc="left", fontsize=10)
    ax.xaxis.set_visible(False)
    ax.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)
    if not rows:
        return
    names = [row["contender"] for row in rows]
    values = [value(row) for row in rows]
    ax.barh(names, values, color=[COLORS.get(name, "#1f6feb") for name in names], height=0.66, zorder=2)
    ax.invert_yaxis()
    if log:
        ax.set_xscale("log")
        ax.set_xlim(min(values) / 3, max(values) * 30)
    else:
        ax.set_xlim(0, max(values) * 1.6)
    for place, row in enumerate(rows):
        ax.annotate(text(row), (values[place], place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)


def sheet(rows: int, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(8.2, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [ax for line in axes for ax in line]


def block_burst(results: Results) -> Figure:
    cases = {
        "no subscriber": "No subscriber, until all is with libzmq",
        "one subscriber, until libzmq has it": "One subscriber, no mark, until all is with libzmq",
        "one subscriber, until it has it": "One subscriber, mark 1000 (limit.c: none), until it has the last message",
    }
    block = results.blocks()[0]
    figure, axes = sheet(3, 5.6)
    figure.suptitle(f"A block from raw bytes to five topics: {block} (best run, logarithmic)", x=0.01, ha="left", fontsize=11)
    for ax, (case, title) in zip(axes, cases.items(), strict=True):
        rows = results.all("block burst", case, block=block)
        bars(ax, title, rows, lambda row: row["best"], lambda row: milliseconds(row["best"]) + share_of(row), log=True)
    return figure


def subscribers(results: Results) -> Figure:
    cases = list(dict.fromkeys(row["case"] for row in results.all("subscribers")))
    figure, axes = sheet(len(cases), 4.4)
    figure.suptitle("Until every subscriber has the block's last message (best run)", x=0.01, ha="left", fontsize=11)
    for ax, case in zip(axes, cases, strict=True):
        title = f"{case.strip()} subscriber{'' if case.strip() == '1' else 's'}"
        rows = results.all("subscribers", case)
        bars(ax, title, rows, lambda row: row["best"], lambda row: milliseconds(row["best"]) + share_of(row))
    return figure


def latency(results: Results) -> Figure:
    rows = results.all("latency")
    figure, axes = sheet(2, 4.2)
    figure.suptitle("hashblock over loopback TCP, from the call to the subscriber", x=0.01, ha="left", fontsize=11)
    bars(axes[0], "Median", rows, lambda row: row["p50"], lambda row: microseconds(row["p50"]))
    bars(axes[1], "99th percentile (logarithmic)", rows, lambda row: row["p99"], lambda row: microseconds(row["p99"]), log=True)
    return figure


def throughput(results: Results) -> Figure:
    figure, axes = sheet(3, 4.6)
    figure.suptitle("Throughput (best turn, logarithmic)", x=0.01, ha="left", fontsize=11)

    def megabytes(row: Row) -> str:
        return f"{row['megabytes_per_second_most']:,.0f} MB/s{share_of(row)}"

    for ax, case in zip(axes, ("no subscriber", "one subscriber"), strict=False):
        rows = results.all("replay", case)
        bars(ax, f"Chain replay from block files, {case}", rows, lambda row: row["megabytes_per_second_most"], megabytes, log=True)
    bars(axes[2], "Mempool transactions to one subscriber", results.all("mempool"), lambda row: row["per_second_most"],
         lambda row: f"{row['per_second_most']:,.0f} a second{share_of(row)}", log=True)  # fmt: skip
    return figure


def hashing(results: Results) -> Figure:
    figure, axes = sheet(2, 2.9)
    figure.suptitle("Double SHA-256 of 250 bytes (best round)", x=0.01, ha="left", fontsize=11)
    for ax, case in zip(axes, ("from Python", "from C"), strict=True):
        bars(ax, case[0].upper() + case[1:], results.all("hashing", case), lambda row: row["best"], lambda row: nanoseconds(row["best"]))
    return figure


def memory(results: Results) -> Figure:
    figure, axes = sheet(1, 1.6)
    rows = results.all("memory")
    bars(axes[0], "Resident memory of 100 blocks that wait behind a stopped subscriber", rows, lambda row: row["resident"],
         lambda row: f"{row['resident'] / 1e6:.0f} MB, {row['resident_ratio']:.2f} x the blocks' bytes")  # fmt: skip
    return figure


DRAWN: dict[str, tuple[tuple[str, ...], Callable[[Results], Figure]]] = {
    "block-burst": (("block burst",), block_burst),
    "subscribers": (("subscribers",), subscribers),
    "latency": (("latency",), latency),
    "throughput": (("replay", "mempool"), throughput),
    "hashing": (("hashing",), hashing),
    "memory": (("memory",), memory),
}
"""The questions that each chart needs answered, and what draws it."""


def main(path: str) -> None:
    results = read(path)
    CHARTS.mkdir(exist_ok=True)
    settings: Any = {"svg.hashsalt": "zmqpub", "svg.fonttype": "path", "font.family": "DejaVu Sans", "axes.edgecolor": "#8c959f"}
    for name, (questions, draw) in DRAWN.items():
        if not all(results.all(question) for question in questions):
            print(f"{name}: left as it is, the run has nothing for it")
            continue
        with matplotlib.rc_context(settings):
            figure = draw(results)
            figure.savefig(CHARTS / f"{name}.svg", facecolor="white", metadata={"Date": None})
        print(CHARTS / f"{name}.svg")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
