"""What each event makes a publisher say, in Bitcoin Core's order: the slow, readable twin of the compiled senders. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from zmqpub._fast import Block, Transaction
from zmqpub.wire import SequenceBody, SequenceLabel, Topic

__all__ = ["Announcement", "of_added", "of_block", "of_removed", "of_tip"]

Announcement: TypeAlias = tuple[Topic, bytes]
"""A topic and a body; who publishes the topic counts it and sends it."""


def of_added(transaction: Transaction, mempool_sequence: int) -> Sequence[Announcement]:
    """A transaction entered the mempool."""
    body = SequenceBody(transaction.txid, SequenceLabel.ADDED, mempool_sequence)
    return [*_of_transaction(transaction), (Topic.SEQUENCE, body.encode())]


def of_removed(txid: bytes, mempool_sequence: int) -> Sequence[Announcement]:
    """A transaction left the mempool, and not into a block."""
    return [(Topic.SEQUENCE, SequenceBody(txid, SequenceLabel.REMOVED, mempool_sequence).encode())]


def of_block(block: Block, label: SequenceLabel) -> Sequence[Announcement]:
    """A block was connected or disconnected."""
    transactions = [announcement for transaction in block for announcement in _of_transaction(transaction)]
    return [*transactions, (Topic.SEQUENCE, SequenceBody(block.hash, label).encode())]


def of_tip(block: Block) -> Sequence[Announcement]:
    """The active chain has a new tip."""
    return [(Topic.HASHBLOCK, block.hash), (Topic.RAWBLOCK, bytes(block))]


def _of_transaction(transaction: Transaction) -> Sequence[Announcement]:
    return [(Topic.HASHTX, transaction.txid), (Topic.RAWTX, bytes(transaction))]
