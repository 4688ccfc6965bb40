"""SpawnedPublisher: the methods of Publisher, through a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ipc_story import ANY_PORT, TOPICS, Listener, hand_over, messages, story
from synthetic import block, transaction

pytest.importorskip("capnp", reason="zmqpub[ipc] is not installed")

import zmqpub
from zmqpub import BindError, ClosedError, ConfigError, DecodeError, JournalError
from zmqpub.errors import IpcConnectError, IpcError
from zmqpub.ipc.notifications import SpawnedPublisher
from zmqpub.ipc.process import UnixProcess

PATIENCE = 60.0
EVERYTHING: dict[str, object] = {**{f"zmqpub{topic}": ANY_PORT for topic in TOPICS}, "zmqpubreplay": ANY_PORT}


@contextlib.contextmanager
def listening(publisher: SpawnedPublisher) -> Iterator[Listener]:
    listener = Listener(publisher.active_notifiers()[0].address, publisher.replay_address)
    try:
        while publisher.replay_address is None and not all(notifier.wanted for notifier in publisher.stats().notifiers):
            time.sleep(0.01)  # what comes before its subscriptions cannot be asked for
        yield listener
    finally:
        listener.close()


def child_of(publisher: SpawnedPublisher) -> int:
    pid = publisher.link_stats().process_id
    assert pid is not None
    return pid


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("shared_memory", [True, False])
def test_everything_arrives_as_from_a_publisher(shared_memory: bool) -> None:
    events = story(21, 400)
    with SpawnedPublisher(EVERYTHING, shared_memory=shared_memory) as publisher:
        with listening(publisher) as listener:
            for event in events:
                hand_over(publisher, event)
            assert publisher.flush(PATIENCE)
            listener.until(messages(events))
        stats, link = publisher.stats(), publisher.link_stats()
        assert stats.journal.appended == link.acknowledged == link.handed_over == 400
        assert stats.replay is not None
        assert stats.replay.address == publisher.replay_address
        assert {notifier.topic for notifier in stats.notifiers} == set(zmqpub.Topic)
        pid = child_of(publisher)
    assert publisher.closed
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_large_block_goes_through_a_small_window_and_without_a_copy_of_the_tip() -> None:
    big = block(1, 40, size=20_000)
    with SpawnedPublisher(EVERYTHING, window_bytes=65536) as publisher, listening(publisher) as listener:
        for _ in range(3):
            publisher.block_connected(bytearray(big))
            publisher.updated_block_tip(memoryview(bytes(big)))
        assert publisher.flush(PATIENCE)
        wanted = [("rawblock", number, bytes(big)) for number in range(3)]
        listener.until({"rawblock": wanted})
        assert publisher.stats().journal.retained_bytes < 4 * len(bytes(big))


def test_all_problems_of_bad_options_are_told_in_the_parent(tmp_path: Path) -> None:
    options = {"zmqpubrawblok": ANY_PORT, "zmqpubrawtx": "tcp://nowhere", "zmqpubrawtxhwm": -1}
    with pytest.raises(ConfigError) as spawned:
        SpawnedPublisher(options, on_full="maybe", stall_timeout=-1.0, journal_bites=3, program=program())
    with pytest.raises(ConfigError) as in_process:
        zmqpub.Publisher(options, on_full="maybe", stall_timeout=-1.0, journal_bites=3)
    assert {problem.option for problem in spawned.value.problems} == {problem.option for problem in in_process.value.problems}
    assert set(spawned.value.problems) == set(in_process.value.problems)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"zmqpubrawtx": b"tcp://127.0.0.1:1"}, {}),
        ({3: "tcp"}, {}),
        ({}, {"linger": [1]}),
        ({"zmqpubrawtxhwm": 1.5}, {"io_threads": ()}),
        ({}, {"journal_bytes": 2**63}),
        ({}, {"journal_path": "/nowhere/\udcff"}),
        ({"zmqpubrawtx": ["tcp://127.0.0.1:1", "ipc:///nowhere/\udcff"]}, {}),
    ],
)
def test_options_that_the_schema_cannot_say_are_refused_before_anything_starts(options: Any, settings: Any) -> None:
    with pytest.raises(ConfigError) as error:
        SpawnedPublisher(options, program="/nonexistent/zmqpub", **settings)
    assert error.value.problems


def test_own_bounds_are_checked() -> None:
    with pytest.raises(ConfigError, match="unacknowledged_bytes=5: expected"):
        SpawnedPublisher({}, unacknowledged_bytes=5)


def test_an_address_in_use_is_a_bind_error_that_leaves_no_process() -> None:
    with zmqpub.Publisher({"zmqpubrawtx": ANY_PORT}) as other:
        address = other.active_notifiers()[0].address
        with pytest.raises(BindError) as error:
            SpawnedPublisher({"zmqpubrawtx": address}, takeover=0.0)
    assert (error.value.option, error.value.address) == ("zmqpubrawtx", address)


def test_an_address_that_becomes_free_is_taken_over() -> None:
    other = zmqpub.Publisher({"zmqpubrawtx": ANY_PORT})
    address = other.active_notifiers()[0].address
    timer = threading.Timer(0.7, other.close)
    timer.start()
    try:
        with SpawnedPublisher({"zmqpubrawtx": address}, takeover=PATIENCE) as publisher:
            assert publisher.active_notifiers()[0].address == address
    finally:
        timer.join()


def test_a_journal_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"no journal" * 1000)
    with pytest.raises(JournalError) as error:
        SpawnedPublisher({"zmqpubrawtx": ANY_PORT}, journal_path=str(path))
    assert error.value.path == str(path)
    assert error.value.expected


def test_a_program_that_is_not_there_or_is_another_one(tmp_path: Path) -> None:
    with pytest.raises(IpcConnectError, match="cannot start it: No such file"):
        SpawnedPublisher({}, program=str(tmp_path / "zmqpub"))
    with pytest.raises(zmqpub.ZmqPubError, match="process has ended"):
        SpawnedPublisher({}, program="/bin/false")


def test_malformed_events_are_refused_at_once() -> None:
    with SpawnedPublisher({"zmqpubrawtx": ANY_PORT}) as publisher:
        with pytest.raises(DecodeError):
            publisher.block_connected(b"\0" * 80)
        with pytest.raises(OverflowError):
            publisher.transaction_added_to_mempool(transaction(1), 2**64)
        assert publisher.link_stats().handed_over == 0


def test_what_the_child_refuses_is_raised_by_flush_and_the_rest_goes_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"journal_path": str(tmp_path / "journal"), "journal_bytes": 1024 * 1024}
    with SpawnedPublisher(EVERYTHING, **settings) as publisher, listening(publisher) as listener:
        publisher.transaction_added_to_mempool(transaction(1), 1)
        publisher.block_connected(block(1, 2, size=400_000))
        publisher.transaction_added_to_mempool(transaction(2), 2)
        with pytest.raises(JournalError, match="at most half the ring"):
            publisher.flush(PATIENCE)
        assert publisher.flush(PATIENCE)
        listener.until({"rawtx": [("rawtx", index, bytes(transaction(index + 1))) for index in range(2)]})
        assert publisher.link_stats().refused == 1


def test_notifiers_come_and_go_and_survive_the_child() -> None:
    with SpawnedPublisher({"zmqpubhashblock": ANY_PORT}) as publisher:
        with pytest.raises(ConfigError, match="no known topic"):
            publisher.add_notifier("rawtxx", ANY_PORT)
        added = publisher.add_notifier("rawtx", ANY_PORT, 77)
        assert (added.type, added.hwm) == ("pubrawtx", 77)
        other = publisher.add_notifier("sequence", ANY_PORT)
        publisher.remove_notifier("hashblock", publisher.active_notifiers()[0].address)
        with pytest.raises(ConfigError, match="no such notifier"):
            publisher.remove_notifier("hashblock", ANY_PORT)
        assert publisher.active_notifiers() == [added, other]
        os.kill(child_of(publisher), signal.SIGKILL)
        publisher.transaction_added_to_mempool(transaction(1), 1)
        assert publisher.flush(PATIENCE)
        assert publisher.active_notifiers() == [added, other]
        assert [(str(one.topic), one.address, one.hwm) for one in publisher.stats().notifiers] == [
            (one.type.removeprefix("pub"), one.address, one.hwm) for one in (added, other)
        ]


def test_a_snapshot_is_made_in_the_parent_for_whoever_asks_the_child() -> None:
    import zmq

    from zmqpub.replay.protocol import SnapshotRequest, pack_request, unpack_answer

    threads = []

    def snapshot() -> zmqpub.Snapshot:
        threads.append((os.getpid(), threading.current_thread().name))
        return zmqpub.Snapshot(bytes(range(32)), 7, [bytes([n]) * 32 for n in range(1, 4)], 99)

    with SpawnedPublisher(EVERYTHING) as publisher, zmq.Context() as context, context.socket(zmq.REQ) as client:
        publisher.set_snapshot(snapshot)
        client.RCVTIMEO = int(PATIENCE * 1000)
        client.connect(publisher.replay_address or "")
        for _ in range(2):
            client.send(pack_request(SnapshotRequest(5)))
            answer: Any = unpack_answer(*split(client.recv_multipart()))
            assert (answer.tip, answer.height, answer.mempool_sequence) == (bytes(range(32)), 7, 99)
            assert [bytes(txid) for txid in answer.txids] == [bytes([n]) * 32 for n in range(1, 4)]
            os.kill(child_of(publisher), signal.SIGKILL)  # the next one knows the source, too
            publisher.transaction_added_to_mempool(transaction(1), 1)
            publisher.flush(PATIENCE)
        client.linger = 0
    assert {pid for pid, _ in threads} == {os.getpid()}
    assert all(name != "zmqpub-ipc" for _, name in threads)


# ---- a child that is stuck ----


def test_while_the_child_is_stuck_the_parent_holds_so_much_and_then_waits() -> None:
    bound = 1024 * 1024
    sent = threading.Event()
    with SpawnedPublisher(EVERYTHING, unacknowledged_bytes=bound) as publisher, listening(publisher) as listener:
        count = 300
        bodies = [transaction(n, size=10_000) for n in range(count)]

        def send() -> None:
            for number, body in enumerate(bodies):
                publisher.transaction_added_to_mempool(body, number)
            sent.set()

        with stopped(child_of(publisher)):
            thread = threading.Thread(target=send)
            thread.start()
            deadline = time.monotonic() + PATIENCE
            while publisher.link_stats().unacknowledged_bytes < bound - 12_000:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert not sent.wait(0.5)
            link = publisher.link_stats()
            assert link.unacknowledged_bytes <= bound
            assert link.handed_over < count
        thread.join(PATIENCE)
        assert sent.is_set()
        assert publisher.flush(PATIENCE)
        listener.until({"rawtx": [("rawtx", number, bytes(body)) for number, body in enumerate(bodies)]})
        assert publisher.link_stats().dropped == 0


def test_with_drop_the_parent_drops_the_oldest_that_waits_and_counts_it() -> None:
    bound = 1024 * 1024
    with SpawnedPublisher(EVERYTHING, unacknowledged_bytes=bound, window_bytes=256 * 1024, on_full="drop") as publisher:
        with listening(publisher) as listener:
            count = 300
            with stopped(child_of(publisher)):
                for number in range(count):
                    publisher.transaction_added_to_mempool(transaction(number, size=10_000), number)
                link = publisher.link_stats()
                assert link.handed_over == count
                assert link.unacknowledged_bytes <= bound
                assert link.dropped == count - link.unacknowledged > 100
            assert publisher.flush(PATIENCE)
            link = publisher.link_stats()
            assert link.acknowledged + link.dropped == count
            wanted = link.acknowledged
            deadline = time.monotonic() + PATIENCE
            while len(listener.got["rawtx"]) < wanted:
                assert time.monotonic() < deadline
                with contextlib.suppress(TimeoutError):
                    listener._note(listener.subscriber.recv_batch(1000, timeout=0.1))
            got = [body for _, _, body in listener.got["rawtx"]]
            bodies = [bytes(transaction(number, size=10_000)) for number in range(count)]
            places = [bodies.index(body) for body in got]
            assert places == sorted(set(places))
            # The newest ones are there, whatever was on its way before.
            newest = bound // 10_000 // 2
            assert places[-newest:] == list(range(count - newest, count))


def test_flush_tells_that_it_was_not_in_time() -> None:
    with SpawnedPublisher(EVERYTHING) as publisher:
        with stopped(child_of(publisher)):
            publisher.transaction_added_to_mempool(transaction(1), 1)
            assert publisher.flush(0.3) is False
        assert publisher.flush(PATIENCE)
        with stopped(child_of(publisher)):  # which has acknowledged everything, and does not answer
            start = time.monotonic()
            assert publisher.flush(0.3) is False
            assert time.monotonic() - start < PATIENCE / 2
        assert publisher.flush(PATIENCE)


# ---- the end ----


def test_after_close_calls_are_refused() -> None:
    publisher = SpawnedPublisher({"zmqpubrawtx": ANY_PORT})
    publisher.close()
    publisher.close()
    for call in (
        lambda: publisher.transaction_added_to_mempool(transaction(1), 1),
        publisher.flush,
        publisher.stats,
        publisher.active_notifiers,
    ):
        with pytest.raises(ClosedError):
            call()
    assert publisher.link_stats().process_id is None


def test_close_hands_over_what_is_held() -> None:
    events = story(22, 300)
    # Without replay: the subscriber would ask for it, in vain, before it hands out what it has.
    publisher = SpawnedPublisher({option: address for option, address in EVERYTHING.items() if option != "zmqpubreplay"})
    with listening(publisher) as listener:
        for event in events:
            hand_over(publisher, event)
        publisher.close(linger=PATIENCE)
        listener.until(messages(events))


@pytest.mark.parametrize("linger", [0.0, None])
def test_close_does_not_wait_for_a_child_that_is_stuck(monkeypatch: pytest.MonkeyPatch, linger: float | None) -> None:
    monkeypatch.setattr("zmqpub.ipc.notifications.feeder._END_PATIENCE", 0.2)
    publisher = SpawnedPublisher({"zmqpubrawtx": ANY_PORT}, linger=linger)
    os.kill(child_of(publisher), signal.SIGSTOP)
    closing = threading.Thread(target=publisher.close, args=() if linger is not None else (0.1,), daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert publisher.link_stats().process_id is None


@pytest.mark.parametrize("stuck", [True, False])
def test_close_ends_the_calls_that_wait_for_a_child(monkeypatch: pytest.MonkeyPatch, stuck: bool) -> None:
    monkeypatch.setattr("zmqpub.ipc.notifications.feeder._END_PATIENCE", 0.2)

    class Once(UnixProcess):
        spawned = 0

        def spawn(self, exe_name: str, argv0: str | os.PathLike[str] | None = None) -> tuple[int, socket.socket]:
            self.spawned += 1
            if self.spawned > 1:
                raise IpcConnectError(exe_name, None, None, "no more")
            return super().spawn(exe_name, argv0)

    def call(method: Callable[[], object]) -> None:
        try:
            method()
        except (ClosedError, IpcError) as error:
            ended.append(error)

    ended: list[Exception] = []
    publisher = SpawnedPublisher({"zmqpubrawtx": ANY_PORT}, process=Once())
    os.kill(child_of(publisher), signal.SIGSTOP if stuck else signal.SIGKILL)
    while not stuck and publisher.link_stats().process_id is not None:
        time.sleep(0.01)
    threads = [threading.Thread(target=call, args=(method,), daemon=True) for method in (publisher.flush, publisher.stats)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    publisher.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(ended) == 2


def test_a_forked_child_has_no_part_in_it() -> None:
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
from zmqpub.errors import ForkedError
from zmqpub.ipc.notifications import SpawnedPublisher
publisher = SpawnedPublisher({"zmqpubrawtx": "tcp://127.0.0.1:*"})
pid = os.fork()
if pid == 0:
    try:
        publisher.flush()
    except ForkedError:
        publisher.close()
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert publisher.flush(30)
print("fine", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")  # closed by the interpreter's exit


def test_one_that_is_forgotten_warns_and_ends_its_process() -> None:
    publisher = SpawnedPublisher({"zmqpubrawtx": ANY_PORT})
    pid = child_of(publisher)
    with pytest.warns(ResourceWarning, match="was never closed"):
        del publisher
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            assert time.monotonic() < deadline
            time.sleep(0.02)


def split(frames: list[bytes]) -> tuple[bytes, list[bytes]]:
    return frames[0], frames[1:]


def program() -> str:
    from zmqpub.ipc.process import find_program

    return str(find_program("zmqpub"))
