"""What a node hands over again after a restart is known from the journal file, and skipped, up to the first new event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from journal_rig import LEAST
from listening import everything, receive_all, subscriber, wait_wanted
from programs import free_port
from synthetic import block, transaction

from zmqpub import Publisher

BLOCKS = [block(seed, 3) for seed in range(8)]
TXS = [transaction(seed) for seed in range(8)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def publisher_on(path: Path, address: str = "tcp://127.0.0.1:*", **settings: Any) -> Publisher:
    return Publisher(everything(address), journal_path=str(path), **{"journal_bytes": LEAST, **settings})


def hand_over(publisher: Publisher, events: str) -> None:
    """C1: block 1 connected; D1: disconnected; T1: the tip; A1: transaction 1 added, with mempool sequence 10; R1: removed, with 20."""
    for event in events.split():
        kind, n = event[0], int(event[1:])
        if kind == "C":
            publisher.block_connected(BLOCKS[n])
        elif kind == "D":
            publisher.block_disconnected(BLOCKS[n])
        elif kind == "T":
            publisher.updated_block_tip(BLOCKS[n])
        elif kind == "A":
            publisher.transaction_added_to_mempool(TXS[n], 10 + n)
        else:
            publisher.transaction_removed_from_mempool(TXS[n], 20 + n)


@pytest.mark.parametrize(
    ("before", "after", "recognized"),
    [
        ("C1 T1 A1 R1", "C1 T1 A1 R1", 4),
        ("C1 T1 A1 R1", "C1 T1 A1 R1 A2", 4),
        ("C1 T1 C2 T2", "C2 T2 C3 T3", 2),
        ("C1 T1 C2", "C1 C2 T2", 2),
        ("C1 C2 D2 C3", "C1 C3", 2),
        ("C1 C2 D2 C3", "D2 C3 T3", 2),
        ("A1 A2 A3", "A3 A1 A4 A2", 2),
        ("C1 T1 A1", "T1 A1", 2),
        ("C1 T1", "C2 C1 T1", 0),
        ("C1 T1 D1", "C1 T1", 0),
        ("C1 T1 C2", "T1", 0),
        ("C1 D1", "D1 C1", 1),
        ("A1", "R1", 0),
        ("A1 R1", "R1 A1 R2", 2),
        ("", "C1 T1 A1", 0),
        # Once it is clear where the repetition is, it may tell what is history by now.
        ("A1 C1 T1 C2 T2", "A1 C1 T1 C2 T2 C3", 5),
        ("A1 C1 T1 D1 C2 C3 T3 A2", "A1 C1 T1 D1 C2 C3 T3 A2 A3", 8),
        ("A1 C1 T1 D1 C2 C3 T3 A2", "C2 C3 T3 A2 C4", 4),
        ("A1 C1 D1 C1 D1 C1 T1", "A1 C1 D1 C1 D1 C1 T1 D1", 7),
        ("A1 C1 T1 D1 C2", "A1 C1 T1 C2 D2", 4),
    ],
)
def test_repetitions(path: Path, before: str, after: str, recognized: int) -> None:
    with publisher_on(path) as publisher:
        hand_over(publisher, before)
    held = len(before.split())
    with publisher_on(path) as publisher:
        hand_over(publisher, after)
        journal = publisher.stats().journal
        assert journal.recognized == recognized
        assert journal.appended == len(after.split()) - recognized
        assert journal.retained_events == held + journal.appended


def test_a_repetition_after_something_new_is_published(path: Path) -> None:
    with publisher_on(path) as publisher:
        hand_over(publisher, "C1 T1")
    with publisher_on(path) as publisher:
        hand_over(publisher, "C1 C2 C1 T1")
        assert publisher.stats().journal.recognized == 1
        assert publisher.stats().journal.appended == 3


def test_raw_bytes_and_txids_are_known_as_objects_are(path: Path) -> None:
    with publisher_on(path) as publisher:
        hand_over(publisher, "C1 T1 A1 R1")
    with publisher_on(path) as publisher:
        publisher.block_connected(bytes(BLOCKS[1]))
        publisher.updated_block_tip(bytearray(bytes(BLOCKS[1])))
        publisher.transaction_added_to_mempool(bytes(TXS[1]), 11)
        publisher.transaction_removed_from_mempool(TXS[1].txid, 21)
        assert publisher.stats().journal.recognized == 4


def test_another_mempool_sequence_is_another_event(path: Path) -> None:
    with publisher_on(path) as publisher:
        hand_over(publisher, "A1")
    with publisher_on(path) as publisher:
        publisher.transaction_added_to_mempool(TXS[1], 12)
        assert publisher.stats().journal.recognized == 0


def test_within_one_life_nothing_is_recognized(path: Path) -> None:
    with publisher_on(path) as publisher:
        hand_over(publisher, "C1 T1 C1 T1")
        assert publisher.stats().journal.recognized == 0
        assert publisher.stats().journal.appended == 4


def test_a_new_epoch_recognizes_as_well(path: Path) -> None:
    with publisher_on(path) as publisher:
        hand_over(publisher, "C1 T1")
    with publisher_on(path, journal_restart="new_epoch") as publisher:
        hand_over(publisher, "C1 T1 C2")
        assert publisher.stats().journal.recognized == 2


def test_subscribers_hear_nothing_of_a_repetition_and_counters_stand_still(path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with publisher_on(path, address) as publisher:
        hand_over(publisher, "C1 T1 A1")
        publisher.flush(10)
    with publisher_on(path, address) as publisher, subscriber(address) as sub:
        wait_wanted(publisher)
        hand_over(publisher, "C1 T1 A1 A2")
        assert publisher.flush(10)
        heard = [(topic, int.from_bytes(counter, "little")) for topic, _body, counter in receive_all(sub)]
    assert heard == [(b"hashtx", 4), (b"rawtx", 4), (b"sequence", 2)]


def test_the_engine_tells_how_many_events_the_file_ever_held(path: Path) -> None:
    with publisher_on(path) as publisher:
        assert publisher.engine.journaled == 0
        hand_over(publisher, "C1 T1 A1")
        assert publisher.engine.journaled == 3
    with publisher_on(path) as publisher:
        assert (publisher.engine.journaled, publisher.engine.recognizing) == (3, True)
        hand_over(publisher, "T1 A1")  # repetitions are in it already
        assert (publisher.engine.journaled, publisher.engine.recognizing) == (3, True)
        hand_over(publisher, "A2")
        assert (publisher.engine.journaled, publisher.engine.recognizing) == (4, False)


def test_who_knows_better_can_stop_the_recognition(path: Path) -> None:
    with publisher_on(path) as publisher:
        hand_over(publisher, "C1 D1")
    with publisher_on(path) as publisher:
        publisher.engine.stop_recognizing()
        assert not publisher.engine.recognizing
        hand_over(publisher, "D1 C1")
        assert publisher.engine.journaled == 4
        assert publisher.stats().journal.recognized == 0
