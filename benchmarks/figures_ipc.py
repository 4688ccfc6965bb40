"""The figures of Bitcoin Core's IPC."""

from __future__ import annotations

from collections.abc import Iterator

from figure import Figure, ratio, us
from results import Results

_BARE = "pycapnp alone"


def between_processes(results: Results) -> Iterator[Figure]:
    """Calls, waits, and a publisher in a process of its own."""
    yield from calls(results)
    yield from tips(results)
    yield from spawned(results)


def calls(results: Results) -> Iterator[Figure]:
    for question, what in (("IPC echo", "echo"), ('IPC execute("getblockcount")', "execute")):
        for row in results.all(question, contender=_BARE):
            server = row["case"]
            yield _beside(results, question, server, "zmqpub asyncio", f"IPC {what}, {server}, asyncio", 1.1)
            yield _beside(results, question, server, "zmqpub in threads", "… in threads", 1.5 if what == "echo" else None)
    question = "IPC, 100 echoes in flight"
    for row in results.all(question, contender=_BARE):
        server = row["case"]
        one = results.one(question, server, "zmqpub asyncio")
        if one:
            share = row["median_of_turns"] / one["median_of_turns"]
            yield Figure(f"IPC, 100 echoes in flight, {server}", f"at least 0.9 x {_BARE}",
                         f"{share:.2f} x: {1 / one['median_of_turns']:,.0f}/s beside {1 / row['median_of_turns']:,.0f}/s",
                         share >= 0.9)  # fmt: skip


def _beside(results: Results, question: str, server: str, contender: str, what: str, most: float | None) -> Figure:
    """Medians, as a call's best says little of it."""
    one, bare = results.one(question, server, contender), results.one(question, server, _BARE)
    target = "for comparison" if most is None else f"at most {most} x {_BARE}"
    if not one or not bare:
        return Figure(what, target, "not measured", None)
    times = one["median_of_turns"] / bare["median_of_turns"]
    measured = f"{times:.2f} x: {us(one['median_of_turns'])} beside {us(bare['median_of_turns'])}"
    return Figure(what, target, measured, None if most is None else times <= most)


def tips(results: Results) -> Iterator[Figure]:
    for row in results.all("tip"):
        name = row["contender"]
        has_target = name.startswith("wait_tip_changed")
        yield Figure(f"From a node's new tip to who waits for it: {name}", "under 2 ms" if has_target else "for comparison",
                     f"{row['p50_median'] * 1e3:.2f} ms, 99th percentile {row['p99_median'] * 1e3:.1f} ms",
                     row["p50_median"] < 2e-3 if has_target else None)  # fmt: skip


def spawned(results: Results) -> Iterator[Figure]:
    question, case = "notifications over ipc", "one subscriber, until it has it"
    yield ratio(results, "Block burst, publisher in a process of its own, one TCP subscriber, until it has the last message",
                "at most 1.5 x in process", question, case, ("spawned", "in process"), lambda r: r <= 1.5)  # fmt: skip
    yield ratio(results, "… the journal in a file", "at most 1.5 x in process, the same", question, case,
                ("spawned, journal in a file", "in process, journal in a file"), lambda r: r <= 1.5)  # fmt: skip
    yield ratio(results, "… without shared memory", "for comparison", question, case,
                ("spawned, no shared memory", "in process"), lambda r: True)._replace(ok=None)  # fmt: skip
    one, other = (results.one(question, "mempool", name) for name in ("spawned", "in process"))
    if one and other:
        rates = " beside ".join(f"{row['transactions'] / row['best']:,.0f}/s" for row in (one, other))
        yield Figure("… mempool, transactions, beside in process", "for comparison", rates, None)
