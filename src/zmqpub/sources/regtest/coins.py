"""Coins, and transactions together with the coins that they spend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zmqpub._fast import Transaction
from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.regtest.scripts import is_unspendable

__all__ = ["Coin", "Outpoint", "Resolved", "created_by", "resolved", "stripped_size"]

Outpoint = tuple[bytes, int]
"""A transaction's txid (32 bytes, display order) and the index of one of its outputs."""

_FINAL = 0xFFFFFFFF


class Coin(NamedTuple):
    """An output that can be spent."""

    outpoint: Outpoint
    value: int
    """Satoshis."""
    script_pubkey: bytes
    coinbase_height: int = 0
    """The height of the block whose coinbase made it, 0 when another transaction did."""


class Resolved:
    """A transaction with the coins that it spends and makes. Compares by identity."""

    __slots__ = ("arrival", "created", "fee", "locktime", "rate", "spent", "transaction", "txid", "weight")

    def __init__(
        self,
        transaction: Transaction,
        spent: tuple[Coin, ...],
        created: tuple[Coin, ...],
        fee: int,
        weight: int,
        locktime: int,
    ) -> None:
        self.transaction = transaction
        self.txid = transaction.txid
        self.spent = spent
        """In the order of its inputs; empty for a coinbase."""
        self.created = created
        """In the order of its outputs, those that nobody can ever spend left out."""
        self.fee = fee
        self.weight = weight
        self.locktime = locktime
        """0 when its inputs' sequences switch it off."""
        self.rate = 4 * fee / weight
        """Satoshis per virtual byte."""
        self.arrival = 0
        """Counts the mempool's arrivals; set when it enters one."""

    def __repr__(self) -> str:
        return f"<Resolved {self.txid.hex()} fee={self.fee} weight={self.weight}>"


def _size_of_size(size: int) -> int:
    return 1 if size < 0xFD else 3 if size < 0x10000 else 5


def stripped_size(inputs: Sequence[TxIn], outputs: Sequence[TxOut]) -> int:
    """Bytes of the transaction without its witness; three times that, and its whole size, is its weight."""
    size = 8 + _size_of_size(len(inputs)) + _size_of_size(len(outputs))
    for entry in inputs:
        length = len(entry.script_sig)
        size += 40 + length + _size_of_size(length)
    for output in outputs:
        length = len(output.script_pubkey)
        size += 8 + length + _size_of_size(length)
    return size


def created_by(txid: bytes, outputs: Sequence[TxOut], coinbase_height: int = 0) -> tuple[Coin, ...]:
    """The coins that a transaction makes."""
    make = Coin._make  # takes two thirds of the time of Coin()
    return tuple(
        [
            make(((txid, index), value, script_pubkey, coinbase_height))
            for index, (value, script_pubkey) in enumerate(outputs)
            if not is_unspendable(script_pubkey)
        ]
    )


def resolved(transaction: Transaction, inputs: Sequence[TxIn], outputs: Sequence[TxOut], spent: tuple[Coin, ...]) -> Resolved:
    """``transaction``, made of ``inputs`` and ``outputs``, with the coins ``spent``; checks nothing."""
    fee = sum([coin.value for coin in spent]) - sum([output.value for output in outputs])
    weight = 3 * stripped_size(inputs, outputs) + transaction.size
    locktime = transaction.locktime
    if locktime and all(entry.sequence == _FINAL for entry in inputs):
        locktime = 0
    return Resolved(transaction, spent, created_by(transaction.txid, outputs), fee, weight, locktime)
