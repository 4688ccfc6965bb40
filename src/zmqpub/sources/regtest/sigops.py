"""How many signature operations scripts have, by the counts of Bitcoin Core's GetTransactionSigOpCost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.regtest.coins import Coin

__all__ = ["MAX_BLOCK_SIGOPS_COST", "WITNESS_SCALE", "legacy_sigops", "sigops_cost"]

MAX_BLOCK_SIGOPS_COST = 80_000
WITNESS_SCALE = 4
"""A signature operation outside of witnesses costs so much."""

_PUSHDATA1, _PUSHDATA2, _PUSHDATA4 = 0x4C, 0x4D, 0x4E
_OP_1, _OP_16 = 0x51, 0x60
_CHECKSIG, _CHECKSIGVERIFY, _CHECKMULTISIG, _CHECKMULTISIGVERIFY = range(0xAC, 0xB0)
_MOST_KEYS = 20
_INVALID = 0xFF
_CODES = frozenset((_CHECKSIG, _CHECKSIGVERIFY, _CHECKMULTISIG, _CHECKMULTISIGVERIFY))


def legacy_sigops(inputs: Sequence[TxIn], outputs: Sequence[TxOut]) -> int:
    """Those that the transaction itself shows, without its coins."""
    scripts = [entry.script_sig for entry in inputs] + [output.script_pubkey for output in outputs]
    return sum(_count(script, accurate=False) for script in scripts)


def sigops_cost(inputs: Sequence[TxIn], outputs: Sequence[TxOut], spent: Sequence[Coin]) -> int:
    """Of a transaction with the coins of its inputs, in their order; without coins that of a coinbase."""
    cost = WITNESS_SCALE * legacy_sigops(inputs, outputs)
    for entry, coin in zip(inputs, spent, strict=False):
        script = coin.script_pubkey
        if _is_script_hash(script):
            redeem = _last_push(entry.script_sig)
            cost += WITNESS_SCALE * _count(redeem, accurate=True)
            script = redeem
        cost += _witness_sigops(script, entry.witness)
    return cost


def _witness_sigops(program: bytes, witness: Sequence[bytes]) -> int:
    if len(program) == 22 and program[:2] == b"\x00\x14":
        return 1
    if len(program) == 34 and program[:2] == b"\x00\x20" and witness:
        return _count(witness[-1], accurate=True)
    return 0


def _is_script_hash(script: bytes) -> bool:
    return len(script) == 23 and script[:2] == b"\xa9\x14" and script[22] == 0x87


def _last_push(script: bytes) -> bytes:
    """The last element that a script of pushes only leaves; empty for any other script."""
    last = b""
    for opcode, data in _operations(script):
        if opcode > _OP_16:
            return b""
        last = data
    return last


def _count(script: bytes, *, accurate: bool) -> int:
    if not _CODES.intersection(script):  # no such byte, not even in data
        return 0
    count = 0
    last = _INVALID
    for opcode, _ in _operations(script):
        if opcode in (_CHECKSIG, _CHECKSIGVERIFY):
            count += 1
        elif opcode in (_CHECKMULTISIG, _CHECKMULTISIGVERIFY):
            count += last - _OP_1 + 1 if accurate and _OP_1 <= last <= _OP_16 else _MOST_KEYS
        last = opcode
    return count


def _operations(script: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcodes with what they push; ends where the script is cut short, with an opcode above all others."""
    place, end = 0, len(script)
    while place < end:
        opcode = script[place]
        place += 1
        size = 0
        if opcode < _PUSHDATA1:
            size = opcode
        elif opcode <= _PUSHDATA4:
            width = 1 << opcode - _PUSHDATA1
            if place + width > end:
                yield _INVALID, b""
                return
            size = int.from_bytes(script[place : place + width], "little")
            place += width
        if place + size > end:
            yield _INVALID, b""
            return
        yield opcode, script[place : place + size]
        place += size
