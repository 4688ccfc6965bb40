"""What a node tells, as follows from a seed alone: mempool and chain in order, with reorganizations; and the node as a program.

As a program it is the parent of a publisher that it spawns, and can be killed: ``ipc_story.py SEED COUNT FIRST OPTIONS``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from synthetic import block, transaction

import zmqpub
from zmqpub import Block, Transaction

TOPICS = ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")
ANY_PORT = "tcp://127.0.0.1:*"

Message = tuple[str, int, bytes]
"""Topic, counter, body."""


class Event(NamedTuple):
    kind: str
    """added, removed, connected, disconnected, tip"""
    body: Block | Transaction
    number: int = 0


class Publisher(Protocol):
    def transaction_added_to_mempool(self, tx: Transaction, mempool_sequence: int) -> None: ...
    def transaction_removed_from_mempool(self, tx: Transaction, mempool_sequence: int) -> None: ...
    def block_connected(self, block: Block) -> None: ...
    def block_disconnected(self, block: Block) -> None: ...
    def updated_block_tip(self, block: Block) -> None: ...


def story(seed: int, count: int) -> list[Event]:
    """Blocks come and go as a node says it: at most three deep, each one that was disconnected perhaps connected again."""
    rng = random.Random(seed)
    events: list[Event] = []
    chain: list[Block] = []
    number = made = 0
    while len(events) < count:
        choice = rng.random()
        if choice < 0.6:
            number += 1
            body = transaction(seed * 1_000_000 + number, size=rng.choice((0, 0, 300, 20_000)))
            events.append(Event("added" if choice < 0.5 else "removed", body, number))
        elif choice < 0.85 or len(chain) < 4:
            made += 1
            chain.append(block(seed * 10_000 + made, rng.choice((1, 3, 12)), size=rng.choice((0, 300, 4_000))))
            events += [Event("connected", chain[-1]), Event("tip", chain[-1])]
        else:
            gone = [chain.pop() for _ in range(rng.randint(1, 3))]
            events += [Event("disconnected", one) for one in gone]
            if rng.random() < 0.5:
                back = gone[::-1]
            else:
                made += 1
                back = [block(seed * 10_000 + made + 5_000, 2)]
            chain += back
            events += [Event("connected", one) for one in back]
            events.append(Event("tip", back[-1]))
    return events[:count]


def hand_over(publisher: Publisher, event: Event) -> None:
    kind, body, number = event
    if isinstance(body, Transaction):
        tell = publisher.transaction_added_to_mempool if kind == "added" else publisher.transaction_removed_from_mempool
        tell(body, number)
    elif kind == "tip":
        publisher.updated_block_tip(body)
    elif kind == "connected":
        publisher.block_connected(body)
    else:
        publisher.block_disconnected(body)


def messages(events: Iterable[Event]) -> dict[str, list[Message]]:
    """What subscribers have to receive, by topic."""
    told: dict[str, list[Message]] = defaultdict(list)

    def tell(topic: str, body: bytes) -> None:
        told[topic].append((topic, len(told[topic]), body))

    for kind, body, number in events:
        if isinstance(body, Transaction):
            if kind == "added":
                tell("hashtx", body.txid)
                tell("rawtx", bytes(body))
            label = b"A" if kind == "added" else b"R"
            tell("sequence", body.txid + label + number.to_bytes(8, "little"))
        elif kind == "tip":
            tell("hashblock", body.hash)
            tell("rawblock", bytes(body))
        else:
            for tx in body:
                tell("hashtx", tx.txid)
                tell("rawtx", bytes(tx))
            tell("sequence", body.hash + (b"C" if kind == "connected" else b"D"))
    return told


class Listener:
    """A Subscriber of everything, and what it got."""

    def __init__(self, address: str, replay: str | None) -> None:
        self.subscriber = zmqpub.Subscriber(address, replay=replay, reconnect_interval=0.02, reconnect_interval_max=0.2, check_interval=0.5)
        self.got: dict[str, list[Message]] = defaultdict(list)
        self.lost: list[Any] = []

    def until(self, expected: dict[str, list[Message]], timeout: float = 60.0) -> None:
        """Receive as many messages as are expected; AssertionError where they are others, or do not come."""
        deadline = time.monotonic() + timeout
        while any(len(self.got[topic]) < len(wanted) for topic, wanted in expected.items()):
            try:
                items = self.subscriber.recv_batch(1000, timeout=max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                have = {topic: (len(self.got[topic]), len(wanted)) for topic, wanted in expected.items()}
                self.check({topic: wanted[: len(self.got[topic])] for topic, wanted in expected.items()})
                raise AssertionError(f"not all came in {timeout} s, though those before did: {have}, {self.lost}") from None
            self._note(items)
        self.check(expected)

    def check(self, expected: dict[str, list[Message]]) -> None:
        assert not self.lost, self.lost
        for topic, wanted in expected.items():
            got = self.got[topic]
            for one, other in zip(got, wanted, strict=True):
                assert one == other, f"{topic}: got {one[1]} {one[2][:40].hex()}, expected {other[1]} {other[2][:40].hex()}"

    def silence(self, seconds: float) -> None:
        """Nothing comes any more."""
        before = {topic: len(got) for topic, got in self.got.items()}
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self._note(self.subscriber.recv_batch(1000, timeout=left))
            except TimeoutError:
                break
        assert before == {topic: len(got) for topic, got in self.got.items()}

    def _note(self, items: Sequence[Any]) -> None:
        for item in items:
            if isinstance(item, (zmqpub.Lost, zmqpub.Restart, zmqpub.Malformed)):
                self.lost.append(item)
            elif hasattr(item, "body"):
                topic = str(item.topic)
                body = bytes(item.body)
                self.got[topic].append((topic, item.counter, body))

    def close(self) -> None:
        self.subscriber.close()


def main() -> None:
    """When told to by a line of stdin, hand over the story from event FIRST on, and say what was acknowledged; end at the next line."""
    from zmqpub.ipc.notifications import SpawnedPublisher

    seed, count, first = (int(value) for value in sys.argv[1:4])
    given = json.loads(sys.argv[4])
    events = story(seed, count)
    rng = random.Random(time.monotonic_ns())
    with SpawnedPublisher(given["options"], **given["settings"], takeover=30.0) as publisher:
        print("begun", publisher.link_stats().process_id, flush=True)
        sys.stdin.readline()
        for index in range(first, count):
            hand_over(publisher, events[index])
            link = publisher.link_stats()
            # Acknowledged may count events that are kept until the child is sure: never more than was handed over.
            print("done", first + link.acknowledged, link.process_id, flush=True)
            time.sleep(rng.choice((0.0, 0.001, 0.004)))
        assert publisher.flush(60.0)
        print("flushed", count, publisher.link_stats().process_id, flush=True)
        sys.stdin.readline()


def program(seed: int, count: int, first: int, options: dict[str, object], settings: dict[str, object]) -> list[str]:
    """The command line of main()."""
    given = json.dumps({"options": options, "settings": settings})
    return [sys.executable, str(Path(__file__)), str(seed), str(count), str(first), given]


if __name__ == "__main__":
    main()
