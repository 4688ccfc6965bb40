"""python-bitcoinlib's blocks and transactions, sent with pyzmq."""

from __future__ import annotations

from itertools import count
from struct import Struct
from typing import Any

import zmq
from bitcoin.core import CBlock, CTransaction

_COUNTER = Struct("<I").pack


class BitcoinLib:
    def __init__(self, hwm: int) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.set_hwm(hwm)
        self._socket.linger = 0
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self._transactions, self._sequences, self._tips = count(), count(), count()

    def burst(self, raw: bytes) -> None:
        send = self._socket.send_multipart
        block = CBlock.deserialize(raw)
        for transaction in block.vtx:
            counter = _COUNTER(next(self._transactions))
            send((b"hashtx", transaction.GetTxid()[::-1], counter))
            send((b"rawtx", transaction.serialize(), counter))
        block_hash = block.GetHash()[::-1]
        send((b"sequence", block_hash + b"C", _COUNTER(next(self._sequences))))
        counter = _COUNTER(next(self._tips))
        send((b"hashblock", block_hash, counter))
        send((b"rawblock", raw, counter), copy=False)

    def transaction(self, raw: bytes, mempool_sequence: int) -> None:
        send = self._socket.send_multipart
        transaction = CTransaction.deserialize(raw)
        txid = transaction.GetTxid()[::-1]
        counter = _COUNTER(next(self._transactions))
        send((b"hashtx", txid, counter))
        send((b"rawtx", raw, counter))
        send((b"sequence", txid + b"A" + mempool_sequence.to_bytes(8, "little"), _COUNTER(next(self._sequences))))

    def flush(self) -> None:
        """What was sent is with libzmq."""

    def close(self) -> None:
        self._socket.close()
        self._context.term()
