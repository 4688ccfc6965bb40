"""RIPEMD-160 for the few pay-to-script-hash outputs of a simulated chain.

OpenSSL 3 keeps this hash in a provider that many systems do not load, so hashlib cannot be counted on. About 0.1 ms a
block of 64 bytes: for scripts that are made once, not for traffic.
"""

from __future__ import annotations

import struct

__all__ = ["ripemd160"]

_RHO = (7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8)
_PI = tuple((9 * place + 5) % 16 for place in range(16))


def _orders(first: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The order in which each of the five rounds takes the sixteen words: each round permutes the one before by rho."""
    rounds = [first]
    while len(rounds) < 5:
        rounds.append(tuple(_RHO[place] for place in rounds[-1]))
    return rounds


_LEFT_ORDER = _orders(tuple(range(16)))
_RIGHT_ORDER = _orders(_PI)

# How far each word of the message is rotated, by round; indexed by the word, not by the step.
_SHIFTS = (
    (11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8),
    (12, 13, 11, 15, 6, 9, 9, 7, 12, 15, 11, 13, 7, 8, 7, 7),
    (13, 15, 14, 11, 7, 7, 6, 8, 13, 14, 13, 12, 5, 5, 6, 9),
    (14, 11, 12, 14, 8, 6, 5, 5, 15, 12, 15, 14, 9, 9, 8, 6),
    (15, 12, 13, 13, 9, 5, 8, 6, 14, 11, 12, 11, 8, 6, 5, 5),
)
_LEFT_CONSTANTS = (0x00000000, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_RIGHT_CONSTANTS = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0x00000000)
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_MASK = 0xFFFFFFFF


def _rotate(number: int, count: int) -> int:
    number &= _MASK
    return (number << count | number >> (32 - count)) & _MASK


def _mix(function: int, x: int, y: int, z: int) -> int:
    if function == 0:
        return x ^ y ^ z
    if function == 1:
        return x & y | ~x & z
    if function == 2:
        return (x | ~y) ^ z
    if function == 3:
        return x & z | y & ~z
    return x ^ (y | ~z)


def _line(state: tuple[int, ...], words: tuple[int, ...], *, right: bool) -> tuple[int, ...]:
    """One of the two parallel lines of eighty steps."""
    a, b, c, d, e = state
    for number in range(5):
        order = (_RIGHT_ORDER if right else _LEFT_ORDER)[number]
        constant = (_RIGHT_CONSTANTS if right else _LEFT_CONSTANTS)[number]
        function = 4 - number if right else number
        for place in order:
            total = a + _mix(function, b, c, d) + words[place] + constant
            a, e, d, c, b = e, d, _rotate(c, 10), b, (_rotate(total, _SHIFTS[number][place]) + e) & _MASK
    return a, b, c, d, e


def ripemd160(data: bytes) -> bytes:
    """The 20-byte digest of ``data``."""
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + struct.pack("<Q", 8 * len(data))
    state: tuple[int, ...] = _START
    for start in range(0, len(padded), 64):
        words = struct.unpack_from("<16I", padded, start)
        left = _line(state, words, right=False)
        right = _line(state, words, right=True)
        state = tuple((state[(place + 1) % 5] + left[(place + 2) % 5] + right[(place + 3) % 5]) & _MASK for place in range(5))
    return struct.pack("<5I", *state)
