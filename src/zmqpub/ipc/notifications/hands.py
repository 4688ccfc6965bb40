"""The child's publisher, and the one thread that everything which has an order goes through. Knows no Cap'n Proto."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from zmqpub._fast import Block, Transaction
from zmqpub.config import PublisherConfig, make_notifier, parse_options, parse_settings
from zmqpub.errors import ClosedError, ConfigError, ConfigProblem, DecodeError, ZmqPubError
from zmqpub.ipc.notifications.codec import Kind, Place, PublisherOptions, PublisherState, ReceivedEvent, Same
from zmqpub.ipc.notifications.lane import LaneReader
from zmqpub.publisher import Publisher
from zmqpub.wire import Topic

__all__ = ["Answer", "Hands"]

_log = logging.getLogger("zmqpub")

_FILE_HEAD: Final = 196_608
_RECORD_HEAD: Final = 80
"""Of a journal file, in bytes; see docs/journal.md."""
_FLUSH_PATIENCE: Final = 30.0
_LAST_LINGER: Final = 10.0
"""Seconds that an orphan's subscribers have to take what is there."""


class Answer(NamedTuple):
    """To a call of publish."""

    journaled: int
    settled: bool
    refused: list[tuple[int, Exception]]


class Hands:
    """Does one thing after the other, in a thread of its own, from start() to finish()."""

    def __init__(self) -> None:
        self.publisher: Publisher | None = None
        self._lane: LaneReader | None = None
        self._block: Block | None = None
        self._skip = 0
        self._largest: int | None = None
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="zmqpub-hands")

    def start(self) -> None:
        self._thread.start()

    def do(self, task: Callable[[], None]) -> None:
        """Call ``task`` after everything that was asked for before. It raises nothing."""
        self._tasks.put(task)

    def finish(self) -> None:
        """Do what was asked for, let the subscribers have it, and end: the parent has gone. Blocks."""
        self._tasks.put(None)
        self._thread.join()

    def abandon(self) -> None:
        """End without finish(), after a failure; nothing if finish() was called."""
        if self._thread.is_alive():
            self._tasks.put(None)

    # ---- from here on in the thread ----

    def make(self, asked: PublisherOptions) -> PublisherState:
        """A publisher; raises what Publisher does, ConfigError for a second one and for a directory that is none."""
        if self.publisher is not None:
            raise ConfigError(ConfigProblem("makeNotifications", None, "there is a publisher already; close it first"))
        config = _configure(asked)
        self.publisher = publisher = Publisher(config, **asked.settings)
        held = publisher.engine.journaled
        self._skip = 0
        self._largest = (publisher.settings.journal_bytes - _FILE_HEAD) // 2 if publisher.settings.journal_path is not None else None
        if asked.resume and asked.journaled <= held:
            self._skip = held - asked.journaled
            publisher.engine.stop_recognizing()
        self._open_lane(asked.lane)
        return PublisherState(
            publisher.epoch,
            tuple(publisher.active_notifiers()),
            publisher.replay_address,
            held,
            os.getpid(),
            self._lane is not None,
            held == 0 or not publisher.engine.recognizing,
        )

    def publish(self, events: Sequence[ReceivedEvent]) -> Answer:
        """All of them, or what can be of them."""
        refused: list[tuple[int, Exception]] = []
        publisher = self.publisher
        if publisher is None:
            return Answer(0, False, [(index, ClosedError("the publisher was closed")) for index in range(len(events))])
        for index, event in enumerate(events):
            try:
                self._publish(publisher, event)
            except (ZmqPubError, ValueError, OverflowError, MemoryError) as error:
                if not isinstance(error, ClosedError):
                    _log.error("an event was refused: %s", error)
                refused.append((index, error.with_traceback(None)))
        return Answer(publisher.engine.journaled, not publisher.engine.recognizing, refused)

    def close(self, linger: float | None, as_set: bool) -> None:
        """Close the publisher, if there is one; ``as_set``: with the linger of its settings."""
        publisher, self.publisher = self.publisher, None
        self._block = None
        if self._lane is not None:
            self._lane.close()
            self._lane = None
        if publisher is not None:
            if as_set:
                publisher.close()
            else:
                publisher.close(linger)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
        if self.publisher is not None:
            linger = self.publisher.settings.linger
            with contextlib.suppress(ClosedError):
                self.publisher.flush(_FLUSH_PATIENCE)
            self.close(None if linger is None else max(linger, _LAST_LINGER), False)

    def _publish(self, publisher: Publisher, event: ReceivedEvent) -> None:
        kind = Kind(event.kind) if event.kind < len(Kind) else None
        if kind is None:
            raise DecodeError("event", 0, f"a kind from 0 to {len(Kind) - 1}", str(event.kind))
        body: Block | Transaction | bytes = self._block_of(event) if kind.of_block else self._transaction_of(event, kind)
        if self._skip and not self._is_too_large(kind, body):
            self._skip -= 1
            return
        if kind.of_block:
            publisher.engine.block_event(kind + 1, body)
        else:
            publisher.engine.transaction_event(kind + 1, body, event.mempool_sequence)

    def _block_of(self, event: ReceivedEvent) -> Block:
        if isinstance(event.body, Same):
            if self._block is None:
                raise DecodeError("event", 0, "a block, as there is none before that it could be", "same")
            return self._block
        self._block = None
        if event.is_txid:
            raise DecodeError("event", 0, "a block", "a txid")
        self._block = Block(self._bytes(event.body))
        return self._block

    def _transaction_of(self, event: ReceivedEvent, kind: Kind) -> Transaction | bytes:
        if isinstance(event.body, Same):
            raise DecodeError("event", 0, "a transaction", "same")
        body = self._bytes(event.body)
        if not event.is_txid:
            return Transaction(body)
        if kind is not Kind.TRANSACTION_REMOVED or len(body) != 32:
            raise DecodeError("event", 0, "a transaction, or, where one was removed, a txid of 32 bytes", f"a txid of {len(body)}")
        return body

    def _bytes(self, body: bytes | Place) -> bytes:
        if isinstance(body, bytes):
            return body
        if self._lane is None:
            raise DecodeError("event", 0, "the body itself, as there is no lane", "a place in the lane")
        return self._lane.read(body)

    def _is_too_large(self, kind: Kind, body: Block | Transaction | bytes) -> bool:
        """Would the journal file refuse it, so that it is not among the events that the file holds?"""
        return self._largest is not None and kind is not Kind.TIP and -(-(_RECORD_HEAD + memoryview(body).nbytes) // 8) * 8 > self._largest

    def _open_lane(self, path: str) -> None:
        if path:
            try:
                self._lane = LaneReader(path)
            except (OSError, ValueError) as error:
                _log.warning("%s: cannot be mapped (%s), so that large bodies come through the socket", path, error)


def _configure(asked: PublisherOptions) -> PublisherConfig:
    """The configuration, in its directory; ConfigError with all that is wrong, settings included."""
    problems: list[ConfigProblem] = []
    if asked.directory:
        try:
            os.chdir(asked.directory)
        except OSError as error:
            problems.append(ConfigProblem("directory", asked.directory, f"cannot be entered: {error.strerror}"))
    config = PublisherConfig()
    try:
        config = parse_options(asked.options)
    except ConfigError as error:
        problems += error.problems
    notifiers = list(config.notifiers)
    for one in asked.notifiers:
        try:
            notifiers.append(make_notifier(one.type.removeprefix("pub"), one.address, one.hwm, notifiers, config.replay))
        except ConfigError as error:
            problems += error.problems
    try:
        parse_settings(asked.settings)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(*problems)
    topics = list(Topic)
    return replace(config, notifiers=tuple(sorted(notifiers, key=lambda notifier: topics.index(notifier.topic))))
