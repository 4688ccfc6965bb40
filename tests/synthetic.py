"""Blocks and transactions made up for tests: well-formed, with hashes that differ, and no more meaning than that."""

from __future__ import annotations

import random

from zmqpub import Block, BlockHeader, Transaction, TxIn, TxOut, build_block, build_transaction, merkle_root


def transaction(seed: int, *, witness: bool = True, size: int = 0) -> Transaction:
    """A transaction of about ``size`` bytes, at least some 120."""
    rng = random.Random(seed)
    script = rng.randbytes(max(0, size - 200))
    return build_transaction(
        [
            TxIn(
                rng.randbytes(32),
                rng.randrange(4),
                b"" if witness else rng.randbytes(107),
                witness=[rng.randbytes(72), rng.randbytes(33)] if witness else (),
            )
        ],
        [TxOut(rng.randrange(10**8), script or rng.randbytes(22)), TxOut(rng.randrange(10**8), rng.randbytes(22))],
        locktime=seed % 2**32,
    )


def block(seed: int, transactions: int = 10, *, size: int = 0) -> Block:
    """A block whose transactions have about ``size`` bytes each; its header fits them, its proof of work does not."""
    txs = [transaction(seed * 100_003 + i, witness=i % 4 != 0, size=size) for i in range(transactions)]
    root = merkle_root([tx.txid for tx in txs])
    return build_block(BlockHeader(0x20000000, bytes(32), root, 1_700_000_000 + seed, 0x207FFFFF, seed), txs)
