"""The client's side of Stratum v2's template distribution, as a pool would speak it to a template provider.

As little as it takes: the Noise NX handshake over secp256k1 with ElligatorSwift keys (BIP 324's functions), ChaCha20-Poly1305, and the
messages of the subprotocol. The provider's certificate is read and not checked. Slow, and not constant in time: for tests.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
from collections.abc import Iterable
from hashlib import sha256
from types import TracebackType
from typing import NamedTuple

__all__ = ["NewTemplate", "PrevHash", "TemplateClient"]

SETUP_CONNECTION, SETUP_CONNECTION_SUCCESS = 0x00, 0x01
COINBASE_OUTPUT_CONSTRAINTS, NEW_TEMPLATE, SET_NEW_PREV_HASH = 0x70, 0x71, 0x72
REQUEST_TRANSACTION_DATA, REQUEST_TRANSACTION_DATA_SUCCESS = 0x73, 0x74
SUBMIT_SOLUTION = 0x76

_P = 2**256 - 2**32 - 977
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
_Point = tuple[int, int]
_KEY, _TAG, _CHUNK = 64, 16, 65_535
_CERTIFICATE = 74
_PROTOCOL = b"Noise_NX_Secp256k1+EllSwift_ChaChaPoly_SHA256"


# The curve


def _root(square: int) -> int | None:
    root = pow(square, (_P + 1) // 4, _P)
    return root if root * root % _P == square % _P else None


_MINUS_3_ROOT = _root(-3 % _P) or 0


def _inverse(number: int) -> int:
    return pow(number, -1, _P)


def _is_x(x: int) -> bool:
    return _root((x**3 + 7) % _P) is not None


def _add(left: _Point | None, right: _Point | None) -> _Point | None:
    if left is None or right is None:
        return left or right
    if left[0] == right[0]:
        if (left[1] + right[1]) % _P == 0:
            return None
        slope = 3 * left[0] ** 2 * _inverse(2 * left[1]) % _P
    else:
        slope = (right[1] - left[1]) * _inverse(right[0] - left[0]) % _P
    x = (slope**2 - left[0] - right[0]) % _P
    return x, (slope * (left[0] - x) - left[1]) % _P


def _multiply(factor: int, point: _Point) -> _Point:
    result: _Point | None = None
    addend: _Point | None = point
    while factor:
        if factor & 1:
            result = _add(result, addend)
        addend = _add(addend, addend)
        factor >>= 1
    assert result is not None
    return result


def _decode(u: int, t: int) -> int:
    """The x that an ElligatorSwift key stands for (XSwiftEC)."""
    u, t = u % _P or 1, t % _P or 1
    if (u**3 + t**2 + 7) % _P == 0:
        t = 2 * t % _P
    big_x = (u**3 + 7 - t**2) * _inverse(2 * t) % _P
    big_y = (big_x + t) * _inverse(_MINUS_3_ROOT * u) % _P
    ratio = big_x * _inverse(big_y) % _P
    half = _inverse(2)
    candidates = ((u + 4 * big_y**2) % _P, (-ratio - u) * half % _P, (ratio - u) * half % _P)
    return next(x for x in candidates if _is_x(x))


def _encode(x: int) -> bytes:
    """Some ElligatorSwift key that stands for x."""
    while True:
        u = secrets.randbelow(_P - 1) + 1
        # One of the up to eight branches of the inverse is enough; another u, if it leads nowhere.
        if _is_x((-x - u) % _P):
            continue
        square = -(u**3 + 7) * _inverse(u**2 + u * x + x**2) % _P
        w = _root(square)
        if w is None:
            continue
        t = -w * (u * (1 - _MINUS_3_ROOT) * _inverse(2) + x) % _P
        if _decode(u, t) == x:
            return u.to_bytes(32, "big") + t.to_bytes(32, "big")


def _shared_secret(private: int, ours: bytes, theirs: bytes) -> bytes:
    """BIP 324's, of the side that began."""
    x = _decode(int.from_bytes(theirs[:32], "big"), int.from_bytes(theirs[32:], "big"))
    y = _root((x**3 + 7) % _P)
    assert y is not None
    shared = _multiply(private, (x, y))[0].to_bytes(32, "big")
    tag = sha256(b"bip324_ellswift_xonly_ecdh").digest()
    return sha256(tag + tag + ours + theirs + shared).digest()


# ChaCha20-Poly1305 (RFC 8439)


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & 0xFFFFFFFF


def _block(key: bytes, counter: int, nonce: bytes) -> bytes:
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    state = list(start)
    quarters = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for _ in range(10):
        for a, b, c, d in quarters:
            for into, other, mixed, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[into] = (state[into] + state[other]) & 0xFFFFFFFF
                state[mixed] = _rotate(state[mixed] ^ state[into], bits)
    return struct.pack("<16I", *((one + other) & 0xFFFFFFFF for one, other in zip(state, start, strict=True)))


def _stream(key: bytes, nonce: bytes, data: bytes) -> bytes:
    blocks = b"".join(_block(key, 1 + place, nonce) for place in range(-(-len(data) // 64)))
    return bytes(one ^ other for one, other in zip(data, blocks, strict=False))


def _tag(key: bytes, nonce: bytes, associated: bytes, cipher: bytes) -> bytes:
    one_time = _block(key, 0, nonce)
    r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    data = b"".join(part + bytes(-len(part) % 16) for part in (associated, cipher)) + struct.pack("<QQ", len(associated), len(cipher))
    total = 0
    for place in range(0, len(data), 16):
        total = (total + int.from_bytes(data[place : place + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(one_time[16:32], "little")) % 2**128).to_bytes(16, "little")


class _Cipher:
    def __init__(self, key: bytes) -> None:
        self._key = key
        self._used = 0

    def _nonce(self) -> bytes:
        self._used += 1
        return bytes(4) + (self._used - 1).to_bytes(8, "little")

    def seal(self, plain: bytes, associated: bytes = b"") -> bytes:
        nonce = self._nonce()
        cipher = _stream(self._key, nonce, plain)
        return cipher + _tag(self._key, nonce, associated, cipher)

    def open(self, sealed: bytes, associated: bytes = b"") -> bytes:
        nonce = self._nonce()
        cipher, tag = sealed[:-_TAG], sealed[-_TAG:]
        assert tag == _tag(self._key, nonce, associated, cipher), "a message that was not encrypted for us"
        return _stream(self._key, nonce, cipher)


class _Symmetric:
    """Noise's symmetric state."""

    def __init__(self) -> None:
        self._chaining = sha256(_PROTOCOL).digest()
        self._hash = sha256(self._chaining).digest()  # with an empty prologue
        self._cipher = _Cipher(bytes(32))

    def mix_hash(self, data: bytes) -> None:
        self._hash = sha256(self._hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining, key = self._derive(material)
        self._cipher = _Cipher(key)

    def open(self, sealed: bytes) -> bytes:
        plain = self._cipher.open(sealed, self._hash)
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[_Cipher, _Cipher]:
        first, second = self._derive(b"")
        return _Cipher(first), _Cipher(second)

    def _derive(self, material: bytes) -> tuple[bytes, bytes]:
        key = hmac.digest(self._chaining, material, "sha256")
        first = hmac.digest(key, b"\1", "sha256")
        return first, hmac.digest(key, first + b"\2", "sha256")


# Messages


class NewTemplate(NamedTuple):
    """What may be mined; hashes are 32 bytes as they are hashed."""

    template_id: int
    is_future: bool
    version: int
    coinbase_version: int
    coinbase_prefix: bytes
    coinbase_sequence: int
    value_remaining: int
    outputs: bytes
    """Serialized, one after the other, without their count."""
    output_count: int
    locktime: int
    merkle_path: list[bytes]

    @classmethod
    def read(cls, data: bytes) -> NewTemplate:
        template_id, is_future, version, coinbase_version, length = struct.unpack_from("<QBIIB", data)
        place = 18
        prefix = data[place : place + length]
        place += length
        sequence, value, count, size = struct.unpack_from("<IQIH", data, place)
        place += 18
        outputs = data[place : place + size]
        place += size
        locktime, steps = struct.unpack_from("<IB", data, place)
        place += 5
        path = [data[place + 32 * step : place + 32 * step + 32] for step in range(steps)]
        assert place + 32 * steps == len(data)
        return cls(template_id, bool(is_future), version, coinbase_version, prefix, sequence, value, outputs, count, locktime, path)


class PrevHash(NamedTuple):
    """What the templates are to be mined on."""

    template_id: int
    prev_hash: bytes
    """32 bytes, as they are hashed."""
    timestamp: int
    bits: int
    target: bytes

    @classmethod
    def read(cls, data: bytes) -> PrevHash:
        return cls(*struct.unpack("<Q32sII32s", data))


class TemplateClient:
    """A connection to a template provider, set up for template distribution."""

    def __init__(self, port: int, *, output_size: int = 100, output_sigops: int = 400, timeout: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        try:
            self._sending, self._receiving = self._shake_hands()
            names = b"".join(bytes([len(name)]) + name for name in (b"zmqpub", b"", b"", b""))
            host = b"127.0.0.1"
            setup = struct.pack("<BHHI", 2, 2, 2, 0) + bytes([len(host)]) + host + struct.pack("<H", port) + names
            self.send(SETUP_CONNECTION, setup)
            kind, answer = self.receive()
            assert (kind, answer) == (SETUP_CONNECTION_SUCCESS, struct.pack("<HI", 2, 0))
            self.send(COINBASE_OUTPUT_CONSTRAINTS, struct.pack("<IH", output_size, output_sigops))
        except BaseException:
            self._socket.close()
            raise

    def _shake_hands(self) -> tuple[_Cipher, _Cipher]:
        private = secrets.randbelow(_ORDER - 1) + 1
        ours = _encode(_multiply(private, _G)[0])
        state = _Symmetric()
        state.mix_hash(ours)
        state.mix_hash(b"")
        self._socket.sendall(ours)
        theirs = self._read(_KEY)
        state.mix_hash(theirs)
        state.mix_key(_shared_secret(private, ours, theirs))
        static = state.open(self._read(_KEY + _TAG))
        state.mix_key(_shared_secret(private, ours, static))
        state.open(self._read(_CERTIFICATE + _TAG))
        return state.split()

    def __enter__(self) -> TemplateClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def send(self, kind: int, data: bytes) -> None:
        header = struct.pack("<HB", 0, kind) + len(data).to_bytes(3, "little")
        self._socket.sendall(self._sending.seal(header) + b"".join(map(self._sending.seal, _chunks(data))))

    def receive(self) -> tuple[int, bytes]:
        """The kind and content of the next message."""
        header = self._receiving.open(self._read(6 + _TAG))
        left = int.from_bytes(header[3:], "little")
        parts = []
        while left:
            size = min(left, _CHUNK - _TAG)
            parts.append(self._receiving.open(self._read(size + _TAG)))
            left -= size
        return header[2], b"".join(parts)

    def work(self) -> tuple[NewTemplate, PrevHash]:
        """The next template that is for a new tip, with that."""
        template: NewTemplate | None = None
        while True:
            kind, data = self.receive()
            if kind == NEW_TEMPLATE:
                template = NewTemplate.read(data)
            elif kind == SET_NEW_PREV_HASH:
                prev_hash = PrevHash.read(data)
                assert template is not None
                assert template.template_id == prev_hash.template_id
                return template, prev_hash

    def transactions(self, template_id: int) -> list[bytes]:
        """Those of a template, serialized; the coinbase is none of them."""
        self.send(REQUEST_TRANSACTION_DATA, struct.pack("<Q", template_id))
        kind, data = self.receive()
        while kind in (NEW_TEMPLATE, SET_NEW_PREV_HASH):
            kind, data = self.receive()
        assert kind == REQUEST_TRANSACTION_DATA_SUCCESS, data
        place = 10 + int.from_bytes(data[8:10], "little")  # behind what a pool needs besides: the coinbase's witness
        count, found = int.from_bytes(data[place : place + 2], "little"), []
        place += 2
        for _ in range(count):
            size = int.from_bytes(data[place : place + 3], "little")
            found.append(data[place + 3 : place + 3 + size])
            place += 3 + size
        assert place == len(data)
        return found

    def submit(self, template_id: int, version: int, timestamp: int, nonce: int, coinbase: bytes) -> None:
        self.send(SUBMIT_SOLUTION, struct.pack("<QIIIH", template_id, version, timestamp, nonce, len(coinbase)) + coinbase)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            assert part, "the template provider closed the connection"
            data += part
        return data


def _chunks(data: bytes) -> Iterable[bytes]:
    step = _CHUNK - _TAG
    return (data[place : place + step] for place in range(0, len(data), step))
