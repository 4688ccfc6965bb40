"""Questions to a replay endpoint: what is asked and answered, what is wrong with an answer, and how an ask ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import zmq
from raw_publisher import ALL, HASHBLOCK, HASHTX, RAWBLOCK, RAWTX, RawPublisher, receiving
from raw_replay import RANGE_OK, RawReplay
from remote_publisher import free_port
from synthetic import block, transaction

from zmqpub import ClosedError, ConnectError, RawBlock, RawTx
from zmqpub._fast import Batch, Channel, Receiver

HASH = bytes(range(32))


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


@pytest.fixture
def replay(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[RawReplay]:
    with RawReplay(context=context) as replay:
        yield replay


@pytest.fixture
def receiver(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Receiver]:
    with RawPublisher(context=context) as publisher, receiving(publisher.address, context=context) as receiver:
        yield receiver


@pytest.fixture
def channel(context: zmq.Context[zmq.Socket[bytes]], replay: RawReplay) -> Iterator[Channel]:
    channel = Channel(replay.address, False, context)
    yield channel
    channel.close()


def messages_of(channel: Channel, receiver: Receiver, topics: int = ALL) -> Batch:
    answer = channel.receive(10, receiver, 0, topics)
    assert answer is not None
    header, frames, batch = answer
    assert header == RANGE_OK
    assert frames == []
    assert batch is not None
    return batch


def ask(channel: Channel, replay: RawReplay) -> None:
    channel.send(b"question")
    assert replay.request() == b"question"


def test_frames_of_any_other_answer_come_as_they_are(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    for frames in (
        [b"ZPR1\x81\0" + bytes(5)],
        [b"ZPR1\x82\3" + bytes(4), b"no such notifier"],
        [b"x"],
        [b""],
        [b"ZPR1\x83\0", b"y" * 99999, b""],
    ):
        ask(channel, replay)
        replay.answer(*frames)
        assert channel.receive(10, receiver, 0, ALL) == (frames[0], frames[1:], None)


def test_messages_of_an_answer_are_typed_and_repaired(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    raw, tx = bytes(block(1, 40)), bytes(transaction(1))
    ask(channel, replay)
    replay.answer_messages((HASHTX, HASH, 5), (RAWTX, tx, 8), (HASHTX, HASH, 6), (RAWBLOCK, raw, 2**32 - 1), (RAWBLOCK, raw, 0))
    batch = messages_of(channel, receiver)
    assert batch.malformed is None
    assert (batch.messages, batch.remaining) == (5, 5)
    assert batch.spans == {HASHTX: (5, 7, True), RAWTX: (8, 9, True), RAWBLOCK: (2**32 - 1, 1, True)}
    assert receiver.delivered(0) == {}
    items = batch.take(10)
    assert [(m.topic.value, m.counter, m.repaired) for m in items] == [
        ("hashtx", 5, True),
        ("rawtx", 8, True),
        ("hashtx", 6, True),
        ("rawblock", 2**32 - 1, True),
        ("rawblock", 0, True),
    ]
    assert isinstance(items[1], RawTx)
    assert bytes(items[1].transaction) == tx
    assert isinstance(items[3], RawBlock)
    assert items[3].body == raw
    assert receiver.delivered(0) == {HASHTX: 7, RAWTX: 9, RAWBLOCK: 1}
    assert "repaired" in repr(items[0])


def test_an_answer_without_messages(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    ask(channel, replay)
    replay.answer(RANGE_OK)
    batch = messages_of(channel, receiver)
    assert (batch.messages, batch.spans, batch.malformed, list(batch)) == (0, {}, None, [])


def test_an_answer_of_many_chunks_keeps_its_order(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    ask(channel, replay)
    replay.answer_messages(*[(HASHTX, i.to_bytes(32, "little"), i) for i in range(20000)])
    batch = messages_of(channel, receiver)
    assert batch.spans == {HASHTX: (0, 20000, True)}
    assert [int.from_bytes(m.body, "little") for m in batch.notifications()] == list(range(20000))


@pytest.mark.parametrize("counters", [(5, 7), (5, 5), (6, 5), (5, 6, 8)])
def test_counters_that_do_not_follow_are_seen_before_anything_is_handed_out(
    counters: tuple[int, ...], channel: Channel, replay: RawReplay, receiver: Receiver
) -> None:
    ask(channel, replay)
    replay.answer_messages(*[(HASHTX, HASH, counter) for counter in counters])
    assert messages_of(channel, receiver).spans == {HASHTX: (counters[0], counters[-1] + 1, False)}


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"hashtx"], "its frames are no triples of topic, body and counter"),
        ([b"hashtx", HASH], "its frames are no triples of topic, body and counter"),
        ([b"hashtx", HASH, bytes(4), b"hashtx"], "its frames are no triples of topic, body and counter"),
        ([b"hashtx", HASH, bytes(3)], "counter: expected 4 bytes, got 3 bytes"),
        ([b"hashtx", b"", bytes(4)], "hashtx body: expected a hash of 32 bytes, got 0 bytes"),
        ([b"rawblock", b"", bytes(4)], "rawblock body: at offset 0: expected 80 bytes of block header, got 0 of 80 bytes"),
        ([b"hashblock", HASH, bytes(4)], "the topic is none that was asked for: 'hashblock' (9 bytes)"),
    ],
)
def test_an_answer_that_is_malformed_hands_out_nothing(
    frames: list[bytes], reason: str, channel: Channel, replay: RawReplay, receiver: Receiver
) -> None:
    ask(channel, replay)
    replay.answer(RANGE_OK, b"hashtx", HASH, bytes(4), *frames)
    batch = messages_of(channel, receiver, ALL & ~(1 << HASHBLOCK))
    assert batch.malformed is not None
    assert batch.malformed.startswith(reason)
    assert (batch.messages, list(batch)) == (0, [])
    assert receiver.delivered(0) == {}
    ask(channel, replay)  # and the next answer is read from its beginning
    replay.answer_messages((HASHTX, HASH, 0))
    assert messages_of(channel, receiver).messages == 1


def test_more_messages_than_the_protocol_allows(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    ask(channel, replay)
    replay.answer_messages(*[(HASHTX, HASH, i) for i in range(65537)])
    assert messages_of(channel, receiver).malformed == "more messages than an answer may have"


def test_a_batch_outlives_its_channel(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    ask(channel, replay)
    replay.answer_messages((RAWBLOCK, bytes(block(1, 100)), 0))
    batch = messages_of(channel, receiver)
    channel.close()
    (message,) = batch
    assert isinstance(message, RawBlock)
    assert len(message.block.txids) == 100


# ---- how an ask ends ----


def test_no_answer_in_time(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    channel.send(b"question")
    begun = time.monotonic()
    assert channel.receive(0.12, receiver, 0, ALL) is None
    assert 0.1 < time.monotonic() - begun < 5
    assert channel.receive(0, receiver, 0, ALL) is None


def test_asked_before_the_endpoint_is_there(context: zmq.Context[zmq.Socket[bytes]], receiver: Receiver) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    channel = Channel(address, False, context)
    channel.send(b"early")
    assert channel.receive(0.05, receiver, 0, ALL) is None
    with RawReplay(address, context) as replay:
        assert replay.request() == b"early"
        replay.answer(b"late")
        assert channel.receive(10, receiver, 0, ALL) == (b"late", [], None)
    channel.close()


def test_reset_forgets_what_was_asked(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    channel.send(b"first")
    assert replay.request() == b"first"
    channel.reset()
    replay.answer(b"to nobody")
    ask(channel, replay)
    replay.answer(b"second")
    assert channel.receive(10, receiver, 0, ALL) == (b"second", [], None)


def test_nothing_was_asked_yet(channel: Channel, receiver: Receiver) -> None:
    with pytest.raises(ConnectError):
        channel.receive(1, receiver, 0, ALL)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1", "nonsense", ""])
def test_an_endpoint_that_can_never_be(endpoint: str, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    channel = Channel(endpoint, False, context)
    with pytest.raises(ConnectError, match="cannot connect"):
        channel.send(b"x")
    channel.close()


def test_close_wakes_who_waits(channel: Channel, replay: RawReplay, receiver: Receiver) -> None:
    ask(channel, replay)
    threading.Timer(0.2, channel.close).start()
    begun = time.monotonic()
    with pytest.raises(ClosedError):
        channel.receive(None, receiver, 0, ALL)
    assert time.monotonic() - begun < 5
    with pytest.raises(ClosedError):
        channel.send(b"x")
    with pytest.raises(ClosedError):
        channel.receive(0, receiver, 0, ALL)
    with pytest.raises(ClosedError):
        channel.reset()
    channel.close()


def test_the_end_of_the_context_wakes_who_waits(receiver: Receiver) -> None:
    own: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    channel = Channel("tcp://127.0.0.1:9", False, own)
    channel.send(b"x")

    def end() -> None:
        channel.close()
        own.term()

    threading.Timer(0.2, end).start()
    with pytest.raises(ClosedError):
        channel.receive(None, receiver, 0, ALL)


def test_a_channel_that_was_forgotten_lets_its_context_end() -> None:
    own: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    channel = Channel("tcp://127.0.0.1:9", False, own)
    channel.send(b"x")
    del channel
    own.term()
