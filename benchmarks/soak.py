"""Is anything lost, told twice or out of order, whatever breaks?

A publisher whose journal is a file, and consumers that save their positions, in processes of their own, connected through a
relay. At random, but seeded, moments they are killed (kill -9) and started again, stopped for a while (SIGSTOP), cut off
or left hanging. At the end each consumer's file is held against what was published: every message of all five topics, or
every event of the chain, must be there once and in order. Memory must not grow from the first to the second half.

    python benchmarks/soak.py --seed 1                                # 5 million messages, 200 blows
    python benchmarks/soak.py --seed 2 --messages 400000 --kills 30   # a minute

Prints a line for each consumer, and as the last line a JSON object. Exit code 0 only if all held. Processes keep their own
time, so the same seed is the same story and the same plan, not the same run. Where something failed the folder is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from soaking.judge import Verdict, compare
from soaking.processes import Member
from soaking.record import MESSAGE, STEP, expected_messages, expected_steps
from soaking.relay import Relay
from soaking.shared import Shared
from soaking.story import Story, StoryWriter

JOURNAL_BYTES = 32 * 1024 * 1024
WINDOW = 60_000
"""Events that the publisher may be ahead of the slowest saved position, at most: well within the journal."""
REWIND = 300
"""Events, at most, that a restarted publisher hands over again."""
STUCK_SECONDS = 120.0
MEMORY_GROWTH = 1.25
MEMORY_SLACK = 24 * 1024 * 1024

CONSUMERS = ("sync", "async", "chain", "chain-two", "sync")
"""The last one is never killed, to see its memory over all that time."""


class Blow(NamedTuple):
    """Something that goes wrong once so many events were handed over."""

    at: int
    kind: str
    target: int
    """Which consumer, where it is one."""
    seconds: float


def make_plan(seed: int, events: int, blows: int) -> list[Blow]:
    random = Random(seed)
    kinds = ["kill publisher"] * 5 + ["stop publisher"] * 2 + ["kill consumer"] * 5 + ["stop consumer"] * 4 + ["cut"] * 3 + ["hang"]
    places = sorted(random.randint(events // 100, events - 1) for _ in range(blows))
    return [Blow(place, random.choice(kinds), random.randrange(len(CONSUMERS)), random.uniform(0.02, 1.2)) for place in places]


class Soak:
    """One run."""

    def __init__(self, folder: Path, seed: int, messages: int, blows: int, restart: str) -> None:
        self._folder = folder
        self._restart = restart
        self._random = Random(seed + 1)
        StoryWriter(folder, seed).write(messages)
        self.story = Story(folder)
        self._window = min(WINDOW, len(self.story) // 20)
        self._plan = make_plan(seed, len(self.story), blows)
        self._shared = Shared(folder, create=True)
        ports = [_free_port() for _ in range(3)]
        self._relays = [Relay(port) for port in ports]
        live, other, replay = (f"tcp://127.0.0.1:{port}" for port in ports)
        near, near_other, near_replay = (relay.address for relay in self._relays)
        self._publisher = Member("publisher", folder, "soaking.publish", f"{live},{other}", replay, str(JOURNAL_BYTES), restart)
        both = f"{near}={live},{near_other}={other}"
        self._consumers = [
            Member(f"consumer-{number}", folder, "soaking.consume", str(number), kind, both, near_replay, restart)
            for number, kind in enumerate(CONSUMERS)
        ]
        self.dealt: Counter[str] = Counter()
        self.seconds = 0.0
        self._until: list[tuple[float, Callable[[], None]]] = []

    def run(self) -> str | None:
        """What stopped it early, if anything did."""
        started = time.monotonic()
        try:
            self._publisher.start("0")
            self._publisher.wait_ready()
            for consumer in self._consumers:
                consumer.start()
            for consumer in self._consumers:
                consumer.wait_ready()
            return self._conduct()
        finally:
            self._shared.stop = True
            for member in (self._publisher, *self._consumers):
                member.go_on()
                member.finish()
                member.kill()
            for relay in self._relays:
                relay.close()
            self.seconds = time.monotonic() - started

    def verdicts(self) -> list[Verdict]:
        """Of each consumer."""
        found = []
        for number, kind in enumerate(CONSUMERS):
            path = self._folder / f"consumer-{number}.data"
            if kind.startswith("chain"):
                found.append(compare(path, expected_steps(self.story), STEP))
            else:
                found.append(compare(path, expected_messages(self.story, counted=self._restart == "continue"), MESSAGE))
        return found

    def told_lost(self) -> list[str]:
        """What consumers were told is lost."""
        return [line for text in self._logs() for line in text.splitlines() if line.startswith("LOST")]

    def events(self) -> Counter[str]:
        """How often consumers were told what, besides the story."""
        return Counter(line.split()[1].partition("(")[0] for text in self._logs() for line in text.splitlines())

    def memory(self) -> Iterator[tuple[str, int, int]]:
        """Of those whose life is long enough: name, most in the first half (after the beginning) and in the second."""
        for member in (self._publisher, self._consumers[-1]):
            yield member.name, member.memory.most(0.05, 0.5), member.memory.most(0.5, 1.01)

    def starts(self) -> dict[str, int]:
        return {member.name: member.starts for member in (self._publisher, *self._consumers)}

    def _logs(self) -> list[str]:
        return [path.read_text() for path in sorted(self._folder.glob("consumer-*.log"))]

    # What happens

    def _conduct(self) -> str | None:
        total = len(self.story)
        moved_at, moved = time.monotonic(), (0, 0)
        sampled_at = 0.0
        while True:
            now = time.monotonic()
            handed, saved = self._shared.handed, self._slowest()
            if saved >= total:
                return None
            self._shared.limit = min(total, saved + self._window)
            if (handed, saved) != moved:
                moved_at, moved = now, (handed, saved)
            elif now - moved_at > STUCK_SECONDS:
                return f"nothing moved for {STUCK_SECONDS:.0f} s: {handed} of {total} events handed over, {saved} saved by all"
            if now - sampled_at >= 0.25:
                sampled_at = now
                for member in (self._publisher, self._consumers[-1]):
                    member.sample(saved / total)
            for member in (self._publisher, *self._consumers):
                if (code := member.ended()) is not None:
                    return f"{member.name} ended with {code}: {member.errors()}"
            self._strike(now, handed)
            time.sleep(0.002)

    def _slowest(self) -> int:
        """How many events all consumers have saved."""
        story, shared = self.story, self._shared
        done = []
        for number, kind in enumerate(CONSUMERS):
            progress = shared.progress(number)
            whole = progress >= (story.steps if kind.startswith("chain") else story.messages)
            done.append(len(story) if whole else story.place_of(progress, "steps" if kind.startswith("chain") else "messages"))
        return min(done)

    def _strike(self, now: float, handed: int) -> None:
        while self._plan and self._plan[0].at <= handed:
            blow = self._plan.pop(0)
            self.dealt[blow.kind] += 1
            self._deal(blow, now)
        due = [undo for moment, undo in self._until if moment <= now]
        self._until = [(moment, undo) for moment, undo in self._until if moment > now]
        for undo in due:
            undo()

    def _deal(self, blow: Blow, now: float) -> None:
        consumer = self._consumers[blow.target]
        if blow.kind == "kill publisher":
            self._publisher.kill()
            self._publisher.start(str(self._random.randint(0, REWIND)))
        elif blow.kind == "kill consumer" and blow.target < len(CONSUMERS) - 1:
            consumer.kill()
            consumer.start()
        elif blow.kind in ("stop consumer", "kill consumer"):
            consumer.pause()
            self._until.append((now + blow.seconds, consumer.go_on))
        elif blow.kind == "stop publisher":
            self._publisher.pause()
            self._until.append((now + blow.seconds, self._publisher.go_on))
        elif blow.kind == "cut":
            for relay in self._relays:
                relay.cut()
        else:
            for relay in self._relays:
                relay.hang()
                self._until.append((now + blow.seconds, relay.flow))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=5_000_000, help="of all five topics")
    parser.add_argument("--kills", type=int, default=200, help="blows: kills, stops, cuts")
    parser.add_argument(
        "--restart", choices=["continue", "new_epoch"], default="continue", help="journal_restart: counters go on, or begin anew"
    )
    parser.add_argument("--folder", type=Path, help="where to keep the files of the run; must be empty")
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="zmqpub-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    soak = Soak(folder, options.seed, options.messages, options.kills, options.restart)
    faults = [fault] if (fault := soak.run()) else []
    verdicts = soak.verdicts()
    for number, (kind, verdict) in enumerate(zip(CONSUMERS, verdicts, strict=True)):
        print(f"consumer {number} ({kind}): {verdict.records} records, {verdict.fault or 'all there, once, in order'}")
        faults += [f"consumer {number}: {verdict.fault}"] if verdict.fault else []
    faults += soak.told_lost()[:5]
    memory = {name: (first, second) for name, first, second in soak.memory()}
    for name, (first, second) in memory.items():
        if second > MEMORY_GROWTH * first + MEMORY_SLACK:
            faults.append(f"{name}: its memory grew from {first} to {second} bytes")
    result: dict[str, Any] = {
        "seed": options.seed,
        "restart": options.restart,
        "messages": soak.story.messages,
        "events": len(soak.story),
        "blows": dict(soak.dealt),
        "starts": soak.starts(),
        "told": dict(soak.events()),
        "memory": memory,
        "seconds": round(soak.seconds, 1),
        "faults": faults,
    }
    print(json.dumps(result))
    if faults:
        print(f"kept: {folder}", file=sys.stderr)
    elif options.folder is None:
        shutil.rmtree(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
