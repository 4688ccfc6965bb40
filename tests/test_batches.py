"""What a Batch hands out, how far the consumer has come, and how live and repaired messages become one stream."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from raw_publisher import ALL, HASHBLOCK, HASHTX, TOPICS, RawPublisher, receiving, take_until, wait_connected
from raw_replay import RawReplay

from zmqpub import Topic
from zmqpub._fast import Batch, Channel, Received, Receiver

_names = itertools.count()


def body(number: int) -> bytes:
    return number.to_bytes(32, "little")


@dataclass
class Rig:
    """A publisher and its replay endpoint under a test's control, and what receives from both."""

    publisher: RawPublisher
    replay: RawReplay
    receiver: Receiver
    channel: Channel

    def send(self, *counters: int, topic: int = HASHTX) -> None:
        for counter in counters:
            self.publisher.send(topic, body(counter), counter)

    def take(self, entries: int) -> Batch:
        """A batch with so many entries: what was sent last."""
        seen = self.receiver.stats
        while seen().held_entries < entries:
            pass
        batch = self.receiver.take(10)
        assert batch is not None
        assert batch.remaining == entries
        return batch

    def repaired(self, *counters: int, topic: int = HASHTX) -> Batch:
        self.channel.send(b"please")
        self.replay.request()
        self.replay.answer_messages(*[(topic, body(counter), counter) for counter in counters])
        answer = self.channel.receive(10, self.receiver, 0, ALL)
        assert answer is not None
        assert answer[2] is not None
        return answer[2]


@pytest.fixture
def new_rig() -> Iterator[Callable[..., Rig]]:
    """Makes rigs; without what they begin with: ("connected", …)."""
    with zmq.Context() as context:
        closing: list[Any] = []

        def make(**settings: Any) -> Rig:
            name = f"inproc://batches-{next(_names)}"
            publisher, replay = RawPublisher(name, context), RawReplay(f"{name}-replay", context)
            receiver = Receiver([(name, name, False, ALL, settings.pop("expected", {}))], context=context, **settings)
            channel = Channel(replay.address, False, context)
            closing.extend((receiver, channel, publisher, replay))
            publisher.wait_subscribed()
            wait_connected(receiver)
            assert shown(receiver.take(10)) == [("connected", 0, 1, name)]
            return Rig(publisher, replay, receiver, channel)

        yield make
        for one in closing:
            one.close()


@pytest.fixture
def rig(new_rig: Callable[..., Rig]) -> Rig:
    return new_rig()


def shown(items: Any) -> list[Any]:
    return [
        (item.counter, "repaired") if isinstance(item, Received) and item.repaired else item.counter if isinstance(item, Received) else item
        for item in items
    ]


def gap(expected: int, got: int, topic: Topic = Topic.HASHTX) -> tuple[Any, ...]:
    return ("gap", 0, topic, expected, got, "network")


# ---- an iterator ----


def test_delivered_is_what_was_handed_out_not_what_was_received(rig: Rig) -> None:
    rig.send(4, 5, 6)
    batch = rig.take(3)
    assert rig.receiver.delivered(0) == {}
    assert shown([next(batch)]) == [4]
    assert rig.receiver.delivered(0) == {HASHTX: 5}
    assert shown(itertools.islice(batch, 1)) == [5]
    assert batch.remaining == 1
    assert shown(batch) == [6]
    assert rig.receiver.delivered(0) == {HASHTX: 7}
    with pytest.raises(StopIteration):
        next(batch)


def test_notifications_stop_before_a_tuple_and_go_on_after_it(rig: Rig) -> None:
    rig.send(0, 1, 5, 6)
    batch = rig.take(5)
    assert shown(batch.notifications()) == [0, 1]
    assert shown(batch.notifications()) == []
    assert next(batch) == gap(2, 5)
    assert shown(batch.notifications()) == [5, 6]
    assert shown(batch) == []


def test_a_list_of_notifications_at_once(rig: Rig) -> None:
    rig.send(0, 1, 2, 5, 6)
    batch = rig.take(6)
    assert shown(batch.take(2)) == [0, 1]
    assert rig.receiver.delivered(0) == {HASHTX: 2}
    assert shown(batch.take(100)) == [2]
    assert batch.take(100) == []
    assert next(batch) == gap(3, 5)
    assert shown(batch.take(100)) == [5, 6]
    assert batch.take(100) == []


def test_nobody_makes_a_batch() -> None:
    with pytest.raises(TypeError):
        Batch()


# ---- live and repaired ----


def test_what_was_repaired_is_not_handed_out_again(rig: Rig) -> None:
    rig.send(0, 4, 5, 6)
    batch = rig.take(5)
    assert shown([next(batch), next(batch)]) == [0, gap(1, 4)]
    assert shown(rig.repaired(1, 2, 3)) == [(1, "repaired"), (2, "repaired"), (3, "repaired")]
    assert rig.receiver.delivered(0) == {HASHTX: 4}
    assert shown(batch) == [4, 5, 6]


def test_a_repair_may_run_ahead_of_what_is_live(rig: Rig) -> None:
    rig.send(0, 4, 5, 8, 9)
    batch = rig.take(7)
    assert shown([next(batch), next(batch)]) == [0, gap(1, 4)]
    assert len(list(rig.repaired(*range(1, 9)))) == 8
    assert shown(batch) == [9]  # the second gap is no news either


def test_half_a_gap_that_was_repaired_is_told_as_the_other_half(rig: Rig) -> None:
    rig.send(0, 4, 10)
    batch = rig.take(5)
    assert shown([next(batch), next(batch)]) == [0, gap(1, 4)]
    assert len(list(rig.repaired(*range(1, 7)))) == 6
    assert shown(batch) == [gap(7, 10), 10]


def test_a_repair_of_one_topic_leaves_the_others(rig: Rig) -> None:
    rig.send(0, topic=HASHBLOCK)
    rig.send(0, 2)
    rig.send(2, topic=HASHBLOCK)
    batch = rig.take(6)
    assert shown([next(batch), next(batch), next(batch)]) == [0, 0, gap(1, 2)]
    assert shown(rig.repaired(1)) == [(1, "repaired")]
    assert shown(batch) == [2, gap(1, 2, Topic.HASHBLOCK), 2]


def test_a_gap_that_cannot_be_repaired_is_told_once(rig: Rig) -> None:
    rig.send(0, 4, 5)
    assert shown(rig.take(4)) == [0, gap(1, 4), 4, 5]


def test_a_message_beyond_what_was_delivered_is_never_without_a_gap(rig: Rig) -> None:
    """The thread saw no gap, as it knew nothing of the topic; the consumer did, from a repair."""
    assert len(list(rig.repaired(0, 1))) == 2
    rig.send(5)
    assert shown(rig.take(1)) == [gap(2, 5), 5]


def test_what_is_delivered_can_be_set(rig: Rig) -> None:
    rig.send(10, 11, 12, 13)
    rig.receiver.set_delivered(0, HASHTX, 12)
    assert shown(rig.take(4)) == [12, 13]
    rig.send(14, 15, 16)
    rig.receiver.set_delivered(0, HASHTX, 10)
    assert shown(rig.take(3)) == [gap(10, 14), 14, 15, 16]
    rig.receiver.set_delivered(0, HASHTX, None)
    assert rig.receiver.delivered(0) == {}
    rig.send(17)
    assert shown(rig.take(1)) == [17]


def test_across_the_wrap(rig: Rig) -> None:
    rig.send(2**32 - 2, 3)
    batch = rig.take(3)
    assert shown([next(batch), next(batch)]) == [2**32 - 2, gap(2**32 - 1, 3)]
    assert len(list(rig.repaired(2**32 - 1, 0, 1, 2, 3, 4))) == 6
    rig.send(4, 5)
    assert shown(batch) == []
    assert shown(rig.take(2)) == [5]


def test_what_a_cursor_expects_is_delivered(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(expected={HASHTX: 7})
    assert rig.receiver.delivered(0) == {HASHTX: 7}
    rig.send(9)
    batch = rig.take(2)
    assert shown([next(batch)]) == [gap(7, 9)]
    assert shown(rig.repaired(7, 8)) == [(7, "repaired"), (8, "repaired")]
    assert shown(batch) == [9]


# ---- restarts ----


def test_a_restart_begins_every_topic_at_0(rig: Rig) -> None:
    rig.send(7, topic=HASHBLOCK)
    rig.send(5, 1)
    batch = rig.take(5)
    assert shown(itertools.islice(batch, 3)) == [7, 5, ("restart", 0, Topic.HASHTX, 6, 1)]
    assert rig.receiver.delivered(0) == dict.fromkeys(range(5), 0)
    assert rig.receiver.delivered_before_restart(0) == {HASHBLOCK: 8, HASHTX: 6}
    assert shown([next(batch)]) == [gap(0, 1)]
    assert shown(rig.repaired(0)) == [(0, "repaired")]
    assert shown(batch) == [1]


def test_a_restart_that_was_repaired_before_it_showed(rig: Rig) -> None:
    """Whoever asked the publisher knew first: the new run up to 3 was had from it, when live messages tell of the restart."""
    rig.send(50)
    assert shown(rig.take(1)) == [50]
    assert len(list(rig.repaired(0, 1, 2))) == 3
    rig.send(1, 2, 3)
    batch = rig.take(5)
    assert shown([next(batch)]) == [("restart", 0, Topic.HASHTX, 51, 1)]
    for topic, counter in rig.receiver.delivered_before_restart(0).items():
        rig.receiver.set_delivered(0, topic, counter)
    assert shown(batch) == [3]


def test_a_new_run_that_is_further_than_the_old_one_is_repaired_from_its_beginning(rig: Rig) -> None:
    rig.send(50)
    assert shown(rig.take(1)) == [50]
    rig.send(60, 61)
    batch = rig.take(3)
    assert len(list(rig.repaired(*range(62)))) == 62
    assert shown(batch) == []


# ---- connections ----


def test_live_items_of_an_older_connection_can_be_skipped() -> None:
    publisher = RawPublisher()
    address = publisher.address
    with receiving(address) as receiver:
        publisher.wait_subscribed()
        for counter in (0, 5):
            publisher.send(HASHTX, body(counter), counter)
        publisher.send_frames(b"hashtx", b"", b"")
        while receiver.stats().held_entries < 5:
            pass
        publisher.close()
        with RawPublisher(address) as publisher:
            publisher.wait_subscribed()
            wait_connected(receiver, generation=2)
            publisher.send(HASHTX, body(9), 9)
            receiver.skip_before(0, 2)
            items = take_until(receiver, lambda items: items and isinstance(items[-1], Received))
    assert shown(items) == [("connected", 0, 1, address), ("disconnected", 0, 1), ("connected", 0, 2, address), gap(6, 9), 9]


# ---- all of it ----


@given(
    st.lists(st.sampled_from([HASHBLOCK, HASHTX]), min_size=1, max_size=25),
    st.sets(st.integers(0, 24)),
    st.lists(st.integers(0, 3), min_size=25, max_size=25),
    st.sampled_from([0, 7, 2**32 - 3]),
)
def test_with_every_gap_repaired_each_message_comes_once_and_in_order(
    topics: list[int], lost: set[int], ahead: list[int], start: int
) -> None:
    """Any of the live messages are lost; each gap is repaired for both topics, from what was delivered up to the message that showed
    it, or up to three further."""
    log = [(topic, body(place), (start + topics[:place].count(topic)) % 2**32) for place, topic in enumerate(topics)]
    live = [message for place, message in enumerate(log) if place not in lost]
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        name = f"inproc://batches-{next(_names)}"
        publisher = stack.enter_context(RawPublisher(name, context))
        replay = stack.enter_context(RawReplay(f"{name}-replay", context))
        receiver = Receiver([(name, name, False, ALL, dict.fromkeys((HASHBLOCK, HASHTX), start))], context=context)
        stack.callback(receiver.close)
        channel = Channel(replay.address, False, context)
        stack.callback(channel.close)
        rig = Rig(publisher, replay, receiver, channel)
        publisher.wait_subscribed()
        for topic, content, counter in live:
            publisher.send(topic, content, counter)
        publisher.send(b"hashtx-over", b"", 0)
        got = list(_mended(rig, log, iter(ahead)))
    received = [(TOPICS.index(m.topic), m.body, m.counter) for m in got]
    for topic in (HASHBLOCK, HASHTX):
        heard = [m for m in received if m[0] == topic]
        assert heard == [m for m in log if m[0] == topic][: len(heard)]
    assert set(live) <= set(received)


def _mended(rig: Rig, log: list[tuple[int, bytes, int]], ahead: Iterator[int]) -> Iterator[Received]:
    """The stream, every gap in it repaired."""
    while True:
        batch = rig.receiver.take(10)
        assert batch is not None
        for item in batch:
            if isinstance(item, Received):
                yield item
            elif item[0] == "malformed":
                return
            elif item[0] == "gap":
                shows = next(place for place, m in enumerate(log) if TOPICS[m[0]] is item[2] and m[2] == item[4])
                yield from _repair(rig, log[: shows + next(ahead)])


def _repair(rig: Rig, log: list[tuple[int, bytes, int]]) -> list[Received]:
    delivered = rig.receiver.delivered(0)
    missing = [(topic, content, counter) for topic, content, counter in log if (counter - delivered[topic]) % 2**32 < 2**31]
    rig.channel.send(b"please")
    rig.replay.request()
    rig.replay.answer_messages(*missing)
    answer = rig.channel.receive(10, rig.receiver, 0, ALL)
    assert answer is not None
    assert answer[2] is not None
    assert all(contiguous for _, _, contiguous in answer[2].spans.values())
    return answer[2].take(len(missing))
