"""What a receiver reads from counters, mempool sequences and parents, on publishers that lose, repeat and begin anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import zmq
from block_samples import chain, child
from hypothesis import example, given
from hypothesis import strategies as st
from raw_publisher import (
    HASHBLOCK,
    HASHTX,
    RAWBLOCK,
    SEQUENCE,
    TOPICS,
    Item,
    RawPublisher,
    events,
    messages,
    receiving,
    take_count,
    take_until,
    without_connections,
)

from zmqpub import Block, Topic
from zmqpub._fast import Received
from zmqpub.wire import compare_counters

END = 2**32
_names = itertools.count()


def body(number: int) -> bytes:
    return number.to_bytes(32, "little")


def told(sent: Iterable[tuple[int, int, bytes]], topics: int = 0b11111, **settings: Any) -> list[Item]:
    """What a receiver says of these (topic, counter, body); a last message tells it that they are over."""
    context = zmq.Context()
    with RawPublisher(f"inproc://counters-{next(_names)}", context) as publisher:
        with receiving(publisher.address, topics=topics, context=context, **settings) as receiver:
            publisher.wait_subscribed(topics)
            for topic, counter, content in sent:
                publisher.send(topic, content, counter)
            publisher.send(b"hashtx-over", b"", 0)
            items = take_until(receiver, lambda items: items and events(items[-1:], "malformed"))
    context.term()
    return without_connections(items)[:-1]


def counted(*counters: int, topic: int = HASHTX) -> list[tuple[int, int, bytes]]:
    """Messages with these counters, each with a body of its own."""
    return [(topic, counter % END, body(i)) for i, counter in enumerate(counters)]


def shown(items: Iterable[Item]) -> list[Any]:
    """Messages as their counters alone."""
    return [item.counter if isinstance(item, Received) else item for item in items]


# ---- gaps ----


def test_messages_in_order_are_all_there_is() -> None:
    assert shown(told(counted(5, 6, 7))) == [5, 6, 7]


def test_a_gap_stands_before_the_message_that_shows_it() -> None:
    assert shown(told(counted(5, 8))) == [5, ("gap", 0, Topic.HASHTX, 6, 8, "network"), 8]


def test_the_counter_wraps_without_a_gap_and_with_one() -> None:
    assert shown(told(counted(END - 2, END - 1, 0, 1))) == [END - 2, END - 1, 0, 1]
    assert shown(told(counted(END - 2, 2))) == [END - 2, ("gap", 0, Topic.HASHTX, END - 1, 2, "network"), 2]


def test_each_topic_counts_for_itself() -> None:
    sent = [(HASHTX, 0, body(0)), (HASHBLOCK, 7, body(1)), (HASHTX, 1, body(2)), (HASHBLOCK, 9, body(3))]
    assert shown(told(sent)) == [0, 7, 1, ("gap", 0, Topic.HASHBLOCK, 8, 9, "network"), 9]


def test_each_address_counts_for_itself() -> None:
    with RawPublisher() as one, RawPublisher() as other, receiving(one.address, other.address) as receiver:
        for publisher in (one, other):
            publisher.wait_subscribed()
        one.send(HASHTX, body(0), 5)
        other.send(HASHTX, body(0), 0)
        one.send(HASHTX, body(1), 7)
        other.send(HASHTX, body(1), 1)
        items = take_count(receiver, 5)
    assert [m.counter for m in messages(items) if m.address == one.address] == [5, 7]
    assert [m.counter for m in messages(items) if m.address == other.address] == [0, 1]
    assert events(items) == [("gap", 0, Topic.HASHTX, 6, 7, "network")]


def test_a_cursor_tells_what_was_missed_before_the_first_message() -> None:
    gap = ("gap", 0, Topic.HASHTX, 5, 9, "network")
    assert shown(told(counted(9), expected={HASHTX: 5})) == [gap, 9]
    assert shown(told(counted(5), expected={HASHTX: 5})) == [5]


# ---- restarts ----


def test_a_counter_that_went_back_is_a_restart_and_what_was_missed_of_the_new_run_a_gap() -> None:
    restart = ("restart", 0, Topic.HASHTX, 7, 2)
    assert shown(told(counted(5, 6, 2, 3))) == [5, 6, restart, ("gap", 0, Topic.HASHTX, 0, 2, "network"), 2, 3]
    assert shown(told(counted(5, 0))) == [5, ("restart", 0, Topic.HASHTX, 6, 0), 0]


def test_after_a_restart_every_topic_of_the_address_begins_at_0() -> None:
    sent = [(HASHTX, 9, body(0)), (HASHBLOCK, 3, body(1)), (HASHTX, 0, body(2)), (HASHBLOCK, 2, body(3)), (SEQUENCE, 1, body(4) + b"C")]
    assert shown(told(sent)) == [
        9,
        3,
        ("restart", 0, Topic.HASHTX, 10, 0),
        0,
        ("gap", 0, Topic.HASHBLOCK, 0, 2, "network"),
        2,
        ("gap", 0, Topic.SEQUENCE, 0, 1, "network"),
        1,
    ]


def test_the_same_counter_with_another_body_is_a_restart() -> None:
    assert events(told(counted(5, 5)))[0] == ("restart", 0, Topic.HASHTX, 6, 5)


# ---- duplicates ----


@pytest.mark.parametrize(("topic", "content"), [(HASHTX, body(1)), (SEQUENCE, body(1) + b"C"), (RAWBLOCK, chain(2)[1])])
def test_a_message_sent_twice_is_passed_on_once(topic: int, content: bytes) -> None:
    sent = [(topic, 5, content), (topic, 5, content), (topic, 5, content)]
    assert shown(told(sent)) == [5, *[("duplicate", 0, TOPICS[topic], 5)] * 2]


def test_equal_bodies_with_counters_of_their_own_are_no_duplicates() -> None:
    assert shown(told([(HASHTX, 5, body(1)), (HASHTX, 6, body(1))])) == [5, 6]


# ---- held against the specification ----


def expected_of(counters: list[int]) -> list[Any]:
    """What wire.compare_counters says of messages of one topic, of which each body is new."""
    result: list[Any] = []
    previous: int | None = None
    for counter in counters:
        if previous is not None:
            step = compare_counters(previous, counter)
            wanted = (previous + 1) % END
            if step.restarted:
                result.append(("restart", 0, Topic.HASHTX, wanted, counter))
                wanted = 0
            if step.missed:
                result.append(("gap", 0, Topic.HASHTX, wanted, counter, "network"))
        result.append(counter)
        previous = counter
    return result


near_the_edges = st.sampled_from([0, 2**31, END]).flatmap(lambda edge: st.integers(edge - 3, edge + 3)).map(lambda n: n % END)


@given(st.lists(st.one_of(near_the_edges, st.integers(0, END - 1), st.integers(0, 6)), min_size=1, max_size=8))
@example([0, 2**31 - 1])
@example([0, 2**31])
@example([0, 2**31 + 1])
def test_counters_mean_what_the_wire_says_they_mean(counters: list[int]) -> None:
    assert shown(told(counted(*counters))) == expected_of(counters)


# ---- the mempool's own sequence ----


def labels(*labels: str) -> list[tuple[int, int, bytes]]:
    """Sequence messages: "A5" is one of the mempool, "C" and "D" of a block."""
    return [
        (SEQUENCE, i, body(i) + label[:1].encode() + (int(label[1:]).to_bytes(8, "little") if label[1:] else b""))
        for i, label in enumerate(labels)
    ]


def test_a_mempool_sequence_that_jumps_is_told() -> None:
    assert shown(told(labels("A5", "R6", "A9", "A10"))) == [0, 1, ("mempool-gap", 0, 7, 9), 2, 3]
    assert shown(told(labels("A5", "A3"))) == [0, ("mempool-gap", 0, 6, 3), 1]


def test_a_block_lets_the_mempool_sequence_jump() -> None:
    assert shown(told(labels("A5", "C", "A90", "R91"))) == [0, 1, 2, 3]


def test_what_a_counter_gap_has_told_is_not_told_again() -> None:
    sent = labels("A5", "A6", "A7", "A8")
    assert shown(told([sent[0], sent[3]])) == [0, ("gap", 0, Topic.SEQUENCE, 1, 3, "network"), 3]


# ---- reorgs ----


def blocks(*raw: bytes) -> list[tuple[int, int, bytes]]:
    return [(RAWBLOCK, i, one) for i, one in enumerate(raw)]


def test_a_raw_block_on_another_parent_is_a_reorg() -> None:
    a, b, c = chain(3)
    other = child(a, 2, branch=b"other")
    assert shown(told(blocks(a, b, c))) == [0, 1, 2]
    assert shown(told(blocks(a, b, c, other))) == [0, 1, 2, ("reorg", 0, Block(c).hash, Block(a).hash), 3]
    assert shown(told(blocks(a, b, b))) == [0, 1, 2]  # a tip that is announced again


def test_blocks_that_were_missed_are_no_reorg() -> None:
    sent = blocks(*chain(4))
    assert shown(told([sent[0], sent[3]])) == [0, ("gap", 0, Topic.RAWBLOCK, 1, 3, "network"), 3]


def test_a_run_of_disconnected_blocks_is_one_reorg() -> None:
    items = told(labels("C", "D", "D", "C", "C", "D"))
    assert shown(items) == [0, ("reorg", 0, body(1), None), 1, 2, 3, 4, ("reorg", 0, body(5), None), 5]
