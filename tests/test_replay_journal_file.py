"""Replay from a journal that lives in a file: what a publisher that was killed had published, and what its successor adds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from listening import ANY_PORT
from replaying import REPLAY, client, counter
from synthetic import block, transaction

from zmqpub import Publisher

OPTIONS = REPLAY | {"zmqpubhashtx": ANY_PORT, "zmqpubrawtx": ANY_PORT, "zmqpubhashblock": ANY_PORT, "zmqpubsequence": ANY_PORT}

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_replay_journal_file import OPTIONS, publish
from zmqpub import Publisher
publisher = Publisher(OPTIONS, journal_path=sys.argv[2], journal_bytes=2**24)
publish(publisher, range(30))
publisher.flush(10)
os.write(1, publisher.epoch)
os.kill(os.getpid(), signal.SIGKILL)
"""


def publish(publisher: Publisher, numbers: range) -> None:
    for number in numbers:
        publisher.transaction_added_to_mempool(transaction(number, size=700), number)
        if number % 10 == 9:
            made = block(number, 20)
            publisher.block_connected(made)
            publisher.updated_block_tip(made)


@pytest.fixture
def killed(tmp_path: Path) -> bytes:
    """The epoch of a publisher that was killed after it had published to a journal in tmp_path."""
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "journal")]
    epoch = subprocess.run(command, capture_output=True, timeout=60).stdout
    assert len(epoch) == 16
    return epoch


def test_a_new_epoch_leaves_the_old_one_to_be_asked_for(killed: bytes, tmp_path: Path) -> None:
    with Publisher(OPTIONS, journal_path=str(tmp_path / "journal"), journal_bytes=2**24, journal_restart="new_epoch") as publisher:
        publish(publisher, range(30, 35))
        with client(publisher) as ask:
            old, new = ask.hello()
            assert (old.epoch, old.current, new.epoch, new.current) == (killed, False, publisher.epoch, True)
            for epoch, transactions, blocks in ((old, range(30), 3), (new, range(30, 35), 0)):
                ids = {info.topic.value: info for info in epoch.notifiers}
                messages = ask.everything(epoch.epoch, [(info.id, 0) for info in epoch.notifiers], max_messages=7)
                numbers = [counter(message) for message in messages if message[0] == b"rawtx"]
                assert numbers == list(range(len(transactions) + 20 * blocks)) == list(range(ids["rawtx"].next))
                bodies = [message[1] for message in messages if message[0] == b"rawtx"]
                assert bytes(transaction(transactions[0], size=700)) == bodies[0]
                assert len([1 for message in messages if message[0] == b"hashblock"]) == blocks


def test_counters_go_on_where_they_were(killed: bytes, tmp_path: Path) -> None:
    with Publisher(OPTIONS, journal_path=str(tmp_path / "journal"), journal_bytes=2**24, journal_restart="continue") as publisher:
        assert publisher.epoch == killed
        publish(publisher, range(30, 35))
        with client(publisher) as ask:
            (epoch,) = ask.hello()
            # Ports differ, so that these are notifiers of their own, beside those of before.
            for topic, before, after in (("hashtx", 30 + 60, 5), ("sequence", 30 + 3, 5), ("hashblock", 3, 0)):
                infos = [info for info in epoch.notifiers if info.topic == topic]
                assert [info.next - info.first for info in infos] == [before, after]
                for info in infos:
                    messages = ask.everything(epoch.epoch, [(info.id, info.first)])
                    assert [counter(message) for message in messages] == list(range(info.first, info.next))


def test_a_damaged_record_is_gone_and_what_is_around_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Publisher(OPTIONS, journal_path=str(path), journal_bytes=2**24) as publisher:
        publish(publisher, range(9))
        assert publisher.flush(10)
        with path.open("r+b") as file:
            at = file.read().index(bytes(transaction(4, size=700))) + 300
            file.seek(at)
            file.write(b"\xff\xfe\xfd")
        with client(publisher) as ask:
            (epoch,) = ask.hello()
            ids = {info.topic.value: info.id for info in epoch.notifiers}
            starts = [(ids[topic], 0) for topic in ("hashtx", "rawtx", "sequence")]
            answer, before = ask.range(epoch.epoch, starts)
            assert answer.more
            assert [one.next for one in answer.notifiers] == [4, 4, 4]
            answer, after = ask.range(epoch.epoch, [(one.notifier, one.next) for one in answer.notifiers])
            assert (answer.more, answer.gone) == (False, True)
            assert [(one.first, one.next, one.gone) for one in answer.notifiers] == [(5, 9, 1)] * 3
            numbers = [n for n in range(9) if n != 4]
            assert [counter(message) for message in before + after] == [n for n in numbers for _ in range(3)]
            # One that asks from within, or up to a message right behind it, is told as well.
            answer, messages = ask.range(epoch.epoch, [(ids["rawtx"], 4)], until=(ids["hashtx"], 6))
            assert [(one.first, one.next, one.gone) for one in answer.notifiers] == [(5, 6, 1)]
            assert [counter(message) for message in messages] == [5]
            answer, messages = ask.range(epoch.epoch, [(ids["rawtx"], 4)], until=(ids["hashtx"], 5))
            assert [(one.first, one.next, one.gone) for one in answer.notifiers] == [(5, 5, 1)]
            assert messages == []
            # Of what comes before it nothing is lost to whoever asks up to it.
            messages = ask.everything(epoch.epoch, [(ids["rawtx"], 3)], until=(ids["rawtx"], 4))
            assert [counter(message) for message in messages] == [3]
