"""The replay protocol, version 1: what a subscriber asks for what it missed, and what it is answered. Does no I/O.

Spoken with a ROUTER socket (``zmqpubreplay=address``) by DEALER or REQ; docs/replay.md describes it for authors in any
language. All integers are little-endian, hashes stand in display order.

=======  ==============================================================================================================
request  one frame: ``ZPR1``, operation (u8), request id (u32), payload
answer   header frame: ``ZPR1``, operation | 0x80 (u8), status (u8), request id (u32), payload; then further frames
=======  ==============================================================================================================

Each request gets exactly one answer, one multipart message. The frames after the header are: of RANGE the three frames
of each message, of SNAPSHOT the txids in one frame, of an error a text, of HELLO none.

A *number* is a notifier's counter in 64 bits; what is on the wire is its lower half, see `number_near`. An *epoch* names
one life of a publisher's counters.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from zmqpub.errors import DecodeError
from zmqpub.replay.messages import (
    DEFAULT_BYTES,
    DEFAULT_MESSAGES,
    EPOCH_SIZE,
    MAGIC,
    MAX_BYTES,
    MAX_MESSAGES,
    MAX_REQUEST,
    Answer,
    EpochInfo,
    ErrorAnswer,
    HelloAnswer,
    HelloRequest,
    NotifierInfo,
    Operation,
    RangeAnswer,
    RangeNotifier,
    RangeRequest,
    RangeStart,
    RangeUntil,
    Request,
    SnapshotAnswer,
    SnapshotRequest,
    Status,
    number_near,
)
from zmqpub.wire import Topic

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "DEFAULT_BYTES",
    "DEFAULT_MESSAGES",
    "EPOCH_SIZE",
    "MAGIC",
    "MAX_BYTES",
    "MAX_MESSAGES",
    "MAX_REQUEST",
    "Answer",
    "EpochInfo",
    "ErrorAnswer",
    "HelloAnswer",
    "HelloRequest",
    "NotifierInfo",
    "Operation",
    "RangeAnswer",
    "RangeNotifier",
    "RangeRequest",
    "RangeStart",
    "RangeUntil",
    "Request",
    "SnapshotAnswer",
    "SnapshotRequest",
    "Status",
    "number_near",
    "pack_answer",
    "pack_request",
    "unpack_answer",
    "unpack_request",
]

_ANSWER_BIT: Final = 0x80
_NO_NOTIFIER: Final = 0xFFFF
_MORE, _GONE = 1, 2
_TIP_KNOWN, _MEMPOOL_KNOWN = 1, 2
_HASH_SIZE: Final = 32
_UNKNOWN_HEIGHT: Final = -1

_TOPICS: Final = tuple(Topic)
_TOPIC_INDEX: Final = {topic: index for index, topic in enumerate(Topic)}

_REQUEST = struct.Struct("<4sBI")
_ANSWER = struct.Struct("<4sBBI")
_EPOCH = struct.Struct("<16sQBH")
_NOTIFIER = struct.Struct("<HBQQH")
_RANGE = struct.Struct("<16sIIHQH")
_START = struct.Struct("<HQ")
_RANGE_ANSWER = struct.Struct("<16sBH")
_RANGE_NOTIFIER = struct.Struct("<HQQQ")
_SNAPSHOT = struct.Struct("<16sB32siQ")
_ID = struct.Struct("<H")
_NUMBER = struct.Struct("<Q")


# ---- packing ----


def pack_request(request: Request) -> bytes:
    """The one frame of a request. ValueError for what does not fit the wire."""
    if isinstance(request, HelloRequest):
        return _pack(_REQUEST, MAGIC, Operation.HELLO, request.request_id)
    if isinstance(request, SnapshotRequest):
        return _pack(_REQUEST, MAGIC, Operation.SNAPSHOT, request.request_id)
    until = request.until
    parts = [
        _pack(_REQUEST, MAGIC, Operation.RANGE, request.request_id),
        _pack(
            _RANGE,
            _sized(request.epoch, EPOCH_SIZE, "an epoch"),
            request.max_messages,
            request.max_bytes,
            _NO_NOTIFIER if until is None else _id(until.notifier),
            0 if until is None else until.number,
            len(request.starts),
        ),
        *(_pack(_START, _id(start.notifier), start.first) for start in request.starts),
    ]
    frame = b"".join(parts)
    if len(frame) > MAX_REQUEST:
        raise ValueError(f"a request has at most {MAX_REQUEST} bytes, this one has {len(frame)}")
    return frame


def pack_answer(answer: Answer) -> list[bytes]:
    """The frames of an answer, without the messages of a RangeAnswer. ValueError for what does not fit the wire."""
    if isinstance(answer, ErrorAnswer):
        if answer.status == Status.OK:
            raise ValueError("an error has another status than OK")
        header = _pack(_ANSWER, MAGIC, answer.operation | _ANSWER_BIT, answer.status, answer.request_id)
        return [header, answer.text.encode()]
    if isinstance(answer, HelloAnswer):
        return [_header(Operation.HELLO, answer.request_id) + _pack_epochs(answer.epochs)]
    if isinstance(answer, RangeAnswer):
        return [_header(Operation.RANGE, answer.request_id) + _pack_range(answer)]
    return [_header(Operation.SNAPSHOT, answer.request_id) + _pack_snapshot(answer), b"".join(answer.txids or ())]


def _pack(layout: struct.Struct, *values: object) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise ValueError(f"does not fit the wire: {error}") from None


def _header(operation: Operation, request_id: int) -> bytes:
    return _pack(_ANSWER, MAGIC, operation | _ANSWER_BIT, Status.OK, request_id)


def _sized(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        raise ValueError(f"{what} has {size} bytes, not {len(data)}")
    return data


def _id(notifier: int) -> int:
    if notifier == _NO_NOTIFIER:
        raise ValueError(f"{_NO_NOTIFIER} is no notifier's id")
    return notifier


def _pack_epochs(epochs: Sequence[EpochInfo]) -> bytes:
    if len(epochs) > 0xFF:
        raise ValueError(f"at most 255 epochs fit into an answer, not {len(epochs)}")
    parts = [bytes([len(epochs)])]
    for epoch in epochs:
        name = _sized(epoch.epoch, EPOCH_SIZE, "an epoch")
        parts.append(_pack(_EPOCH, name, epoch.started_ms, epoch.current, len(epoch.notifiers)))
        for one in epoch.notifiers:
            address = one.address.encode()
            parts.append(_pack(_NOTIFIER, _id(one.id), _TOPIC_INDEX[one.topic], one.first, one.next, len(address)))
            parts.append(address)
    return b"".join(parts)


def _pack_range(answer: RangeAnswer) -> bytes:
    flags = (_MORE if answer.more else 0) | (_GONE if answer.gone else 0)
    head = _pack(_RANGE_ANSWER, _sized(answer.epoch, EPOCH_SIZE, "an epoch"), flags, len(answer.notifiers))
    return head + b"".join(_pack(_RANGE_NOTIFIER, _id(one.notifier), one.first, one.next, one.gone) for one in answer.notifiers)


def _pack_snapshot(answer: SnapshotAnswer) -> bytes:
    if (answer.txids is None) != (answer.mempool_sequence is None):
        raise ValueError("the txids and the mempool sequence are known together or not at all")
    for txid in answer.txids or ():
        _sized(txid, _HASH_SIZE, "a txid")
    if answer.height is not None and answer.height < 0:
        raise ValueError(f"a height is 0 or more, not {answer.height}")
    return _pack(
        _SNAPSHOT,
        _sized(answer.epoch, EPOCH_SIZE, "an epoch"),
        (0 if answer.tip is None else _TIP_KNOWN) | (0 if answer.txids is None else _MEMPOOL_KNOWN),
        bytes(_HASH_SIZE) if answer.tip is None else _sized(answer.tip, _HASH_SIZE, "a tip"),
        _UNKNOWN_HEIGHT if answer.height is None else answer.height,
        answer.mempool_sequence or 0,
    )


# ---- unpacking ----


def unpack_request(frame: Buffer) -> Request:
    """The request in ``frame``; DecodeError where it is none."""
    reader = _Reader("replay request", frame)
    if len(reader.data) > MAX_REQUEST:
        raise reader.error(f"at most {MAX_REQUEST} bytes", f"{len(reader.data)} bytes", MAX_REQUEST)
    magic, operation, request_id = reader.take(_REQUEST)
    reader.check_magic(magic)
    request: Request
    if operation == Operation.HELLO:
        request = HelloRequest(request_id)
    elif operation == Operation.SNAPSHOT:
        request = SnapshotRequest(request_id)
    elif operation == Operation.RANGE:
        epoch, max_messages, max_bytes, until, number, count = reader.take(_RANGE)
        starts = tuple(RangeStart(reader.notifier(), reader.take(_NUMBER)[0]) for _ in range(count))
        end = None if until == _NO_NOTIFIER else RangeUntil(until, number)
        request = RangeRequest(epoch, starts, end, max_messages, max_bytes, request_id)
    else:
        raise reader.error("an operation: 1 (HELLO), 2 (RANGE) or 3 (SNAPSHOT)", str(operation), 4)
    reader.end()
    return request


def unpack_answer(header: Buffer, rest: Sequence[Buffer] = ()) -> Answer:
    """The answer whose header frame is ``header``; ``rest``: the frames after it.

    The frames of a RangeAnswer's messages are not looked at, and need not be given. DecodeError where it is no answer.
    """
    reader = _Reader("replay answer", header)
    magic, marked, status, request_id = reader.take(_ANSWER)
    reader.check_magic(magic)
    if not marked & _ANSWER_BIT:
        raise reader.error("an answer, whose operation has bit 0x80 set", f"0x{marked:02x}", 4)
    operation = marked & ~_ANSWER_BIT
    answer: Answer
    if status != Status.OK:
        answer = ErrorAnswer(operation, reader.status(status), _text(rest), request_id)
    elif operation == Operation.HELLO:
        answer = HelloAnswer(_unpack_epochs(reader), request_id)
        _check_rest(rest, 0)
    elif operation == Operation.RANGE:
        answer = _unpack_range(reader, request_id)
    elif operation == Operation.SNAPSHOT:
        answer = _unpack_snapshot(reader, rest, request_id)
    else:
        raise reader.error("the answer to an operation: 0x81, 0x82 or 0x83", f"0x{marked:02x}", 4)
    reader.end()
    return answer


class _Reader:
    """Takes fields from the front of a frame; DecodeError where they are not there."""

    def __init__(self, what: str, frame: Buffer) -> None:
        self.what = what
        self.data = bytes(frame)
        self.offset = 0

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.cut(layout.size))

    def cut(self, size: int) -> bytes:
        left = len(self.data) - self.offset
        if left < size:
            raise self.error(f"{size} bytes", f"{left} bytes, then the end of the frame")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def notifier(self) -> int:
        (number,) = self.take(_ID)
        if number == _NO_NOTIFIER:
            raise self.error("a notifier's id", str(number), self.offset - _ID.size)
        return int(number)

    def flag_bits(self, value: int, known: int, at: int) -> int:
        if value & ~known:
            raise self.error(f"flags within 0x{known:02x}", f"0x{value:02x}", at)
        return value

    def status(self, value: int) -> Status:
        try:
            return Status(value)
        except ValueError:
            raise self.error(f"a status from 0 to {max(Status)}", str(value), 5) from None

    def check_magic(self, magic: bytes) -> None:
        if magic != MAGIC:
            raise self.error(repr(MAGIC), repr(magic), 0)

    def end(self) -> None:
        if self.offset != len(self.data):
            raise self.error("the end of the frame", f"{len(self.data) - self.offset} more bytes")

    def error(self, expected: str, got: str, at: int | None = None) -> DecodeError:
        return DecodeError(self.what, self.offset if at is None else at, expected, got)


def _check_rest(rest: Sequence[Buffer], expected: int) -> None:
    if len(rest) != expected:
        raise DecodeError("replay answer", 0, f"{expected} frames after the header", f"{len(rest)} frames")


def _text(rest: Sequence[Buffer]) -> str:
    _check_rest(rest, 1)
    # For people only: what is no UTF-8 is shown as well as it goes.
    return bytes(rest[0]).decode(errors="replace")


def _unpack_epochs(reader: _Reader) -> tuple[EpochInfo, ...]:
    (count,) = reader.cut(1)
    return tuple(_unpack_epoch(reader) for _ in range(count))


def _unpack_epoch(reader: _Reader) -> EpochInfo:
    at = reader.offset
    epoch, started, current, count = reader.take(_EPOCH)
    if current > 1:
        raise reader.error("0 or 1", str(current), at + EPOCH_SIZE + 8)
    return EpochInfo(epoch, started, bool(current), tuple(_unpack_notifier(reader) for _ in range(count)))


def _unpack_notifier(reader: _Reader) -> NotifierInfo:
    at = reader.offset
    number, topic, first, following, size = reader.take(_NOTIFIER)
    if number == _NO_NOTIFIER:
        raise reader.error("a notifier's id", str(number), at)
    if topic >= len(_TOPICS):
        raise reader.error(f"a topic from 0 to {len(_TOPICS) - 1}", str(topic), at + 2)
    if following < first:
        raise reader.error(f"a next number of at least {first}, the first", str(following), at + 11)
    at = reader.offset
    try:
        address = reader.cut(size).decode()
    except UnicodeDecodeError as error:
        raise reader.error("UTF-8", error.reason, at + error.start) from None
    return NotifierInfo(number, _TOPICS[topic], first, following, address)


def _unpack_range(reader: _Reader, request_id: int) -> RangeAnswer:
    epoch, flags, count = reader.take(_RANGE_ANSWER)
    reader.flag_bits(flags, _MORE | _GONE, _ANSWER.size + EPOCH_SIZE)
    notifiers = tuple(_unpack_range_notifier(reader) for _ in range(count))
    return RangeAnswer(epoch, bool(flags & _MORE), bool(flags & _GONE), notifiers, request_id)


def _unpack_range_notifier(reader: _Reader) -> RangeNotifier:
    at = reader.offset
    number, first, following, gone = reader.take(_RANGE_NOTIFIER)
    if number == _NO_NOTIFIER:
        raise reader.error("a notifier's id", str(number), at)
    if following < first:
        raise reader.error(f"a next number of at least {first}, the first", str(following), at + 10)
    if gone > first:
        raise reader.error(f"at most {first} gone before the first", str(gone), at + 18)
    return RangeNotifier(number, first, following, gone)


def _unpack_snapshot(reader: _Reader, rest: Sequence[Buffer], request_id: int) -> SnapshotAnswer:
    epoch, flags, tip, height, sequence = reader.take(_SNAPSHOT)
    reader.flag_bits(flags, _TIP_KNOWN | _MEMPOOL_KNOWN, _ANSWER.size + EPOCH_SIZE)
    if height < _UNKNOWN_HEIGHT:
        raise reader.error("a height, or -1", str(height), reader.offset - 12)
    _check_rest(rest, 1)
    data = bytes(rest[0])
    if len(data) % _HASH_SIZE:
        raise DecodeError("replay snapshot", len(data) // _HASH_SIZE * _HASH_SIZE, "txids of 32 bytes", f"{len(data)} bytes")
    known = bool(flags & _MEMPOOL_KNOWN)
    if data and not known:
        raise DecodeError("replay snapshot", 0, "no txids, as the mempool is not known", f"{len(data)} bytes")
    txids = tuple(data[at : at + _HASH_SIZE] for at in range(0, len(data), _HASH_SIZE))
    return SnapshotAnswer(
        epoch,
        tip if flags & _TIP_KNOWN else None,
        None if height == _UNKNOWN_HEIGHT else height,
        sequence if known else None,
        txids if known else None,
        request_id,
    )
