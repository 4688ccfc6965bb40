"""From a source to a publisher at the right pace."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from zmqpub import Block, Transaction
from zmqpub.sources.events import (
    BlockConnected,
    BlockDisconnected,
    Event,
    TransactionAdded,
    TransactionRemoved,
    UpdatedBlockTip,
)
from zmqpub.sources.pace import pump
from zmqpub.sources.regtest.consensus import genesis

BLOCK = genesis()
TRANSACTION = BLOCK[0]


class Clock(threading.Event):
    """Time that passes only where somebody waits, on any machine the same; `pump` waits for its stop event."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now = 1000.0
        monkeypatch.setattr("zmqpub.sources.pace.monotonic", lambda: self.now)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now += timeout
        return self.is_set()


class Recorder:
    """An EventSink that writes down each call and when it came."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.times: list[float] = []
        self.clock = clock
        self.start = clock()

    def note(self, *call: object) -> None:
        self.calls.append(call)
        self.times.append(self.clock() - self.start)

    def transaction_added_to_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None:
        self.note("added", tx, mempool_sequence)

    def transaction_removed_from_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None:
        self.note("removed", tx, mempool_sequence)

    def block_connected(self, block: Block, /) -> None:
        self.note("connected", block)

    def block_disconnected(self, block: Block, /) -> None:
        self.note("disconnected", block)

    def updated_block_tip(self, block: Block, /, initial_download: bool = False) -> None:
        self.note("tip", block, initial_download)


class Listed:
    def __init__(self, *events: Event) -> None:
        self.events = events
        self.closed = False

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def close(self) -> None:
        self.closed = True

    def describe(self) -> str:
        return "a list"


def arrivals(*dues: float) -> Listed:
    return Listed(*(TransactionAdded(due, TRANSACTION, number) for number, due in enumerate(dues)))


def test_each_event_reaches_its_method() -> None:
    source = Listed(
        TransactionAdded(0.0, TRANSACTION, 7),
        TransactionRemoved(0.0, TRANSACTION, 8, "replaced"),
        BlockDisconnected(0.0, BLOCK, 5),
        BlockConnected(0.0, BLOCK, 5),
        UpdatedBlockTip(0.0, BLOCK, 5),
        UpdatedBlockTip(0.0, BLOCK, 5, True),
    )
    recorder = Recorder()
    seen: list[tuple[Event, int]] = []
    count = pump(source, recorder, stop=threading.Event(), on_event=lambda event: seen.append((event, len(recorder.calls))))
    assert count == 6
    assert recorder.calls == [
        ("added", TRANSACTION, 7),
        ("removed", TRANSACTION, 8),
        ("disconnected", BLOCK),
        ("connected", BLOCK),
        ("tip", BLOCK, False),
        ("tip", BLOCK, True),
    ]
    assert seen == [(event, place + 1) for place, event in enumerate(source.events)]  # each after it was handed over
    assert not source.closed


@pytest.mark.parametrize("speed", [1.0, 4.0, 0.5])
def test_events_come_when_they_are_due(speed: float) -> None:
    dues = [0.0, 0.1 * speed, 0.1 * speed, 0.25 * speed]
    recorder = Recorder()
    assert pump(arrivals(*dues), recorder, speed=speed, stop=threading.Event()) == 4
    for due, came in zip(dues, recorder.times, strict=True):
        assert due / speed <= came < due / speed + 2.0


@pytest.mark.parametrize("speed", [1.0, 4.0, 0.5])
def test_they_come_exactly_then(speed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    recorder = Recorder(lambda: clock.now)
    dues = [0.0, 0.1, 0.1, 0.25, 40.0]
    assert pump(arrivals(*dues), recorder, speed=speed, stop=clock) == 5
    assert recorder.times == pytest.approx([due / speed for due in dues])


def test_delays_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is late hands over at once until the time is caught up with, and then waits again."""
    clock = Clock(monkeypatch)
    recorder = Recorder(lambda: clock.now)
    dues = [0.0, 0.02, 0.04, 0.06, 0.4]

    def dawdle(event: Event) -> None:
        if event.due == 0.0:
            clock.now += 0.2

    pump(arrivals(*dues), recorder, stop=clock, on_event=dawdle)
    assert recorder.times == pytest.approx([0.0, 0.2, 0.2, 0.2, 0.4])


def test_flat_out_waits_for_nothing() -> None:
    recorder = Recorder()
    assert pump(arrivals(0.0, 1e6, 1e9), recorder, speed=math.inf, stop=threading.Event()) == 3
    assert recorder.times[-1] < 20


def test_stop_ends_a_wait() -> None:
    stop = threading.Event()
    recorder = Recorder()
    threading.Timer(0.1, stop.set).start()
    assert pump(arrivals(0.0, 1e12), recorder, stop=stop) == 1  # longer than the longest wait of the platform
    assert time.monotonic() - recorder.start < 20


@pytest.mark.parametrize("speed", [1.0, math.inf])
def test_stop_ends_between_events(speed: float) -> None:
    stop = threading.Event()
    recorder = Recorder()
    count = pump(
        arrivals(*[0.0] * 10),
        recorder,
        speed=speed,
        stop=stop,
        on_event=lambda _: stop.set() if len(recorder.calls) == 3 else None,
    )
    assert count == len(recorder.calls) == 3


def test_nothing_is_handed_over_after_a_stop_before_the_first() -> None:
    stop = threading.Event()
    stop.set()
    recorder = Recorder()
    assert pump(arrivals(0.0), recorder, stop=stop) == 0
    assert recorder.calls == []


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_speeds_that_make_no_sense(speed: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        pump(arrivals(0.0), Recorder(), speed=speed, stop=threading.Event())


def test_what_the_publisher_raises_passes_through() -> None:
    class Broken(Recorder):
        def block_connected(self, block: Block, /) -> None:
            raise LookupError("no more")

    source = Listed(TransactionAdded(0.0, TRANSACTION, 1), BlockConnected(0.0, BLOCK, 1))
    with pytest.raises(LookupError, match="no more"):
        pump(source, Broken(), speed=math.inf, stop=threading.Event())
    assert not source.closed
