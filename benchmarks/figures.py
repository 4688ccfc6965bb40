"""The table of figures, from a run's JSON: printed, and put between the markers of benchmarks/README.md, and of the project's.

    python benchmarks/figures.py RESULTS.json

A ratio is best of all runs against best of all runs, with the median of the turns behind it. Where there are several blocks or
situations the worst one counts, and the others stand beside it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from figure import NOT_MEASURED, Figure, percent, ratio, us
from figures_ipc import between_processes
from results import Results, Row, describe_machine, read

README = Path(__file__).parent / "README.md"
FRONT = Path(__file__).parents[1] / "README.md"


def shares(rows: list[Row]) -> str:
    return ", ".join(percent(row["share"]) for row in rows)


def bursts(results: Results) -> Iterator[Figure]:
    case, q = "no subscriber", "block burst"
    yield ratio(results, "Block burst, no subscriber, until all is with libzmq", "at most 1.1 x limit.c", q, case,
                ("zmqpub", "limit.c"), lambda r: r <= 1.1, "; nobody wants anything, so neither hashes nor frames are made")  # fmt: skip
    yield ratio(results, "… with all hashes made", "at most 1.1 x limit.c", q, case, ("zmqpub, hashes too", "limit.c"), lambda r: r <= 1.1)
    yield ratio(results, "… pyzmq by hand", "at least 20 x slower", q, case, ("pyzmq by hand", "zmqpub"), lambda r: r >= 20)
    yield ratio(results, "… python-bitcoinlib", "at least 100 x slower", q, case, ("python-bitcoinlib", "zmqpub"), lambda r: r >= 100)
    case = "one subscriber, until libzmq has it"
    yield ratio(results, "Block burst, one subscriber, no mark, until all is with libzmq: limit.c's work exactly",
                "at most 1.1 x limit.c", q, case, ("zmqpub", "limit.c"), lambda r: r <= 1.1)  # fmt: skip
    for name in ("pyzmq by hand", "python-bitcoinlib"):
        yield ratio(results, f"… {name}", "for comparison", q, case, (name, "zmqpub"), lambda r: True)._replace(ok=None)
    case = "one subscriber, until it has it"
    yield ratio(results, "Block burst, one TCP subscriber, mark 1000, until it has the last message", "at most 1.25 x limit.c with mark 0",
                q, case, ("zmqpub", "limit.c"), lambda r: r <= 1.25)  # fmt: skip
    yield delivered("… delivered", results.all(q, case, "zmqpub"), results.all(q, case, "pyzmq by hand"))


def delivered(what: str, rows: list[Row], by_hand: list[Row]) -> Figure:
    if not rows:
        return Figure(what, "100 %", NOT_MEASURED, None)
    note = f" (pyzmq by hand: {shares(by_hand)})" if by_hand else ""
    return Figure(what, "100 %", shares(rows) + note, all(row["share"] == 1.0 for row in rows))


def subscribers(results: Results) -> Iterator[Figure]:
    for case in ("4", "16"):
        yield ratio(results, f"Block burst, {case} subscribers, mark 1000, until each has it all",
                    "at most 1.25 x limit.c with mark 0", "subscribers", f"{case:>2}", ("zmqpub", "limit.c"),
                    lambda r: r <= 1.25)  # fmt: skip
        rows, by_hand = (results.all("subscribers", f"{case:>2}", name) for name in ("zmqpub", "pyzmq by hand"))
        yield delivered("… delivered to each", rows, by_hand)


def slow_subscribers(results: Results) -> Iterator[Figure]:
    what = "One of 4 subscribers stopped: the others receive"
    q, case = "slow subscribers", "one of 4 stopped"
    row, by_hand = results.one(q, case, "zmqpub"), results.one(q, case, "pyzmq by hand")
    note = f" (pyzmq by hand: {percent(by_hand['others_share'])})" if by_hand else ""
    if row:
        yield Figure(what, "100 %", percent(row["others_share"]) + note, row["others_share"] == 1.0)
        late = (row["stalled_for_most"] or 1e9) - row["stall_timeout"]
        counted = row["evictions"] == row["evictions_most"] == 1
        yield Figure("… it is disconnected, and counted", "within stall_timeout + 100 ms",
                     f"stall_timeout + {late * 1e3:.0f} ms after its kernel last took anything; evictions: {row['evictions']}",
                     late <= 0.1 and counted)  # fmt: skip
    case = "one of 4 reads 500 messages a second"
    row, by_hand = results.one(q, case, "zmqpub"), results.one(q, case, "pyzmq by hand")
    note = f" (pyzmq by hand: {percent(by_hand['others_share'])})" if by_hand else ""
    if row:
        lag = row["others_lag_most"]
        yield Figure("One of 4 reading 500 messages/s: the others' largest lag", "under max_lag",
                     f"{lag:.2f} s of {row['max_lag']:.2f} s", lag < row["max_lag"])  # fmt: skip
        yield Figure("… the others receive", "100 %", percent(row["others_share"]) + note, row["others_share"] == 1.0)
        yield Figure("… it is disconnected, and counted", "yes", f"evictions: {row['evictions']}", row["evictions"] >= 1)


def unwanted(results: Results) -> Iterator[Figure]:
    for topic in ("hashtx", "rawtx"):
        nobody, somebody = (results.one("unwanted topic", topic, who) for who in ("nobody", "one subscriber"))
        if nobody and somebody:
            share = nobody["best"] / somebody["best"]
            right = nobody["counter_right"] and somebody["counter_right"]
            yield Figure(f"{topic} while nobody subscribes, beside one subscriber", "under 10 %, counters right",
                         f"{share * 100:.1f} % (median {nobody['median_of_turns'] / somebody['median_of_turns'] * 100:.1f} %), "
                         f"counters {'right' if right else 'wrong'}", share < 0.1 and right)  # fmt: skip


def caller(results: Results) -> Iterator[Figure]:
    for row in results.all("caller", "given a Block"):
        yield Figure(f"The call block_connected(Block), {row['contender']}", "median under 5 µs",
                     f"median {us(row['p50'])} to {us(row['p50_most'])}, p99 {us(row['p99'])} to {us(row['p99_most'])}",
                     row["p50"] < 5e-6)  # fmt: skip
    rows = results.all("caller", "given bytes")
    if rows:
        cost = [row["p50"] * 1e3 / (row["bytes"] / 1e6) for row in rows]
        yield Figure("The call block_connected(bytes), 4 subscribers", "at most 0.1 ms a MB",
                     ", ".join(f"{value:.3f}" for value in cost) + " ms a MB", max(cost) <= 0.1)  # fmt: skip


def latency(results: Results) -> Iterator[Figure]:
    case = "publish to receive, hashblock"
    bare, idle, hogged, hand, hand_hogged = (
        results.one("latency", case, name)
        for name in ("bare libzmq in C", "zmqpub", "zmqpub, GIL hogged", "pyzmq by hand", "pyzmq by hand, GIL hogged")
    )
    if bare and idle:
        more = idle["p50"] - bare["p50"]
        yield Figure("Publish to receive, hashblock, loopback TCP, median", "within 40 µs of bare libzmq in C",
                     f"{us(idle['p50'])} beside {us(bare['p50'])}: {more * 1e6:+.0f} µs (medians of the turns "
                     f"{us(idle['p50_median'])}, {us(bare['p50_median'])})", more <= 40e-6)  # fmt: skip
    if idle and hogged:
        times = hogged["p99"] / idle["p99"]
        note = f"; pyzmq by hand {hand_hogged['p99'] / hand['p99']:.1f} x" if hand and hand_hogged else ""
        yield Figure("… p99 beside a thread that hogs the GIL", "at most 2 x idle",
                     f"{times:.2f} x: {us(hogged['p99'])} beside {us(idle['p99'])} (medians of the turns "
                     f"{us(hogged['p99_median'])}, {us(idle['p99_median'])}){note}", times <= 2)  # fmt: skip


def hashing(results: Results) -> Iterator[Figure]:
    core, twice = (results.one("hashing", "from Python", name) for name in ("zmqpub.sha256d", "hashlib twice"))
    if core and twice:
        times = twice["best"] / core["best"]
        yield Figure("Double SHA-256 of 250 bytes from Python", "at least 2 x hashlib twice",
                     f"{times:.2f} x: {core['best'] * 1e9:.0f} ns beside {twice['best'] * 1e9:.0f} ns", times >= 2)  # fmt: skip
    openssl, single, batch = (results.one("hashing", "from C", name) for name in ("OpenSSL", "zmqpub's core", "zmqpub's core, batches"))
    if openssl and single and batch:
        times = openssl["best"] / single["best"]
        yield Figure("… from C", "with SHA-NI at least 0.95 x OpenSSL",
                     f"{times:.2f} x, in batches {openssl['best'] / batch['best']:.2f} x ({single['backend']})",
                     times >= 0.95 if single["backend"] == "sha-ni" else None)  # fmt: skip


def memory(results: Results) -> Iterator[Figure]:
    case = "100 blocks behind a stopped subscriber"
    row, by_hand = results.one("memory", case, "zmqpub"), results.one("memory", case, "pyzmq by hand")
    if row:
        note = f"; pyzmq by hand {by_hand['resident_ratio']:.2f} x" if by_hand else ""
        yield Figure("Memory of a journal of 100 blocks", "at most 1.05 x their bytes",
                     f"resident {row['resident_ratio_most']:.3f} x, as the journal counts {row['journal_ratio_most']:.3f} x{note}",
                     max(row["resident_ratio_most"], row["journal_ratio_most"]) <= 1.05)  # fmt: skip
        yield Figure("… for each waiting message, beyond the blocks", "for comparison",
                     f"{row['per_message']:.1f} bytes" + (f"; pyzmq by hand {by_hand['per_message']:.0f}" if by_hand else ""),
                     None)  # fmt: skip


def throughput(results: Results) -> Iterator[Figure]:
    for case in ("no subscriber", "one subscriber"):
        rows = results.all("replay", case)
        told = "; ".join(f"{row['contender']} {row['megabytes_per_second_most']:,.0f} MB/s{lost(row)}" for row in rows)
        if rows:
            yield Figure(f"Chain replay from block files, {case}", "for comparison", told, None)
    rows = results.all("mempool")
    told = "; ".join(f"{row['contender']} {row['per_second_most']:,.0f}/s{lost(row)}" for row in rows)
    if rows:
        yield Figure("Mempool, one subscriber, transactions", "for comparison", told, None)


def journal_file(results: Results) -> Iterator[Figure]:
    q, pair = "journal file", ("in a file", "in memory")
    yield ratio(results, "Block burst with the journal in a file, one TCP subscriber, mark 1000, until it has the last message",
                "at most 1.3 x the journal in memory", q, "one subscriber, until it has it", pair, lambda r: r <= 1.3)  # fmt: skip
    for case, what in (("one subscriber, until libzmq has it", "… no mark, until all is with libzmq"),
                       ("no subscriber", "… nobody listens, so that the copy into the file is all there is")):  # fmt: skip
        yield ratio(results, what, "for comparison", q, case, pair, lambda r: True)._replace(ok=None)
    memory, file = (results.one(q, "mempool", name) for name in ("in memory", "in a file"))
    if memory and file:
        rates = " beside ".join(f"{row['transactions'] / row['best']:,.0f}/s" for row in (file, memory))
        yield Figure("… mempool, transactions", "for comparison", rates, None)


def received(results: Results, question: str, name: str, hand: str, least: float, rate: float) -> Iterator[Figure]:
    one, other = results.one(question, "hashtx", name), results.one(question, "hashtx", hand)
    if not one or not other:
        return
    times, most = other["best"] / one["best"], one["per_second_most"]
    told = f"{times:.1f} x (median {other['median_of_turns'] / one['median_of_turns']:.1f} x), {most:,.0f}/s"
    what = f"Typed notifications received over TCP, 32-byte bodies: {name}"
    yield Figure(
        what,
        f"at least {least} x {hand}, {rate:,.0f}/s",
        f"{told} (median {one['per_second_median']:,.0f}/s)",
        times >= least and most >= rate,
    )


def receiving(results: Results) -> Iterator[Figure]:
    for name in ("zmqpub receiver", "zmqpub receiver, lists", "zmqpub Subscriber"):
        yield from received(results, "receive", name, "pyzmq", 4, 1e6)
    for name in ("zmqpub AsyncSubscriber", "zmqpub AsyncSubscriber, batches"):
        yield from received(results, "receive on asyncio", name, "zmq.asyncio", 10, 5e5)
    case = "rawblock, txids listed"
    row, other = results.one("receive", case, "zmqpub receiver"), results.one("receive", case, "pyzmq + python-bitcoinlib")
    if row and other:
        times = other["best"] / row["best"]
        yield Figure(f"A raw block received and its txids listed ({row['block']})", "at least 20 x pyzmq + python-bitcoinlib",
                     f"{times:.0f} x (median {other['median_of_turns'] / row['median_of_turns']:.0f} x): {row['best'] * 1e3:.1f} ms beside "
                     f"{other['best'] * 1e3:.0f} ms", times >= 20)  # fmt: skip


def replaying(results: Results) -> Iterator[Figure]:
    question = "replay endpoint"
    live, one, four = (results.one(question, "throughput", name) for name in ("live", "replay", "replay, four clients"))
    if live and one:
        times = one["messages_per_second_most"] / live["messages_per_second_most"]
        beside = f"; four clients together {four['messages_per_second_most']:,.0f}/s" if four else ""
        yield Figure("Replay to one client, five topics over TCP", "at least 0.7 x live",
                     f"{times:.2f} x: {one['messages_per_second_most']:,.0f}/s beside {live['messages_per_second_most']:,.0f}/s (medians "
                     f"{one['messages_per_second_median']:,.0f}/s, {live['messages_per_second_median']:,.0f}/s){beside}",
                     times >= 0.7)  # fmt: skip
    idle, busy = (results.one(question, "latency", name) for name in ("idle", "four clients replay"))
    if idle and busy:
        times = busy["p99"] / idle["p99"]
        yield Figure("… live latency, p99, while four clients replay", "at most 2 x idle",
                     f"{times:.2f} x: {us(busy['p99'])} beside {us(idle['p99'])} (medians of the turns {us(busy['p99_median'])}, "
                     f"{us(idle['p99_median'])}), {busy['replayed']:,} messages replayed meanwhile", times <= 2)  # fmt: skip


def lost(row: Row) -> str:
    share = row["share"]
    return "" if share is None or share == 1.0 else f" ({percent(share)} delivered)"


# What stands between which markers. A run of some of the benchmarks renews what it measured, and leaves the rest as it is.
PARTS: dict[str, tuple[Callable[[Results], Iterator[Figure]], ...]] = {
    "figures": (
        bursts,
        subscribers,
        slow_subscribers,
        unwanted,
        caller,
        latency,
        hashing,
        memory,
        throughput,
        journal_file,
        receiving,
        replaying,
    ),
    "figures of IPC": (between_processes,),
}


def figures(results: Results, name: str) -> list[Figure]:
    """Those that this run measured."""
    found = [figure for part in PARTS[name] for figure in part(results)]
    return found if any(figure.measured != NOT_MEASURED for figure in found) else []


def rows(some: list[Figure]) -> list[str]:
    head = ["| figure | target | measured | |", "| --- | --- | --- | --- |"]
    return head + [f"| {figure.what} | {figure.target} | {figure.measured} | {figure.verdict} |" for figure in some]


def summary(results: Results, some: list[Figure]) -> str:
    """What there is a target for, in short."""
    short = [figure._replace(measured=re.sub(r" \(median[^)]*\)", "", figure.measured)) for figure in some if figure.ok is not None]
    return "\n".join([f"Measured on {results.date}: {describe_machine(results.machine)}.", "", *rows(short)])


def table(results: Results, some: list[Figure]) -> str:
    """Markdown."""
    lines = [f"Measured on {results.date}: {describe_machine(results.machine)}."]
    if blocks := results.blocks():
        lines.append(
            f"Blocks: {'; '.join(blocks)}. Several numbers in a row stand for these, in this order; where there is one, it is the "
            "first block's."
        )
    return "\n".join([*lines, "", *rows(some)])


def put_between(text: str, name: str, content: str) -> str:
    """The text with what stands between the markers of that name replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{README}: no {begin} … {end}")
    return pattern.sub(lambda match: f"{begin}\n{content}\n{end}", text)


def main(path: str) -> None:
    results = read(path)
    for name in PARTS:
        some = figures(results, name)
        if not some:
            continue
        content = table(results, some)
        print(content)
        for readme, text in ((README, content), (FRONT, summary(results, some))):
            readme.write_text(put_between(readme.read_text(), name, text))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
