"""Snapshots over the replay endpoint: who is asked, how often, and what comes of a source that fails."""

from __future__ import annotations

import logging
import signal
import threading
import time

import pytest
from listening import ANY_PORT, wait_for
from programs import Program
from replaying import REPLAY, client

from zmqpub import ClosedError, Publisher, SequenceBody, Snapshot
from zmqpub.replay.protocol import HelloRequest, RangeRequest, RangeStart, SnapshotRequest, Status, pack_request, unpack_answer

TXIDS = tuple(bytes([number]) * 32 for number in range(5))


def test_without_a_source_there_is_none() -> None:
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        assert ask.refused(SnapshotRequest()).status == Status.NO_SNAPSHOT


def test_a_snapshot_is_what_the_source_says() -> None:
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        publisher.set_snapshot(lambda: Snapshot(b"t" * 32, 800_000, iter(TXIDS), 77))
        answer = ask.snapshot()
        assert answer.epoch == publisher.epoch
        assert (answer.tip, answer.height, answer.txids, answer.mempool_sequence) == (b"t" * 32, 800_000, TXIDS, 77)
        publisher.set_snapshot(lambda: Snapshot())
        answer = ask.snapshot()
        assert (answer.tip, answer.height, answer.txids, answer.mempool_sequence) == (None, None, None, None)
        publisher.set_snapshot(None)
        assert ask.refused(SnapshotRequest()).status == Status.NO_SNAPSHOT


def test_a_large_mempool_fits() -> None:
    txids = tuple(number.to_bytes(32, "big") for number in range(300_000))
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        publisher.set_snapshot(lambda: Snapshot(None, None, txids, 300_001))
        assert ask.snapshot().txids == txids


@pytest.mark.parametrize(
    "bad",
    [
        lambda: 1 / 0,
        lambda: None,
        lambda: Snapshot(b"short"),
        lambda: Snapshot(txids=TXIDS),
        lambda: Snapshot(txids=(b"x",), mempool_sequence=1),
        lambda: Snapshot(height=-5),
    ],
)
def test_a_source_that_fails_is_logged_and_told(bad: object, caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(REPLAY) as publisher, client(publisher) as ask, caplog.at_level(logging.ERROR, "zmqpub"):
        publisher.set_snapshot(bad)  # type: ignore[arg-type]
        assert ask.refused(SnapshotRequest()).status == Status.NO_SNAPSHOT
        assert "could not be had" in caplog.text
        publisher.set_snapshot(lambda: Snapshot(b"t" * 32))
        assert ask.snapshot().tip == b"t" * 32


def test_one_call_serves_all_who_wait_and_none_gets_a_state_from_before_it_asked() -> None:
    calls = 0
    begun, go_on = threading.Event(), threading.Event()

    def source() -> Snapshot:
        nonlocal calls
        calls += 1
        begun.set()
        go_on.wait(10)
        return Snapshot(height=calls)

    with Publisher(REPLAY) as publisher, client(publisher) as first, client(publisher) as second, client(publisher) as third:
        publisher.set_snapshot(source)
        for ask in (first, second, third):
            ask.hello()
        first.send(pack_request(SnapshotRequest(1)))
        assert begun.wait(10)
        for ask in (second, third):
            ask.send(pack_request(SnapshotRequest(2)))
        time.sleep(0.1)
        # Meanwhile the endpoint serves everything else.
        with client(publisher) as fourth:
            assert fourth.hello()
        go_on.set()
        heights = [unpack_answer(header, [body]).height for header, body in (ask.receive() for ask in (first, second, third))]  # type: ignore[union-attr]
        assert heights[0] in (1, 2)  # the second call may have ended before the first one's outcome was sent
        assert heights[1:] == [2, 2]
        assert calls == 2


def test_a_source_that_never_returns_holds_up_nobody() -> None:
    stuck = threading.Event()
    publisher = Publisher(REPLAY | {"zmqpubhashtx": ANY_PORT})
    with client(publisher) as waiting, client(publisher) as ask:
        publisher.set_snapshot(lambda: Snapshot(height=stuck.wait(20)))
        waiting.send(pack_request(SnapshotRequest()))
        (info,) = ask.current().notifiers
        ask.range(publisher.epoch, [(info.id, 0)])
        began = time.monotonic()
        publisher.close()
        assert time.monotonic() - began < 5
    stuck.set()


def test_no_more_than_so_many_wait() -> None:
    stuck = threading.Event()
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        publisher.set_snapshot(lambda: Snapshot(height=stuck.wait(20)))
        for number in range(260):
            ask.send(pack_request(SnapshotRequest(number)))
        answer = unpack_answer(*_split(ask.receive()))
        assert (answer.status, answer.request_id) == (Status.BUSY, 256)  # type: ignore[union-attr]
        stuck.set()


def _split(frames: list[bytes]) -> tuple[bytes, list[bytes]]:
    return frames[0], frames[1:]


def test_it_belongs_to_an_open_publisher() -> None:
    publisher = Publisher(REPLAY)
    publisher.close()
    with pytest.raises(ClosedError):
        publisher.set_snapshot(lambda: Snapshot())
    with Publisher({"zmqpubhashtx": ANY_PORT}) as plain:
        plain.set_snapshot(lambda: Snapshot())  # nobody can ask


def test_threads_end_with_the_publisher() -> None:
    before = set(threading.enumerate())
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        publisher.set_snapshot(lambda: Snapshot())
        ask.snapshot()
        ask.ask(HelloRequest())
        ask.refused(RangeRequest(bytes(16), (RangeStart(0, 0),)))
    wait_for(lambda: set(threading.enumerate()) <= before)


def test_a_publisher_that_stands_alone_offers_what_it_told() -> None:
    with Program("run", "-zmqpubsequence=tcp://127.0.0.1:*", "-zmqpubreplay=tcp://127.0.0.1:*", "--speed=20") as program:
        with client(str(program.line(r"^bound replay (\S+)")[1])) as ask:
            (info,) = ask.current().notifiers
            wait_for(lambda: (now := ask.snapshot()).tip and now.txids, 20)
            snapshot = ask.snapshot()
            assert snapshot.txids is not None
            assert snapshot.mempool_sequence is not None
            told = [SequenceBody.decode(body) for _, body, _ in ask.everything(snapshot.epoch, [(info.id, 0)])]
        assert snapshot.tip in {one.hash for one in told if one.label == "C"}
        added = {one.hash for one in told if one.label == "A" and (one.mempool_sequence or 0) < snapshot.mempool_sequence}
        assert added >= set(snapshot.txids)
        assert program.end(signal.SIGINT) == 0
