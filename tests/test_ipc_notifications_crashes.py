"""Whoever is killed, and whenever: subscribers with a replay endpoint see every message, once and in order."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq
from ipc_story import ANY_PORT, TOPICS, Listener, hand_over, messages, program, story
from remote_publisher import free_port
from synthetic import transaction

pytest.importorskip("capnp", reason="zmqpub[ipc] is not installed")

import zmqpub
from zmqpub.ipc.notifications import SpawnedPublisher
from zmqpub.ipc.notifications.backlog import Backlog
from zmqpub.ipc.notifications.codec import Kind
from zmqpub.ipc.process import UnixProcess

PATIENCE = 60.0
JOURNAL = 64 * 1024 * 1024


def options(address: str = ANY_PORT, replay: str = ANY_PORT) -> dict[str, object]:
    return {**{f"zmqpub{topic}": address for topic in TOPICS}, "zmqpubreplay": replay}


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return result


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def kill_child(publisher: SpawnedPublisher) -> int:
    while True:
        pid = int(eventually(lambda: publisher.link_stats().process_id, "no child came"))
        with contextlib.suppress(ProcessLookupError):  # the one that was killed before, whose end is not known yet
            os.kill(pid, signal.SIGKILL)
            return pid
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_child_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    events = story(seed, 1500)
    kills = sorted(rng.sample(range(1, len(events)), 4))
    with SpawnedPublisher(options(), journal_path=str(tmp_path / "journal"), journal_bytes=JOURNAL) as publisher:
        assert publisher.replay_address is not None
        address, epoch = publisher.active_notifiers()[0].address, publisher.epoch
        listener = Listener(address, publisher.replay_address)
        try:
            for index, event in enumerate(events):
                if index in kills:
                    time.sleep(rng.choice((0.0, 0.0, 0.005, 0.05)))
                    kill_child(publisher)
                hand_over(publisher, event)
            assert publisher.flush(PATIENCE)
            listener.until(messages(events), PATIENCE)
            listener.silence(0.3)
        finally:
            listener.close()
        assert publisher.epoch == epoch
        link = publisher.link_stats()
        assert (link.handed_over, link.acknowledged, link.unacknowledged) == (len(events), len(events), 0)
        assert link.restarts >= 1
        assert publisher.active_notifiers()[0].address == address


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_parent_or_child_are_killed_and_a_subscriber_sees_everything_once(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    count = 1200
    events = story(seed, count)
    address, replay = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    settings: dict[str, object] = {"journal_path": str(tmp_path / "journal"), "journal_bytes": JOURNAL}
    listener: Listener | None = None
    acknowledged, children = 0, set()
    try:
        for life in range(5):
            # A node goes on a little before where it is sure, with a transaction.
            first = max(0, min(acknowledged, count - 1) - rng.randint(0, 30))
            while first and events[first].kind not in ("added", "removed"):
                first -= 1
            node = subprocess.Popen(
                program(seed, count, first, options(address, replay), settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert node.stdout is not None
            assert node.stdin is not None
            begun = node.stdout.readline().split()
            assert begun[:1] == ["begun"], begun
            children.add(int(begun[1]))
            if listener is None:
                listener = Listener(address, replay)
            node.stdin.write("\n")
            node.stdin.flush()
            deaths = rng.choice((["parent"], ["child", "parent"], ["child", "child", "parent"])) if life < 4 else ["child"]
            upto = first
            line: list[str] = []
            for death in deaths:
                upto = min(count, upto + rng.randint(20, 120))
                pid = int(begun[1])
                while upto > acknowledged and (line := node.stdout.readline().split()):
                    acknowledged = max(acknowledged, int(line[1]))
                    pid = int(line[2]) if line[2] != "None" else pid
                    children.add(pid)
                if death == "parent":
                    node.kill()
                elif not is_gone(pid):
                    os.kill(pid, signal.SIGKILL)
            if life == 4:
                while line[:1] != ["flushed"]:  # which it may have been before its child was killed
                    line = node.stdout.readline().split()
                    assert line, "it ended"
                assert line[:2] == ["flushed", str(count)]
                listener.until(messages(events), PATIENCE)
                listener.silence(0.3)
                node.communicate("\n")
                assert node.returncode == 0
            else:
                acknowledged = max(acknowledged, last_acknowledged(node.communicate()[0]))
        for child in children:
            eventually(partial(is_gone, child), f"process {child} is still there")
    finally:
        if listener is not None:
            listener.close()


def test_a_child_that_cannot_be_spawned_is_spawned_later() -> None:
    class Full(UnixProcess):
        spawned = 0

        def spawn(self, exe_name: str, argv0: str | os.PathLike[str] | None = None) -> tuple[int, socket.socket]:
            self.spawned += 1
            if self.spawned == 2:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().spawn(exe_name, argv0)

    with SpawnedPublisher({"zmqpubrawtx": ANY_PORT}, process=Full()) as publisher:
        kill_child(publisher)
        publisher.transaction_added_to_mempool(transaction(1), 1)
        assert publisher.flush(PATIENCE)
        assert publisher.link_stats().acknowledged == 1


def test_what_a_child_may_have_journaled_is_not_dropped() -> None:
    """The next one skips by count what the journal has: these have to come first."""
    backlog = Backlog(65536, True, lambda: None)
    for number in range(100):
        backlog.add(Kind.TRANSACTION_REMOVED, bytes(32), number)
    assert len(backlog.take(60, 1 << 20, 1 << 20)) == 60
    backlog.rewind()
    assert len(backlog.take(10, 1 << 20, 1 << 20)) == 10
    backlog.rewind()
    for number in range(100, 300):
        backlog.add(Kind.TRANSACTION_REMOVED, bytes(32), number)
    told = [entry.mempool_sequence for entry in backlog.take(512, 1 << 20, 1 << 20)]
    assert told == [*range(60), *range(60 + backlog.dropped, 300)]
    assert backlog.dropped == 300 - len(told) > 0


def test_a_new_epoch_begins_with_the_parent_and_not_with_each_child(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    epochs = []
    for number in range(2):
        with SpawnedPublisher(options(), journal_path=path, journal_bytes=JOURNAL // 16, journal_restart="new_epoch") as publisher:
            epochs.append(publisher.epoch)
            publisher.transaction_added_to_mempool(transaction(number), 1)
            assert publisher.flush(PATIENCE)
            kill_child(publisher)
            publisher.transaction_added_to_mempool(transaction(number + 10), 2)
            assert publisher.flush(PATIENCE)
            assert publisher.epoch == epochs[-1]
            assert publisher.link_stats().restarts == 1
    assert epochs[0] != epochs[1]


CHILD = """#!{python}
import sys
from zmqpub.ipc.notifications import hands
from zmqpub.ipc.notifications.child import serve_parent
from zmqpub.ipc.process import UnixProcess

hands._FLUSH_PATIENCE = hands._LAST_LINGER = 0.2
sys.exit(serve_parent(UnixProcess().check_spawned(sys.argv)))
"""


def test_a_child_ends_however_many_wait_for_a_flush(tmp_path: Path) -> None:
    child = tmp_path / "child"
    child.write_text(CHILD.format(python=sys.executable))
    child.chmod(0o700)

    def flush() -> None:
        with contextlib.suppress(zmqpub.ZmqPubError):
            publisher.flush()

    settings: dict[str, Any] = {"program": child, "slow_subscriber": "wait", "linger": 0.0}
    with (
        SpawnedPublisher({"zmqpubrawtx": ANY_PORT, "zmqpubrawtxhwm": 10}, **settings) as publisher,
        zmq.Context() as context,
        context.socket(zmq.SUB) as stuck,
    ):
        stuck.linger, stuck.rcvhwm, stuck.rcvbuf = 0, 1, 4096
        stuck.subscribe(b"")
        stuck.connect(publisher.active_notifiers()[0].address)
        eventually(lambda: publisher.stats().notifiers[0].wanted, "nobody subscribed")
        for number in range(200):
            publisher.transaction_added_to_mempool(transaction(number, size=100_000), number)
        assert not publisher.flush(0.5)
        flushes = [threading.Thread(target=flush) for _ in range(40)]
        for thread in flushes:
            thread.start()
        time.sleep(0.5)
        pid = publisher.link_stats().process_id
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: is_gone(pid), "the child stays")
    for thread in flushes:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_child_whose_parent_is_killed_sends_what_it_has_and_ends(tmp_path: Path) -> None:
    events = story(5, 300)
    address, replay = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    node = subprocess.Popen(program(5, 300, 0, options(address, replay), {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    assert node.stdin is not None
    child = int(node.stdout.readline().split()[1])
    listener = Listener(address, None)  # a replay endpoint could not be asked any more
    try:
        assert isinstance(listener.subscriber.recv(PATIENCE), zmqpub.Connected)
        time.sleep(0.5)  # and it has subscribed
        node.stdin.write("\n")
        node.stdin.flush()
        acknowledged = 0
        while acknowledged < 150:
            acknowledged = int(node.stdout.readline().split()[1])
        node.kill()
        acknowledged = max(acknowledged, last_acknowledged(node.communicate()[0]))
        eventually(lambda: is_gone(child), "the child lives on")
        # All that was acknowledged has come, or more: what the child had got and could not acknowledge any more.
        received = listener_all(listener)
        wanted = messages(events[:acknowledged])
        for topic, expected in wanted.items():
            assert received[topic][: len(expected)] == expected, topic
        everything = messages(events)
        for topic, got in received.items():
            assert got == everything[topic][: len(got)]
    finally:
        listener.close()


def last_acknowledged(lines: str) -> int:
    """What a node said last; its very last line may have been cut."""
    return max((int(line.split()[1]) for line in lines.splitlines() if line.startswith("done") and len(line.split()) == 3), default=0)


def listener_all(listener: Listener) -> dict[str, list[Any]]:
    with contextlib.suppress(TimeoutError):
        while True:
            listener._note(listener.subscriber.recv_batch(1000, timeout=1.0))
    return listener.got
