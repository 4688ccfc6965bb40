"""What a source tells a publisher: Bitcoin Core's validation events as plain values.

A source is an iterable of events. Each event carries ``due``, the second since the source began at which it happens,
in the source's own deterministic time: who hands the events over decides whether to wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from zmqpub._fast import Block, Transaction

__all__ = [
    "BlockConnected",
    "BlockDisconnected",
    "Event",
    "EventSink",
    "RemovalReason",
    "Source",
    "TransactionAdded",
    "TransactionRemoved",
    "UpdatedBlockTip",
    "hand_over",
]

RemovalReason = Literal["expiry", "sizelimit", "reorg", "conflict", "replaced", "unknown"]
"""Why a transaction left the mempool, in Bitcoin Core's words; inclusion in a block is not among them. "unknown" is of a source that
cannot tell."""


@dataclass(frozen=True, slots=True)
class BlockConnected:
    """A block became part of the active chain."""

    due: float
    block: Block
    height: int


@dataclass(frozen=True, slots=True)
class BlockDisconnected:
    """A block left the active chain."""

    due: float
    block: Block
    height: int


@dataclass(frozen=True, slots=True)
class UpdatedBlockTip:
    """The active chain has a new tip, after all blocks that led there were connected."""

    due: float
    block: Block
    height: int
    initial_download: bool = False


@dataclass(frozen=True, slots=True)
class TransactionAdded:
    """A transaction entered the mempool."""

    due: float
    transaction: Transaction
    mempool_sequence: int


@dataclass(frozen=True, slots=True)
class TransactionRemoved:
    """A transaction left the mempool, and not into a block."""

    due: float
    transaction: Transaction
    mempool_sequence: int
    reason: RemovalReason


Event: TypeAlias = "BlockConnected | BlockDisconnected | UpdatedBlockTip | TransactionAdded | TransactionRemoved"


class EventSink(Protocol):
    """Whatever takes events: a Publisher, or a test's recorder."""

    def transaction_added_to_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None: ...
    def transaction_removed_from_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None: ...
    def block_connected(self, block: Block, /) -> None: ...
    def block_disconnected(self, block: Block, /) -> None: ...
    def updated_block_tip(self, block: Block, /, initial_download: bool = False) -> None: ...


@runtime_checkable
class Source(Protocol):
    """An origin of events. Iterating may block; ``close`` frees what it holds and ends the iteration."""

    def __iter__(self) -> Iterator[Event]: ...

    def close(self) -> None: ...

    def describe(self) -> str:
        """One line for a log: what it reads, from where to where."""
        ...


def hand_over(event: Event, sink: EventSink) -> None:
    """Call the method of ``sink`` that ``event`` stands for."""
    if isinstance(event, TransactionAdded):
        sink.transaction_added_to_mempool(event.transaction, event.mempool_sequence)
    elif isinstance(event, TransactionRemoved):
        sink.transaction_removed_from_mempool(event.transaction, event.mempool_sequence)
    elif isinstance(event, BlockConnected):
        sink.block_connected(event.block)
    elif isinstance(event, BlockDisconnected):
        sink.block_disconnected(event.block)
    else:
        sink.updated_block_tip(event.block, initial_download=event.initial_download)
