"""FaultyPublisher before a plain pyzmq subscriber: sound where nothing is asked for, and each fault as it was ordered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from listening import everything, subscriber, wait_wanted

from zmqpub import ConfigError, DecodeError, Publisher, SequenceLabel, Topic, Transaction
from zmqpub.sources.events import hand_over
from zmqpub.sources.simulated import Simulated
from zmqpub.testing import FaultyPublisher
from zmqpub.wire import Notification, decode


@pytest.fixture
def publisher() -> Iterator[FaultyPublisher]:
    with FaultyPublisher() as made:
        yield made


@pytest.fixture
def sub(publisher: FaultyPublisher) -> Iterator[zmq.Socket[bytes]]:
    with subscriber(publisher.address) as made:
        publisher.wait_for_subscribers()
        yield made


def receive(sub: zmq.Socket[bytes]) -> Notification:
    return decode(sub.recv_multipart())


def again(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    """Wait until ``sub`` is connected anew."""
    publisher.wait_for_subscribers(meanwhile=lambda: sub.poll(1))


def is_quiet(sub: zmq.Socket[bytes], seconds: float = 0.3) -> bool:
    return not sub.poll(int(seconds * 1000))


@contextlib.contextmanager
def disconnections(sub: zmq.Socket[bytes]) -> Iterator[zmq.Socket[bytes]]:
    """Readable when a connection of ``sub`` ended."""
    monitor: zmq.Socket[bytes] = sub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        yield monitor
    finally:
        sub.disable_monitor()
        monitor.close(0)


@contextlib.contextmanager
def heartbeating(address: str) -> Iterator[zmq.Socket[bytes]]:
    """A subscriber that asks whether the publisher is there."""
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.linger, sub.rcvtimeo = 0, 10_000
        sub.heartbeat_ivl, sub.heartbeat_timeout = 100, 200
        sub.subscribe("")
        sub.connect(address)
        yield sub


# Nothing is wrong until it is asked for


@pytest.mark.parametrize("topic", Topic)
def test_a_message_of_each_topic(publisher: FaultyPublisher, sub: zmq.Socket[bytes], topic: Topic) -> None:
    sent = [publisher.publish(topic), publisher.publish(topic.value)]
    assert [receive(sub), receive(sub)] == sent
    assert [notification.counter for notification in sent] == [0, 1]
    assert sent[0].body != sent[1].body
    if topic is Topic.RAWTX:
        assert Transaction(sent[0].body).raw == sent[0].body


def test_a_body_of_ones_own(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.publish("hashblock", bytes(range(32)))
    assert receive(sub) == (Topic.HASHBLOCK, bytes(range(32)), 0)


def test_events_make_the_messages_that_a_publisher_makes() -> None:
    """Frame by frame, with a simulated chain that reorganizes, replaces and evicts."""
    source = list(Simulated(7, blocks=12, transactions_per_second=3, reorg_rate=0.4, replacement_rate=0.2, eviction_rate=0.1))
    with Publisher(everything(), linger=5.0) as real, FaultyPublisher() as faulty:
        with subscriber(real.active_notifiers()[0].address) as one, subscriber(faulty.address) as other:
            wait_wanted(real)
            faulty.wait_for_subscribers()
            for event in source:
                hand_over(event, real)
                hand_over(event, faulty)
            assert real.flush(10)
            expected = sum(notifier.published for notifier in real.stats().notifiers)
            assert expected > 1000
            for _ in range(expected):
                assert one.recv_multipart() == other.recv_multipart()
            assert is_quiet(other)


def test_serialized_events_are_as_good(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    tx = publisher.chain.add_transaction()
    for _ in range(3):
        sub.recv_multipart()
    publisher.transaction_removed_from_mempool(tx.raw, 7)
    publisher.transaction_removed_from_mempool(tx.txid, 8)
    publisher.transaction_added_to_mempool(bytes(tx), 9)
    publisher.updated_block_tip(bytes(publisher.chain.tip), initial_download=True)
    bodies = [receive(sub) for _ in range(4)]
    assert [one.topic.value for one in bodies] == ["sequence", "sequence", "hashtx", "rawtx"]
    assert [bodies[0].sequence_body().label, bodies[1].sequence_body().mempool_sequence] == [SequenceLabel.REMOVED, 8]
    with pytest.raises(DecodeError):
        publisher.block_connected(b"no block")


def test_a_topic_at_several_addresses_is_counted_at_each(tmp_path: Path) -> None:
    ipc = f"ipc://{tmp_path}/socket"
    with FaultyPublisher({"zmqpubhashtx": ["tcp://127.0.0.1:*", ipc], "zmqpubrawtx": ipc}) as publisher:
        assert publisher.addresses == {Topic.HASHTX: [publisher.address, ipc], Topic.RAWTX: [ipc]}
        with subscriber(publisher.address) as one, subscriber(ipc) as other:
            publisher.wait_for_subscribers()
            publisher.publish("rawtx")
            publisher.publish("hashtx")
            assert receive(one) == receive_after(other, 1)
        assert publisher.counters(ipc) == {Topic.HASHTX: 1, Topic.RAWTX: 1}
        with pytest.raises(ValueError, match="hashblock is not published here: hashtx, rawtx"):
            publisher.publish("hashblock")
    assert not Path(tmp_path, "socket").exists()


def receive_after(sub: zmq.Socket[bytes], skipped: int) -> Notification:
    for _ in range(skipped):
        sub.recv_multipart()
    return receive(sub)


def test_an_address_without_connections_is_refused() -> None:
    with pytest.raises(ConfigError, match="inproc has no connections"):
        FaultyPublisher({"zmqpubhashtx": "inproc://here"})


def test_it_does_not_replay() -> None:
    with pytest.raises(ConfigError, match=r"zmqpubreplay=tcp://127\.0\.0\.1:\*: only a Publisher replays"):
        FaultyPublisher({"zmqpubhashtx": "tcp://127.0.0.1:*", "zmqpubreplay": "tcp://127.0.0.1:*"})


def test_nobody_is_waited_for_in_vain(publisher: FaultyPublisher) -> None:
    with subscriber(publisher.address, "hashtx"):
        publisher.wait_for_subscribers(topics=["hashtx"])
        with pytest.raises(TimeoutError, match=r"fewer than 2 subscribed within 0\.1 s to hashtx at tcp://"):
            publisher.wait_for_subscribers(2, topics=["hashtx"], timeout=0.1)
        with pytest.raises(TimeoutError, match="rawblock at tcp"):
            publisher.wait_for_subscribers(timeout=0.1)


def test_subscribers_that_went_do_not_count(publisher: FaultyPublisher) -> None:
    for _ in range(3):
        with subscriber(publisher.address):
            publisher.wait_for_subscribers()
        deadline = time.monotonic() + 10
        while True:
            try:
                publisher.wait_for_subscribers(timeout=0)
            except TimeoutError:
                break
            assert time.monotonic() < deadline


# Counting


def test_gaps(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.publish("hashtx")
    publisher.gap("hashtx", 3)
    publisher.publish("hashtx")
    publisher.publish("hashblock")
    assert [receive(sub).counter for _ in range(3)] == [0, 4, 0]


def test_messages_that_are_lost_are_counted(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.publish("hashtx")
    with publisher.losing("hashtx", "rawtx"):
        lost = [publisher.publish("hashtx"), publisher.publish("rawtx")]
        publisher.publish("sequence")
    with publisher.losing():
        publisher.publish("hashblock")
    sent = [publisher.publish(topic) for topic in ("hashtx", "rawtx", "hashblock")]
    assert [notification.counter for notification in lost] == [1, 0]
    received = [receive(sub) for _ in range(5)]
    assert received[2:] == sent
    assert [(one.topic.value, one.counter) for one in received] == [
        ("hashtx", 0),
        ("sequence", 0),
        ("hashtx", 2),
        ("rawtx", 1),
        ("hashblock", 1),
    ]


def test_a_counter_that_wraps(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.wrap("rawtx", 2)
    for _ in range(4):
        publisher.publish("rawtx")
    assert [receive(sub).counter for _ in range(4)] == [2**32 - 2, 2**32 - 1, 0, 1]
    with pytest.raises(ValueError, match="unsigned 32-bit"):
        publisher.set_counter("rawtx", 2**32)


def test_a_gap_across_the_wrap(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.wrap("rawtx")
    publisher.publish("rawtx")
    publisher.gap("rawtx", 5)
    publisher.publish("rawtx")
    assert [receive(sub).counter for _ in range(2)] == [2**32 - 1, 5]


def test_duplicates(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    with pytest.raises(ValueError, match="no hashtx message was sent"):
        publisher.duplicate("hashtx")
    publisher.publish("hashtx")
    publisher.publish("hashblock")
    publisher.gap("hashtx")
    publisher.duplicate("hashtx")
    publisher.publish("hashtx")
    received = [receive(sub) for _ in range(4)]
    assert received[0] == received[2]
    assert [one.counter for one in received] == [0, 0, 0, 2]


# What is no message


def test_misshapen_messages_are_counted(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.fourth_frame("rawtx", b"more")
    publisher.two_frames("rawtx")
    publisher.short_counter("rawtx")
    publisher.publish("rawtx")
    received = [sub.recv_multipart() for _ in range(4)]
    assert [len(frames) for frames in received] == [4, 2, 3, 3]
    for frames, problem in zip(received, ("got 4 frames", "got 2 frames", "got 3 bytes"), strict=False):
        with pytest.raises(DecodeError, match=problem):
            decode(frames)
    assert received[0][2:] == [bytes(4), b"more"]
    assert decode(received[3]).counter == 3


@pytest.mark.parametrize("topic", Topic)
def test_bodies_of_the_wrong_length(publisher: FaultyPublisher, sub: zmq.Socket[bytes], topic: Topic) -> None:
    publisher.wrong_length(topic)
    with pytest.raises(DecodeError, match=f"{topic} body"):
        receive(sub)
    publisher.publish(topic)
    assert receive(sub).counter == 1


@pytest.mark.parametrize("topic", [Topic.RAWBLOCK, Topic.RAWTX, Topic.SEQUENCE])
def test_bodies_that_only_look_inside_shows_to_be_none(publisher: FaultyPublisher, sub: zmq.Socket[bytes], topic: Topic) -> None:
    from zmqpub import Block

    publisher.malformed_body(topic)
    frames = sub.recv_multipart()
    parse: Any = {Topic.RAWBLOCK: Block, Topic.RAWTX: Transaction}.get(topic)
    with pytest.raises(DecodeError):
        parse(frames[1]) if parse else decode(frames)
    if topic.is_raw:
        assert decode(frames).counter == 0
    publisher.publish(topic)
    assert receive(sub).counter == 1


@pytest.mark.parametrize("topic", [Topic.HASHBLOCK, Topic.HASHTX])
def test_any_hash_is_one(publisher: FaultyPublisher, topic: Topic) -> None:
    with pytest.raises(ValueError, match="any 32 bytes"):
        publisher.malformed_body(topic)


def test_unknown_topics_reach_who_subscribed_to_a_prefix(publisher: FaultyPublisher) -> None:
    with subscriber(publisher.address, "hashtx") as sub:
        publisher.wait_for_subscribers(topics=["hashtx"])
        publisher.unknown_topic()
        assert sub.recv_multipart() == [b"hashtxlock", bytes(32), bytes(4)]
        publisher.send_frames(b"hashtx")
        assert sub.recv_multipart() == [b"hashtx"]


# The network


def test_a_silenced_connection_is_dead_and_open(publisher: FaultyPublisher) -> None:
    with subscriber(publisher.address) as old, disconnections(old) as monitor:
        publisher.wait_for_subscribers()
        publisher.publish("hashtx")
        receive(old)
        publisher.silence()
        with subscriber(publisher.address) as new:
            publisher.wait_for_subscribers()
            publisher.publish("hashtx")
            assert receive(new).counter == 1
            assert is_quiet(old)
            assert not monitor.poll(0)


def test_heartbeats_notice_a_silence(publisher: FaultyPublisher) -> None:
    """No PONG comes back, so that a subscriber that asks finds out."""
    with heartbeating(publisher.address) as sub, disconnections(sub) as monitor:
        publisher.wait_for_subscribers()
        publisher.silence()
        assert monitor.poll(10_000)
        again(publisher, sub)
        publisher.publish("hashtx")
        assert receive(sub).counter == 0


def test_a_cut_connection_comes_back(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.publish("hashtx")
    receive(sub)
    publisher.disconnect()
    again(publisher, sub)
    publisher.publish("hashtx")
    assert receive(sub).counter == 1


def test_a_trickle(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    body = bytes(32)
    message = 6 + 32 + 4 + 6  # with ZMTP's two bytes a frame
    publisher.trickle(20 * message)
    begun = time.monotonic()
    for _ in range(20):
        publisher.publish("hashtx", body)
    assert [receive(sub).counter for _ in range(20)] == list(range(20))
    assert 0.7 <= time.monotonic() - begun < 20


def test_what_is_held_back_follows(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.trickle(0)
    sent = [publisher.publish("rawblock") for _ in range(50)]
    assert is_quiet(sub)
    publisher.trickle(None)
    assert [receive(sub) for _ in range(50)] == sent
    with pytest.raises(ValueError, match="0 or more bytes"):
        publisher.trickle(-1)


# Its life


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("down_for", [0.0, 0.3])
def test_a_restart(publisher: FaultyPublisher, sub: zmq.Socket[bytes], reset: bool, down_for: float) -> None:
    address = publisher.address
    sent = [publisher.publish("rawtx") for _ in range(500)]
    publisher.restart(reset, down_for=down_for)
    assert publisher.address == address
    assert [receive(sub) for _ in range(500)] == sent
    again(publisher, sub)
    publisher.publish("rawtx")
    assert receive(sub).counter == (0 if reset else 500)


def test_a_publisher_that_is_gone(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.stop()
    publisher.stop()
    with pytest.raises(ValueError, match="is stopped"):
        publisher.publish("hashtx")
    assert is_quiet(sub)
    publisher.start()
    publisher.start()
    again(publisher, sub)
    publisher.publish("hashtx")
    assert receive(sub).counter == 0


def test_a_restart_does_not_wait_for_a_trickle(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    publisher.trickle(1)
    publisher.publish("rawtx")
    begun = time.monotonic()
    publisher.restart()
    assert time.monotonic() - begun < 8
    publisher.trickle(None)
    again(publisher, sub)


def test_closing_twice_and_with_a_context_of_ones_own() -> None:
    context = zmq.Context()
    publisher = FaultyPublisher(context=context)
    assert repr(publisher) == f"<FaultyPublisher {publisher.address}>"
    publisher.close()
    publisher.close()
    assert repr(publisher) == "<FaultyPublisher closed>"
    assert not context.closed
    context.term()


# The chain


def test_a_reorganization(publisher: FaultyPublisher, sub: zmq.Socket[bytes]) -> None:
    made = publisher.reorg(2)
    assert len(made) == 3
    labels: list[str] = []
    tips: list[bytes] = []
    while not labels or len(tips) < 3:
        notification = receive(sub)
        if notification.topic is Topic.SEQUENCE and notification.sequence_body().label.is_block:
            labels.append(notification.sequence_body().label.value)
        elif notification.topic is Topic.HASHBLOCK:
            tips.append(bytes(notification.body))
    assert "".join(labels) == "CCDDCCC"
    assert tips[-1] == made[-1].hash == publisher.chain.tip.hash
