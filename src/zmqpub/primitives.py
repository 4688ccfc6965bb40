"""The plain values that blocks and transactions are made of.

Hashes are 32 bytes in display order, the order that explorers and JSON-RPC show: reversed with respect to the
serialization. Amounts are satoshis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["BlockHeader", "TxIn", "TxOut"]


class BlockHeader(NamedTuple):
    """The 80 bytes at the start of a block."""

    version: int
    """Signed 32 bits, as in Bitcoin Core (BIP 9 bits make it look large)."""
    prev_hash: bytes
    """The parent's hash, 32 bytes, display order."""
    merkle_root: bytes
    """32 bytes, display order."""
    time: int
    """Seconds since the Unix epoch, unsigned 32 bits."""
    bits: int
    """The target in compact form, unsigned 32 bits."""
    nonce: int
    """Unsigned 32 bits."""


class TxIn(NamedTuple):
    """One input of a transaction."""

    prev_txid: bytes
    """The transaction that it spends from, 32 bytes, display order; all zero in a coinbase."""
    prev_index: int
    """Which of that transaction's outputs; 0xFFFFFFFF in a coinbase."""
    script_sig: bytes = b""
    sequence: int = 0xFFFFFFFF
    witness: Sequence[bytes] = ()
    """The stack of BIP 141, empty where there is none."""


class TxOut(NamedTuple):
    """One output of a transaction."""

    value: int
    """Satoshis, signed 64 bits."""
    script_pubkey: bytes
