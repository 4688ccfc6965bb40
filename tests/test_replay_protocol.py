"""The replay protocol's codec: every message both ways, the documented bytes, and nothing malformed let through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpub.errors import DecodeError
from zmqpub.replay.protocol import (
    MAX_REQUEST,
    EpochInfo,
    ErrorAnswer,
    HelloAnswer,
    HelloRequest,
    NotifierInfo,
    RangeAnswer,
    RangeNotifier,
    RangeRequest,
    RangeStart,
    RangeUntil,
    SnapshotAnswer,
    SnapshotRequest,
    Status,
    number_near,
    pack_answer,
    pack_request,
    unpack_answer,
    unpack_request,
)
from zmqpub.wire import Topic

_u32 = st.integers(0, 2**32 - 1)
_u64 = st.integers(0, 2**64 - 1)
_id = st.integers(0, 0xFFFE)
_epoch = st.binary(min_size=16, max_size=16)
_hash = st.binary(min_size=32, max_size=32)
_text = st.text(st.characters(codec="utf-8"), max_size=40)
_ordered = st.tuples(_u64, _u64).map(sorted)

_requests = st.one_of(
    st.builds(HelloRequest, _u32),
    st.builds(SnapshotRequest, _u32),
    st.builds(
        RangeRequest,
        _epoch,
        st.lists(st.builds(RangeStart, _id, _u64), max_size=8).map(tuple),
        st.none() | st.builds(RangeUntil, _id, _u64),
        _u32,
        _u32,
        _u32,
    ),
)

_notifiers = st.builds(
    lambda number, topic, span, address: NotifierInfo(number, topic, span[0], span[1], address),
    _id,
    st.sampled_from(Topic),
    _ordered,
    _text,
)
_epochs = st.builds(EpochInfo, _epoch, _u64, st.booleans(), st.lists(_notifiers, max_size=4).map(tuple))
_range_notifiers = st.builds(
    lambda number, gone, messages, span: RangeNotifier(number, span + gone, span + gone + messages, gone),
    _id,
    _u32,
    _u32,
    st.integers(0, 2**62),
)
_mempools = st.none() | st.tuples(_u64, st.lists(_hash, max_size=5).map(tuple))
_snapshots = st.builds(
    lambda epoch, tip, height, mempool, number: SnapshotAnswer(
        epoch, tip, height, mempool[0] if mempool else None, mempool[1] if mempool else None, number
    ),
    _epoch,
    st.none() | _hash,
    st.none() | st.integers(0, 2**31 - 1),
    _mempools,
    _u32,
)
_answers = st.one_of(
    st.builds(HelloAnswer, st.lists(_epochs, max_size=3).map(tuple), _u32),
    st.builds(RangeAnswer, _epoch, st.booleans(), st.booleans(), st.lists(_range_notifiers, max_size=5).map(tuple), _u32),
    _snapshots,
    st.builds(ErrorAnswer, st.integers(0, 127), st.sampled_from([status for status in Status if status]), _text, _u32),
)


@given(_requests)
def test_requests_come_back_as_they_were(request: Any) -> None:
    assert unpack_request(pack_request(request)) == request


@given(_answers)
def test_answers_come_back_as_they_were(answer: Any) -> None:
    header, *rest = pack_answer(answer)
    assert unpack_answer(header, rest) == answer


@given(_requests)
def test_every_truncation_of_a_request_is_an_error(request: Any) -> None:
    frame = pack_request(request)
    for size in range(len(frame)):
        with pytest.raises(DecodeError):
            unpack_request(frame[:size])
    with pytest.raises(DecodeError):
        unpack_request(frame + b"\0")


@given(_answers)
def test_every_truncation_of_an_answer_is_an_error(answer: Any) -> None:
    header, *rest = pack_answer(answer)
    for size in range(len(header)):
        with pytest.raises(DecodeError):
            unpack_answer(header[:size], rest)
    with pytest.raises(DecodeError):
        unpack_answer(header + b"\0", rest)


@given(st.binary(max_size=80))
def test_whatever_arrives_as_a_request_is_taken_or_refused(frame: bytes) -> None:
    for data in (frame, b"ZPR1" + frame, b"ZPR1\x02\0\0\0\0" + frame):
        try:
            request = unpack_request(data)
        except DecodeError:
            continue
        assert unpack_request(pack_request(request)) == request


@given(st.binary(max_size=80), st.lists(st.binary(max_size=70), max_size=2))
def test_whatever_arrives_as_an_answer_is_taken_or_refused(frame: bytes, rest: list[bytes]) -> None:
    for data in (frame, b"ZPR1" + frame, *(b"ZPR1" + bytes([0x80 | op]) + b"\0\0\0\0\0" + frame for op in (1, 2, 3))):
        try:
            unpack_answer(data, rest)
        except DecodeError:
            continue


def test_the_documented_bytes() -> None:
    assert pack_request(HelloRequest(0x01020304)) == b"ZPR1\x01\x04\x03\x02\x01"
    assert pack_request(SnapshotRequest(7)) == b"ZPR1\x03\x07\0\0\0"
    epoch = bytes(range(16))
    request = RangeRequest(epoch, (RangeStart(2, 5), RangeStart(3, 9)), RangeUntil(2, 0x0A), 100, 1000, 1)
    assert pack_request(request).hex(" ") == (
        "5a 50 52 31 02 01 00 00 00 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 64 00 00 00 e8 03 00 00 "
        "02 00 0a 00 00 00 00 00 00 00 02 00 02 00 05 00 00 00 00 00 00 00 03 00 09 00 00 00 00 00 00 00"
    )
    answer = RangeAnswer(epoch, True, True, (RangeNotifier(2, 6, 8, 1),), 1)
    assert answer.messages == 2
    assert pack_answer(answer)[0].hex(" ") == (
        "5a 50 52 31 82 00 01 00 00 00 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 03 01 00 "
        "02 00 06 00 00 00 00 00 00 00 08 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00"
    )
    hello = HelloAnswer((EpochInfo(epoch, 1, True, (NotifierInfo(4, Topic.RAWTX, 1, 2, "ipc://x"),)),), 9)
    assert pack_answer(hello)[0].hex(" ") == (
        "5a 50 52 31 81 00 09 00 00 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 00 00 00 00 00 00 00 01 01 00 "
        "04 00 03 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 07 00 69 70 63 3a 2f 2f 78"
    )
    assert pack_answer(ErrorAnswer(2, Status.BUSY, "later", 1)) == [b"ZPR1\x82\x06\x01\0\0\0", b"later"]
    snapshot = SnapshotAnswer(epoch, b"t" * 32, None, 3, (b"a" * 32, b"b" * 32), 1)
    header, txids = pack_answer(snapshot)
    assert header[:10] == b"ZPR1\x83\x00\x01\0\0\0"
    assert header[10:] == epoch + b"\x03" + b"t" * 32 + b"\xff\xff\xff\xff" + b"\x03" + bytes(7)
    assert txids == b"a" * 32 + b"b" * 32


@pytest.mark.parametrize(
    ("frame", "offset", "expected"),
    [
        (b"ZPR2\x01\0\0\0\0", 0, "b'ZPR1'"),
        (b"ZPR1\x00\0\0\0\0", 4, "an operation: 1 (HELLO), 2 (RANGE) or 3 (SNAPSHOT)"),
        (b"ZPR1\x01\0\0\0\0x", 9, "the end of the frame"),
        (b"ZPR1\x02\0\0\0\0" + bytes(34) + b"\x01\0" + b"\xff\xff" + bytes(8), 45, "a notifier's id"),
        (b"ZPR1\x01" + bytes(MAX_REQUEST), MAX_REQUEST, f"at most {MAX_REQUEST} bytes"),
    ],
)
def test_an_error_says_where_and_what(frame: bytes, offset: int, expected: str) -> None:
    with pytest.raises(DecodeError) as caught:
        unpack_request(frame)
    assert (caught.value.offset, caught.value.expected) == (offset, expected)


_HEADER = b"ZPR1\x81\0\0\0\0\0"


@pytest.mark.parametrize(
    ("header", "rest", "expected"),
    [
        (b"ZPR1\x01\0\0\0\0\0", [], "an answer, whose operation has bit 0x80 set"),
        (b"ZPR1\x84\0\0\0\0\0", [], "the answer to an operation: 0x81, 0x82 or 0x83"),
        (b"ZPR1\x81\x07\0\0\0\0", [b""], "a status from 0 to 6"),
        (b"ZPR1\x81\x01\0\0\0\0", [], "1 frames after the header"),
        (_HEADER + b"\0", [b""], "0 frames after the header"),
        (_HEADER + b"\x01" + bytes(24) + b"\x02\0\0", [], "0 or 1"),
        (_HEADER + b"\x01" + bytes(25) + b"\x01\0" + b"\xff\xff\0" + bytes(18), [], "a notifier's id"),
        (_HEADER + b"\x01" + bytes(25) + b"\x01\0" + b"\0\0\x05" + bytes(18), [], "a topic from 0 to 4"),
        (_HEADER + b"\x01" + bytes(25) + b"\x01\0" + b"\0\0\0\x01" + bytes(17), [], "a next number of at least 1, the first"),
        (_HEADER + b"\x01" + bytes(25) + b"\x01\0" + b"\0\0\0" + bytes(16) + b"\x01\0\xff", [], "UTF-8"),
        (b"ZPR1\x82\0\0\0\0\0" + bytes(16) + b"\x04\0\0", [], "flags within 0x03"),
        (b"ZPR1\x82\0\0\0\0\0" + bytes(17) + b"\x01\0" + bytes(18) + b"\x01" + bytes(7), [], "at most 0 gone before the first"),
        (b"ZPR1\x83\0\0\0\0\0" + bytes(16) + b"\x08" + bytes(44), [b""], "flags within 0x03"),
        (b"ZPR1\x83\0\0\0\0\0" + bytes(49) + b"\xfe\xff\xff\xff" + bytes(8), [b""], "a height, or -1"),
        (b"ZPR1\x83\0\0\0\0\0" + bytes(16) + b"\x02" + bytes(44), [b"x" * 33], "txids of 32 bytes"),
        (b"ZPR1\x83\0\0\0\0\0" + bytes(61), [b"x" * 32], "no txids, as the mempool is not known"),
    ],
)
def test_an_answer_that_contradicts_itself_is_an_error(header: bytes, rest: list[bytes], expected: str) -> None:
    with pytest.raises(DecodeError) as caught:
        unpack_answer(header, rest)
    assert caught.value.expected == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pack_request(HelloRequest(2**32)), "does not fit the wire"),
        (lambda: pack_request(RangeRequest(b"short", ())), "an epoch has 16 bytes, not 5"),
        (lambda: pack_request(RangeRequest(bytes(16), (RangeStart(0xFFFF, 0),))), "65535 is no notifier's id"),
        (lambda: pack_request(RangeRequest(bytes(16), (RangeStart(0, -1),))), "does not fit the wire"),
        (lambda: pack_request(RangeRequest(bytes(16), (RangeStart(0, 0),) * 500)), "a request has at most 4096 bytes"),
        (lambda: pack_answer(ErrorAnswer(1, Status.OK, "no error")), "another status than OK"),
        (lambda: pack_answer(SnapshotAnswer(bytes(16), None, None, None, ())), "known together"),
        (lambda: pack_answer(SnapshotAnswer(bytes(16), None, -1, None, None)), "a height is 0 or more, not -1"),
        (lambda: pack_answer(SnapshotAnswer(bytes(16), b"short", 1, None, None)), "a tip has 32 bytes, not 5"),
        (lambda: pack_answer(SnapshotAnswer(bytes(16), None, 1, 1, (b"short",))), "a txid has 32 bytes, not 5"),
        (lambda: pack_answer(HelloAnswer((EpochInfo(bytes(16), 0, True, ()),) * 256)), "at most 255 epochs"),
    ],
)
def test_what_the_wire_cannot_carry_is_a_value_error(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@given(st.integers(0, 2**63), st.integers(-(2**31) + 1, 2**31 - 1))
def test_a_counter_is_extended_to_the_number_next_to_what_is_known(near: int, distance: int) -> None:
    number = near + distance
    if number >= 0:
        assert number_near(number % 2**32, near) == number


def test_a_counter_from_before_zero_cannot_be() -> None:
    assert number_near(2**32 - 1, 0) == 2**32 - 1
    assert number_near(0, 2**32 - 1) == 2**32
