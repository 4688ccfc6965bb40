"""The kit and the Subscriber, each holding the other: every fault of FaultyPublisher comes out as the event that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zmqpub import (
    CounterGap,
    Disconnected,
    Duplicate,
    Lost,
    Malformed,
    MempoolGap,
    Reconnected,
    Reorg,
    Restart,
    Stale,
    Subscriber,
    Topic,
)
from zmqpub._fast import Received
from zmqpub.testing import FaultyPublisher


@pytest.fixture
def publisher() -> Iterator[FaultyPublisher]:
    with FaultyPublisher() as made:
        yield made


@pytest.fixture
def subscriber(publisher: FaultyPublisher) -> Iterator[Subscriber]:
    with Subscriber(publisher.address) as made:
        publisher.wait_for_subscribers()
        yield made


def until(subscriber: Subscriber, kind: type, timeout: float = 20.0) -> list[Any]:
    """Items up to the first of ``kind``."""
    items: list[Any] = []
    while not items or not isinstance(items[-1], kind):
        items.append(subscriber.recv(timeout))
    return items


def test_gap(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    publisher.publish("hashtx")
    publisher.gap("hashtx", 7)
    sent = publisher.publish("hashtx")
    until(subscriber, Received)
    assert subscriber.recv(20) == CounterGap(publisher.address, Topic.HASHTX, 1, 8)
    lost = subscriber.recv(20)
    assert isinstance(lost, Lost)
    assert (lost.first, lost.until, lost.messages) == (1, 8, 7)
    message = subscriber.recv(20)
    assert isinstance(message, Received)
    assert (message.counter, message.body) == (sent.counter, sent.body)


def test_wrap_is_no_gap(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    publisher.wrap("rawtx", 2)
    for _ in range(4):
        publisher.publish("rawtx")
    until(subscriber, Received)
    rest = [subscriber.recv(20) for _ in range(3)]
    assert [item.counter for item in rest if isinstance(item, Received)] == [2**32 - 1, 0, 1]


def test_gap_across_the_wrap(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    publisher.wrap("rawtx")
    publisher.publish("rawtx")
    publisher.gap("rawtx", 3)
    publisher.publish("rawtx")
    assert until(subscriber, CounterGap)[-1].missed == 3


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        (lambda publisher: publisher.fourth_frame("rawtx"), 0),
        (lambda publisher: publisher.two_frames("rawtx"), None),
        (lambda publisher: publisher.short_counter("rawtx"), None),
        (lambda publisher: publisher.wrong_length("rawtx"), 0),
        (lambda publisher: publisher.wrong_length("hashblock"), 0),
        (lambda publisher: publisher.malformed_body("rawblock"), 0),
        (lambda publisher: publisher.malformed_body("sequence"), 0),
        (lambda publisher: publisher.unknown_topic("rawtxlock", counter=5), 5),
    ],
    ids=["fourth", "two", "counter", "length", "hash", "block", "label", "topic"],
)
def test_malformed_and_the_stream_goes_on(
    publisher: FaultyPublisher, subscriber: Subscriber, fault: Callable[[FaultyPublisher], None], counter: int | None
) -> None:
    fault(publisher)
    publisher.publish("hashtx")
    malformed = until(subscriber, Malformed)[-1]
    assert malformed.counter == counter
    assert malformed.reason
    assert isinstance(subscriber.recv(20), Received)


def test_duplicate(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    publisher.publish("hashblock")
    publisher.duplicate("hashblock")
    assert until(subscriber, Duplicate)[-1] == Duplicate(publisher.address, Topic.HASHBLOCK, 0)


def test_reorg(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    (replaced,) = publisher.chain.mine()
    publisher.reorg(1)
    assert until(subscriber, Reorg)[-1].old_tip == replaced.hash


def test_mempool_gap(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    publisher.chain.add_transaction()
    publisher.chain.skip_mempool_sequence(3)
    publisher.chain.add_transaction()
    gap = until(subscriber, MempoolGap)[-1]
    assert gap.got - gap.expected == 3


def test_restart_with_counters_from_0(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    for _ in range(3):
        publisher.publish("hashtx")
    publisher.restart()
    publisher.wait_for_subscribers()
    publisher.publish("hashtx")
    items = until(subscriber, Restart)
    assert [type(item) for item in items if not isinstance(item, Received)][-3:] == [Disconnected, Reconnected, Restart]
    message = until(subscriber, Received)[-1]
    assert message.counter == 0


def test_restart_that_goes_on_counting(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    publisher.publish("hashtx")
    publisher.restart(reset_counters=False)
    publisher.wait_for_subscribers()
    publisher.publish("hashtx")
    until(subscriber, Reconnected)
    message = subscriber.recv(20)
    assert isinstance(message, Received)
    assert message.counter == 1


def test_silence(publisher: FaultyPublisher) -> None:
    with Subscriber(publisher.address, stale_after=1.0) as subscriber:
        publisher.wait_for_subscribers()
        publisher.publish("hashtx")
        until(subscriber, Received)
        publisher.silence()
        publisher.publish("hashtx")  # never arrives
        assert until(subscriber, Stale)[-1].silence >= 1.0
        publisher.wait_for_subscribers()
        publisher.publish("hashtx")
        assert until(subscriber, CounterGap)[-1].missed == 1


def test_trickle(publisher: FaultyPublisher, subscriber: Subscriber) -> None:
    publisher.trickle(20_000)
    sent = [publisher.publish("rawblock") for _ in range(10)]
    received: list[Received] = []
    while len(received) < len(sent):
        item = subscriber.recv(20)
        if isinstance(item, Received):
            received.append(item)
    assert [(item.counter, bytes(item.body)) for item in received] == [(one.counter, bytes(one.body)) for one in sent]


def test_what_is_lost_is_had_from_the_chain(publisher: FaultyPublisher) -> None:
    """Blocks that a publisher lost come from a node, which the chain can be."""
    chain = publisher.chain
    with Subscriber(publisher.address, topics=["rawblock"], rpc=chain) as subscriber:
        publisher.wait_for_subscribers(topics=["rawblock"])
        chain.mine()
        with publisher.losing():
            chain.mine(3)
        chain.mine()
        hashes: list[bytes] = []
        while len(hashes) < 5:
            item = subscriber.recv(20)
            if isinstance(item, Received):
                hashes.append(item.hash)  # type: ignore[attr-defined]
    assert hashes == [block.hash for block in chain.blocks]
