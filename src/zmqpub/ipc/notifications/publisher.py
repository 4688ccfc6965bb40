"""SpawnedPublisher: a publisher that lives in a process of its own, and in another one when that has died."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zmqpub._fast import Block, Transaction
from zmqpub.config import OnFull
from zmqpub.errors import ClosedError, ConfigError, ConfigProblem, ForkedError, IpcError, IpcTimeoutError
from zmqpub.ipc.loop import LoopThread
from zmqpub.ipc.notifications.backlog import Backlog
from zmqpub.ipc.notifications.codec import Kind, PublisherOptions, PublisherState, check_options, unpack_stats
from zmqpub.ipc.notifications.feeder import Feeder
from zmqpub.ipc.process import Process, UnixProcess, find_program
from zmqpub.publisher import ActiveNotifier
from zmqpub.replay.snapshot import SnapshotSource
from zmqpub.settings import Settings
from zmqpub.stats import Stats
from zmqpub.wire import Topic

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["LinkStats", "SpawnedPublisher"]

_log = logging.getLogger("zmqpub")

_UNSET: Any = object()
_CLOSE_PATIENCE: Final = 10.0
"""Seconds that the child has to take what it has not acknowledged yet, when the publisher is closed."""

_open: weakref.WeakSet[SpawnedPublisher] = weakref.WeakSet()


class LinkStats(NamedTuple):
    """What is between this process and the publisher's."""

    process_id: int | None
    """None between the end of a process and the next one."""
    restarts: int
    """Processes after the first one."""
    handed_over: int
    """Events, by calls that have returned."""
    acknowledged: int
    """Of these, in the journal of the publisher's process, or refused by it."""
    unacknowledged: int
    """Of these, held here."""
    unacknowledged_bytes: int
    dropped: int
    """Of these, dropped here, as the bound was reached (on_full="drop")."""
    refused: int
    """By the publisher's process: flush() has raised why."""


class SpawnedPublisher:
    """Publishes as zmqpub.Publisher does, out of a process of its own that this one spawns: a crash of either takes nothing with it.

    ``options`` and ``settings`` are those of zmqpub.Publisher; relative paths in them begin in the present directory. Events that the
    other process has not acknowledged are held here, up to ``unacknowledged_bytes``; at that bound ``on_full`` decides, here as
    there. When that process dies another one is spawned, with the same addresses, and gets them again. With a ``journal_path``
    none is lost and none doubled, and the counters go on; without one a new epoch begins.

    ``program``: the script ``zmqpub``, by default that beside the Python interpreter, or on PATH. ``start_timeout``: seconds that it has
    to begin. ``takeover``: seconds that are waited for addresses or a journal file that are in use, as the child of a
    process before this one may be about to end. ``window_bytes``: what may be under way at once, and the size of the memory that both
    processes share for large bodies, unless ``shared_memory`` is False.

    Raises ConfigError with everything that is wrong, BindError and JournalError as Publisher does, and an IpcError when the program
    cannot be started. Any thread may call any method, but not one that has an event loop to keep running: calls may wait.
    """

    def __init__(
        self,
        options: Mapping[str, object] | None = None,
        /,
        *,
        program: str | os.PathLike[str] | None = None,
        process: Process | None = None,
        unacknowledged_bytes: int = 64 * 1024 * 1024,
        window_bytes: int = 16 * 1024 * 1024,
        shared_memory: bool = True,
        start_timeout: float = 30.0,
        takeover: float = 5.0,
        **settings: Any,
    ) -> None:
        _check_own(unacknowledged_bytes=unacknowledged_bytes, window_bytes=window_bytes)
        given = dict(options or {})
        check_options(given, settings)
        name = str(find_program("zmqpub")) if program is None else os.fspath(program)
        self._closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread = LoopThread.shared()
        self.on_full: OnFull = settings.get("on_full", "wait")
        self._linger: float | None = settings.get("linger", Settings().linger)
        began = threading.Event()
        outcome: list[Exception | None] = []
        feeder_of: list[Feeder] = []

        def started(error: Exception | None) -> None:
            outcome.append(error)
            began.set()

        thread = self._thread  # not self, which nothing but its owner keeps alive
        self._backlog = Backlog(unacknowledged_bytes, self.on_full == "drop", lambda: thread.post(feeder_of[0].wake))
        self._feeder = Feeder(
            process if process is not None else UnixProcess(),
            name,
            PublisherOptions(given, settings, str(Path.cwd())),
            self._backlog,
            window=min(window_bytes, unacknowledged_bytes),
            use_lane=shared_memory,
            start_timeout=start_timeout,
            takeover=takeover,
            started=started,
        )
        feeder_of.append(self._feeder)
        _register_exit()
        self._thread.start_task(self._feeder.run)
        try:
            _wait(began, start_timeout + takeover + 60.0)
        except BaseException:
            self._abandon()
            raise
        if outcome[0] is not None:
            self._abandon()
            raise outcome[0]
        _open.add(self)

    # ---- events ----

    def transaction_added_to_mempool(self, tx: Transaction | Buffer, mempool_sequence: int) -> None:
        """As Publisher.transaction_added_to_mempool; returns when the event is held here."""
        self._check()
        self._backlog.add(Kind.TRANSACTION_ADDED, _transaction(tx), _sequence(mempool_sequence))

    def transaction_removed_from_mempool(self, tx: Transaction | Buffer, mempool_sequence: int) -> None:
        """As Publisher.transaction_removed_from_mempool."""
        self._check()
        body = tx if isinstance(tx, bytes) and len(tx) == 32 else _transaction(tx)
        self._backlog.add(Kind.TRANSACTION_REMOVED, body, _sequence(mempool_sequence))

    def block_connected(self, block: Block | Buffer) -> None:
        """As Publisher.block_connected."""
        self._check()
        self._backlog.add(Kind.BLOCK_CONNECTED, _block(block))

    def block_disconnected(self, block: Block | Buffer) -> None:
        """As Publisher.block_disconnected."""
        self._check()
        self._backlog.add(Kind.BLOCK_DISCONNECTED, _block(block))

    def updated_block_tip(self, block: Block | Buffer, initial_download: bool = False) -> None:
        """As Publisher.updated_block_tip."""
        self._check()
        if not initial_download:
            self._backlog.add(Kind.TIP, _block(block))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was handed over so far is with libzmq; False when ``timeout`` (seconds) was not enough.

        A process that dies meanwhile is waited for, too. Raises why an event was refused, if one was since the last flush:
        what Publisher's method would have raised at once.
        """
        self._check()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if not self._backlog.wait_taken(_left(deadline)):
                return False
            self._raise_refusal()
            try:
                return bool(self._thread.call(self._feeder.flush, _left(deadline)))
            except IpcTimeoutError:
                return False
            except IpcError:
                if deadline is not None and time.monotonic() >= deadline:
                    return False

    # ---- notifiers ----

    @property
    def epoch(self) -> bytes:
        """Of the process that runs, or ran last: see Publisher.epoch. Without a journal file another one for each."""
        return self._state().epoch

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._closed

    @property
    def replay_address(self) -> str | None:
        """As Publisher.replay_address."""
        return self._state().replay_address

    def active_notifiers(self) -> list[ActiveNotifier]:
        """As Publisher.active_notifiers; ports that were left to the system stay for all processes to come."""
        self._check()
        return list(self._feeder.link.notifiers)

    def add_notifier(self, topic: Topic | str, address: str, hwm: int = 1000) -> ActiveNotifier:
        """As Publisher.add_notifier, from the next event of this thread on. Raises an IpcError when the process dies meanwhile."""
        self._check()
        self._backlog.wait_taken(None)
        notifier: ActiveNotifier = self._thread.call(self._feeder.add_notifier, str(topic), address, hwm)
        return notifier

    def remove_notifier(self, topic: Topic | str, address: str) -> None:
        """As Publisher.remove_notifier, after the last event of this thread. Raises an IpcError when the process dies meanwhile."""
        self._check()
        self._backlog.wait_taken(None)
        self._thread.call(self._feeder.remove_notifier, str(topic), address)

    def set_snapshot(self, source: SnapshotSource | None) -> None:
        """As Publisher.set_snapshot: ``source`` is called in this process, on a thread of its own."""
        self._check()
        self._thread.call(self._feeder.set_snapshot, source)

    # ---- what is going on ----

    def stats(self) -> Stats:
        """The publisher's, as Publisher.stats; waits for a process that is about to begin."""
        self._check()
        return unpack_stats(self._thread.call(self._feeder.stats))

    def link_stats(self) -> LinkStats:
        """Of what is between the two processes. Never waits; after close() as of then."""
        link, backlog = self._feeder.link, self._backlog
        held, size = backlog.held
        return LinkStats(
            link.process_id, link.restarts, backlog.handed_over, backlog.acknowledged, held, size, backlog.dropped, link.refused
        )

    # ---- the end ----

    def close(self, linger: float | None = _UNSET) -> None:
        """Hand over what is held, close the publisher, and wait for the end of its process; a second call does nothing.

        ``linger``: as of Publisher.close. What the process does not take within 10 s is given up, with a warning.
        """
        if os.getpid() != self._pid:
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _open.discard(self)
        self._backlog.refuse("the publisher was closed")
        try:
            taken = self._backlog.wait_taken(_CLOSE_PATIENCE)
            if taken:
                seconds = self._linger if linger is _UNSET else linger
                self._thread.call(self._feeder.close, seconds, linger is _UNSET)
        except (IpcError, ClosedError):  # it is gone already
            taken = self._backlog.is_empty()
        finally:
            self._abandon()
        if not taken:
            _log.warning("closed, and %d events were not acknowledged by the publisher's process", self._backlog.held[0])

    def __enter__(self) -> SpawnedPublisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or not hasattr(self, "_feeder") or os.getpid() != self._pid:
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
        self._thread.post(self._feeder.stop, True)

    def __repr__(self) -> str:
        link = self._feeder.link
        state = "closed" if self._closed else ", ".join(dict.fromkeys(one.address for one in link.notifiers)) or "no address"
        return f"<SpawnedPublisher {state}>"

    # ---- inside ----

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError("this publisher belongs to the parent process; a forked child makes its own")
        if self._closed:
            raise ClosedError("the publisher was closed")

    def _state(self) -> PublisherState:
        state = self._feeder.link.state
        assert state is not None, "a publisher begins with one"
        return state

    def _raise_refusal(self) -> None:
        link = self._feeder.link
        refusal, link.last_refusal = link.last_refusal, None
        if refusal is not None:
            raise refusal

    def _abandon(self) -> None:
        """End the process, and wait for that."""
        self._closed = True
        if self._thread.post(self._feeder.stop, False):
            with contextlib.suppress(ClosedError):  # the interpreter is about to exit
                self._thread.call(self._feeder.finished)


def _transaction(tx: Transaction | Buffer) -> Transaction:
    return tx if isinstance(tx, Transaction) else Transaction(tx)


def _block(block: Block | Buffer) -> Block:
    return block if isinstance(block, Block) else Block(block)


def _sequence(number: int) -> int:
    if not 0 <= number < 2**64:
        raise OverflowError(f"a mempool sequence has 64 bits, and {number} does not fit")
    return number


def _check_own(**bounds: int) -> None:
    problems = [
        ConfigProblem(name, repr(value), "expected a number of bytes, at least 65536")
        for name, value in bounds.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 65536
    ]
    if problems:
        raise ConfigError(*problems)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _wait(event: threading.Event, timeout: float) -> None:
    """As event.wait(), but a signal's exception ends it at once on every system."""
    deadline = time.monotonic() + timeout
    while not event.wait(0.2):
        if time.monotonic() > deadline:
            raise IpcTimeoutError("zmqpub", "PublisherInit", "makeNotifications", f"not begun within {timeout:g} s")


_registered = False


def _register_exit() -> None:
    """After the IPC thread has: what is registered last is called first, and this needs that thread."""
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_close_all)


def _close_all() -> None:
    for publisher in list(_open):
        publisher.close()
