"""The state of a source of events at one moment, and the thread that asks for it when a subscriber does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from zmqpub._fast import ReplayEndpoint
from zmqpub.replay.protocol import SnapshotAnswer, pack_answer

__all__ = ["Snapshot", "SnapshotSource", "Snapshots"]

_log = logging.getLogger("zmqpub")

_PATIENCE = 1.0
"""Seconds between two looks at whether the publisher was closed, and for a source to return when it was."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a source of events. What it does not know is None; hashes are 32 bytes in display order."""

    tip: bytes | None = None
    """The last block of the active chain."""
    height: int | None = None
    """Of the tip."""
    txids: Iterable[bytes] | None = None
    """The mempool; together with ``mempool_sequence`` or not at all."""
    mempool_sequence: int | None = None
    """As Bitcoin Core's ``getrawmempool`` has it: mempool events with a lower sequence are contained in ``txids``, all others
    are yet to come."""

    def pack(self, epoch: bytes) -> tuple[bytes, bytes]:
        """The frames of the answer; ValueError for what makes no sense."""
        txids = None if self.txids is None else tuple(self.txids)
        header, body = pack_answer(SnapshotAnswer(epoch, self.tip, self.height, self.mempool_sequence, txids))
        return header, body


SnapshotSource: TypeAlias = Callable[[], Snapshot]


class Snapshots:
    """A thread that makes a snapshot when the replay endpoint is asked for one. Errors of the source are logged, and told to
    whoever asked."""

    def __init__(self, endpoint: ReplayEndpoint, epoch: bytes) -> None:
        self._endpoint = endpoint
        self._epoch = epoch
        self._source: SnapshotSource | None = None
        self._thread: threading.Thread | None = None

    def offer(self, source: SnapshotSource | None) -> None:
        """Ask ``source`` from now on, None: nobody. Under the publisher's lock."""
        self._source = source
        self._endpoint.offer_snapshots(source is not None)
        if source is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zmqpub-snapshots", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End; a source that does not return is left alone."""
        self._endpoint.close_snapshots()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            try:
                asked = self._endpoint.wait_snapshot(_PATIENCE)
            except StopIteration:
                return
            if asked:
                self._give(self._source)

    def _give(self, source: SnapshotSource | None) -> None:
        header = body = None
        try:
            if source is not None:
                header, body = source().pack(self._epoch)
        except Exception:
            _log.exception("the snapshot that a subscriber asked for could not be had from %r", source)
        self._endpoint.give_snapshot(header, body)
