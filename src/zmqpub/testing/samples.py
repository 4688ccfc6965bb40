"""Bodies made up for a test that does not care what a message is about: sound, different from one another, repeatable."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from zmqpub._build import build_block, build_transaction, merkle_root
from zmqpub._fast import Block, Transaction
from zmqpub.primitives import BlockHeader, TxIn, TxOut
from zmqpub.wire import SequenceBody, SequenceLabel, Topic

__all__ = ["malformed_body", "sample_block", "sample_body", "sample_transaction", "wrong_length_body"]

_EASIEST: Final = 0x207FFFFF


def sample_transaction(number: int) -> Transaction:
    """The ``number``-th transaction: one input with a witness, two outputs, about 190 bytes."""
    random = Random(number)
    spent = TxIn(random.randbytes(32), 0, witness=[random.randbytes(71), random.randbytes(33)])
    outputs = [TxOut(random.randrange(10**8), b"\x00\x14" + random.randbytes(20)) for _ in range(2)]
    return build_transaction([spent], outputs)


def sample_block(number: int) -> Block:
    """The ``number``-th block, of three transactions. Its merkle root is right, its proof of work and its parent are nobody's."""
    transactions = [sample_transaction(3 * number + index) for index in range(3)]
    root = merkle_root([transaction.txid for transaction in transactions])
    header = BlockHeader(0x20000000, Random(number).randbytes(32), root, 1_735_689_600 + number, _EASIEST, number)
    return build_block(header, transactions)


def sample_body(topic: Topic, number: int) -> bytes:
    """The ``number``-th body for ``topic``; for sequence an ``A`` with the mempool sequence ``number``."""
    return _MAKERS[topic](number)


def _sequence(number: int) -> bytes:
    return SequenceBody(sample_transaction(number).txid, SequenceLabel.ADDED, number).encode()


_MAKERS: Final[dict[Topic, Callable[[int], bytes]]] = {
    Topic.HASHBLOCK: lambda number: Random(number).randbytes(32),
    Topic.HASHTX: lambda number: sample_transaction(number).txid,
    Topic.RAWBLOCK: lambda number: bytes(sample_block(number)),
    Topic.RAWTX: lambda number: bytes(sample_transaction(number)),
    Topic.SEQUENCE: _sequence,
}


def wrong_length_body(topic: Topic, number: int) -> bytes:
    """A body that its length alone gives away: a byte less than the shortest one of ``topic``, or than its label demands."""
    body = sample_body(topic, number)
    return body[: topic.min_body - 1] if topic.is_raw else body[:-1]


def malformed_body(topic: Topic, number: int) -> bytes:
    """A body of a plausible length that is none: a raw one that ends too early, a sequence with an unknown label.

    ValueError for hashblock and hashtx: any 32 bytes are a hash.
    """
    body = sample_body(topic, number)
    if topic.is_raw:
        return body[:-1]
    if topic is Topic.SEQUENCE:
        return body[:32] + b"X" + body[33:]
    raise ValueError(f"any 32 bytes are a {topic} body; see wrong_length()")
