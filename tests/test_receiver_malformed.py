"""Publishers that do not keep to the wire: each message that is none is told with its reason, and the stream goes on."""

from __future__ import annotations

import itertools

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from raw_publisher import (
    HASHTX,
    RAWBLOCK,
    TOPICS,
    Item,
    RawPublisher,
    counted,
    events,
    messages,
    receiving,
    take_count,
    take_until,
    without_connections,
)
from synthetic import block, transaction

from zmqpub import Block, DecodeError, Topic, Transaction, wire

HASH = bytes(range(32))
GOOD = (b"hashtx", HASH, counted(0))
_names = itertools.count()


def told(*sent: tuple[bytes, ...]) -> list[Item]:
    """What a receiver says of these frames; a last message, of no topic, tells it that they are over, and that it still listens."""
    context = zmq.Context()
    with RawPublisher(f"inproc://malformed-{next(_names)}", context) as publisher:
        with receiving(publisher.address, context=context) as receiver:
            publisher.wait_subscribed()
            for frames in sent:
                publisher.send_frames(*frames)
            publisher.send_frames(b"hashtx-over")
            items = take_until(
                receiver, lambda items: events(items, "malformed")[-1:] and events(items, "malformed")[-1][2] == "hashtx-over"
            )
    context.term()
    return without_connections(items)[:-1]


@pytest.mark.parametrize(
    ("frames", "topic", "counter", "reason"),
    [
        ((b"hashtx",), "hashtx", None, "expected 3 frames: topic, body, counter, got 1"),
        ((b"hashtx", HASH), "hashtx", None, "expected 3 frames: topic, body, counter, got 2"),
        ((*GOOD, b""), "hashtx", 0, "expected 3 frames: topic, body, counter, got 4"),
        ((*GOOD, b"", b"", b""), "hashtx", 0, "expected 3 frames: topic, body, counter, got 6"),
        ((b"hashtx", HASH, b""), "hashtx", None, "counter: expected 4 bytes, got 0 bytes"),
        ((b"hashtx", HASH, b"1"), "hashtx", None, "counter: expected 4 bytes, got 1 byte"),
        ((b"hashtx", HASH, bytes(8)), "hashtx", None, "counter: expected 4 bytes, got 8 bytes"),
        ((b"hashtx", HASH[:-1], counted(3)), "hashtx", 3, "hashtx body: expected a hash of 32 bytes, got 31 bytes"),
        ((b"hashblock", HASH + b"x", counted(3)), "hashblock", 3, "hashblock body: expected a hash of 32 bytes, got 33 bytes"),
        ((b"sequence", HASH, counted(3)), "sequence", 3, "sequence body: expected a hash of 32 bytes and a label, got 32 bytes"),
        ((b"sequence", HASH + b"X", counted(3)), "sequence", 3, "sequence body: expected a label, one of C, D, A, R, got 'X'"),
        ((b"sequence", HASH + b"\0", counted(3)), "sequence", 3, "sequence body: expected a label, one of C, D, A, R, got '\\x00'"),
        ((b"sequence", HASH + b"C1", counted(3)), "sequence", 3, "sequence body: expected 33 bytes with label C, got 34 bytes"),
        ((b"sequence", HASH + b"A", counted(3)), "sequence", 3, "sequence body: expected 41 bytes with label A, got 33 bytes"),
        ((b"rawtx", b"", counted(3)), "rawtx", 3, "rawtx body: at offset 0: expected 4 bytes of transaction version, got 0 of 4 bytes"),
        ((b"rawblock", bytes(80), counted(3)), "rawblock", 3, "rawblock body: at offset 80: expected the number of transactions"),
        ((b"rawblock", bytes(80) + b"\1" + b"\1" * 12, counted(3)), "rawblock", 3, "rawblock body, transaction 0: at offset 86: "),
        ((b"hashtxlock", HASH, counted(0)), "hashtxlock", 0, "the topic is none that was asked for: 'hashtxlock' (10 bytes)"),
        ((b"rawblockheader", HASH, counted(0)), "rawblockheader", 0, "the topic is none that was asked for: 'rawblockheader' (14 bytes)"),
        ((b"rawtx\xff" + b"y" * 99,), "rawtx\\xff" + "y" * 26, None, "'rawtx\\xff" + "y" * 26 + "'... (105 bytes)"),
    ],
)
def test_what_is_wrong_is_told(frames: tuple[bytes, ...], topic: str, counter: int | None, reason: str) -> None:
    (item,) = told(frames)
    assert isinstance(item, tuple)
    assert item[:4] == ("malformed", 0, topic, counter)
    assert reason in item[4]


def test_only_topics_that_were_asked_for_are_taken() -> None:
    """ZeroMQ subscribes to prefixes, so a publisher can have more to say: here it says what nobody subscribed to."""
    with RawPublisher() as publisher, receiving(publisher.address, topics=1 << HASHTX):
        publisher.wait_subscribed(1 << HASHTX)
        assert publisher.subscriptions == [b"\1hashtx"]


def test_a_malformed_message_was_sent_and_its_counter_counts() -> None:
    bad = (b"hashtx", b"short", counted(6))
    items = told((b"hashtx", HASH, counted(5)), bad, (b"hashtx", HASH, counted(7)))
    assert [item[0] if isinstance(item, tuple) else item.counter for item in items] == [5, "malformed", 7]
    items = told((b"hashtx", HASH, counted(5)), (b"hashtx", b"short", counted(8)), (b"hashtx", HASH, counted(9)))
    assert [item[0] if isinstance(item, tuple) else item.counter for item in items] == [5, "gap", "malformed", 9]


def test_a_message_without_a_counter_is_a_gap_later() -> None:
    items = told((b"hashtx", HASH, counted(5)), (b"hashtx", HASH), (b"hashtx", HASH, counted(7)))
    assert [item[0] if isinstance(item, tuple) else item.counter for item in items] == [5, "malformed", "gap", 7]


@given(
    st.sampled_from(TOPICS),
    st.one_of(
        st.binary(max_size=120),
        st.binary(min_size=32, max_size=32),
        st.builds(lambda label, tail: HASH + label + tail, st.sampled_from([b"A", b"C", b"D", b"R", b"x"]), st.binary(max_size=9)),
        st.builds(lambda cut: bytes(transaction(3))[:cut], st.integers(0, 400)),
        st.builds(lambda at, value: _with(bytes(block(2, 3)), at, value), st.integers(0, 500), st.integers(0, 255)),
    ),
    st.one_of(st.binary(min_size=4, max_size=4), st.binary(max_size=6)),
)
def test_taken_is_what_the_reference_takes(topic: Topic, body: bytes, counter: bytes) -> None:
    frames = (topic.frame, body, counter)
    items = told(frames)
    (item,) = (one for one in items if not isinstance(one, tuple) or one[0] != "reorg")
    disconnected = not isinstance(item, tuple) and topic is Topic.SEQUENCE and body[32:] == b"D"
    assert len(items) == 1 + disconnected
    try:
        expected = wire.decode(frames)
        if topic.is_raw:
            (Block if topic is Topic.RAWBLOCK else Transaction)(body)
    except DecodeError:
        assert isinstance(item, tuple)
        assert item[0] == "malformed"
    else:
        assert not isinstance(item, tuple)
        assert (item.topic, bytes(item.body), item.counter) == expected


def _with(data: bytes, at: int, value: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([value]) + data[at + 1 :]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_any_frames_leave_the_stream_alive(frames: list[bytes]) -> None:
    for topic in TOPICS:
        item, *_reorg = told((topic.frame + frames[0], *frames[1:]))
        assert isinstance(item, tuple) or len(frames) == 3


def test_a_body_that_bitcoin_cannot_have_costs_the_connection_only() -> None:
    """A frame above 32 MiB: libzmq closes the connection, so that nobody fills the memory with one."""
    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        publisher.send(RAWBLOCK, bytes((32 << 20) + 1), 0)
        publisher.wait_subscribed()
        publisher.send(HASHTX, HASH, 1)
        (message,) = messages(take_count(receiver, 1))
        assert message.counter == 1
        assert receiver.generation(0) == 2
