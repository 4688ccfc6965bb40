"""Blocks and headers as the objects of getblock, getblockheader and getblockchaininfo."""

from __future__ import annotations

from typing import Any

from zmqpub._fast import Block
from zmqpub.node.view import Place
from zmqpub.rpc.json_text import Number
from zmqpub.sources.block_networks import target_of_bits
from zmqpub.sources.regtest.coins import stripped_size

__all__ = ["amount", "block_json", "difficulty", "header_json"]

_COIN = 100_000_000
_HEADER_SIZE = 80


def amount(satoshis: int) -> Number:
    """Bitcoins with eight decimals."""
    whole, rest = divmod(abs(satoshis), _COIN)
    return Number(f"{'-' if satoshis < 0 else ''}{whole}.{rest:08d}")


def difficulty(bits: int) -> float:
    """How many times the work of a block of difficulty 1, with the roundings of Bitcoin Core's GetDifficulty."""
    shift = bits >> 24
    result = 0x0000FFFF / (bits & 0x00FFFFFF)
    for _ in range(shift, 29):
        result *= 256.0
    for _ in range(29, shift):
        result /= 256.0
    return result


def header_json(place: Place) -> dict[str, Any]:
    """What getblockheader tells; ``mediantime`` and ``chainwork`` are left out where the chain behind the block is not known."""
    row, header = place.row, place.row.header
    result: dict[str, Any] = {
        "hash": row.hash.hex(),
        "confirmations": place.confirmations,
        "height": row.height,
        "version": header.version,
        "versionHex": f"{header.version & 0xFFFFFFFF:08x}",
        "merkleroot": header.merkle_root.hex(),
        "time": header.time,
        "mediantime": place.median_time,
        "nonce": header.nonce,
        "bits": f"{header.bits:08x}",
        "target": f"{target_of_bits(header.bits):064x}",
        "difficulty": difficulty(header.bits),
        "chainwork": None if row.work is None else f"{row.work:064x}",
        "nTx": row.transactions,
        "previousblockhash": header.prev_hash.hex() if any(header.prev_hash) else None,
        "nextblockhash": None if place.next_hash is None else place.next_hash.hex(),
    }
    return {name: value for name, value in result.items() if value is not None}


def block_json(place: Place, block: Block) -> dict[str, Any]:
    """What getblock tells at verbosity 1."""
    reward = block[0]
    first = reward.inputs[0]
    stripped = _HEADER_SIZE + _size_of_size(len(block))
    stripped += sum(stripped_size(transaction.inputs, transaction.outputs) for transaction in block)
    coinbase: dict[str, Any] = {
        "version": reward.version,
        "locktime": reward.locktime,
        "sequence": first.sequence,
        "coinbase": first.script_sig.hex(),
    }
    if first.witness:
        coinbase["witness"] = first.witness[0].hex()
    return {
        **header_json(place),
        "strippedsize": stripped,
        "size": block.size,
        "weight": 3 * stripped + block.size,
        "coinbase_tx": coinbase,
        "tx": [txid.hex() for txid in block.txids],
    }


def _size_of_size(size: int) -> int:
    return 1 if size < 0xFD else 3 if size < 0x10000 else 5
