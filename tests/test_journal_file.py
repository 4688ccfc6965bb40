"""A journal in a file: what was published outlives the publisher, and a file that can't be trusted is refused."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_rig import (
    BOOT,
    CLEAN,
    COMMITTED,
    EPOCHS,
    LEAST,
    RECORD,
    RING,
    SYNCED,
    TAILS,
    check_held,
    committed,
    event_of,
    held,
    patch,
    publish,
    read,
    records,
)
from listening import everything, receive, subscriber, wait_for, wait_wanted
from programs import ENVIRONMENT, Program, free_port
from synthetic import block, transaction

from zmqpub import Block, JournalError, Publisher
from zmqpub._fast import _crc32c, _describe_history, _event_of_history, _locate_in_history

RIG = Path(__file__).with_name("journal_rig.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def address() -> str:
    """The same one in each life of a publisher: it names the notifiers."""
    return f"tcp://127.0.0.1:{free_port()}"


def publisher_on(path: Path, address: str = "tcp://127.0.0.1:*", **settings: Any) -> Publisher:
    return Publisher(everything(address), journal_path=str(path), **{"journal_bytes": LEAST, **settings})


def publish_all(publisher: Publisher, numbers: range) -> None:
    for n in numbers:
        publish(publisher, n)
    assert publisher.flush(20)


def fill(path: Path, events: int, address: str = "tcp://127.0.0.1:*") -> None:
    with publisher_on(path, address) as publisher:
        publish_all(publisher, range(events))


def event_at(publisher: Publisher, n: int) -> tuple[int, bytes, int, tuple[int, ...]]:
    got = _event_of_history(publisher.engine, n)
    assert not isinstance(got, str)
    return got


def counters(publisher: Publisher) -> dict[int, tuple[int, int]]:
    """First and next number of each topic's active notifier in the current epoch."""
    rows = _describe_history(publisher.engine)[-1][5]
    return {row[1]: (row[3], row[4]) for row in rows if row[7] == 2**64 - 1}


# ---- what it holds ----


def test_what_was_published_is_held_and_leaves_for_room(path: Path) -> None:
    with publisher_on(path) as publisher:
        for start in range(0, 2000, 100):
            publish_all(publisher, range(start, start + 100))
            numbers = check_held(publisher)
            assert numbers.stop == start + 100
        assert numbers.start > 1000, "the ring was gone around a few times"
        journal = publisher.stats().journal
        assert (journal.events, journal.bytes, journal.appended, journal.dropped) == (0, 0, 2000, 0)
        assert journal.retained_events == len(numbers)
        assert LEAST / 2 < journal.retained_bytes < LEAST
        assert journal.path == str(path)
        assert _event_of_history(publisher.engine, numbers.start - 1) == "gone"
        assert _event_of_history(publisher.engine, 2000) == "end"
        shuffled = list(numbers)
        random.Random(1).shuffle(shuffled)
        for n in shuffled:
            assert _event_of_history(publisher.engine, n)[:3] == event_of(n)
    assert publisher.stats().journal.retained_events == len(numbers)
    assert path.stat().st_size <= LEAST
    assert path.stat().st_blocks * 512 >= path.stat().st_size, "all of it was allocated at the beginning"


def test_each_number_leads_to_the_event_that_makes_it(path: Path) -> None:
    with publisher_on(path) as publisher:
        publish_all(publisher, range(900))
        epoch, _started, _current, first, end, notifiers = _describe_history(publisher.engine)[-1]
        assert first > 0
        for notifier, topic, _address, oldest, following, base, _from, _until in notifiers:
            assert _locate_in_history(publisher.engine, epoch, notifier, oldest - 1) == ("gone", first)
            assert _locate_in_history(publisher.engine, epoch, notifier, following) == ("end", end)
            for number in range(oldest, following):
                state, event = _locate_in_history(publisher.engine, epoch, notifier, number)
                assert state == "ok"
                before = [event_at(publisher, n)[3][topic] - base for n in (event, min(event + 1, end - 1))]
                assert before[0] <= number
                assert number < before[1] or event + 1 == end


def test_one_copy_of_a_block_serves_all_its_events(path: Path) -> None:
    one = block(1, 100, size=1000)
    with publisher_on(path) as publisher:
        for given in (one, bytes(one), bytearray(bytes(one))):
            publisher.block_connected(given)
            publisher.updated_block_tip(given)
        assert publisher.flush(10)
        assert publisher.stats().journal.retained_bytes == 6 * RECORD + (one.size + 7) // 8 * 8
        for n in range(6):
            assert _event_of_history(publisher.engine, n)[1] == bytes(one)


def test_a_block_leaves_together_with_what_refers_to_it(path: Path) -> None:
    one = block(1, 20, size=1000)
    with publisher_on(path) as publisher:
        publisher.block_connected(one)
        for i in range(100):
            publisher.transaction_added_to_mempool(transaction(i), i)
        publisher.updated_block_tip(one)
        i = 100
        while _event_of_history(publisher.engine, 0) != "gone":
            assert event_at(publisher, 101)[1] == bytes(one)
            publisher.transaction_added_to_mempool(transaction(i, size=2000), i)
            i += 1
        assert held(publisher).start > 101


def test_the_block_is_written_again_when_it_was_long_ago(path: Path) -> None:
    one = block(1, 20, size=1000)
    with publisher_on(path) as publisher:
        publisher.block_connected(one)
        for i in range(300):
            publisher.transaction_added_to_mempool(transaction(i, size=1500), i)
        publisher.block_disconnected(one)
        for i in range(250):
            publisher.transaction_added_to_mempool(transaction(i, size=1500), i)
        assert _event_of_history(publisher.engine, 0) == "gone"
        assert _event_of_history(publisher.engine, 301)[1] == bytes(one)


def test_a_transaction_of_a_block_is_retained_alone(path: Path) -> None:
    one = block(1, 50, size=2000)
    with publisher_on(path) as publisher:
        publisher.transaction_added_to_mempool(one[17], 5)
        publisher.transaction_removed_from_mempool(one[17], 6)
        assert publisher.flush(10)
        assert _event_of_history(publisher.engine, 0)[:3] == (1, bytes(one[17]), 5)
        assert _event_of_history(publisher.engine, 1)[:3] == (2, one[17].txid, 6)
        assert publisher.stats().journal.retained_bytes < 3000


def test_an_event_too_large_is_refused_and_the_next_is_not(path: Path) -> None:
    with publisher_on(path) as publisher:
        publish_all(publisher, range(10))
        with pytest.raises(JournalError, match=r"half the ring, got one of \d+ bytes; set a larger journal_bytes"):
            publisher.block_connected(block(1, 100, size=5000))
        publish_all(publisher, range(10, 20))
        assert check_held(publisher) == range(20)


def test_readers_and_a_writer_that_overtakes_them(path: Path) -> None:
    """What a reader gets is right, or gone: never something else."""
    stop = threading.Event()
    results: list[str] = []
    with publisher_on(path) as publisher:

        def read_on() -> None:
            rng = random.Random(3)
            while not stop.is_set():
                numbers = held(publisher)
                n = rng.choice((numbers.start, numbers.start + 1, rng.randrange(numbers.start, numbers.stop or 1) if numbers else 0))
                got = _event_of_history(publisher.engine, n)
                results.append(got if isinstance(got, str) else "right" if got[:3] == event_of(n) else f"wrong: {n}")

        thread = threading.Thread(target=read_on)
        thread.start()
        publish_all(publisher, range(3000))
        stop.set()
        thread.join()
    assert set(results) <= {"right", "gone", "end"}
    assert results.count("right") > 100


def test_the_oldest_is_dropped_for_a_stalled_endpoint_and_numbers_stay_true(path: Path) -> None:
    with Publisher(
        {"zmqpubrawtx": "inproc://stalled", "zmqpubrawtxhwm": 1},
        journal_path=str(path),
        journal_bytes=LEAST,
        on_full="drop",
        slow_subscriber="wait",
    ) as publisher:
        with subscriber("inproc://stalled", context=publisher.context, hwm=1) as sub:
            wait_wanted(publisher)
            for n in range(1000):
                publish(publisher, n)
            assert publisher.stats().journal.dropped > 0
            check_held(publisher)
            while sub.poll(1500):
                sub.recv_multipart()
            publish(publisher, 1002)
            _topic, body, counter = sub.recv_multipart()
        assert body == event_of(1002)[1]
        assert struct.unpack("<I", counter)[0] == counters(publisher)[3][1] - 1


# ---- restarts ----


def test_counters_go_on_in_the_same_epoch(path: Path, address: str) -> None:
    live: dict[bytes, list[int]] = {}
    epochs = set()
    for life in range(3):
        with publisher_on(path, address) as publisher, subscriber(address) as sub:
            epochs.add(publisher.epoch)
            wait_wanted(publisher)
            assert held(publisher).stop == life * 40
            publish_all(publisher, range(life * 40, life * 40 + 40))
            for topic, _body, counter in receive(sub, sum(notifier.sent for notifier in publisher.stats().notifiers)):
                live.setdefault(topic, []).append(struct.unpack("<I", counter)[0])
            assert all(first == 0 for first, _next in counters(publisher).values())
    assert len(epochs) == 1
    assert len(live) == 5
    for seen in live.values():
        assert seen == list(range(len(seen)))


def test_a_new_epoch_begins_at_zero_and_the_old_one_can_still_be_read(path: Path, address: str) -> None:
    fill(path, 50, address)
    with publisher_on(path, address, journal_restart="new_epoch") as publisher:
        publish_all(publisher, range(50, 70))
        old, new = _describe_history(publisher.engine)
        assert (old[2], new[2]) == (False, True)
        assert new[0] == publisher.epoch != old[0]
        assert (old[3:5], new[3:5]) == ((0, 50), (50, 70))
        assert [row[7] for row in old[5]] == [50] * 5
        check_held(publisher)
        for row in new[5]:
            assert row[3] == row[5] == 0
            state, event = _locate_in_history(publisher.engine, new[0], row[0], 0)
            assert (state, event) == ("ok", _locate_in_history(publisher.engine, old[0], row[0], row[4])[1]) or event >= 50
        assert _locate_in_history(publisher.engine, old[0], 0, old[5][0][4]) == ("end", 50)


def test_old_epochs_are_forgotten_with_their_last_event_and_beyond_sixteen(path: Path, address: str) -> None:
    for life in range(20):
        with publisher_on(path, address, journal_restart="new_epoch") as publisher:
            publish_all(publisher, range(life, life + 1))
            assert len(_describe_history(publisher.engine)) == min(life + 1, 16)
    with publisher_on(path, address) as publisher:
        publish_all(publisher, range(20, 1200))
        assert [row[2] for row in _describe_history(publisher.engine)] == [True]
        check_held(publisher)


def test_notifiers_that_come_and_go_with_the_restart(path: Path, address: str) -> None:
    with Publisher({"zmqpubrawtx": address, "zmqpubhashtx": address}, journal_path=str(path), journal_bytes=LEAST) as publisher:
        publish_all(publisher, range(10))
    with Publisher({"zmqpubsequence": address, "zmqpubhashtx": address}, journal_path=str(path), journal_bytes=LEAST) as publisher:
        publish_all(publisher, range(10, 20))
        publisher.add_notifier("rawblock", address)
        publish_all(publisher, range(20, 30))
    with publisher_on(path, address) as publisher:
        (epoch,) = _describe_history(publisher.engine)
        rows = [(row[0], row[1], row[3], row[6], row[7]) for row in epoch[5]]
        active = 2**64 - 1
        assert rows == [
            (0, 1, 0, 0, active),
            (1, 3, 0, 0, 10),
            (2, 4, 0, 10, active),
            (3, 2, 0, 20, active),
            (4, 0, 0, 30, active),
            (5, 3, 0, 30, active),
        ]
        assert counters(publisher)[0] == (0, 0)


def test_what_was_not_sent_is_not_sent_afterwards_but_can_be_replayed(path: Path, address: str) -> None:
    """A subscriber sees the gap in the counters."""
    with publisher_on(path, address) as publisher:
        publish_all(publisher, range(10))
        unseen = counters(publisher)
    with publisher_on(path, address) as publisher, subscriber(address) as sub:
        wait_wanted(publisher)
        publish_all(publisher, range(10, 15))
        messages = receive(sub, sum(notifier.sent for notifier in publisher.stats().notifiers))
        first = {topic: struct.unpack("<I", counter)[0] for topic, _body, counter in reversed(messages)}
        assert [first[topic.encode()] for topic in ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")] == [
            unseen[topic][1] for topic in range(5)
        ]


# ---- kill -9 ----


@contextlib.contextmanager
def publishing_process(path: Path, address: str, first: int, *settings: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(RIG), str(path), address, str(first), *settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_published(path: Path, address: str) -> None:
    """Twelve times, on one file, which is gone around meanwhile."""
    rng = random.Random(9)
    first, epoch = 0, None
    for _life in range(12):
        with publishing_process(path, address, first) as process, subscriber(address) as sub:
            assert process.stdin is not None
            assert process.stdout is not None
            _ready, named, found = process.stdout.readline().split()
            assert epoch in (None, named)
            epoch = named
            assert int(found) == first
            process.stdin.write("once wanted\n")
            process.stdin.flush()
            returned = int(process.stdout.readline())  # now it is under way
            threading.Timer(rng.random() * 0.3, process.send_signal, (signal.SIGKILL,)).start()
            for line in process.stdout:
                if line.endswith("\n"):
                    returned = int(line)
            process.wait()
            seen = []
            while sub.poll(200):
                seen.append(tuple(sub.recv_multipart()))
        assert returned > first
        with publisher_on(path, address) as publisher:
            numbers = check_held(publisher)
            assert returned <= numbers.stop <= returned + 1, "all that was returned from, and at most the one under way"
            assert publisher.epoch.hex() == epoch
            check_seen(publisher, seen)
        first = numbers.stop
    assert numbers.start > 0


def check_seen(publisher: Publisher, seen: list[tuple[bytes, ...]]) -> None:
    """What a subscriber got live is what the file has under that number."""
    _epoch, _started, _current, begin, end, notifiers = _describe_history(publisher.engine)[-1]
    for topic, body, counter in seen:
        if topic not in (b"rawtx", b"hashblock"):
            continue
        row = next(row for row in notifiers if row[1] == (3 if topic == b"rawtx" else 0))
        number = struct.unpack("<I", counter)[0]
        state, event = _locate_in_history(publisher.engine, publisher.epoch, row[0], number)
        if state == "gone":
            continue
        assert state == "ok", (number, row, begin, end)
        kind, raw, _sequence, before = event_at(publisher, event)
        if topic == b"hashblock":
            assert Block(raw).hash == body
        else:
            assert (raw if kind == 1 else bytes(Block(raw)[number + row[5] - before[3]])) == body


def test_a_kill_in_the_creation_leaves_no_file_that_stands_in_the_way(path: Path) -> None:
    fill(path, 5)
    patch(path, 0, bytes(48))  # the head is written last
    with publisher_on(path) as publisher:
        assert held(publisher) == range(0)
        publish_all(publisher, range(20))
        check_held(publisher)


# ---- the last record torn ----


def test_a_last_record_with_any_byte_changed_is_cut(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zmqpub")
    fill(path, 8, "tcp://127.0.0.1:*")
    offset, length, event = records(path)[-1]
    assert event == 7
    copy = tmp_path / "copy"
    used = RECORD + len(event_of(7)[1])
    for i in range(length):
        shutil.copy(path, copy)
        byte = read(path, offset + i, 1)[0]
        patch(copy, offset + i, bytes([byte ^ 0x40]))
        with publisher_on(copy) as publisher:
            assert publisher.engine.recovery() == ((8, 0, True) if i >= used else (7, 1, False)), i
            assert len(_describe_history(publisher.engine)) == (1 if i >= used else 2), "what was sent may be missing: a new epoch"
            assert len(check_held(publisher)) == (8 if i >= used else 7)
            publish_all(publisher, range(7, 12)) if i < used else None
            check_held(publisher)
    assert "1 events at its end cannot be read and were cut; a new epoch begins" in caplog.text


@pytest.mark.parametrize("event", [10, 11, 12, 13, 14], ids=["connected", "tip", "added", "removed", "disconnected"])
def test_a_record_that_was_never_finished_is_cut_and_the_counters_go_on(path: Path, tmp_path: Path, event: int) -> None:
    """A kill in the middle of writing it: whatever part is there, nobody was sent it."""
    fill(path, event + 1)
    offset, length, last = records(path)[-1]
    assert last == event
    copy = tmp_path / "copy"
    step = max(1, length // 150)
    for written in [*range(0, length - 7, step), RECORD - 1, RECORD, RECORD + 1]:
        if written >= RECORD + (0 if event == 11 else len(event_of(event)[1])):
            continue
        shutil.copy(path, copy)
        patch(copy, offset + written, b"\xa5" * (length - written))
        patch(copy, COMMITTED, struct.pack("<Q", event))
        with publisher_on(copy) as publisher:
            assert publisher.engine.recovery() == (event, 0, True), written
            publish_all(publisher, range(event, event + 3))
            assert check_held(publisher) == range(event + 3)
            assert len(_describe_history(publisher.engine)) == 1
        with publisher_on(copy) as publisher:
            assert check_held(publisher) == range(event + 3)


def test_a_record_that_was_whole_but_not_counted_yet_is_kept(path: Path, address: str) -> None:
    fill(path, 8, address)
    patch(path, COMMITTED, struct.pack("<Q", 7))
    with publisher_on(path, address) as publisher:
        assert publisher.engine.recovery() == (8, 0, True)
        assert check_held(publisher) == range(8)


def test_records_of_a_life_that_was_cut_do_not_come_back(path: Path) -> None:
    """After the cut other events of the same length are written: what stood behind the old ones must not follow the new ones."""
    with publisher_on(path) as publisher:
        for i in range(20):
            publisher.transaction_removed_from_mempool(bytes([i]) * 32, i)
    offset, _length, _event = records(path)[10]
    patch(path, offset + 40, b"\xff")
    patch(path, BOOT, bytes(16))  # a loss of power: more than the last record may be missing
    with publisher_on(path) as publisher:
        assert publisher.engine.recovery() == (10, 10, False)
        publisher.transaction_removed_from_mempool(b"n" * 32, 10)
    with publisher_on(path) as publisher:
        assert publisher.engine.recovery() == (11, 0, True)
        assert held(publisher) == range(11)
        assert _event_of_history(publisher.engine, 10)[1] == b"n" * 32


# ---- a loss of power ----


def test_after_a_loss_of_power_a_new_epoch_begins(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zmqpub")
    fill(path, 30)
    patch(path, BOOT, bytes(range(16)))
    patch(path, CLEAN, bytes(4))
    with publisher_on(path) as publisher:
        assert publisher.engine.recovery() == (30, 0, False)
        assert len(_describe_history(publisher.engine)) == 2
        assert check_held(publisher) == range(30)
    assert "the machine went down while it was open" in caplog.text


@pytest.mark.parametrize("why", ["clean", "synced"])
def test_after_another_boot_the_epoch_goes_on_where_nothing_can_be_missing(path: Path, why: str) -> None:
    fill(path, 30)
    patch(path, BOOT, bytes(range(16)))
    patch(path, CLEAN, struct.pack("<II", why == "clean", why == "synced"))
    assert CLEAN + 4 == SYNCED
    with publisher_on(path) as publisher:
        assert publisher.engine.recovery() == (30, 0, True)


def test_the_head_may_be_older_than_the_ring(path: Path, tmp_path: Path) -> None:
    """The system writes pages in any order: the place of the oldest record that the head knows was overwritten since."""
    with publisher_on(path) as publisher:
        publish_all(publisher, range(20))
        head = read(path, 0, RING)
        publish_all(publisher, range(20, 1200))
        numbers = held(publisher)
        shutil.copy(path, tmp_path / "copy")
    assert numbers.start > 20
    copy = tmp_path / "copy"
    patch(copy, 0, head)
    patch(copy, BOOT, bytes(range(16)))
    with publisher_on(copy) as publisher:
        found = check_held(publisher)
        assert found.stop == 1200
        assert len(found) >= len(numbers)
        assert not publisher.engine.recovery()[2]
        publish_all(publisher, range(1200, 1300))
        assert check_held(publisher).stop == 1300


SYNC_COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
static atomic_int calls;
int zp_test_syncs(void) { return calls; }
int fdatasync(int fd) {
    calls++;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""
SYNC_PROGRAM = """
import ctypes, sys, time
sys.path.insert(0, sys.argv[1])
from journal_rig import LEAST, publish
from zmqpub import Publisher
sync = sys.argv[3] if sys.argv[3] in ("none", "event") else float(sys.argv[3])
syncs = ctypes.CDLL(None).zp_test_syncs
with Publisher(journal_path=sys.argv[2], journal_bytes=LEAST, journal_sync=sync) as publisher:
    before = syncs()
    for n in range(20):
        publish(publisher, n)
    at_once = later = syncs() - before
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < (0.2 if sync in ("none", "event") or later == 0 else 0.6):
        time.sleep(0.02)
        if sync == 0.1 and later == 0:
            quiet_since = time.monotonic()
        if syncs() - before != later:
            later, quiet_since = syncs() - before, time.monotonic()
    print(at_once, later)
"""


@pytest.mark.unsanitized
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs a compiler, and fdatasync")
@pytest.mark.parametrize(
    ("sync", "at_first", "at_last"), [("none", (0, 0), (0, 0)), ("event", (20, 20), (20, 20)), ("0.1", (0, 10), (1, 10))]
)
def test_the_disk_is_waited_for_as_often_as_asked(
    path: Path, tmp_path: Path, sync: str, at_first: tuple[int, int], at_last: tuple[int, int]
) -> None:
    library = tmp_path / "count.so"
    source = tmp_path / "count.c"
    source.write_text(SYNC_COUNTER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    run = subprocess.run(
        [sys.executable, "-c", SYNC_PROGRAM, str(RIG.parent), str(path), sync],
        env={**ENVIRONMENT, "LD_PRELOAD": str(library)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,  # in which it comes to rest, as there is nothing new to sync
    )
    at_once, later = map(int, run.stdout.split())
    assert at_first[0] <= at_once <= at_first[1]
    assert at_last[0] <= later <= at_last[1]


# ---- files that are refused ----


def refused(path: Path, **settings: Any) -> JournalError:
    with pytest.raises(JournalError) as caught:
        publisher_on(path, **settings).close()
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert f"at offset {caught.value.offset}" in str(caught.value)
    return caught.value


def test_every_byte_of_the_head_is_minded(path: Path) -> None:
    fill(path, 5)
    good = read(path, 0, 48)
    for i in range(44):
        patch(path, i, bytes([good[i] ^ 1]))
        error = refused(path)
        assert "move the file away" in str(error), i
        patch(path, i, good[i : i + 1])
    with publisher_on(path) as publisher:
        assert check_held(publisher) == range(5)


def test_another_version(path: Path) -> None:
    fill(path, 5)
    patch(path, 12, struct.pack("<I", 2))
    error = refused(path)
    assert (error.offset, error.expected, error.got) == (12, "version 1", "version 2")


def test_something_else_altogether(path: Path) -> None:
    path.write_bytes(b"%PDF-1.7\n" * 1000)
    assert refused(path).got == "%PDF-1.7"
    assert path.read_bytes() == b"%PDF-1.7\n" * 1000


@pytest.mark.parametrize("size", [1, 47, 48, 1000, 65536, RING, RING + 4096])
def test_a_file_cut_short(path: Path, size: int) -> None:
    fill(path, 5)
    os.truncate(path, size)
    error = refused(path)
    assert "move the file away" in str(error)


@pytest.mark.parametrize(("offset", "size", "what"), [(TAILS, 96, "oldest record"), (EPOCHS, 131072, "epochs")])
def test_the_rest_of_what_stands_before_the_ring(path: Path, offset: int, size: int, what: str) -> None:
    fill(path, 5)
    patch(path, offset, random.Random(1).randbytes(size))
    assert what in refused(path).expected


@pytest.mark.parametrize("copy", [0, 1])
def test_one_of_two_copies_is_enough(path: Path, address: str, copy: int) -> None:
    """The newer one may have been under way; whether the epoch goes on then depends on what the older one knows."""
    fill(path, 1200, address)
    patch(path, TAILS + 48 * copy, bytes(48))
    with publisher_on(path, address) as publisher:
        assert check_held(publisher).stop == 1200


def test_a_record_damaged_in_the_middle(path: Path) -> None:
    fill(path, 50)
    offset, _length, event = records(path)[20]
    patch(path, offset + RECORD + 3, b"\0\0\0\0\0\0")
    error = refused(path)
    assert error.offset == offset
    assert error.expected == f"the record of event {event}, of 50"


def test_damage_while_it_is_open_is_not_replayed(path: Path) -> None:
    with publisher_on(path) as publisher:
        publish_all(publisher, range(50))
        offset, _length, event = records(path)[20]
        patch(path, offset + RECORD + 3, b"\0\0\0\0\0\0")
        assert _event_of_history(publisher.engine, event) == "damaged"
        assert _event_of_history(publisher.engine, event + 2)[:3] == event_of(event + 2)


@pytest.mark.parametrize("asked", [2 * LEAST, LEAST + 1])
def test_another_size(path: Path, asked: int) -> None:
    fill(path, 5)
    error = refused(path, journal_bytes=asked)
    assert (error.expected, error.got) == (f"journal_bytes={LEAST}, with which the file was made", f"journal_bytes={asked}")
    assert error.hint.startswith("set that, or move the file away")


def test_no_file_can_be_there(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(tmp_path / "nowhere" / "journal").got
    assert "Is a directory" in refused(tmp_path).got
    os.mkfifo(tmp_path / "fifo")
    assert refused(tmp_path / "fifo").expected == "a regular file"


LIMITED = """
import resource, sys
from zmqpub import JournalError, Publisher
resource.setrlimit(resource.RLIMIT_FSIZE, (500000, 500000))
try:
    Publisher(journal_path=sys.argv[1], journal_bytes=1048576)
except JournalError as error:
    print(error)
"""


def test_no_room(path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LIMITED, str(path)], env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert "expected room for 1048576 bytes, got File too large" in run.stdout
    assert "make room, or set a smaller journal_bytes" in run.stdout
    assert path.stat().st_size == 0, "and what was taken was given back"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 500000
    fill(path, 5)


def test_nothing_is_bound_when_the_journal_is_refused(path: Path, address: str) -> None:
    path.write_bytes(b"something")
    refused(path)
    with pytest.raises(JournalError):
        publisher_on(path, address)
    with Publisher(everything(address)):
        pass


# ---- one publisher at a time ----


def test_two_publishers_on_one_file(path: Path, address: str) -> None:
    with publisher_on(path):
        error = refused(path)
        assert error.got == "one that another publisher has open"
    fill(path, 1)
    with publishing_process(path, address, 1) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        assert refused(path).hint == "close that one, or give this one a file of its own"
    with publisher_on(path) as publisher:
        assert held(publisher) == range(1)


FORKING = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from journal_rig import LEAST, publish
from zmqpub import ForkedError, Publisher
publisher = Publisher(journal_path=sys.argv[2], journal_bytes=LEAST)
publish(publisher, 0)
child = os.fork()
if child == 0:
    try:
        publish(publisher, 1)
    except ForkedError:
        del publisher
        print("child", os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
publish(publisher, 1)
time.sleep(60)
"""


def test_a_forked_child_neither_writes_nor_holds_the_lock(path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(RIG.parent), str(path)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    child = None
    try:
        assert parent.stdout is not None
        name, number = parent.stdout.readline().split()
        assert name == "child"
        child = int(number)
        wait_for(lambda: committed(path) == 2)
        parent.kill()
        parent.wait()
        with publisher_on(path) as publisher:
            assert check_held(publisher) == range(2)
        os.kill(child, 0)
    finally:
        if child is not None:
            os.kill(child, signal.SIGKILL)
        parent.kill()
        parent.communicate()


# ---- the checksum ----


def test_crc32c_check_values() -> None:
    """RFC 3720, appendix B.4."""
    assert _crc32c(b"123456789") == 0xE3069283
    assert _crc32c(bytes(32)) == 0x8A9136AA
    assert _crc32c(b"\xff" * 32) == 0x62A8AB43
    assert _crc32c(bytes(range(32))) == 0x46DD794E


@given(st.integers(0, 40_000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 40_000))
def test_crc32c_is_one_function_however_it_is_made(size: int, start: int, seed: int, cut: int) -> None:
    data = random.Random(seed).randbytes(size)
    whole = _crc32c(data, start)
    assert whole == _crc32c(data, start, portable=True)
    assert whole == _crc32c(data[cut:], _crc32c(data[:cut], start))


# ---- the command line ----


def test_the_command_line_keeps_a_journal(path: Path) -> None:
    options = [
        f"--zmqpubsequence=tcp://127.0.0.1:{free_port()}",
        "--blocks=3",
        "--flat-out",
        f"--journal-path={path}",
        "--journal-bytes=16M",
    ]
    for extra in ([], ["--seed=7", "--journal-sync=0.5", "--journal-restart=new_epoch"]):
        with Program("run", *options, *extra) as program:
            assert program.end() == 0
            assert program.errors == []
    with Publisher(journal_path=str(path), journal_bytes=16 * LEAST) as publisher:
        first, second = _describe_history(publisher.engine)
        assert (first[2], second[2]) == (False, True)
        assert first[3] < first[4] == second[3] < second[4]
    with Program("run", *options, "--journal-sync=often") as program:
        assert program.end() == 2
        assert any("expected 'none', 'event' or seconds" in line for line in program.errors)
    patch(path, 0, b"x")
    with Program("run", *options) as program:
        assert program.end() == 10
        assert any(str(path) in line and "move the file away" in line for line in program.errors)


# ---- memory ----

MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
from synthetic import block
from zmqpub import Publisher
from zmqpub._fast import _describe_history, _event_of_history

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

blocks = [block(n, 100, size=10000) for n in range(10)]
before = resident()
for life in range(2):
    with Publisher(journal_path=sys.argv[2], journal_bytes=128 << 20) as publisher:
        for n in range(300 if life == 0 else 0):
            publisher.block_connected(blocks[n % 10])
        first, end = _describe_history(publisher.engine)[-1][3:5]
        for n in range(first, end):
            assert not isinstance(_event_of_history(publisher.engine, n), str)
        assert end - first > 100
        print(resident() - before)
"""


@pytest.mark.unsanitized
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_large_file_takes_no_memory_of_the_process(path: Path) -> None:
    """128 MiB written around, read whole, recovered and read again."""
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(RIG.parent), str(path)], env=ENVIRONMENT, check=True, capture_output=True, text=True
    )
    assert max(map(float, run.stdout.split())) < 50
