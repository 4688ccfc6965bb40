"""BIP 341 outputs that can be spent through one leaf script and by no key.

Points of secp256k1 are in Jacobian coordinates. Nothing here is secret, so nothing runs in constant time.
"""

from __future__ import annotations

from hashlib import sha256

__all__ = ["INTERNAL_KEY", "single_leaf"]

_Point = tuple[int, int, int]

_P = 2**256 - 2**32 - 977
_G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    1,
)

INTERNAL_KEY = bytes.fromhex("50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0")
"""BIP 341's point H, whose secret key nobody knows, as 32 bytes (x only, big-endian)."""

_LEAF_VERSION = 0xC0


def _double(point: _Point) -> _Point:
    x, y, z = point
    yy = y * y % _P
    s = 4 * x * yy % _P
    m = 3 * x * x % _P
    x3 = (m * m - 2 * s) % _P
    return x3, (m * (s - x3) - 8 * yy * yy) % _P, 2 * y * z % _P


def _add(a: _Point, b: _Point) -> _Point:
    """The sum of two points that differ in x; a ``z`` of zero is the point at infinity."""
    x1, y1, z1 = a
    x2, y2, z2 = b
    if not z1:
        return b
    if not z2:
        return a
    z1z1 = z1 * z1 % _P
    z2z2 = z2 * z2 % _P
    u1 = x1 * z2z2 % _P
    s1 = y1 * z2 * z2z2 % _P
    h = (x2 * z1z1 - u1) % _P
    r = (y2 * z1 * z1z1 - s1) % _P
    hh = h * h % _P
    hhh = h * hh % _P
    v = u1 * hh % _P
    x3 = (r * r - hhh - 2 * v) % _P
    return x3, (r * (v - x3) - s1 * hhh) % _P, h * z1 * z2 % _P


def _times_g(factor: int) -> _Point:
    total, addend = (0, 1, 0), _G
    while factor:
        if factor & 1:
            total = _add(total, addend)
        addend = _double(addend)
        factor >>= 1
    return total


def _lift_x(x: int) -> _Point:
    """The point with this x and an even y."""
    y = pow(x * x * x + 7, (_P + 1) // 4, _P)
    return x, y if y % 2 == 0 else _P - y, 1


def _tagged_hash(tag: str, data: bytes) -> bytes:
    prefix = sha256(tag.encode()).digest()
    return sha256(prefix + prefix + data).digest()


def single_leaf(script: bytes, internal_key: bytes = INTERNAL_KEY) -> tuple[bytes, bytes]:
    """(output key, control block) of an output whose only leaf is ``script``, of fewer than 253 bytes."""
    if len(script) >= 0xFD:
        raise ValueError(f"a leaf script of {len(script)} bytes, expected fewer than 253")
    leaf = _tagged_hash("TapLeaf", bytes([_LEAF_VERSION, len(script)]) + script)
    tweak = int.from_bytes(_tagged_hash("TapTweak", internal_key + leaf), "big")
    x, y, z = _add(_lift_x(int.from_bytes(internal_key, "big")), _times_g(tweak))
    inverse = pow(z, -1, _P)
    output_x = x * inverse * inverse % _P
    odd = y * inverse * inverse * inverse % _P & 1
    return output_x.to_bytes(32, "big"), bytes([_LEAF_VERSION | odd]) + internal_key
