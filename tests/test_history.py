"""What was published can be found again by number, and the numbers are those that live subscribers see."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import count

import pytest
import zmq
from listening import ALL_TOPICS, receive, subscriber, wait_for
from synthetic import block, transaction

from zmqpub import Block, Transaction
from zmqpub._fast import Endpoint, Engine, _describe_history, _event_of_history, _locate_in_history

ADDED, REMOVED, CONNECTED, DISCONNECTED, TIP = range(1, 6)
Message = tuple[bytes, bytes, int]
Event = tuple[int, bytes, int, tuple[int, ...]]


def messages_of(event: Event) -> Iterator[tuple[int, bytes]]:
    """(topic index, body) of each message that an event makes, in order: written from docs/wire.md."""
    kind, raw, mempool_sequence, _before = event
    if kind == TIP:
        yield 0, Block(raw).hash
        yield 2, raw
        return
    transactions: list[Transaction] = []
    if kind == ADDED:
        transactions = [Transaction(raw)]
    elif kind in (CONNECTED, DISCONNECTED):
        transactions = list(Block(raw))
    for tx in transactions:
        yield 1, tx.txid
        yield 3, bytes(tx)
    if kind in (CONNECTED, DISCONNECTED):
        yield 4, Block(raw).hash + (b"C" if kind == CONNECTED else b"D")
    else:
        txid = Transaction(raw).txid if len(raw) != 32 else raw
        yield 4, txid + (b"A" if kind == ADDED else b"R") + struct.pack("<Q", mempool_sequence)


class Rig:
    """An engine with endpoints that a test adds: a publisher without its configuration."""

    def __init__(self, journal_bytes: int = 1 << 20, on_full: int = 0, retain: bool = True) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.engine = Engine(self.context, journal_bytes, on_full, retain=retain)
        self.endpoints: list[Endpoint] = []
        self.names = count()
        self.published = 0

    def endpoint(self, topics: range = range(5), **settings: int) -> Endpoint:
        address = f"inproc://e{next(self.names)}"
        options = {"hwm": 0, "slow_subscriber": 2} | settings
        endpoint = Endpoint(
            self.engine, "zmqpub", address, address, ipv6=False, stall_timeout=5.0, max_lag=30.0, keepalive_idle=-1,
            keepalive_interval=-1, **options,
        )  # fmt: skip
        endpoint.start(topics, address)
        self.endpoints.append(endpoint)
        return endpoint

    def publish(self, events: int) -> None:
        """A mixture of all kinds that goes on from where it was."""
        for i in range(self.published, self.published + events):
            if i % 5 == 0:
                self.engine.block_event(CONNECTED, block(i, 3))
            elif i % 5 == 1:
                self.engine.block_event(TIP, block(i - 1, 3))
            elif i % 5 == 2:
                self.engine.transaction_event(ADDED, transaction(i), i)
            elif i % 5 == 3:
                self.engine.transaction_event(REMOVED, transaction(i).txid, i)
            else:
                self.engine.block_event(DISCONNECTED, block(i, 2))
        self.published += events

    def close(self) -> None:
        self.engine.close_journal()
        for endpoint in self.endpoints:
            endpoint.stop(0)
            endpoint.join()
        self.context.destroy(linger=0)

    def replay(self, notifier: int, number: int) -> list[Message]:
        """Every message of a notifier of the current epoch from `number` on, made from the history."""
        epoch, _started, _current, _first, end, notifiers = _describe_history(self.engine)[-1]
        row = next(row for row in notifiers if row[0] == notifier)
        _id, topic, _address, first, following, base, begin, until = row
        assert first <= number <= following
        state, event = _locate_in_history(self.engine, epoch, notifier, number)
        assert state == ("ok" if number < following else "end")
        found: list[Message] = []
        for at in range(event, min(end, until)):
            got = _event_of_history(self.engine, at)
            assert not isinstance(got, str)
            assert at >= begin
            bodies = [body for index, body in messages_of(got) if index == topic]
            numbers = range(got[3][topic] - base, got[3][topic] - base + len(bodies))
            found += [(ALL_TOPICS[topic].encode(), body, n) for n, body in zip(numbers, bodies, strict=True) if n >= number]
        assert [n for _topic, _body, n in found] == list(range(number, following))
        return found


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def listen(messages: list[tuple[bytes, ...]]) -> list[Message]:
    return [(topic, body, struct.unpack("<I", number)[0]) for topic, body, number in messages]


def test_every_message_is_found_again_under_the_counter_that_was_sent(rig: Rig) -> None:
    endpoint = rig.endpoint()
    with subscriber(endpoint.bound, context=rig.context) as sub:
        wait_for(lambda: all(endpoint.notifier_stats(t)[4] for t in range(5)))
        rig.publish(50)
        total = 10 * (7 + 2 + 3 + 1 + 5)
        live = listen(receive(sub, total))
    for notifier, topic in enumerate(ALL_TOPICS):
        seen = [message for message in live if message[0] == topic.encode()]
        assert rig.replay(notifier, 0) == seen
        for number in range(len(seen) + 1):
            assert rig.replay(notifier, number) == seen[number:]


def test_a_notifier_added_while_running_counts_from_its_own_beginning(rig: Rig) -> None:
    rig.endpoint()
    rig.publish(23)
    late = rig.endpoint(range(1, 4))
    with subscriber(late.bound, context=rig.context) as sub:
        wait_for(lambda: all(late.notifier_stats(t)[4] for t in range(1, 4)))
        rig.publish(20)
        late.change(4, True, late.address)
        wait_for(lambda: late.notifier_stats(4)[4])
        rig.publish(20)
        assert rig.engine.flush(10)
        live = listen(receive(sub, sum(late.notifier_stats(t)[1] for t in range(1, 5))))
    for notifier, topic in ((5, 1), (6, 2), (7, 3), (8, 4)):
        assert rig.replay(notifier, 0) == [message for message in live if message[0] == ALL_TOPICS[topic].encode()]


def test_a_removed_notifier_stays_described_while_its_messages_are_held(rig: Rig) -> None:
    endpoint = rig.endpoint()
    rig.publish(20)
    endpoint.change(1, False, endpoint.address)
    rig.publish(20)
    endpoint.change(1, True, endpoint.address)
    rig.publish(20)
    rows = _describe_history(rig.engine)[-1][5]
    assert [(row[0], row[1], row[3], row[4]) for row in rows if row[1] == 1] == [(1, 1, 0, 24), (5, 1, 0, 24)]
    assert len(rig.replay(1, 0)) == len(rig.replay(5, 0)) == 24
    assert endpoint.notifier_stats(1)[0] <= 24
    while rig.published < 20_000 and any(row[0] == 1 for row in _describe_history(rig.engine)[-1][5]):
        rig.publish(100)
        assert rig.engine.flush(10)
    assert [row[0] for row in _describe_history(rig.engine)[-1][5]] == [0, 2, 3, 4, 5]


def test_what_left_for_its_room_is_gone_and_the_rest_is_still_found() -> None:
    rig = Rig(journal_bytes=200_000)
    rig.endpoint()
    rig.publish(2000)
    assert rig.engine.flush(10)
    (epoch, _started, _current, first, end, notifiers) = _describe_history(rig.engine)[-1]
    assert first > 0
    assert end == 2000
    events, size, _bound, appended, dropped, _oldest, retained, retained_bytes, _recognized = rig.engine.journal_stats()
    assert (events, appended, dropped, retained) == (0, 2000, 0, end - first)
    assert size == retained_bytes <= 200_000
    assert _event_of_history(rig.engine, first - 1) == "gone"
    assert _event_of_history(rig.engine, end) == "end"
    for row in notifiers:
        assert row[3] > 0
        assert _locate_in_history(rig.engine, epoch, row[0], row[3] - 1) == ("gone", first)
        assert _locate_in_history(rig.engine, epoch, row[0], row[4]) == ("end", end)
        assert len(rig.replay(row[0], row[3])) == row[4] - row[3]
    rig.close()


def test_numbers_agree_after_the_oldest_was_dropped() -> None:
    """A notifier that was added among events that no sender ever saw, and others before it."""
    rig = Rig(journal_bytes=60_000, on_full=1)
    endpoint = rig.endpoint(range(3), hwm=1)
    with subscriber(endpoint.bound, context=rig.context, hwm=1) as sub:
        wait_for(lambda: all(endpoint.notifier_stats(t)[4] for t in range(3)))
        rig.publish(1500)  # inproc takes a message or two; the sender waits for room, the journal overflows
        endpoint.change(3, True, endpoint.address)
        endpoint.change(4, True, endpoint.address)
        rig.publish(1500)
        assert rig.engine.journal_stats()[4] > 0
        live = []
        while sub.poll(1500):
            live += listen([tuple(sub.recv_multipart())])
        assert rig.engine.flush(10)
        rig.publish(5)
        last = listen(receive(sub, 18))
        assert rig.engine.flush(10)  # a message can arrive before it is counted
    _epoch, _started, _current, _first, _end, notifiers = _describe_history(rig.engine)[-1]
    assert {row[1] for row in notifiers} == set(range(5))
    for row in notifiers:
        counter = rig.endpoints[0].notifier_stats(row[1])[0]
        assert counter == row[4]
        held = rig.replay(row[0], row[3])
        seen = [message for message in (*live, *last) if message[0] == ALL_TOPICS[row[1]].encode() and message[2] >= row[3]]
        assert seen
        assert set(seen) <= set(held)
    rig.close()


def test_without_retention_only_what_is_unsent_is_held() -> None:
    rig = Rig(retain=False)
    rig.endpoint()
    rig.publish(50)
    assert rig.engine.flush(10)
    wait_for(lambda: rig.engine.journal_stats()[1] == 0)
    epoch, _started, current, first, end, notifiers = _describe_history(rig.engine)[-1]
    assert current
    assert first == end == 50
    assert all(row[3] == row[4] for row in notifiers)
    assert _event_of_history(rig.engine, 10) == "gone"
    assert _locate_in_history(rig.engine, bytes(16), 0, 0)[0] == "unknown-epoch"
    assert _locate_in_history(rig.engine, epoch, 77, 0)[0] == "unknown-notifier"
    rig.close()
