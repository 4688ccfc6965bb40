"""The source: a connection to a node for as long as it lasts, then the next."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import NamedTuple

from zmqpub._fast import Block, Transaction
from zmqpub.errors import (
    ConfigError,
    ConfigProblem,
    DisconnectedError,
    IpcConnectError,
    IpcError,
    IpcTimeoutError,
    OverloadedError,
    RpcError,
    SourceError,
    UnimplementedError,
)
from zmqpub.interfaces import BlockRef
from zmqpub.replay.snapshot import Snapshot
from zmqpub.sources.bitcoin_node.calls import NodeCalls, NodeConnection
from zmqpub.sources.bitcoin_node.counts import NodeCounts
from zmqpub.sources.bitcoin_node.telling import Teller
from zmqpub.sources.events import Event, TransactionAdded, TransactionRemoved

__all__ = ["Beginning", "BitcoinNode"]

logger = logging.getLogger("zmqpub")

_PART_OF_TIME = 4
"""A look at a large mempool takes long: at most one part in so many, and one, of the time goes into looks."""
_WITHOUT_MEMPOOL = 0.5  # seconds of a wait for the next block, after which is looked whether the source was closed
_FIRST_RETRY = 0.1  # seconds
_WARMUP = -28  # RPC_IN_WARMUP
_ATTEMPTS = 5  # at what should not fail, before the source gives up
_SAME_START = 3.0  # seconds by which two answers about when the node was started may differ


class Beginning(NamedTuple):
    """What the first event finds, with bodies."""

    block: Block
    """The tip."""
    height: int
    transactions: Sequence[Transaction] | None
    """The mempool, parents before their children; together with ``mempool_sequence`` or not at all."""
    mempool_sequence: int | None
    initial_download: bool


class BitcoinNode:
    """A running Bitcoin Core node as a source of events: what its own ZeroMQ would tell, over its IPC.

    ``connect`` makes a connection, ``lambda: zmqpub.ipc.connect("unix:…")``; it is called again when one is lost, and the source
    goes on from where it stood. The first one has to succeed: its error passes through.

    The first event is what happens after the first connection, or, with ``after`` (a block's hash, 32 bytes in display order, or 64
    hex digits), what follows that block. SourceError where the node does not know it.

    mempool    tell of the mempool, too; it is listed when it changes, and kept here
    poll       seconds between two looks at whether it did; large mempools are listed less often, so that a fifth of the time goes into it
    max_retry  seconds between two attempts to connect, at most
    settle     seconds for which a node that was restarted may be behind what was told already, as after a crash, until that is told
    name       what describe() calls it

    Events come in Bitcoin Core's order, with its mempool sequence; their ``due`` is 0. What a node does between two looks is told in
    an order that could have been; what came and left in between is counted in ``counts`` and missing from the mempool sequence.

    ``on_baseline``, which may be set before iterating, is called with the chain and the mempool that the first event finds;
    ``on_beginning`` as well, and with the bodies.
    """

    def __init__(
        self,
        connect: Callable[[], NodeConnection],
        *,
        after: bytes | str | None = None,
        mempool: bool = True,
        poll: float = 0.05,
        max_retry: float = 10.0,
        settle: float = 60.0,
        name: str = "a Bitcoin Core node",
    ) -> None:
        problems = [
            ConfigProblem(option, str(value), "expected more than 0 seconds")
            for option, value in (("poll", poll), ("max_retry", max_retry))
            if not value > 0
        ]
        self._after = _checked_hash(after, problems)
        if problems:
            raise ConfigError(*problems)
        self.on_baseline: Callable[[Snapshot], None] | None = None
        self.on_beginning: Callable[[Beginning], None] | None = None
        self._connect = connect
        self._poll = poll if mempool else _WITHOUT_MEMPOOL
        self._max_retry = max_retry
        self._settle = settle
        self._name = name
        self._counts = NodeCounts()
        self._teller = Teller(self._counts, mempool=mempool, on_baseline=self._tell_baseline)
        self._closed = threading.Event()
        self._started: float | None = None
        self._settle_until = 0.0

    @property
    def counts(self) -> NodeCounts:
        """What it did so far, and what it could not learn."""
        return dataclasses.replace(self._counts)

    def describe(self) -> str:
        tip = self._teller.tip
        return self._name if tip is None else f"{self._name}, after block {tip.hash.hex()} (height {tip.height})"

    def close(self) -> None:
        """End the iteration, within the time of a call to the node."""
        self._closed.set()

    def __iter__(self) -> Iterator[Event]:
        retry, failures = _FIRST_RETRY, 0
        while not self._closed.is_set():
            told = self._counts.looks + self._counts.blocks
            try:
                yield from self._use_connection()
                return
            except (IpcError, RpcError) as error:
                if self._closed.is_set():
                    return
                if self._counts.looks + self._counts.blocks > told:
                    retry, failures = _FIRST_RETRY, 0
                failures += not _passes(error)
                if (
                    isinstance(error, UnimplementedError)
                    or failures >= _ATTEMPTS
                    or (not self._counts.connections and not _warms_up(error))
                ):
                    raise
                logger.warning("%s; trying again in %.1f s", error, retry)
            self._closed.wait(retry)
            retry = min(2 * retry, self._max_retry)

    def _use_connection(self) -> Iterator[Event]:
        connection = self._connect()
        try:
            calls = NodeCalls(connection.make_mining(), connection.make_rpc())
            self._resume(calls)
            self._counts.connected = True
            self._counts.connections += 1
            yield from self._follow(calls)
        finally:
            self._counts.connected = False
            connection.close()

    def _resume(self, calls: NodeCalls) -> None:
        """Find out whether this is the node that one spoke with before, and where to begin."""
        started = monotonic() - calls.uptime()
        if self._started is not None and abs(started - self._started) > _SAME_START:
            logger.warning("%s was restarted", self._name)
            self._teller.restarted = True
            self._settle_until = monotonic() + self._settle
        self._teller.reconnected = self._started is not None
        self._started = started
        self._teller.forget_state()
        self._teller.ask_if_downloading(calls)
        if self._teller.tip is None and self._after is not None:
            header = calls.header(self._after)
            if header is None:
                raise SourceError(f"{self._name}: it does not know block {self._after.hex()}, after which to go on")
            self._teller.begin(calls, BlockRef(header.hash, header.height))

    def _follow(self, calls: NodeCalls) -> Iterator[Event]:
        teller, closed = self._teller, self._closed
        while teller.tip is None and not closed.is_set():
            tip = calls.mining.get_tip()
            if tip is not None:
                teller.begin(calls, tip)
            else:
                closed.wait(self._poll)
        next_look, watched = 0.0, b""
        while not closed.is_set() and teller.tip is not None:
            if monotonic() >= next_look:
                yield from self._counted(teller.look(calls))
                next_look = monotonic() + max(self._poll, _PART_OF_TIME * teller.look_seconds)
            tip = calls.mining.wait_tip_changed(watched or teller.tip.hash, timeout=min(self._poll, max(next_look - monotonic(), 0.0)))
            if tip is None:  # interrupted: the node shuts down
                closed.wait(self._poll)
            elif tip == teller.tip:
                watched = b""
            elif monotonic() < self._settle_until and teller.is_behind(tip):
                watched = tip.hash
            else:
                watched = b""
                yield from self._counted(teller.advance(calls, tip))
                next_look = 0.0

    def _counted(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, TransactionAdded):
                self._counts.added += 1
            elif isinstance(event, TransactionRemoved):
                self._counts.removed += 1
            yield event

    def _tell_baseline(self, calls: NodeCalls, snapshot: Snapshot, transactions: Sequence[Transaction] | None) -> None:
        begins = self.on_beginning
        block = None if begins is None or snapshot.tip is None else calls.block(snapshot.tip)  # first, as it may fail
        if self.on_baseline is not None:
            self.on_baseline(snapshot)
        if begins is not None and block is not None and snapshot.height is not None:
            begins(Beginning(block, snapshot.height, transactions, snapshot.mempool_sequence, self._teller.downloading))


def _passes(error: IpcError | RpcError) -> bool:
    """Whether it is one that a node's restart, or a busy node, brings with it."""
    return isinstance(error, DisconnectedError | IpcConnectError | IpcTimeoutError | OverloadedError) or _warms_up(error)


def _warms_up(error: IpcError | RpcError) -> bool:
    return isinstance(error, RpcError) and error.code == _WARMUP


def _checked_hash(text: bytes | str | None, problems: list[ConfigProblem]) -> bytes | None:
    if text is None:
        return None
    try:
        value = bytes.fromhex(text) if isinstance(text, str) else bytes(text)
    except ValueError:
        value = b""
    if len(value) != 32:
        problems.append(ConfigProblem("after", text if isinstance(text, str) else text.hex(), "expected a block hash of 64 hex digits"))
    return value
