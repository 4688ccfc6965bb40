"""pyzmq and hashlib, as a good Python programmer would write it: one walk with an index, no object for each part, slices of the
block hashed and sent, names looked up once."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from struct import Struct
from typing import Any

import zmq

_U16, _U32, _U64 = Struct("<H").unpack_from, Struct("<I").unpack_from, Struct("<Q").unpack_from
_COUNTER = Struct("<I").pack


def compact_size(raw: bytes, at: int) -> tuple[int, int]:
    """(value, offset behind it)"""
    first = raw[at]
    if first < 253:
        return first, at + 1
    if first == 253:
        return _U16(raw, at + 1)[0], at + 3
    if first == 254:
        return _U32(raw, at + 1)[0], at + 5
    return _U64(raw, at + 1)[0], at + 9


def transactions(raw: bytes, at: int, number: int) -> Iterator[tuple[bytes, bytes]]:
    """(txid in display order, serialization) of each transaction from an offset on."""
    for _ in range(number):
        start = at
        at += 4
        segwit = raw[at] == 0
        if segwit:
            at += 2
        body = at
        inputs, at = compact_size(raw, at)
        for _ in range(inputs):
            size = raw[at + 36]
            if size < 253:
                at += size + 41
            else:
                size, at = compact_size(raw, at + 36)
                at += size + 4
        outputs, at = compact_size(raw, at)
        for _ in range(outputs):
            size = raw[at + 8]
            if size < 253:
                at += size + 9
            else:
                size, at = compact_size(raw, at + 8)
                at += size
        if segwit:
            witness = at
            for _ in range(inputs):
                items = raw[at]
                at += 1
                if items >= 253:
                    items, at = compact_size(raw, at - 1)
                for _ in range(items):
                    size = raw[at]
                    if size < 253:
                        at += size + 1
                    else:
                        size, at = compact_size(raw, at)
                        at += size
            at += 4
            stripped = raw[start : start + 4] + raw[body:witness] + raw[at - 4 : at]
            yield sha256(sha256(stripped).digest()).digest()[::-1], raw[start:at]
        else:
            at += 4
            serialized = raw[start:at]
            yield sha256(sha256(serialized).digest()).digest()[::-1], serialized


class ByHand:
    def __init__(self, hwm: int) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set_hwm(hwm)
        self._socket.linger = 0
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self._transactions, self._sequences, self._tips = count(), count(), count()

    def burst(self, raw: bytes) -> None:
        send, counters = self._socket.send_multipart, self._transactions
        number, at = compact_size(raw, 80)
        for txid, serialized in transactions(raw, at, number):
            counter = _COUNTER(next(counters))
            send((b"hashtx", txid, counter))
            send((b"rawtx", serialized, counter))
        block_hash = sha256(sha256(raw[:80]).digest()).digest()[::-1]
        send((b"sequence", block_hash + b"C", _COUNTER(next(self._sequences))))
        counter = _COUNTER(next(self._tips))
        send((b"hashblock", block_hash, counter))
        send((b"rawblock", raw, counter), copy=False)

    def transaction(self, raw: bytes, mempool_sequence: int) -> None:
        send = self._socket.send_multipart
        txid, _ = next(transactions(raw, 0, 1))
        counter = _COUNTER(next(self._transactions))
        send((b"hashtx", txid, counter))
        send((b"rawtx", raw, counter))
        send((b"sequence", txid + b"A" + mempool_sequence.to_bytes(8, "little"), _COUNTER(next(self._sequences))))

    def flush(self) -> None:
        """What was sent is with libzmq."""

    def close(self) -> None:
        self._socket.close()
        self._context.term()
