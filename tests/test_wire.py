"""The three frames, the sequence body and the counters."""

from __future__ import annotations

import array
import contextlib
import pickle
import struct

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from zmqpub.errors import DecodeError
from zmqpub.wire import (
    MIN_RAW_BLOCK,
    MIN_RAW_TRANSACTION,
    CounterStep,
    Notification,
    SequenceBody,
    SequenceLabel,
    Topic,
    compare_counters,
    counter_gap,
    decode,
    encode,
    is_restart,
    next_counter,
)

HASH = bytes(range(32))
COUNTER = b"\x01\x00\x00\x00"
counters = st.integers(0, 2**32 - 1)
hashes = st.binary(min_size=32, max_size=32)


@st.composite
def sequence_bodies(draw: st.DrawFn) -> SequenceBody:
    label = draw(st.sampled_from(SequenceLabel))
    number = None if label.is_block else draw(st.integers(0, 2**64 - 1))
    return SequenceBody(draw(hashes), label, number)


@st.composite
def messages(draw: st.DrawFn) -> tuple[Topic, bytes, int]:
    topic = draw(st.sampled_from(Topic))
    if topic is Topic.SEQUENCE:
        body = draw(sequence_bodies()).encode()
    elif topic.is_raw:
        body = draw(st.binary(min_size=topic.min_body, max_size=200))
    else:
        body = draw(hashes)
    return topic, body, draw(counters)


def refusal(frames: list[bytes]) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(frames)
    return caught.value


class TestTopic:
    def test_order_is_bitcoin_cores(self) -> None:
        names = [topic.value for topic in Topic]
        assert names == ["hashblock", "hashtx", "rawblock", "rawtx", "sequence"]
        assert sorted(Topic) == list(Topic)

    def test_names(self) -> None:
        topic = Topic("rawtx")
        assert topic is Topic.RAWTX
        assert (topic.frame, topic.option, topic.hwm_option, topic.notifier_type) == (
            b"rawtx",
            "zmqpubrawtx",
            "zmqpubrawtxhwm",
            "pubrawtx",
        )

    def test_prints_its_name_on_every_python(self) -> None:
        assert f"{Topic.RAWTX}" == str(Topic.RAWTX) == "%s" % Topic.RAWTX == "rawtx"  # noqa: UP031
        assert f"{Topic.RAWTX:>7}" == "  rawtx"
        assert f"{SequenceLabel.ADDED}" == "A"

    def test_pickles_to_itself(self) -> None:
        assert pickle.loads(pickle.dumps(Topic.RAWTX)) is Topic.RAWTX


class TestFrames:
    def test_literal_frames(self) -> None:
        assert encode(Topic.HASHBLOCK, HASH, 258) == (b"hashblock", HASH, b"\x02\x01\x00\x00")
        assert decode([b"hashblock", HASH, b"\x02\x01\x00\x00"]) == Notification(Topic.HASHBLOCK, HASH, 258)

    @given(messages())
    def test_round_trip(self, message: tuple[Topic, bytes, int]) -> None:
        frames = encode(*message)
        assert [type(frame) for frame in frames] == [bytes, bytes, bytes]
        assert decode(frames) == message

    @given(messages(), st.data())
    def test_cut_or_lengthened_frames_are_refused_or_are_shorter_raw_bodies(
        self, message: tuple[Topic, bytes, int], data: st.DataObject
    ) -> None:
        frames = list(encode(*message))
        index = data.draw(st.integers(0, 2))
        size = data.draw(st.integers(0, len(frames[index]) + 9).filter(lambda size: size != len(frames[index])))
        frames[index] = frames[index][:size].ljust(size, b"\0")
        topic = message[0]
        if index == 1 and topic.is_raw and size >= topic.min_body:
            assert decode(frames).body == frames[1]
        else:
            error = refusal(frames)
            assert 0 <= error.offset <= len(frames[index])
            assert error.what.split()[0] == (str(topic) if index == 1 else ("topic", "", "counter")[index])

    @given(st.lists(st.binary(max_size=50), max_size=5))
    def test_any_frames_decode_or_raise_decode_error(self, frames: list[bytes]) -> None:
        with contextlib.suppress(DecodeError):
            assert encode(*decode(frames)) == tuple(frames)

    @pytest.mark.parametrize("count", [0, 1, 2, 4])
    def test_wrong_number_of_frames(self, count: int) -> None:
        error = refusal([b"hashtx", HASH, COUNTER, b""][:count])
        assert (error.what, error.got) == ("notification", f"{count} frames")

    @pytest.mark.parametrize("name", [b"", b"hash", b"hashtxs", b"HASHTX", b"hashtx\0", b"\xff\xfe"])
    def test_unknown_topic(self, name: bytes) -> None:
        error = refusal([name, HASH, COUNTER])
        assert (error.what, error.offset, error.got) == ("topic frame", 0, repr(name))
        assert error.expected == "one of hashblock, hashtx, rawblock, rawtx, sequence"

    def test_a_long_unknown_topic_is_not_printed_whole(self) -> None:
        assert refusal([b"rawtx" + bytes(10**6), HASH, COUNTER]).got.endswith("… (1000005 bytes)")
        assert len(str(refusal([bytes(10**6), HASH, COUNTER]))) < 300

    @pytest.mark.parametrize(("counter", "offset"), [(b"", 0), (b"abc", 3), (b"abcde", 4)])
    def test_wrong_counter(self, counter: bytes, offset: int) -> None:
        error = refusal([b"hashtx", HASH, counter])
        assert (error.what, error.offset, error.expected) == ("counter frame", offset, "4 bytes")

    @pytest.mark.parametrize(
        ("topic", "size", "offset"),
        [
            ("hashblock", 31, 31),
            ("hashblock", 33, 32),
            ("hashtx", 0, 0),
            ("rawblock", MIN_RAW_BLOCK - 1, 80),
            ("rawtx", MIN_RAW_TRANSACTION - 1, 9),
            ("sequence", 32, 32),
        ],
    )
    def test_wrong_body_length(self, topic: str, size: int, offset: int) -> None:
        error = refusal([topic.encode(), bytes(size), COUNTER])
        assert (error.what, error.offset, error.got) == (f"{topic} body", offset, f"{size} bytes")
        with pytest.raises(DecodeError):
            encode(Topic(topic), bytes(size), 1)

    def test_shortest_raw_bodies(self) -> None:
        assert (MIN_RAW_BLOCK, MIN_RAW_TRANSACTION) == (81, 10)
        assert decode([b"rawblock", bytes(81), COUNTER]).body == bytes(81)
        assert decode([b"rawtx", bytes(10), COUNTER]).body == bytes(10)

    @pytest.mark.parametrize("counter", [-1, 2**32])
    def test_encode_refuses_a_counter_that_does_not_fit(self, counter: int) -> None:
        with pytest.raises(ValueError, match="32-bit"):
            encode(Topic.HASHTX, HASH, counter)

    def test_text_is_no_frame(self) -> None:
        with pytest.raises(TypeError):
            decode(["hashtx", HASH, COUNTER])  # type: ignore[list-item]


class TestBuffers:
    @given(messages(), st.sampled_from([bytearray, memoryview, zmq.Frame]))
    def test_every_kind_of_buffer(self, message: tuple[Topic, bytes, int], kind: type) -> None:
        topic, body, counter = message
        assert encode(topic, kind(body), counter) == encode(topic, body, counter)
        decoded = decode([kind(frame) for frame in encode(topic, body, counter)])
        assert tuple(decoded) == message
        assert isinstance(decoded.body, memoryview if topic.is_raw else bytes)

    def test_bytes_are_passed_on_as_they_are(self) -> None:
        body = bytes(100)
        assert decode([b"rawtx", body, COUNTER]).body is body
        assert encode(Topic.RAWTX, body, 0)[1] is body

    def test_a_raw_body_is_a_read_only_view_of_the_frame(self) -> None:
        frame = bytearray(100)
        body = decode([b"rawtx", frame, COUNTER]).body
        assert isinstance(body, memoryview)
        assert body.readonly
        frame[7] = 1
        assert body[7] == 1

    def test_items_wider_than_a_byte_count_in_bytes(self) -> None:
        words = array.array("I", [1, 2, 3, 4, 5, 6, 7, 8])
        assert decode([b"hashtx", words, COUNTER]).body == words.tobytes()

    def test_a_buffer_with_gaps_is_copied(self) -> None:
        view = memoryview(bytes(range(64)))[::2]
        assert decode([b"hashtx", view, COUNTER]).body == bytes(range(0, 64, 2))
        assert decode([b"rawtx", view, COUNTER]).body == bytes(range(0, 64, 2))


class TestSequenceBody:
    def test_literal_bodies(self) -> None:
        assert SequenceBody(HASH, SequenceLabel.CONNECTED).encode() == HASH + b"C"
        added = SequenceBody(HASH, SequenceLabel.ADDED, 0x0102)
        assert added.encode() == HASH + b"A" + b"\x02\x01\0\0\0\0\0\0"
        assert SequenceBody.decode(HASH + b"R" + b"\xff" * 8) == SequenceBody(HASH, SequenceLabel.REMOVED, 2**64 - 1)

    def test_labels(self) -> None:
        assert {label.byte: label.is_block for label in SequenceLabel} == {
            b"C": True,
            b"D": True,
            b"A": False,
            b"R": False,
        }

    @given(sequence_bodies(), st.sampled_from([bytes, bytearray, memoryview]))
    def test_round_trip(self, body: SequenceBody, kind: type) -> None:
        decoded = SequenceBody.decode(kind(body.encode()))
        assert decoded == body
        assert type(decoded.hash) is bytes
        assert decode(encode(Topic.SEQUENCE, body.encode(), 5)).sequence_body() == body

    @pytest.mark.parametrize("letter", [b"C", b"D", b"A", b"R"])
    @pytest.mark.parametrize("tail", range(0, 20))
    def test_each_label_has_one_length(self, letter: bytes, tail: int) -> None:
        body = HASH + letter + bytes(tail)
        right = 0 if letter in b"CD" else 8
        if tail == right:
            assert SequenceBody.decode(body).label.byte == letter
            return
        with pytest.raises(DecodeError) as caught:
            SequenceBody.decode(body)
        assert caught.value.offset == 33 + min(tail, right)
        assert caught.value.expected.startswith(f"{33 + right} bytes")
        assert refusal([b"sequence", body, COUNTER]).args == caught.value.args

    @pytest.mark.parametrize("letter", [b"c", b"B", b"\0", b"\xff"])
    def test_unknown_label(self, letter: bytes) -> None:
        error = refusal([b"sequence", HASH + letter, COUNTER])
        assert (error.offset, error.got) == (32, repr(letter))

    @pytest.mark.parametrize(
        ("hash_size", "label", "number"),
        [(31, "C", None), (33, "A", 1), (32, "C", 1), (32, "A", None), (32, "R", -1), (32, "R", 2**64)],
    )
    def test_what_the_wire_cannot_carry(self, hash_size: int, label: str, number: int | None) -> None:
        with pytest.raises(ValueError, match=r"."):
            SequenceBody(bytes(hash_size), SequenceLabel(label), number)

    def test_other_topics_have_none(self) -> None:
        with pytest.raises(ValueError, match="hashtx"):
            decode([b"hashtx", HASH, COUNTER]).sequence_body()


class TestCounters:
    def test_wraps(self) -> None:
        assert next_counter(0) == 1
        assert next_counter(2**32 - 1) == 0
        assert struct.pack("<I", next_counter(2**32 - 1)) == b"\0\0\0\0"

    @pytest.mark.parametrize(
        ("previous", "current", "missed", "restarted"),
        [
            (0, 1, 0, False),
            (2**32 - 1, 0, 0, False),  # wrapped, in order
            (2**32 - 1, 5, 5, False),  # wrapped, 0 to 4 missing
            (2**32 - 3, 1, 3, False),  # wrapped, three missing on both sides
            (5, 8, 2, False),
            (0, 2**31 - 1, 2**31 - 2, False),  # the longest gap
            (0, 2**31, 2**31, True),  # from here on the number went down
            (2**31, 0, 0, True),
            (100, 0, 0, True),  # restarted, nothing of the new run missed
            (100, 7, 7, True),  # restarted, 0 to 6 of the new run missed
            (7, 7, 7, True),  # ZeroMQ repeats nothing
            (0, 0, 0, True),
        ],
    )
    def test_steps(self, previous: int, current: int, missed: int, restarted: bool) -> None:
        assert compare_counters(previous, current) == CounterStep(missed, restarted)
        assert counter_gap(previous, current) == missed
        assert is_restart(previous, current) is restarted

    @given(counters, st.integers(0, 2**31 - 2))
    def test_a_loss_is_counted_wherever_it_happens(self, previous: int, lost: int) -> None:
        current = (previous + 1 + lost) % 2**32
        assert compare_counters(previous, current) == CounterStep(lost, False)

    @given(counters, counters)
    def test_next_counter_and_only_it_is_in_order(self, previous: int, current: int) -> None:
        in_order = compare_counters(previous, current) == CounterStep(0, False)
        assert in_order == (current == next_counter(previous))

    @given(counters, counters)
    def test_a_lower_number_is_a_restart_unless_it_wrapped(self, previous: int, current: int) -> None:
        distance = (current - previous) % 2**32
        assert is_restart(previous, current) == (distance == 0 or distance >= 2**31)

    @pytest.mark.parametrize(("previous", "current"), [(-1, 0), (0, 2**32)])
    def test_numbers_that_are_no_counters(self, previous: int, current: int) -> None:
        with pytest.raises(ValueError, match="32-bit"):
            compare_counters(previous, current)
