"""What Bitcoin Core's regtest network demands of a block, as plain functions; they keep no state.

The rules are those of Bitcoin Core's kernel/chainparams.cpp (CRegTestParams) and validation.cpp with no activation
height changed by option: BIP 34, 65, 66, 68, 112, 113 from block 1 on, BIP 141, 143, 147 and taproot always, difficulty
never adjusted.
"""

from __future__ import annotations

from collections.abc import Sequence

from zmqpub._build import build_block, build_transaction, merkle_root, mine, witness_commitment
from zmqpub._fast import Block, Transaction
from zmqpub.primitives import BlockHeader, TxIn, TxOut

__all__ = [
    "BITS",
    "BLOCK_VERSION",
    "COIN",
    "COINBASE_MATURITY",
    "LOCKTIME_THRESHOLD",
    "MAX_BLOCK_WEIGHT",
    "MAX_MONEY",
    "assemble",
    "coinbase",
    "genesis",
    "height_script",
    "subsidy",
]

COIN = 100_000_000
"""Satoshis in a bitcoin."""
MAX_MONEY = 21_000_000 * COIN
COINBASE_MATURITY = 100
"""A block may spend the outputs of coinbases at least this many blocks below it."""
MAX_BLOCK_WEIGHT = 4_000_000
BLOCK_VERSION = 0x20000000
"""BIP 9's, with no bit set."""
LOCKTIME_THRESHOLD = 500_000_000
"""Lock times below it are heights, from it on they are times."""
BITS = 0x207FFFFF
"""The target of every regtest block: every second nonce meets it."""

_HALVING_INTERVAL = 150
_GENESIS_TIME = 1296688602
_GENESIS_TEXT = b"The Times 03/Jan/2009 Chancellor on brink of second bailout for banks"
_GENESIS_KEY = bytes.fromhex(
    "04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"
)
_NO_TXID = bytes(32)
_WITNESS_RESERVED = bytes(32)
_COMMITMENT_HEADER = bytes.fromhex("6a24aa21a9ed")
_MAX_COINBASE_SCRIPT = 100


def subsidy(height: int) -> int:
    """Satoshis that the block at ``height`` may create: 50 BTC, halved every 150 blocks."""
    halvings = height // _HALVING_INTERVAL
    return 50 * COIN >> halvings if halvings < 64 else 0


def height_script(height: int) -> bytes:
    """How BIP 34 wants a coinbase's script to begin: the script that pushes ``height`` as a number."""
    if height == 0:
        return b"\x00"
    if height <= 16:
        return bytes([0x50 + height])
    number = height.to_bytes(height.bit_length() // 8 + 1, "little")  # one bit more, for the sign
    return bytes([len(number)]) + number


def genesis() -> Block:
    """Block 0, whose coinbase nobody can spend."""
    script_sig = bytes.fromhex("04ffff001d0104") + bytes([len(_GENESIS_TEXT)]) + _GENESIS_TEXT
    script_pubkey = bytes([len(_GENESIS_KEY)]) + _GENESIS_KEY + b"\xac"
    reward = build_transaction([TxIn(_NO_TXID, 0xFFFFFFFF, script_sig)], [TxOut(50 * COIN, script_pubkey)], version=1)
    header = BlockHeader(1, bytes(32), merkle_root([reward.txid]), _GENESIS_TIME, BITS, 2)
    return build_block(header, [reward])


def coinbase(height: int, outputs: Sequence[TxOut], tag: bytes, wtxids: Sequence[bytes]) -> Transaction:
    """The first transaction of the block at ``height``.

    ``tag`` follows the height in its script and must leave the whole at 2 to 100 bytes; ``wtxids`` are those of the
    block's other transactions, in order, for the witness commitment, which is always made. Like Bitcoin Core's it is
    locked until the block before it, so that no two heights can have the same.
    """
    script_sig = height_script(height) + tag
    if not 2 <= len(script_sig) <= _MAX_COINBASE_SCRIPT:
        raise ValueError(f"a coinbase script of {len(script_sig)} bytes, expected 2 to {_MAX_COINBASE_SCRIPT}")
    commitment = _COMMITMENT_HEADER + witness_commitment([_NO_TXID, *wtxids], _WITNESS_RESERVED)
    return build_transaction(
        [TxIn(_NO_TXID, 0xFFFFFFFF, script_sig, 0xFFFFFFFE, (_WITNESS_RESERVED,))],
        [*outputs, TxOut(0, commitment)],
        locktime=height - 1,
    )


def assemble(prev_hash: bytes, time: int, transactions: Sequence[Transaction]) -> Block:
    """A block of ``transactions``, the coinbase first, on top of ``prev_hash``, with its proof of work."""
    root = merkle_root([transaction.txid for transaction in transactions])
    return build_block(mine(BlockHeader(BLOCK_VERSION, prev_hash, root, time, BITS, 0)), transactions)
