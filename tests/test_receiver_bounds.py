"""What a receiver holds for a consumer that does not come: no more than its bound, and nothing is dropped without a word."""

from __future__ import annotations

from typing import Any

import pytest
from listening import wait_for
from raw_publisher import (
    ALL,
    HASHBLOCK,
    HASHTX,
    RAWBLOCK,
    RAWTX,
    Item,
    RawPublisher,
    events,
    messages,
    receiving,
    take_all,
    take_count,
    take_until,
    wait_connected,
    without_connections,
)
from synthetic import block

from zmqpub import Topic
from zmqpub._fast import Received, Receiver

ENTRY = 64  # bytes that every message counts at least


def body(number: int) -> bytes:
    return number.to_bytes(32, "little")


def seen(receiver: Receiver) -> int:
    source = receiver.stats().sources[0]
    return source.messages + source.malformed + source.duplicates


def held(receiver: Receiver, publisher: RawPublisher, count: int, first: int = 0, topic: int = HASHTX) -> None:
    """Publish ``count`` messages and wait until the receiver has seen them, discarded or not."""
    before = seen(receiver)
    for i in range(count):
        publisher.send(topic, body(first + i), first + i)
    wait_for(lambda: seen(receiver) == before + count, what="all messages seen")


def shown(items: list[Item]) -> list[Any]:
    return [item.counter if isinstance(item, Received) else item for item in without_connections(items)]


def test_what_is_beyond_the_bound_is_discarded_and_shows_as_a_gap() -> None:
    with RawPublisher() as publisher, receiving(publisher.address, byte_bound=100 * ENTRY) as receiver:
        publisher.wait_subscribed()
        held(receiver, publisher, 250)
        stats = receiver.stats()
        assert stats.held_bytes <= 100 * ENTRY
        assert stats.sources[0].discarded == 250 - (stats.held_entries - 1)  # one entry is ("connected", ...)
        items = take_until(receiver, lambda items: events(items, "gap"))
        kept = len(messages(items))
        assert shown(items) == [*range(kept), ("gap", 0, Topic.HASHTX, kept, 250, "overflow")]
        held(receiver, publisher, 3, first=250)
        assert shown(take_count(receiver, 3)) == [250, 251, 252]


def test_the_gap_of_an_overflow_does_not_wait_for_a_next_message() -> None:
    with RawPublisher() as publisher, receiving(publisher.address, byte_bound=ENTRY * 10) as receiver:
        publisher.wait_subscribed()
        held(receiver, publisher, 20)
        held(receiver, publisher, 5, topic=HASHBLOCK)
        gaps = events(take_until(receiver, lambda items: len(events(items, "gap")) == 2), "gap")
        assert [gap[2:] for gap in gaps] == [(Topic.HASHBLOCK, 0, 5, "overflow"), (Topic.HASHTX, 9, 20, "overflow")]
        assert receiver.delivered(0) == {HASHTX: 9}


def test_bodies_count() -> None:
    raw = bytes(block(1, 50, size=2000))
    with RawPublisher() as publisher, receiving(publisher.address, byte_bound=3 * len(raw)) as receiver:
        publisher.wait_subscribed()
        for i in range(8):
            publisher.send(RAWBLOCK, raw[:4] + i.to_bytes(32, "little") + raw[36:], i)
        wait_for(lambda: seen(receiver) == 8)
        stats = receiver.stats()
        assert 3 * len(raw) < stats.held_bytes < 4.2 * len(raw)  # the last one may go beyond
        assert stats.sources[0].discarded == 5
        items = take_until(receiver, lambda items: events(items, "gap"))
        assert [m.counter for m in messages(items)] == [0, 1, 2]
        assert receiver.stats().held_bytes == 0


def test_a_message_larger_than_the_bound_comes_through_when_nothing_else_is_held() -> None:
    raw = bytes(block(1, 50, size=2000))
    with RawPublisher() as publisher, receiving(publisher.address, byte_bound=1) as receiver:
        publisher.wait_subscribed()
        assert [item[0] for item in take_until(receiver, lambda items: items) if isinstance(item, tuple)] == ["connected"]
        for i in range(3):
            publisher.send(RAWBLOCK, raw, i)
            assert shown(take_count(receiver, 1)) == [i]
        assert receiver.stats().sources[0].discarded == 0


def test_a_restart_amid_an_overflow_is_told_afterwards() -> None:
    with RawPublisher() as publisher, receiving(publisher.address, byte_bound=10 * ENTRY) as receiver:
        publisher.wait_subscribed()
        held(receiver, publisher, 30)
        held(receiver, publisher, 4)
        items = take_until(receiver, lambda items: len(events(items, "gap")) == 2)
        assert shown(items)[9:] == [
            ("gap", 0, Topic.HASHTX, 9, 30, "overflow"),
            ("restart", 0, Topic.HASHTX, 30, 0),
            ("gap", 0, Topic.HASHTX, 0, 4, "overflow"),
        ]


def test_events_of_a_misbehaving_publisher_are_bounded_too() -> None:
    with RawPublisher() as publisher, receiving(publisher.address, byte_bound=10 * ENTRY) as receiver:
        publisher.wait_subscribed()
        for i in range(500):
            publisher.send_frames(b"hashtx", b"malformed", i.to_bytes(4, "little"))
            publisher.send(RAWTX, b"", 7)
        wait_for(lambda: receiver.stats().sources[0].malformed == 1000)
        assert receiver.stats().held_bytes <= 10 * ENTRY + 256 + ENTRY
        gaps = events(take_until(receiver, lambda items: events(items, "gap")), "gap")
        assert [gap[2] for gap in gaps] == [Topic.HASHTX]
        assert gaps[0][4:] == (500, "overflow")


def test_connections_that_come_and_go_amid_an_overflow_are_one_change() -> None:
    publisher = RawPublisher()
    port = publisher.address
    with receiving(port, byte_bound=10 * ENTRY) as receiver:
        publisher.wait_subscribed()
        held(receiver, publisher, 30)
        for generation in (2, 3, 4):
            publisher.close()
            wait_for(lambda: not receiver.connected(0))
            publisher = RawPublisher(port)
            publisher.wait_subscribed()
            wait_connected(receiver, 0, generation)
        held(receiver, publisher, 5, first=3)
        items = take_until(receiver, lambda items: len(events(items, "gap")) == 2)
        kept = len(messages(items))
        # What an earlier connection brought comes before the new one, what the new one brought after it.
        assert shown(items)[kept:] == [gap for gap in events(items) if gap[0] in ("gap", "restart")]
        assert [item[:3] for item in events(items)] == [
            ("connected", 0, 1),
            ("gap", 0, Topic.HASHTX),
            ("disconnected", 0, 1),
            ("connected", 0, 4),
            ("restart", 0, Topic.HASHTX),
            ("gap", 0, Topic.HASHTX),
        ]
        publisher.close()


# ---- only the latest ----


def test_latest_only_keeps_the_newest_of_each_topic_and_address() -> None:
    with RawPublisher() as one, RawPublisher() as other, receiving(one.address, other.address, latest_only=True) as receiver:
        for publisher in (one, other):
            publisher.wait_subscribed()
        wait_connected(receiver, 1)
        take_all(receiver, quiet=0.1)
        for i in range(5000):
            one.send(HASHTX, body(i), i)
            if i % 2:
                one.send(HASHBLOCK, body(i), i)
            other.send(HASHTX, body(i), i)
        wait_for(lambda: [source.messages for source in receiver.stats().sources] == [7500, 5000])
        stats = receiver.stats()
        items = take_all(receiver)
        assert sorted((m.address, m.topic.value, m.counter) for m in messages(items)) == sorted(
            [(one.address, "hashblock", 4999), (one.address, "hashtx", 4999), (other.address, "hashtx", 4999)]
        )
        assert not events(items)
        assert stats.held_bytes < 5 * 1024 * ENTRY
        one.send(HASHTX, body(9), 6000)
        assert shown(take_count(receiver, 1)) == [6000]


def test_latest_only_frees_the_bodies_that_it_replaces() -> None:
    raw = bytes(block(1, 50, size=2000))
    with RawPublisher() as publisher, receiving(publisher.address, latest_only=True) as receiver:
        publisher.wait_subscribed()
        for i in range(300):
            publisher.send(RAWBLOCK, raw[:4] + i.to_bytes(32, "little") + raw[36:], i)
        wait_for(lambda: seen(receiver) == 300)
        assert receiver.stats().held_bytes < 1.5 * len(raw) + 1500 * ENTRY
        (message,) = messages(take_all(receiver))
        assert message.counter == 299


def test_latest_only_still_tells_a_restart() -> None:
    with RawPublisher() as publisher, receiving(publisher.address, latest_only=True, topics=ALL) as receiver:
        publisher.wait_subscribed()
        held(receiver, publisher, 3, first=100)
        held(receiver, publisher, 2)
        assert shown(take_all(receiver)) == [("restart", 0, Topic.HASHTX, 103, 0), 1]


@pytest.mark.parametrize("byte_bound", [0, 1, 64, 65])
def test_the_smallest_bounds_work(byte_bound: int) -> None:
    with RawPublisher() as publisher, receiving(publisher.address, byte_bound=byte_bound) as receiver:
        publisher.wait_subscribed()
        take_all(receiver, quiet=0.05)
        for i in range(3):
            publisher.send(HASHTX, body(i), i)
            assert shown(take_count(receiver, 1)) == [i]
