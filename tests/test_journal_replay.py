"""Replay from a journal file: the very frames that subscribers got from a publisher that is no more."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from journal_rig import LEAST, publish
from listening import everything, receive, subscriber, wait_wanted
from programs import ENVIRONMENT, free_port
from replaying import REPLAY, client, counter

from zmqpub import Publisher

RIG = Path(__file__).with_name("journal_rig.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_replay_spans_the_lives_of_an_epoch(path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    live: list[tuple[bytes, ...]] = []
    for life in range(3):
        with Publisher(everything(address) | REPLAY, journal_path=str(path), journal_bytes=LEAST) as publisher, subscriber(address) as sub:
            wait_wanted(publisher)
            for n in range(life * 30, life * 30 + 30):
                publish(publisher, n)
            assert publisher.flush(10)
            live += receive(sub, publisher.stats().sent)
            with client(publisher) as asking:
                current = asking.current()
                assert current.epoch == publisher.epoch
                starts = [(notifier.id, notifier.first) for notifier in current.notifiers]
                assert asking.everything(current.epoch, starts) == live
                assert asking.everything(current.epoch, starts, max_messages=7) == live


def test_a_replay_of_what_a_killed_publisher_sent(path: Path) -> None:
    """Kill -9 while a subscriber listens; the next publisher answers for the epoch of the dead one."""
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, str(RIG), str(path), address, "0", f"journal_bytes={64 * LEAST}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    with subscriber(address) as sub:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            process.stdin.write("once wanted\n")
            process.stdin.flush()
            live = receive(sub, 2000)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        while sub.poll(300):
            live.append(tuple(sub.recv_multipart()))
    settings: dict[str, Any] = {"journal_path": str(path), "journal_bytes": 64 * LEAST, "journal_restart": "new_epoch"}
    with Publisher(everything(address) | REPLAY, **settings) as publisher, client(publisher) as asking:
        old, new = asking.hello()
        assert not old.current
        assert new.epoch == publisher.epoch
        replayed = asking.everything(old.epoch, [(notifier.id, 0) for notifier in old.notifiers])
    begun = replayed.index(live[0])
    assert replayed[begun : begun + len(live)] == live, "nothing was sent that the file does not know"
    for notifier in old.notifiers:
        numbers = [counter(message) for message in replayed if message[0] == notifier.topic.value.encode()]
        assert numbers == list(range(notifier.next))
