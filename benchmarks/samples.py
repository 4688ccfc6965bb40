"""The blocks that are published: real ones where they are at hand, else a synthetic one."""

from __future__ import annotations

import random
from functools import cache
from itertools import chain

from native import HERE, ROOT

from zmqpub import Block, BlockHeader, Transaction, TxIn, TxOut, build_block, build_transaction, merkle_root

BLOCKS = ROOT.parent / "shared" / "blocks"
_SYNTHETIC = "synthetic, 3,000 transactions"


@cache
def blocks() -> dict[str, bytes]:
    """Raw blocks by a name that says what they are; the first one is the usual one."""
    found = [path.read_bytes() for path in BLOCKS.glob("*.raw")] if BLOCKS.is_dir() else []
    if not found:
        return {_SYNTHETIC: bytes(synthetic(3000))}
    by_count = sorted(found, key=lambda raw: -len(Block(raw)))
    return {f"{len(Block(raw)):,} transactions, {len(raw) / 1e6:.2f} MB": raw for raw in by_count}


def usual() -> tuple[str, bytes]:
    """Name and bytes of the block with the most transactions."""
    return next(iter(blocks().items()))


def file_of(raw: bytes) -> str:
    """A file that holds the block, for C programs."""
    for path in BLOCKS.glob("*.raw"):
        if path.stat().st_size == len(raw):
            return str(path)
    path = HERE / ".cache" / "synthetic.raw"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw)
    return str(path)


def messages(raw: bytes) -> int:
    """Of a burst: hashtx and rawtx of each transaction, sequence, hashblock, rawblock."""
    return 2 * len(Block(raw)) + 3


@cache
def transactions() -> list[bytes]:
    """The transactions of all blocks but the coinbases, serialized."""
    return [bytes(tx) for tx in chain.from_iterable(Block(raw)[1:] for raw in blocks().values())]


def synthetic(count: int, seed: int = 1) -> Block:
    """A block of segwit transactions in a mix of sizes like mainnet's: most spend one or two coins, a few are large."""
    rng = random.Random(seed)
    made = [coinbase(seed), *(_payment(rng) for _ in range(count - 1))]
    return build_block(header_over(made), made)


def tiny(number: int) -> bytes:
    """A block of one transaction, different for each number."""
    made = [coinbase(number)]
    return bytes(build_block(header_over(made)._replace(nonce=number), made))


def coinbase(number: int) -> Transaction:
    return build_transaction([TxIn(bytes(32), 0xFFFFFFFF, b"\x04" + number.to_bytes(4, "little"))], [TxOut(312_500_000, b"\x51")])


def header_over(made: list[Transaction]) -> BlockHeader:
    root = merkle_root([tx.txid for tx in made])
    return BlockHeader(0x20000000, bytes(32), root, 1_700_000_000, 0x207FFFFF, 0)


def renonced(raw: bytes, nonce: int) -> bytes:
    """The same block under another nonce: another hash, other bytes, the same work."""
    return b"".join((raw[:76], nonce.to_bytes(4, "little"), raw[80:]))


def _payment(rng: random.Random) -> Transaction:
    inputs = rng.choice((1, 1, 1, 1, 2, 2, 3, rng.randint(4, 40)))
    outputs = rng.choice((1, 2, 2, 2, 2, 3, rng.randint(4, 30)))
    return build_transaction(
        [TxIn(rng.randbytes(32), rng.randrange(4), b"", 0xFFFFFFFD, (rng.randbytes(71), rng.randbytes(33))) for _ in range(inputs)],
        [TxOut(rng.randrange(1000, 10**9), b"\x00\x14" + rng.randbytes(20)) for _ in range(outputs)],
    )
