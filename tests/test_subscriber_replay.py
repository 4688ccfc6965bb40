"""Subscriber with a publisher that replays: real sockets, real processes, real kills. Nothing lost, nothing twice, order kept."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zmq
from listening import wait_for, wait_wanted
from programs import ENVIRONMENT, free_port
from synthetic import transaction

from zmqpub import (
    CounterGap,
    CursorError,
    Lost,
    Publisher,
    Received,
    Repaired,
    Restart,
    Stale,
    Subscriber,
    Topic,
)
from zmqpub.testing import FaultyPublisher
from zmqpub.testing.relay import Relay

PATIENCE = 30.0
TOPICS = ("hashtx", "rawtx", "sequence")
TRANSACTIONS = [transaction(seed) for seed in range(50)]


def options(address: str = "tcp://127.0.0.1:*", replay: str = "tcp://127.0.0.1:*") -> dict[str, object]:
    return {**{f"zmqpub{topic}": address for topic in TOPICS}, "zmqpubreplay": replay}


def publish(publisher: Publisher, first: int, until: int, life: int = 0) -> None:
    """Events [first, until): each makes three messages, whose counters are its number. Those of two lives differ."""
    for number in range(first, until):
        publisher.transaction_added_to_mempool(TRANSACTIONS[number % len(TRANSACTIONS)], life * 10**6 + number)


def expected(first: int, until: int) -> list[tuple[str, int]]:
    return [(topic, number) for number in range(first, until) for topic in TOPICS]


def seen(items: list[Any]) -> list[tuple[str, int]]:
    """The notifications among ``items``, checked to say what their counters say."""
    found = []
    for item in items:
        if isinstance(item, Received):
            if item.topic is Topic.SEQUENCE:
                assert item.mempool_sequence % 10**6 == item.counter  # type: ignore[attr-defined]
            assert item.topic is Topic.SEQUENCE or item.txid == TRANSACTIONS[item.counter % len(TRANSACTIONS)].txid  # type: ignore[attr-defined]
            found.append((item.topic.value, item.counter))
    return found


def take_until(subscriber: Subscriber, condition: Callable[[list[Any]], bool], items: list[Any] | None = None) -> list[Any]:
    items = [] if items is None else items
    deadline = time.monotonic() + PATIENCE
    while not condition(items):
        with contextlib.suppress(TimeoutError):
            items += subscriber.recv_batch(1000, 0.1)
        assert time.monotonic() < deadline, f"got {len(items)} items, the last {items[-3:]}; {subscriber.state()}"
    return items


def take(subscriber: Subscriber, count: int) -> list[Any]:
    """Items until there are so many notifications among them."""
    return take_until(subscriber, lambda items: sum(isinstance(item, Received) for item in items) >= count)


def kinds(items: list[Any], *types: type) -> list[Any]:
    return [item for item in items if isinstance(item, types)]


@contextlib.contextmanager
def pair(relay: Relay | None = None, **settings: Any) -> Iterator[tuple[Publisher, Subscriber]]:
    with Publisher(options()) as publisher:
        address = publisher.active_notifiers()[0].address
        if relay is not None:
            relay.turn_to(address)
            address = relay.address
        settings = {"topics": TOPICS, "replay": publisher.replay_address, "check_interval": 0.5, "reconnect_interval": 0.01, **settings}
        with Subscriber(address, **settings) as subscriber:
            wait_wanted(publisher)
            yield publisher, subscriber


# ---- one life ----


def test_without_trouble_nothing_is_repaired() -> None:
    with pair() as (publisher, subscriber):
        publish(publisher, 0, 500)
        items = take(subscriber, 1500)
        assert seen(items) == expected(0, 500)
        assert kinds(items, CounterGap, Repaired, Lost) == []
        state = subscriber.state()
        assert (state.status, state.sources[0].epoch, state.sources[0].replay) == ("live", publisher.epoch, publisher.replay_address)


def test_what_did_not_fit_is_repaired_in_order() -> None:
    with pair(byte_bound=20_000) as (publisher, subscriber):
        publish(publisher, 0, 3000)
        publisher.flush()
        time.sleep(0.3)
        items = take(subscriber, 9000)
        assert seen(items) == expected(0, 3000)
        assert kinds(items, Lost) == []
        assert kinds(items, CounterGap)[0].cause == "overflow"
        assert sum(event.messages for event in kinds(items, Repaired)) > 1000
        assert subscriber.state().sources[0].repaired == sum(event.messages for event in kinds(items, Repaired))


def test_what_was_published_while_the_line_was_cut_comes_in_its_place() -> None:
    with Relay() as relay, pair(relay) as (publisher, subscriber):
        publish(publisher, 0, 10)
        items = take(subscriber, 30)
        for number in range(10, 100, 10):
            relay.cut()
            publish(publisher, number, number + 10)
        items += take(subscriber, 270)
        assert seen(items) == expected(0, 100)
        assert kinds(items, Lost, Restart) == []


def test_the_last_messages_before_silence_are_found() -> None:
    with Relay() as relay, pair(relay) as (publisher, subscriber):
        publish(publisher, 0, 10)
        items = take(subscriber, 30)
        relay.hold_new()
        relay.cut()
        publish(publisher, 10, 12)
        items += take(subscriber, 6)
        assert seen(items) == expected(0, 12)
        assert all(item.repaired for item in items[-7:] if isinstance(item, Received))


def test_a_line_that_went_dead_is_made_anew_and_mended() -> None:
    with Relay() as relay, pair(relay, stale_after=0.5, check_interval=20.0) as (publisher, subscriber):
        publish(publisher, 0, 10)
        items = take(subscriber, 30)
        relay.silence()
        publish(publisher, 10, 20)
        items += take(subscriber, 30)
        assert seen(items) == expected(0, 20)
        assert kinds(items, Stale) != []
        assert kinds(items, Lost) == []


def test_a_small_bound_of_the_answers_is_enough_for_much() -> None:
    """Several answers, each of which is asked for only once the one before was handed out."""
    with Relay() as relay, pair(relay) as (publisher, subscriber):
        publish(publisher, 0, 1)
        items = take(subscriber, 3)
        relay.hold_new()
        relay.cut()
        publish(publisher, 1, 10_000)
        relay.hold_new(False)
        items += take(subscriber, 29_997)
        assert seen(items) == expected(0, 10_000)
        assert publisher.stats().replay.answers > 5  # type: ignore[union-attr]


def test_what_left_the_journal_is_lost_and_named() -> None:
    with Relay() as relay, Publisher(options(), journal_bytes=100_000) as publisher:
        relay.turn_to(publisher.active_notifiers()[0].address)
        with Subscriber(relay.address, topics=TOPICS, replay=publisher.replay_address, reconnect_interval=0.01) as subscriber:
            wait_wanted(publisher)
            publish(publisher, 0, 10)
            items = take(subscriber, 30)
            relay.hold_new()
            relay.cut()
            publish(publisher, 10, 5000)
            relay.hold_new(False)
            take_until(subscriber, lambda found: seen(found)[-1:] == [("sequence", 4999)], items)
    lost = kinds(items, Lost)
    assert {event.topic for event in lost} == {Topic.HASHTX, Topic.RAWTX, Topic.SEQUENCE}
    assert all(event.first == 10 for event in lost)
    begin = lost[0].until
    # An event that is held whole is replayed whole, and from there on nothing is missing.
    assert seen(items) == expected(0, 10) + expected(begin, 5000)


# ---- several lives ----


@pytest.mark.parametrize("journal_restart", ["continue", "new_epoch"])
def test_a_publisher_that_keeps_its_journal_is_restarted(journal_restart: str, tmp_path: Path) -> None:
    live, replay = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    journal: dict[str, Any] = {"journal_path": str(tmp_path / "journal"), "journal_restart": journal_restart, "journal_bytes": 2**20}
    with Publisher(options(live, replay), **journal) as publisher:
        first_life = publisher.epoch
        subscriber = Subscriber(live, topics=TOPICS, replay=replay, reconnect_interval=0.01, repair_timeout=PATIENCE, repair_retries=100)
        with contextlib.ExitStack() as stack:
            stack.enter_context(subscriber)
            wait_wanted(publisher)
            publish(publisher, 0, 100)
            publisher.close()
            # Some arrived, some did not: linger is 0.
            with Publisher(options(live, replay), **journal) as publisher:
                second_life = publisher.epoch
                first, life = (100, 0) if journal_restart == "continue" else (0, 1)
                publish(publisher, first, first + 10, life)
                wait_wanted(publisher)
                publish(publisher, first + 10, first + 20, life)
                items = take(subscriber, 360)
    assert kinds(items, Lost) == []
    if journal_restart == "continue":
        assert seen(items) == expected(0, 120)
        assert first_life == second_life
        assert kinds(items, Restart) == []
    else:
        assert seen(items) == expected(0, 100) + expected(0, 20)
        assert [(event.previous_epoch, event.epoch) for event in kinds(items, Restart)] == [(first_life, second_life)]


def test_a_publisher_without_a_file_says_what_cannot_be_had() -> None:
    live, replay = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    with Publisher(options(live, replay)) as publisher:
        subscriber = Subscriber(live, topics=TOPICS, replay=replay, reconnect_interval=0.01, repair_timeout=PATIENCE, repair_retries=100)
        wait_wanted(publisher)
        publish(publisher, 0, 10)
        items = take(subscriber, 30)
    with subscriber, Publisher(options(live, replay)) as publisher:
        publish(publisher, 0, 10)
        items += take(subscriber, 30)
    assert seen(items) == expected(0, 10) * 2
    assert [(event.topic.value, event.first, event.until) for event in kinds(items, Lost)] == [(topic, 10, None) for topic in TOPICS]
    assert len(kinds(items, Restart)) == 1


# ---- cursors ----


def test_a_cursor_goes_on_where_it_was_saved() -> None:
    with pair() as (publisher, subscriber):
        publish(publisher, 0, 10)
        items: list[Any] = []
        while len(seen(items)) < 7:  # in the midst of an event
            items.append(subscriber.recv(PATIENCE))
        cursor = json.loads(json.dumps(subscriber.cursor()))
        subscriber.close()
        publish(publisher, 10, 20)
        address = publisher.active_notifiers()[0].address
        with Subscriber(address, topics=TOPICS, replay=publisher.replay_address, resume=cursor) as resumed:
            publish(publisher, 20, 30)
            items += take(resumed, 90 - 7)
    assert seen(items) == expected(0, 30)
    assert kinds(items, Lost, Restart) == []


def test_a_cursor_of_a_life_in_which_nothing_was_published_is_as_good_as_any(tmp_path: Path) -> None:
    live, replay = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    journal: dict[str, Any] = {"journal_path": str(tmp_path / "journal"), "journal_restart": "new_epoch", "journal_bytes": 2**20}
    with Publisher(options(live, replay), **journal), Subscriber(live, topics=TOPICS, replay=replay) as subscriber:
        subscriber.recv(PATIENCE)
        cursor = subscriber.cursor()
    for _ in range(2):
        Publisher(options(live, replay), **journal).close()
    with Publisher(options(live, replay), **journal) as publisher:
        publish(publisher, 0, 10)
        with Subscriber(live, topics=TOPICS, replay=replay, resume=cursor) as resumed:
            items = take(resumed, 30)
    assert seen(items) == expected(0, 10)
    assert kinds(items, Lost) == []
    assert len(kinds(items, Restart)) == 3


def test_a_cursor_of_another_publisher_is_refused() -> None:
    with pair() as (_, subscriber):
        cursor = subscriber.cursor()
    with Publisher(options()) as publisher:
        address = publisher.active_notifiers()[0].address
        with pytest.raises(CursorError, match="other addresses"):
            Subscriber(address, topics=TOPICS, replay=publisher.replay_address, resume=cursor)
        cursor["sources"] = {address: next(iter(cursor["sources"].values()))}
        with pytest.raises(CursorError, match="does not hold the life"):
            Subscriber(address, topics=TOPICS, replay=publisher.replay_address, resume=cursor)


# ---- a replay endpoint that is away, or lies ----


def test_without_an_answer_the_stream_goes_on_and_says_what_is_lost() -> None:
    with FaultyPublisher({f"zmqpub{topic}": "tcp://127.0.0.1:*" for topic in ("hashtx",)}) as publisher:
        replay = f"tcp://127.0.0.1:{free_port()}"
        with Subscriber(publisher.address, topics=["hashtx"], replay=replay, repair_timeout=0.3, repair_retries=1) as subscriber:
            publisher.wait_for_subscribers()
            publisher.publish("hashtx", TRANSACTIONS[0].txid)
            publisher.gap("hashtx", 3)
            publisher.publish("hashtx", TRANSACTIONS[4].txid)
            items = take(subscriber, 2)
            assert [(event.first, event.until) for event in kinds(items, Lost)] == [(1, 4)]
            assert "does not answer" in kinds(items, Lost)[0].reason
            state = subscriber.state()
            assert state.status == "degraded"
            assert "does not answer" in str(state.sources[0].error)


@contextlib.contextmanager
def between(truth: str, change: Callable[[list[bytes]], list[bytes]]) -> Iterator[str]:
    """A replay endpoint that passes questions on to another, and changes the answers. Its address."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.linger = back.linger = 0
    address = f"tcp://127.0.0.1:{front.bind_to_random_port('tcp://127.0.0.1')}"
    back.connect(truth)
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            if front.poll(50):
                client, request = front.recv_multipart()
                back.send(request)
                if back.poll(5000):
                    front.send_multipart([client, *change(back.recv_multipart())])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield address
    finally:
        ended.set()
        thread.join()
        context.destroy()


def _is_range(frames: list[bytes]) -> bool:
    return frames[0][4] == 0x82 and len(frames) > 1


LIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a message fewer": lambda frames: frames[:-3] if _is_range(frames) else frames,
    "a message twice": lambda frames: frames + frames[-3:] if _is_range(frames) else frames,
    "a frame fewer": lambda frames: frames[:-1] if _is_range(frames) else frames,
    "another counter": lambda frames: [*frames[:-1], b"\xff\xff\xff\x7f"] if _is_range(frames) else frames,
    "a short body": lambda frames: [*frames[:2], frames[2][:-1], *frames[3:]] if _is_range(frames) else frames,
    "another topic": lambda frames: [frames[0], b"rawblock", *frames[2:]] if _is_range(frames) else frames,
    "another order": lambda frames: [frames[0], *frames[10:13], *frames[4:10], *frames[1:4], *frames[13:]] if len(frames) > 13 else frames,
    "another epoch": lambda frames: [frames[0][:10] + b"x" * 16 + frames[0][26:], *frames[1:]] if _is_range(frames) else frames,
    "another question": lambda frames: [frames[0][:6] + b"\x00\x00\x00\x00" + frames[0][10:], *frames[1:]] if _is_range(frames) else frames,
    "no protocol": lambda frames: [b"HTTP/1.1 400 Bad Request"] if _is_range(frames) else frames,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_reported_and_the_truth_is_asked_for_again(lie: str) -> None:
    told: list[list[bytes]] = []

    def change(frames: list[bytes]) -> list[bytes]:
        changed = LIES[lie](frames)
        if changed is not frames and len(told) < 2:
            told.append(changed)
            return changed
        return frames

    with Publisher(options()) as publisher, Relay(to=publisher.active_notifiers()[0].address) as relay:
        assert publisher.replay_address is not None
        with between(publisher.replay_address, change) as replay:
            with Subscriber(relay.address, topics=TOPICS, replay=replay, reconnect_interval=0.01, repair_timeout=6.0) as subscriber:
                wait_wanted(publisher)
                publish(publisher, 0, 2)
                items = take(subscriber, 6)
                relay.hold_new()
                relay.cut()
                publish(publisher, 2, 8)
                relay.hold_new(False)
                wait_for(lambda: relay.connections, PATIENCE)
                time.sleep(0.2)
                publish(publisher, 8, 10)
                items += take(subscriber, 24)
    assert len(told) == 2
    assert seen(items) == expected(0, 10)
    assert kinds(items, Lost) == []


# ---- processes that are killed ----

_PUBLISHER = """
import json, sys, time
sys.path.insert(0, {tests!r})
from test_subscriber_replay import Publisher, options, publish
live, replay, journal, restart, first, until = json.loads(sys.argv[1])
with Publisher(options(live, replay), journal_path=journal, journal_restart=restart, journal_bytes=8 * 2**20) as publisher:
    print("ready", flush=True)
    for number in range(first, until):
        publish(publisher, number, number + 1)
        print(number + 1, flush=True)
        if number % 20 == 0:
            time.sleep(0.002)
    sys.stdin.read()
"""

_SUBSCRIBER = """
import json, os, sys
sys.path.insert(0, {tests!r})
from test_subscriber_replay import TOPICS, Lost, Received, Subscriber, number_of
live, replay, path = json.loads(sys.argv[1])
# A line is a batch with the cursor after it: what counts is what is in whole lines.
lines = open(path).read().splitlines() if os.path.exists(path) else []
whole = [line for line in lines if line.endswith("]")]
resume = json.loads(whole[-1])[1] if whole else None
with open(path, "a") as out, Subscriber(
    live, topics=TOPICS, replay=replay, resume=resume, reconnect_interval=0.01, check_interval=0.5, repair_timeout=30.0, repair_retries=200
) as subscriber:
    out.write("\\n")
    print("ready", flush=True)
    while True:
        items = subscriber.recv_batch(100)
        lost = [str(item) for item in items if isinstance(item, Lost)]
        told = [(item.topic, number_of(item)) for item in items if isinstance(item, Received)]
        out.write(json.dumps([told, subscriber.cursor(), lost]) + "\\n")
        out.flush()
"""


INDEX = {one.txid: number for number, one in enumerate(TRANSACTIONS)}


def number_of(item: Any) -> int:
    """Of the event: whole in a sequence message, else modulo the number of transactions. Counters may have begun anew."""
    number: int = item.mempool_sequence if item.topic is Topic.SEQUENCE else INDEX[item.txid]
    return number


class Process:
    def __init__(self, program: str, *arguments: object) -> None:
        code = program.format(tests=str(Path(__file__).parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> list[str]:
        """SIGKILL; the lines that it had printed."""
        self.process.kill()
        out, _ = self.process.communicate()
        return out.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "journal_restart"), [(1, "continue"), (2, "new_epoch")])
def test_publisher_and_subscriber_are_killed_again_and_again(seed: int, journal_restart: str, tmp_path: Path) -> None:
    """kill -9 of either at any moment: what the subscriber wrote down at the end is what was published, once, in order."""
    random = Random(seed)
    live, replay = (f"ipc://{tmp_path}/{name}" for name in ("live", "replay"))
    journal, output = str(tmp_path / "journal"), str(tmp_path / "output")
    published = 0
    publisher = Process(_PUBLISHER, live, replay, journal, journal_restart, published, 10**9)
    subscriber = Process(_SUBSCRIBER, live, replay, output)
    try:
        for _ in range(8):
            time.sleep(random.uniform(0.05, 0.6))
            if random.random() < 0.4:
                subscriber.kill()
                subscriber = Process(_SUBSCRIBER, live, replay, output)
            elif random.random() < 0.3:
                os.kill(subscriber.process.pid, signal.SIGSTOP)
                time.sleep(random.uniform(0.05, 0.4))
                os.kill(subscriber.process.pid, signal.SIGCONT)
            else:
                lines = publisher.kill()
                # The event under way may be in the journal, or not; handed over again, it is recognized.
                published = int(lines[-1]) if lines else published
                publisher = Process(_PUBLISHER, live, replay, journal, journal_restart, published, 10**9)
        time.sleep(0.5)
        publisher.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        publisher.process.send_signal(signal.SIGCONT)
        before = len(written_by(output))
        wait_for(lambda: len(written_by(output)) > before and sum(len(line[0]) for line in written_by(output)) > 300, PATIENCE)
    finally:
        publisher.kill()
        subscriber.kill()
    written = written_by(output)
    found = [(str(topic), int(number)) for line in written for topic, number in line[0]]
    assert [lost for line in written for lost in line[2]] == []
    begin = next(number for topic, number in found if topic == "sequence")
    first = len(TOPICS) - 1 - next(place for place, (topic, _) in enumerate(found) if topic == "sequence")
    told = [(topic, number if topic == "sequence" else number % len(TRANSACTIONS)) for topic, number in expected(begin, begin + len(found))]
    assert found == told[first:][: len(found)]


def written_by(output: str) -> list[Any]:
    """The whole lines of a subscriber's process."""
    return [json.loads(line) for line in Path(output).read_text().splitlines(keepends=True) if line.endswith("]\n")]
