"""Locks that anybody can open with bytes of the right shape, in the sizes that keys and signatures have.

Each lock is a real kind of output (P2WSH, P2SH, P2WSH within P2SH, P2TR) and its spends pass every script rule of
Bitcoin Core, those of its policy's flags included: the scripts drop the data that they are given and leave one true
element. So a simulated chain needs neither keys nor signatures, and still looks and measures like traffic.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import NamedTuple

from zmqpub.sources.regtest.ripemd160 import ripemd160
from zmqpub.sources.regtest.taproot import single_leaf

__all__ = [
    "ANYONE_CAN_SPEND",
    "MAX_ELEMENT",
    "Kind",
    "Lock",
    "Unlocked",
    "data_carrier",
    "data_lock",
    "input_weight",
    "is_unspendable",
    "key_lock",
    "push",
]

MAX_ELEMENT = 520
"""The longest element, in bytes, that a script or a witness may push."""
_MAX_SCRIPT = 10_000

_OP_0 = 0x00
_OP_PUSHDATA1 = 0x4C
_OP_PUSHDATA2 = 0x4D
_OP_1 = 0x51
_OP_RETURN = 0x6A
_OP_2DROP = 0x6D
_OP_EQUAL = 0x87
_OP_HASH160 = 0xA9

_DROP_PAIR_AND_PASS = bytes([_OP_2DROP, _OP_1])
_SIGNATURE_SIZES = (71, 72)  # ECDSA's, in DER, with the byte for what it signs
_SCHNORR_SIGNATURE_SIZES = (64, 64)


def push(data: bytes) -> bytes:
    """The script that pushes ``data``, 2 to 520 bytes, in the shortest form (what MINIMALDATA asks for)."""
    size = len(data)
    if not 2 <= size <= MAX_ELEMENT:
        raise ValueError(f"a push of {size} bytes, expected 2 to {MAX_ELEMENT}")
    if size < _OP_PUSHDATA1:
        return bytes([size]) + data
    if size < 0x100:
        return bytes([_OP_PUSHDATA1, size]) + data
    return bytes([_OP_PUSHDATA2]) + size.to_bytes(2, "little") + data


def data_carrier(data: bytes) -> bytes:
    """An output script that carries ``data`` and that nobody can spend."""
    return bytes([_OP_RETURN]) + push(data)


def is_unspendable(script_pubkey: bytes) -> bool:
    """Whether Bitcoin Core leaves the output out of the set of coins (CScript::IsUnspendable)."""
    return script_pubkey[:1] == b"\x6a" or len(script_pubkey) > _MAX_SCRIPT


class Kind(enum.Enum):
    """What an output looks like from outside."""

    P2WSH = "p2wsh"
    P2SH = "p2sh"
    """The only one whose spends have no witness."""
    NESTED = "p2sh-p2wsh"
    P2TR = "p2tr"


class Unlocked(NamedTuple):
    """What an input needs to spend a lock."""

    script_sig: bytes
    witness: Sequence[bytes]
    weight: int
    """Of the whole input, outpoint and sequence included, in weight units; its empty witness's count is not in it."""


ANYONE_CAN_SPEND = bytes([_OP_0, 32]) + sha256(bytes([_OP_1])).digest()
"""The P2WSH output whose script is a bare OP_1: the witness ``(b"\\x51",)`` spends it."""


def _size_of_size(size: int) -> int:
    return 1 if size < 0xFD else 3 if size < 0x10000 else 5


def input_weight(script_sig: bytes, witness: Sequence[bytes]) -> int:
    """Weight units of an input in a transaction; the byte that counts an empty witness's items is left out."""
    weight = 4 * (40 + _size_of_size(len(script_sig)) + len(script_sig))
    if witness:
        weight += _size_of_size(len(witness))
        for item in witness:
            weight += _size_of_size(len(item)) + len(item)
    return weight


class Lock:
    """An output script, and how to spend what it holds."""

    __slots__ = ("_always", "_key_weights", "_script_sig", "_sizes", "_tail", "kind", "pairs", "script_pubkey")

    def __init__(self, kind: Kind, script: bytes, pairs: int, sizes: tuple[int, int]) -> None:
        """``script`` drops ``pairs`` pairs of elements, one of them may be its own; ``sizes`` bound what is given."""
        self.kind = kind
        self.pairs = pairs
        self._sizes = sizes
        self._script_sig = b""
        self._tail: tuple[bytes, ...] = (script,)
        self._always = push(script)
        program = bytes([_OP_0, 32]) + sha256(script).digest()
        if kind is Kind.P2WSH:
            self.script_pubkey = program
        elif kind is Kind.P2TR:
            output_key, control_block = single_leaf(script)
            self.script_pubkey = bytes([_OP_1, 32]) + output_key
            self._tail = (script, control_block)
        elif kind is Kind.NESTED:
            self._script_sig = push(program)
            self.script_pubkey = _pay_to_script_hash(program)
        else:
            self.script_pubkey = _pay_to_script_hash(script)
        # Spending a key lock is the generator's innermost loop: all its spends of one size weigh the same.
        self._key_weights = {size: self._wrap((bytes(size),)).weight for size in sizes} if not pairs else {}

    def _wrap(self, items: tuple[bytes, ...]) -> Unlocked:
        if self.kind is Kind.P2SH:
            script_sig = b"".join(map(push, items)) + self._always
            return Unlocked(script_sig, (), input_weight(script_sig, ()))
        witness = items + self._tail
        return Unlocked(self._script_sig, witness, input_weight(self._script_sig, witness))

    def unlock(self, random: Random) -> Unlocked:
        """Bytes that open the lock, new ones each time."""
        low, high = self._sizes
        if not self.pairs:
            size = high if random.random() < 0.5 else low
            signature = random.randbytes(size)
            if self.kind is Kind.P2SH:
                return Unlocked(push(signature) + self._always, (), self._key_weights[size])
            return Unlocked(self._script_sig, (signature, *self._tail), self._key_weights[size])
        data = random.randbytes(random.randint(low, high))
        count = 2 * self.pairs
        step = -(-len(data) // count)
        return self._wrap(tuple(data[place * step : (place + 1) * step] for place in range(count)))


def _pay_to_script_hash(script: bytes) -> bytes:
    return bytes([_OP_HASH160, 20]) + ripemd160(sha256(script).digest()) + bytes([_OP_EQUAL])


def key_lock(kind: Kind, key_hash: bytes) -> Lock:
    """A lock that a signature's worth of bytes opens; ``key_hash``, 20 bytes, makes its address its own."""
    sizes = _SCHNORR_SIGNATURE_SIZES if kind is Kind.P2TR else _SIGNATURE_SIZES
    return Lock(kind, push(key_hash) + _DROP_PAIR_AND_PASS, 0, sizes)


def data_lock(kind: Kind, pairs: int, sizes: tuple[int, int]) -> Lock:
    """A lock that takes ``sizes`` (least, most) bytes of data, as inscriptions do, in ``pairs`` pairs of elements.

    At most 100 pairs, for a script may have 201 operations; at most 1,040 bytes a pair; not for P2SH, whose spends
    cannot carry that much.
    """
    if kind is Kind.P2SH or not 1 <= pairs <= 100 or not 2 <= sizes[0] <= sizes[1] <= 2 * pairs * MAX_ELEMENT:
        raise ValueError(f"no {kind.value} lock takes {sizes[0]} to {sizes[1]} bytes in {pairs} pairs of elements")
    return Lock(kind, bytes([_OP_2DROP]) * pairs + bytes([_OP_1]), pairs, sizes)
