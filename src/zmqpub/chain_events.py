"""What a ChainFollower tells: the active chain block by block, and the mempool transaction by transaction. Plain values.

All hashes are 32 bytes in display order. Equality and hash look at what happened (the names and numbers), not at the bodies, so
that an event read from a raw topic equals the same event read from a topic of hashes.

These are not the events of `zmqpub.sources.events`, which a node hands to a publisher: those always carry the body, these are
what a subscriber could learn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from zmqpub._fast import Block, Transaction

__all__ = [
    "BlockConnected",
    "BlockDisconnected",
    "ChainEvent",
    "ChainGap",
    "MempoolReset",
    "TransactionAdded",
    "TransactionRemoved",
]


@dataclass(frozen=True, slots=True)
class BlockConnected:
    """A block joined the active chain: ``previous`` was the tip until now, and ``hash`` is from now on."""

    hash: bytes
    height: int | None = None
    """None while no source told a height: the notifications carry none, and a coinbase's is not asked."""
    previous: bytes | None = None
    """The parent's hash; None where only the block's hash was published and there is no Repair to ask."""
    block: Block | None = field(default=None, compare=False, repr=False)
    """The block, where a rawblock or a Repair brought it."""


@dataclass(frozen=True, slots=True)
class BlockDisconnected:
    """A block left the active chain: it was the tip until now."""

    hash: bytes
    height: int | None = None
    block: Block | None = field(default=None, compare=False, repr=False)
    """The block, where it is still remembered."""


@dataclass(frozen=True, slots=True)
class TransactionAdded:
    """A transaction entered the mempool."""

    txid: bytes
    transaction: Transaction | None = field(default=None, compare=False, repr=False)
    """The transaction, where a rawtx brought it."""
    mempool_sequence: int | None = None
    """None where only ``hashtx`` or ``rawtx`` is subscribed to."""


@dataclass(frozen=True, slots=True)
class TransactionRemoved:
    """A transaction left the mempool, and not into a block."""

    txid: bytes
    mempool_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class MempoolReset:
    """The mempool as a whole: forget what was known of it, these are in it now, and later events build on that."""

    txids: tuple[bytes, ...]
    mempool_sequence: int
    """The number that the next arrival or removal takes, as Bitcoin Core's ``getrawmempool`` reports it."""


@dataclass(frozen=True, slots=True)
class ChainGap:
    """Something is missing here that could not be had: the stream goes on with what is known, and says so."""

    reason: str
    blocks: bool = False
    """Whether blocks may have been connected or disconnected that are not told."""
    mempool: bool = False
    """Whether transactions may have entered or left the mempool that are not told."""


ChainEvent: TypeAlias = "BlockConnected | BlockDisconnected | TransactionAdded | TransactionRemoved | MempoolReset | ChainGap"
