"""What the senders, which never touch Python, have to say: passed to the logger ``zmqpub`` by a thread of its own."""

from __future__ import annotations

import logging
import os
import threading

from zmqpub._fast import Engine

__all__ = ["Reporter"]

_log = logging.getLogger("zmqpub")

_PATIENCE = 1.0
"""Seconds between two looks for memory to give back, where there is nothing to say."""


class Reporter:
    """A thread that logs for an engine until the engine's log is closed. It also frees what was sent long ago."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = threading.Thread(target=_run, args=(engine,), name="zmqpub-reporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Log what is left and end."""
        self._engine.close_log()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _run(engine: Engine) -> None:
    while True:
        try:
            record = engine.take_log(_PATIENCE)
        except StopIteration:
            return
        if record is not None:
            _report(*record)


_WARNINGS = {
    "evicted-stalled": "%s: disconnected subscriber %s, which took nothing for stall_timeout; %d bytes pending",
    "evicted-lagging": "%s: disconnected subscriber %s, the slowest, as the endpoint fell behind by max_lag; %d bytes pending",
    "evicted-flooding": "%s: disconnected subscriber %s, which flooded the publisher with subscriptions or requests; %d bytes pending",
}


def _report(what: str, endpoint: str, peer: str, number: int, errno: int) -> None:
    if what in _WARNINGS:
        _log.warning(_WARNINGS[what], endpoint, peer, number)
    elif what == "lossy":
        _log.warning("%s: a subscriber does not keep up and cannot or shall not be disconnected; dropping its messages", endpoint)
    elif what == "dropped":
        _log.warning("%s: dropped %d messages, as the journal is full", endpoint, number)
    elif what == "sync-failed":
        _log.error("%s: the journal could not be synced: %s; it would not survive a loss of power", endpoint, os.strerror(errno))
    elif what == "terminated":
        _log.error("%s: the ZeroMQ context was terminated; the publisher is closed", endpoint)
    else:
        _log.error("%s: the sender failed: %s; this endpoint sends no more", endpoint, os.strerror(errno))
