"""What a consumer writes down of each thing it was told, and what it should have written: the judge's measure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from soaking.story import ADDED, CONNECTED, DISCONNECTED, REMOVED, TIP, Event, Story
from zmqpub import Block, Topic, Transaction
from zmqpub.chain_events import BlockConnected, BlockDisconnected, ChainEvent, TransactionAdded, TransactionRemoved
from zmqpub.wire import COUNTER_MODULUS

__all__ = ["MESSAGE", "STEP", "expected_messages", "expected_steps", "message_record", "step_record"]

MESSAGE = struct.Struct("<BII")
"""A message: topic, counter, CRC-32 of the body."""
STEP = struct.Struct("<B32sQ")
"""An event of the chain: kind, hash or txid, mempool sequence."""

_HASHBLOCK, _HASHTX, _RAWBLOCK, _RAWTX, _SEQUENCE = range(5)
_INDEX = {topic: index for index, topic in enumerate(Topic)}
_LABELS = {ADDED: b"A", REMOVED: b"R", CONNECTED: b"C", DISCONNECTED: b"D"}
_crc32 = zlib.crc32


def message_record(item: Any, *, counted: bool) -> bytes:
    """Of a typed notification; ``counted``: with its counter, which says something where a restarted publisher goes on with it."""
    return MESSAGE.pack(_INDEX[item.topic], item.counter if counted else 0, _crc32(item.body))


def step_record(event: ChainEvent) -> bytes:
    """Of an event of a follower; whatever else it tells is no part of a story that is whole."""
    if isinstance(event, TransactionAdded):
        return STEP.pack(ADDED, event.txid, event.mempool_sequence or 0)
    if isinstance(event, TransactionRemoved):
        return STEP.pack(REMOVED, event.txid, event.mempool_sequence or 0)
    if isinstance(event, BlockConnected):
        return STEP.pack(CONNECTED, event.hash, 0)
    if isinstance(event, BlockDisconnected):
        return STEP.pack(DISCONNECTED, event.hash, 0)
    raise ValueError(f"not part of the story: {event}")


def expected_messages(story: Story, *, counted: bool) -> Iterator[bytes]:
    """Event by event the records of all messages, in the order of docs/wire.md."""
    counters = [0] * 5

    def made(topic: int, body: bytes | memoryview) -> bytes:
        counter = counters[topic]
        counters[topic] = (counter + 1) % COUNTER_MODULUS
        return MESSAGE.pack(topic, counter if counted else 0, _crc32(body))

    def transaction(tx: Transaction) -> bytes:
        return made(_HASHTX, tx.txid) + made(_RAWTX, tx.raw)

    for event in story.rows():
        if event.kind == TIP:
            block = Block(story.body(event))
            yield made(_HASHBLOCK, block.hash) + made(_RAWBLOCK, block.raw)
        elif event.kind in (CONNECTED, DISCONNECTED):
            block = Block(story.body(event))
            yield b"".join(map(transaction, block)) + made(_SEQUENCE, block.hash + _LABELS[event.kind])
        else:
            tx = Transaction(story.body(event))
            label = made(_SEQUENCE, tx.txid + _LABELS[event.kind] + event.mempool_sequence.to_bytes(8, "little"))
            yield (transaction(tx) if event.kind == ADDED else b"") + label


def expected_steps(story: Story) -> Iterator[bytes]:
    """Event by event what a follower tells."""
    for event in story.rows():
        if event.kind in (CONNECTED, DISCONNECTED):
            yield STEP.pack(event.kind, Block(story.body(event)).hash, 0)
        elif event.kind != TIP:
            yield STEP.pack(event.kind, _txid(story, event), event.mempool_sequence)


def _txid(story: Story, event: Event) -> bytes:
    return Transaction(story.body(event)).txid
