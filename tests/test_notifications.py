"""The typed notifications: what they carry, that nobody can change or forge them, and that bodies are not copied."""

from __future__ import annotations

import ctypes
import gc
import json
import pickle
import sys

import pytest
from conftest import TRACE
from raw_publisher import HASHBLOCK, HASHTX, RAWBLOCK, RAWTX, SEQUENCE, RawPublisher, messages, receiving, take_count
from synthetic import block

from zmqpub import Block, HashBlock, HashTx, RawBlock, RawTx, Sequence, SequenceLabel, Topic, Transaction, wire
from zmqpub._fast import Received

HASH = bytes(range(32))
RAW_TX = bytes.fromhex("0100000001") + bytes(36) + b"\0" + b"\xff" * 4 + b"\1" + bytes(8) + b"\0" + bytes(4)


def received(topic: int, body: bytes, counter: int = 7, times: int = 1) -> list[Received]:
    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        for i in range(times):
            publisher.send(topic, body, counter + i)
        return messages(take_count(receiver, times))


def test_hashes_are_in_the_order_of_the_wire() -> None:
    (tip,) = received(HASHBLOCK, HASH)
    (tx,) = received(HASHTX, HASH)
    assert isinstance(tip, HashBlock)
    assert isinstance(tx, HashTx)
    assert (tip.hash, tip.body, tip.topic, tip.counter, tip.repaired) == (HASH, HASH, Topic.HASHBLOCK, 7, False)
    assert (tx.txid, tx.body, tx.topic) == (HASH, HASH, Topic.HASHTX)
    assert tip.address.startswith("tcp://127.0.0.1:")


@pytest.mark.parametrize(("label", "number"), [("C", None), ("D", None), ("A", 0), ("R", 2**64 - 1)])
def test_a_sequence_message_has_its_parts(label: str, number: int | None) -> None:
    body = wire.SequenceBody(HASH, SequenceLabel(label), number).encode()
    (message,) = received(SEQUENCE, body)
    assert isinstance(message, Sequence)
    assert (message.hash, message.label, message.mempool_sequence, message.body) == (HASH, SequenceLabel(label), number, body)
    assert message.label is SequenceLabel(label)


def test_a_raw_transaction_is_parsed() -> None:
    (message,) = received(RAWTX, RAW_TX)
    assert isinstance(message, RawTx)
    assert message.transaction == Transaction(RAW_TX)
    assert message.txid == Transaction(RAW_TX).txid
    assert bytes(message.body) == RAW_TX


@pytest.mark.parametrize("transactions", [1, 400])
def test_a_raw_block_is_parsed(transactions: int) -> None:
    raw = bytes(block(1, transactions))
    (message,) = received(RAWBLOCK, raw)
    assert isinstance(message, RawBlock)
    assert message.block == Block(raw)
    assert message.block.txids == Block(raw).txids
    assert message.hash == Block(raw).hash
    assert message.body == raw


class _Buffer(ctypes.Structure):
    _fields_ = (("buf", ctypes.c_void_p), ("rest", ctypes.c_byte * 256))


def address_of_bytes(data: memoryview | Block | Transaction) -> int:
    view = _Buffer()
    assert ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(view), 0) == 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    return int(view.buf or 0)


@pytest.mark.parametrize("transactions", [1, 400])
def test_raw_bodies_are_not_copied_and_outlive_their_message(transactions: int) -> None:
    raw = bytes(block(1, transactions))
    (message,) = received(RAWBLOCK, raw)
    assert isinstance(message, RawBlock)
    body, parsed = message.body, message.block
    assert body.readonly
    assert address_of_bytes(body) == address_of_bytes(message.body) == address_of_bytes(parsed)
    del message
    gc.collect()
    assert body == raw
    tx = parsed[0]
    del parsed, body
    gc.collect()
    assert bytes(tx) == bytes(Block(raw)[0])


def test_equal_when_what_was_sent_is() -> None:
    first, second = received(HASHTX, HASH, times=2)
    (again,) = received(HASHTX, HASH)
    assert first == first
    assert first != second  # the counter
    assert first != again  # the address: another port
    assert first != HASH
    assert len({first, second}) == 2
    with RawPublisher() as publisher, receiving(publisher.address) as one, receiving(publisher.address) as other:
        publisher.wait_subscribed()
        publisher.wait_subscribed()
        publisher.send(RAWTX, RAW_TX, 3)
        (a,), (b,) = take_count(one, 1), take_count(other, 1)
    assert a is not b
    assert a == b
    assert hash(a) == hash(b)


def test_their_repr_says_what_and_where() -> None:
    (message,) = received(SEQUENCE, HASH + b"A" + (5).to_bytes(8, "little"))
    assert repr(message) == f"<Sequence A 5 {HASH.hex()}, counter 7, {message.address}>"
    (tip,) = received(RAWBLOCK, bytes(block(1, 1)))
    assert isinstance(tip, RawBlock)
    assert repr(tip) == f"<RawBlock {tip.hash.hex()}, counter 7, {tip.address}>"


@pytest.mark.parametrize("kind", [Received, HashBlock, HashTx, RawBlock, RawTx, Sequence])
def test_nobody_else_makes_one(kind: type[Received]) -> None:
    with pytest.raises(TypeError, match="made by receiving"):
        kind()
    with pytest.raises(TypeError, match="made by receiving"):
        kind.__new__(kind)


def test_nobody_changes_one() -> None:
    (message,) = received(HASHTX, HASH)
    for name in ("txid", "counter", "address", "body", "topic", "repaired", "anything"):
        with pytest.raises(AttributeError):
            setattr(message, name, None)
    assert memoryview(message).readonly
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(message)


def test_they_are_small_and_used_again() -> None:
    (message,) = received(HASHTX, HASH)
    assert sys.getsizeof(message) <= 128
    assert not gc.is_tracked(message)


def test_what_a_node_sent_comes_out_as_it_was() -> None:
    """All 414 messages of the recorded node: the same bytes and counters, and nothing is noticed but its reorgs."""
    frames = [frame for line in TRACE.read_text().splitlines()[1:] for frame in json.loads(line)["frames"]]
    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        for topic, body, counter in frames:
            publisher.send(topic.encode(), bytes.fromhex(body), counter)
        items = take_count(receiver, len(frames) + 6)
        assert receiver.take(0.1) is None
    assert [[m.topic.value, bytes(m.body).hex(), m.counter] for m in messages(items)] == frames
    assert [item[0] for item in items if isinstance(item, tuple)] == ["reorg"] * 6
