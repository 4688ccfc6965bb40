"""What goes over the wire: the five topics, the three frames, the sequence body, the counters. Does no I/O.

A notification is exactly three frames: the topic in ASCII (no length, no NUL), the body, and a counter in 4 bytes,
little-endian. Hashes stand in display order, reversed with respect to the serialization, as explorers show them.

=========  =======================================================================================
hashblock  the block's hash, 32 bytes
hashtx     the txid, 32 bytes: the hash of the transaction without its witness
rawblock   the serialized block with witnesses
rawtx      the serialized transaction with its witness
sequence   the hash, 32 bytes, a label, 1 byte, and for ``A`` and ``R`` the mempool sequence, 8 bytes, little-endian
=========  =======================================================================================

Each notifier (a topic at an address) counts its messages from 0, modulo 2**32; see `compare_counters` for what a
subscriber can tell from two counters.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from zmqpub.errors import DecodeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "COUNTER_MODULUS",
    "MIN_RAW_BLOCK",
    "MIN_RAW_TRANSACTION",
    "CounterStep",
    "Notification",
    "SequenceBody",
    "SequenceLabel",
    "Topic",
    "compare_counters",
    "counter_gap",
    "decode",
    "encode",
    "is_restart",
    "next_counter",
]

COUNTER_MODULUS = 2**32
"""Counters are unsigned 32 bits and wrap."""

MIN_RAW_BLOCK = 81
"""Bytes in the shortest thing that could be a block: a header and a count of zero transactions."""

MIN_RAW_TRANSACTION = 10
"""Bytes in the shortest thing that could be a transaction: version, two counts of zero, locktime."""

_HASH_SIZE = 32
_RESTART_DISTANCE = 2**31
_COUNTER = struct.Struct("<I")
_MEMPOOL_SEQUENCE = struct.Struct("<Q")
_SHOWN = 32


class Topic(str, enum.Enum):
    """What a notifier publishes. In the order of their names, which is the order of Bitcoin Core's notifiers."""

    HASHBLOCK = "hashblock"
    HASHTX = "hashtx"
    RAWBLOCK = "rawblock"
    RAWTX = "rawtx"
    SEQUENCE = "sequence"

    frame: bytes
    """The first frame, ASCII."""
    option: str
    """The option that takes this topic's addresses: ``zmqpubhashblock``."""
    hwm_option: str
    """The option that takes its high-water mark: ``zmqpubhashblockhwm``."""
    notifier_type: str
    """What Bitcoin Core's ``getzmqnotifications`` calls it: ``pubhashblock``."""

    min_body: int
    """Bytes that its body has at least."""
    is_raw: bool
    """Whether the body is a serialized block or transaction."""

    def __init__(self, name: str) -> None:
        self.frame = name.encode("ascii")
        self.is_raw = name.startswith("raw")
        self.min_body = {"rawblock": MIN_RAW_BLOCK, "rawtx": MIN_RAW_TRANSACTION, "sequence": 33}.get(name, 32)
        self.notifier_type = f"pub{name}"
        self.option = f"zmqpub{name}"
        self.hwm_option = f"zmqpub{name}hwm"

    # Python 3.10 and 3.12 differ in what they print for a str that is an Enum; this is the same everywhere.
    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class SequenceLabel(str, enum.Enum):
    """The byte after the hash in a ``sequence`` body."""

    CONNECTED = "C"
    """A block became part of the active chain."""
    DISCONNECTED = "D"
    """A block left the active chain."""
    ADDED = "A"
    """A transaction entered the mempool."""
    REMOVED = "R"
    """A transaction left the mempool, and not because a block contains it."""

    byte: bytes
    is_block: bool
    """Whether the hash is a block's; else it is a txid and a mempool sequence follows."""

    def __init__(self, letter: str) -> None:
        self.byte = letter.encode("ascii")
        self.is_block = letter in ("C", "D")

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


_TOPICS = {topic.frame: topic for topic in Topic}
_LABELS = {label.byte: label for label in SequenceLabel}
_TOPIC_NAMES = ", ".join(topic.value for topic in Topic)
_LABEL_LETTERS = ", ".join(label.value for label in SequenceLabel)


@dataclass(frozen=True, slots=True)
class SequenceBody:
    """The body of a ``sequence`` message.

    ``hash`` is 32 bytes in display order. ``mempool_sequence`` is an unsigned 64-bit number for a transaction and None
    for a block. Values that the wire cannot carry raise ValueError.
    """

    hash: bytes
    label: SequenceLabel
    mempool_sequence: int | None = None

    def __post_init__(self) -> None:
        if len(self.hash) != _HASH_SIZE:
            raise ValueError(f"a hash has {_HASH_SIZE} bytes, not {len(self.hash)}")
        if self.label.is_block:
            if self.mempool_sequence is not None:
                raise ValueError(f"label {self.label} is about a block, which has no mempool sequence")
        elif self.mempool_sequence is None:
            raise ValueError(f"label {self.label} is about a transaction and needs a mempool sequence")
        elif not 0 <= self.mempool_sequence < 2**64:
            raise ValueError(f"a mempool sequence is an unsigned 64-bit number, not {self.mempool_sequence}")

    def encode(self) -> bytes:
        """33 bytes for a block, 41 for a transaction."""
        if self.mempool_sequence is None:
            return self.hash + self.label.byte
        return self.hash + self.label.byte + _MEMPOOL_SEQUENCE.pack(self.mempool_sequence)

    @classmethod
    def decode(cls, body: Buffer) -> SequenceBody:
        """The parts of ``body``; DecodeError where they are not what `encode` makes."""
        data = _view(body)
        label = _check_sequence(data)
        number = None if label.is_block else _MEMPOOL_SEQUENCE.unpack_from(data, _HASH_SIZE + 1)[0]
        return cls(bytes(data[:_HASH_SIZE]), label, number)


class Notification(NamedTuple):
    """One message."""

    topic: Topic
    body: bytes | memoryview
    """The second frame: bytes where bytes were given and for all but raw topics, else a read-only view, not a copy."""
    counter: int
    """Unsigned 32 bits."""

    def sequence_body(self) -> SequenceBody:
        """The parts of a ``sequence`` message; ValueError for any other topic."""
        if self.topic is not Topic.SEQUENCE:
            raise ValueError(f"a {self.topic} message has no sequence body")
        return SequenceBody.decode(self.body)


def encode(topic: Topic, body: Buffer, counter: int) -> tuple[bytes, bytes, bytes]:
    """The three frames of a message.

    What `decode` would refuse is refused here: DecodeError for a body that is none of ``topic``'s, ValueError for a
    counter that is no unsigned 32-bit number.
    """
    if not 0 <= counter < COUNTER_MODULUS:
        raise ValueError(f"a counter is an unsigned 32-bit number, not {counter}")
    data = body if type(body) is bytes else bytes(_view(body))
    _check_body(topic, data)
    return topic.frame, data, _COUNTER.pack(counter)


def decode(frames: Sequence[Buffer]) -> Notification:
    """The message in ``frames``: bytes, memoryviews, zmq.Frames or whatever else has the buffer protocol.

    A raw body that is not bytes is not copied: the notification then refers to the frame's memory.

    Raises DecodeError, whose ``what`` names the frame and whose ``offset`` counts within it, for a wrong number of
    frames, an unknown topic, a counter that is not 4 bytes, and a body that is none of its topic's: hashes have 32
    bytes, ``sequence`` 33 or 41 as its label demands, a raw block at least 81 and a raw transaction at least 10.
    Whether a raw body is a block or transaction is not looked into.
    """
    if len(frames) != 3:
        raise DecodeError("notification", 0, "3 frames: topic, body, counter", f"{len(frames)} frames")
    first, second, third = frames
    name = first if type(first) is bytes else _view(first)
    # Whatever is longer than the longest topic stays unequal when it is cut, and is not copied whole.
    topic = _TOPICS.get(bytes(name[:_SHOWN]))
    if topic is None:
        raise DecodeError("topic frame", 0, f"one of {_TOPIC_NAMES}", _show(name))
    number = third if type(third) is bytes else _view(third)
    size = len(number)
    if size != _COUNTER.size:
        raise DecodeError("counter frame", min(size, _COUNTER.size), f"{_COUNTER.size} bytes", _count(size))
    body: bytes | memoryview
    if type(second) is bytes:
        body = second
        _check_body(topic, body)
    else:
        view = _view(second)
        _check_body(topic, view)
        body = view.toreadonly() if topic.is_raw else bytes(view)
    return Notification(topic, body, _COUNTER.unpack(number)[0])


class CounterStep(NamedTuple):
    """What two counters of one notifier, received one after the other, tell."""

    missed: int
    """Messages between the two that did not arrive; after a restart those of the new run, which counts from 0."""
    restarted: bool
    """Whether the publisher began anew in between. How much of the old run was missed then cannot be known."""


def next_counter(counter: int) -> int:
    """The counter that follows: one more, modulo 2**32."""
    return (counter + 1) % COUNTER_MODULUS


def compare_counters(previous: int, current: int) -> CounterStep:
    """What happened between two messages of one notifier that were received one after the other.

    The forward distance (``current - previous`` modulo 2**32) decides. 1 is the next message, so that 0 after 2**32 - 1
    is in order. From 2 to 2**31 - 1 the messages in between are missing. From 2**31 on the number went down, not up,
    and 0 is the same number again: neither can happen within one run, as ZeroMQ keeps order and repeats nothing, so
    the publisher was restarted.

    Two cases cannot be told from counters alone: a restart after which the publisher had already counted beyond
    ``previous`` looks like a gap, and a loss of 2**31 messages or more looks like a restart.
    """
    for counter in (previous, current):
        if not 0 <= counter < COUNTER_MODULUS:
            raise ValueError(f"a counter is an unsigned 32-bit number, not {counter}")
    distance = (current - previous) % COUNTER_MODULUS
    if 0 < distance < _RESTART_DISTANCE:
        return CounterStep(distance - 1, False)
    return CounterStep(current, True)


def counter_gap(previous: int, current: int) -> int:
    """How many messages were missed between the two, 0 if none; see `compare_counters` for restarts."""
    return compare_counters(previous, current).missed


def is_restart(previous: int, current: int) -> bool:
    """Whether the publisher was restarted between the two; see `compare_counters`."""
    return compare_counters(previous, current).restarted


def _view(frame: Buffer) -> memoryview:
    """The bytes of ``frame``, flat; copied only where they are not contiguous."""
    view = memoryview(frame)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _check_body(topic: Topic, body: bytes | memoryview) -> None:
    size = len(body)
    if topic.is_raw:
        if size < topic.min_body:
            raise DecodeError(f"{topic} body", size, f"at least {topic.min_body} bytes", _count(size))
    elif topic is Topic.SEQUENCE:
        _check_sequence(body)
    elif size != _HASH_SIZE:
        raise DecodeError(f"{topic} body", min(size, _HASH_SIZE), f"a hash of {_HASH_SIZE} bytes", _count(size))


def _check_sequence(body: bytes | memoryview) -> SequenceLabel:
    what, size = "sequence body", len(body)
    if size <= _HASH_SIZE:
        raise DecodeError(what, size, f"a hash of {_HASH_SIZE} bytes and a label", _count(size))
    letter = bytes(body[_HASH_SIZE : _HASH_SIZE + 1])
    label = _LABELS.get(letter)
    if label is None:
        raise DecodeError(what, _HASH_SIZE, f"a label, one of {_LABEL_LETTERS}", _show(letter))
    expected = _HASH_SIZE + 1 + (0 if label.is_block else _MEMPOOL_SEQUENCE.size)
    if size != expected:
        raise DecodeError(what, min(size, expected), f"{expected} bytes with label {label}", _count(size))
    return label


def _count(size: int) -> str:
    return "1 byte" if size == 1 else f"{size} bytes"


def _show(data: bytes | memoryview) -> str:
    """``data`` as a short printable text; what a stranger sent may be long and need not be text."""
    start = bytes(data[:_SHOWN])
    return repr(start) if len(data) <= _SHOWN else f"{start!r}… ({len(data)} bytes)"
