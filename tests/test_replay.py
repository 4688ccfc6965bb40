"""The replay endpoint, over real sockets: what comes again is what was sent, frame for frame, in its order and within its limits."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from listening import ALL_TOPICS, ANY_PORT, address_of, everything, receive, receive_all, subscriber, wait_for, wait_wanted
from replaying import REPLAY, Client, Message, client, counter
from synthetic import block, transaction

from zmqpub import Publisher
from zmqpub.replay.protocol import HelloAnswer, HelloRequest, RangeRequest, RangeStart, RangeUntil, Status, pack_request, unpack_answer

BLOCKS = [block(seed, 40, size=300) for seed in range(6)]
TRANSACTIONS = [transaction(seed, size=300 + 100 * (seed % 8)) for seed in range(50)]


def publish_some(publisher: Publisher, seed: int = 0, events: int = 60) -> None:
    """Events of all kinds, in an order that the seed makes."""
    rng = random.Random(seed)
    for number in range(events):
        kind = rng.randrange(8)
        if kind < 4:
            publisher.transaction_added_to_mempool(rng.choice(TRANSACTIONS), number)
        elif kind == 4:
            publisher.transaction_removed_from_mempool(rng.choice(TRANSACTIONS), number)
        elif kind == 5:
            publisher.block_connected(rng.choice(BLOCKS))
        elif kind == 6:
            publisher.block_disconnected(rng.choice(BLOCKS))
        else:
            publisher.updated_block_tip(rng.choice(BLOCKS))


class Recorded:
    """A publisher that has published, what a subscriber had of it live, and a client."""

    def __init__(self, publisher: Publisher, live: list[Message], ask: Client) -> None:
        self.publisher = publisher
        self.live = live
        self.client = ask
        self.epoch = ask.current().epoch
        self.ids = {topic: notifier.id for topic, notifier in ask.notifiers().items()}

    def of(self, *topics: str) -> list[Message]:
        return [message for message in self.live if message[0].decode() in topics]

    def starts(self, *topics: str, first: int = 0) -> list[tuple[int, int]]:
        return [(self.ids[topic], first) for topic in topics]


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    with Publisher(everything(hwm=0) | REPLAY) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        publish_some(publisher)
        assert publisher.flush(10)
        sent = publisher.stats().sent
        live = receive(sub, sent)
        assert not sub.poll(50)
        with client(publisher) as ask:
            yield Recorded(publisher, live, ask)


# ---- HELLO ----


def test_hello_says_what_is_held(recorded: Recorded) -> None:
    epoch = recorded.client.current()
    assert epoch.epoch == recorded.publisher.epoch
    assert abs(epoch.started_ms / 1000 - time.time()) < 600
    assert [(one.topic.value, one.first, one.next, one.address) for one in epoch.notifiers] == [
        (topic, 0, len(recorded.of(topic)), address_of(recorded.publisher)) for topic in ALL_TOPICS
    ]
    assert len({one.id for one in epoch.notifiers}) == 5


def test_the_replay_endpoint_is_no_notifier(recorded: Recorded) -> None:
    assert len(recorded.publisher.active_notifiers()) == 5
    address = recorded.publisher.replay_address
    assert address is not None
    assert address.startswith("tcp://127.0.0.1:")
    assert address not in {notifier.address for notifier in recorded.publisher.active_notifiers()}


# ---- RANGE ----


def test_everything_comes_again_in_one_answer(recorded: Recorded) -> None:
    answer, messages = recorded.client.range(recorded.epoch, recorded.starts(*ALL_TOPICS))
    assert messages == recorded.live
    assert not answer.more
    assert not answer.gone


@pytest.mark.parametrize("limits", [{"max_messages": 1}, {"max_messages": 7}, {"max_bytes": 1}, {"max_bytes": 3000}])
def test_everything_comes_again_piece_by_piece(recorded: Recorded, limits: dict[str, int]) -> None:
    if "max_messages" in limits:
        answer, messages = recorded.client.range(recorded.epoch, recorded.starts(*ALL_TOPICS), max_messages=limits["max_messages"])
        assert len(messages) == limits["max_messages"]
        assert answer.more
    assert recorded.client.everything(recorded.epoch, recorded.starts(*ALL_TOPICS), **limits) == recorded.live


def test_an_answer_stays_within_its_bytes_unless_one_message_is_larger(recorded: Recorded) -> None:
    starts = recorded.starts(*ALL_TOPICS)
    sizes = []
    while True:
        answer, messages = recorded.client.range(recorded.epoch, starts, max_bytes=2000)
        sizes.append(sum(len(frame) for message in messages for frame in message))
        assert sizes[-1] <= 2000 or len(messages) == 1
        if not answer.more:
            break
        starts = [(one.notifier, one.next) for one in answer.notifiers]
    assert max(sizes) > 2000  # a rawblock, alone in its answer


@given(
    topics=st.sets(st.sampled_from(ALL_TOPICS), min_size=1),
    data=st.data(),
    limit=st.sampled_from([0, 1, 3, 50]),
)
def test_any_topics_from_anywhere_to_anywhere(recorded: Recorded, topics: set[str], data: st.DataObject, limit: int) -> None:
    starts = {topic: data.draw(st.integers(0, len(recorded.of(topic)) + 2), label=topic) for topic in sorted(topics)}
    end = data.draw(st.none() | st.integers(0, len(recorded.live) - 1), label="end")
    before = recorded.live[:end]
    expected = [message for message in before if message[0].decode() in topics and counter(message) >= starts[message[0].decode()]]
    until = None if end is None else (recorded.ids[recorded.live[end][0].decode()], counter(recorded.live[end]))
    asked = [(recorded.ids[topic], first) for topic, first in starts.items()]
    assert recorded.client.everything(recorded.epoch, asked, until=until, max_messages=limit) == expected


def test_an_end_that_is_not_made_yet_is_no_end(recorded: Recorded) -> None:
    until = (recorded.ids["hashtx"], 10**9)
    assert recorded.client.everything(recorded.epoch, recorded.starts("hashtx"), until=until) == recorded.of("hashtx")


def test_from_beyond_the_newest_there_is_nothing(recorded: Recorded) -> None:
    answer, messages = recorded.client.range(recorded.epoch, [(recorded.ids["rawtx"], 10**6)])
    assert messages == []
    assert (answer.notifiers[0].first, answer.notifiers[0].next, answer.notifiers[0].gone) == (10**6, 10**6, 0)
    assert not answer.more


def test_what_nobody_subscribed_to_and_what_was_dropped_comes_again_too() -> None:
    with Publisher(everything() | REPLAY) as publisher:
        publish_some(publisher, 1)
        assert publisher.flush(10)
        with Publisher(everything(hwm=0) | REPLAY) as other, subscriber(address_of(other)) as sub, client(publisher) as ask:
            wait_wanted(other)
            publish_some(other, 1)
            live = receive(sub, other.flush(10) and other.stats().sent)
            starts = [(one.id, 0) for one in ask.current().notifiers]
            assert ask.everything(publisher.epoch, starts) == live
            assert publisher.stats().sent == 0


def test_two_addresses_have_numbers_of_their_own() -> None:
    with Publisher(REPLAY | {"zmqpubhashtx": [ANY_PORT, ANY_PORT]}) as publisher, client(publisher) as ask:
        for number in range(3):
            publisher.transaction_added_to_mempool(TRANSACTIONS[number], number)
        late = publisher.add_notifier("hashtx", ANY_PORT)
        for number in range(3, 5):
            publisher.transaction_added_to_mempool(TRANSACTIONS[number], number)
        infos = ask.current().notifiers
        assert [(one.first, one.next) for one in infos] == [(0, 5), (0, 5), (0, 2)]
        assert infos[2].address == late.address
        for info, expected in zip(infos, (5, 5, 2), strict=True):
            messages = ask.everything(publisher.epoch, [(info.id, 0)])
            assert [counter(message) for message in messages] == list(range(expected))
            assert messages[-1][1] == TRANSACTIONS[4].txid
        request = RangeRequest(publisher.epoch, (RangeStart(infos[0].id, 0), RangeStart(infos[1].id, 0)))
        assert ask.refused(request).status == Status.BAD_REQUEST


def test_a_notifier_that_was_removed_can_still_be_asked_for() -> None:
    with Publisher({"zmqpubhashtx": ANY_PORT, "zmqpubrawtx": ANY_PORT} | REPLAY) as publisher, client(publisher) as ask:
        address = address_of(publisher, "hashtx")
        publisher.transaction_added_to_mempool(TRANSACTIONS[0], 0)
        publisher.remove_notifier("hashtx", address)
        publisher.transaction_added_to_mempool(TRANSACTIONS[1], 1)
        publisher.add_notifier("hashtx", address)
        publisher.transaction_added_to_mempool(TRANSACTIONS[2], 2)
        old, new = (one for one in ask.current().notifiers if one.topic == "hashtx")
        assert old.id != new.id
        for one, expected in ((old, TRANSACTIONS[0]), (new, TRANSACTIONS[2])):
            assert (one.first, one.next, one.address) == (0, 1, address)
            assert ask.everything(publisher.epoch, [(one.id, 0)]) == [(b"hashtx", expected.txid, bytes(4))]


def test_a_range_that_left_the_journal_is_answered_with_what_is_left() -> None:
    with Publisher(everything() | REPLAY, journal_bytes=100_000) as publisher, client(publisher) as ask:
        ids = {topic: one.id for topic, one in ask.notifiers().items()}
        for number in range(400):
            publisher.transaction_added_to_mempool(transaction(number, size=600), number)
        assert publisher.flush(10)
        held = ask.notifiers()
        gone = held["rawtx"].first
        assert 0 < gone < 400
        assert (held["hashtx"].first, held["sequence"].first, held["rawtx"].next) == (gone, gone, 400)
        answer, messages = ask.range(publisher.epoch, [(ids["hashtx"], 0), (ids["sequence"], gone - 2), (ids["hashblock"], 0)])
        assert answer.gone
        assert [(one.first, one.next, one.gone) for one in answer.notifiers] == [(gone, 400, gone), (gone, 400, 2), (0, 0, 0)]
        assert [counter(message) for message in messages] == [n for n in range(gone, 400) for _ in range(2)]
        # Up to a message that left, there is nothing to be had.
        answer, messages = ask.range(publisher.epoch, [(ids["hashtx"], 3), (ids["sequence"], 3)], until=(ids["hashtx"], 10))
        assert messages == []
        assert answer.gone
        assert [(one.first, one.next, one.gone) for one in answer.notifiers] == [(10, 10, 7), (3, 3, 0)]


def test_a_sparse_topic_is_found_among_many_events() -> None:
    with Publisher({"zmqpubhashblock": ANY_PORT, "zmqpubhashtx": ANY_PORT} | REPLAY) as publisher, client(publisher) as ask:
        for number in range(3000):
            publisher.transaction_added_to_mempool(TRANSACTIONS[number % 50], number)
            if number % 1000 == 999:
                publisher.updated_block_tip(BLOCKS[number // 1000])
        ids = {topic: one.id for topic, one in ask.notifiers().items()}
        tips = [(b"hashblock", BLOCKS[n].hash, n.to_bytes(4, "little")) for n in range(3)]
        assert ask.everything(publisher.epoch, [(ids["hashblock"], 0)]) == tips
        assert ask.everything(publisher.epoch, [(ids["hashblock"], 0)], until=(ids["hashtx"], 2000)) == tips[:2]
        assert ask.everything(publisher.epoch, [(ids["hashblock"], 0)], until=(ids["hashtx"], 1999)) == tips[:1]


def test_replay_of_what_is_still_being_published() -> None:
    with Publisher(everything() | REPLAY) as publisher, client(publisher) as ask:
        starts = [(one.id, 0) for one in ask.current().notifiers]
        replayed: list[Message] = []
        for seed in range(10):
            publish_some(publisher, seed, 20)
            replayed += ask.everything(publisher.epoch, starts, max_messages=100)
            starts = [(one.id, one.next) for one in ask.current().notifiers]
        for topic in ALL_TOPICS:
            numbers = [counter(message) for message in replayed if message[0].decode() == topic]
            assert numbers == list(range(len(numbers)))
        assert len(replayed) == sum(next_number for _, next_number in starts)


# ---- who may ask ----


def test_req_works(recorded: Recorded) -> None:
    with client(recorded.publisher, zmq.REQ) as req:
        assert req.current().epoch == recorded.epoch
        assert req.everything(recorded.epoch, recorded.starts("sequence"), max_messages=5) == recorded.of("sequence")


def test_a_dealer_with_a_delimiter_works(recorded: Recorded) -> None:
    with client(recorded.publisher) as dealer:
        dealer.delimited = True
        assert dealer.everything(recorded.epoch, recorded.starts("hashtx")) == recorded.of("hashtx")


@pytest.mark.parametrize("scheme", ["ipc", "inproc"])
def test_any_scheme(scheme: str, tmp_path: object) -> None:
    address = f"ipc://{tmp_path}/replay.sock" if scheme == "ipc" else "inproc://replay"
    with Publisher({"zmqpubhashtx": ANY_PORT, "zmqpubreplay": address}) as publisher:
        assert publisher.replay_address == address
        publisher.transaction_added_to_mempool(TRANSACTIONS[0], 0)
        context = publisher.context if scheme == "inproc" else None
        with client(address, context=context) as ask:
            (info,) = ask.current().notifiers
            assert ask.everything(publisher.epoch, [(info.id, 0)]) == [(b"hashtx", TRANSACTIONS[0].txid, bytes(4))]


def test_unknown_epochs_and_notifiers(recorded: Recorded) -> None:
    ask = recorded.client
    start = (RangeStart(recorded.ids["hashtx"], 0),)
    assert ask.refused(RangeRequest(bytes(16), start)).status == Status.UNKNOWN_EPOCH
    assert ask.refused(RangeRequest(recorded.epoch, (RangeStart(77, 0),))).status == Status.UNKNOWN_NOTIFIER
    assert ask.refused(RangeRequest(recorded.epoch, start, RangeUntil(77, 0))).status == Status.UNKNOWN_NOTIFIER
    assert ask.refused(RangeRequest(recorded.epoch, ())).status == Status.BAD_REQUEST


_GOOD = pack_request(HelloRequest(0x01020304))
_RANGE = pack_request(RangeRequest(bytes(16), (RangeStart(0, 0),), request_id=5))


@pytest.mark.parametrize(
    ("frames", "status", "operation", "request_id"),
    [
        ([b""], Status.BAD_REQUEST, 0, 0),
        ([b"x"], Status.BAD_REQUEST, 0, 0),
        ([b"HTTP/1.1 GET /"], Status.BAD_REQUEST, 0, 0),
        ([_GOOD[:8]], Status.BAD_REQUEST, 1, 0),
        ([_GOOD + b"x"], Status.BAD_REQUEST, 1, 0x01020304),
        ([b"ZPR2" + _GOOD[4:]], Status.UNSUPPORTED, 1, 0x01020304),
        ([b"ZPR1\x04" + _GOOD[5:]], Status.UNSUPPORTED, 4, 0x01020304),
        ([b"ZPR1\x81" + _GOOD[5:]], Status.UNSUPPORTED, 1, 0x01020304),
        ([_RANGE[:-1]], Status.BAD_REQUEST, 2, 5),
        ([_RANGE[:20]], Status.BAD_REQUEST, 2, 5),
        ([_RANGE + bytes(5000)], Status.BAD_REQUEST, 2, 5),
        ([_GOOD, _GOOD], Status.BAD_REQUEST, 1, 0x01020304),
        ([_GOOD, b"", b""], Status.BAD_REQUEST, 1, 0x01020304),
    ],
)
def test_a_malformed_request_is_answered_with_an_error_and_counted(
    recorded: Recorded, frames: list[bytes], status: Status, operation: int, request_id: int
) -> None:
    before = recorded.publisher.stats().replay
    header, text = recorded.client.exchange(*frames)
    after = recorded.publisher.stats().replay
    assert header == b"ZPR1" + bytes([0x80 | operation & 0x7F, status]) + request_id.to_bytes(4, "little")
    assert text.decode()
    assert before is not None
    assert after is not None
    assert after.malformed == before.malformed + 1
    assert (after.requests, after.answers) == (before.requests + 1, before.answers + 1)
    assert recorded.client.current().epoch == recorded.epoch  # it goes on


@given(frames=st.lists(st.binary(max_size=60) | st.binary(max_size=50).map(lambda tail: b"ZPR1" + tail), min_size=1, max_size=4))
def test_whatever_is_asked_is_answered_once(recorded: Recorded, frames: list[bytes]) -> None:
    if frames == [b""] or frames[0] != b"":
        header, *rest = recorded.client.exchange(*frames)
        unpack_answer(header, rest)
    else:  # the first one is a delimiter, and comes back
        recorded.client.socket.send_multipart(frames)
        delimiter, header, *rest = recorded.client.socket.recv_multipart()
        assert delimiter == b""
        unpack_answer(header, rest)
    assert not recorded.client.socket.poll(0)


# ---- stats ----


def test_stats_count_what_was_asked_and_answered() -> None:
    with Publisher({"zmqpubhashtx": ANY_PORT} | REPLAY) as publisher, client(publisher) as ask:
        stats = publisher.stats().replay
        assert stats is not None
        assert (stats.address, stats.state, stats.requests) == (publisher.replay_address, "running", 0)
        for number in range(4):
            publisher.transaction_added_to_mempool(TRANSACTIONS[number], number)
        (info,) = ask.current().notifiers
        ask.range(publisher.epoch, [(info.id, 0)], max_messages=3)
        ask.exchange(b"nonsense")
        stats = publisher.stats().replay
        assert stats is not None
        assert (stats.requests, stats.answers, stats.messages, stats.malformed, stats.dropped) == (3, 3, 3, 1, 0)
        assert stats.bytes == 3 * (6 + 32 + 4)
        assert wait_for(lambda: publisher.stats().replay.clients == 1)  # type: ignore[union-attr]
    with Publisher({"zmqpubhashtx": ANY_PORT}) as plain:
        assert plain.stats().replay is None
        assert plain.replay_address is None


def test_an_answer_to_one_who_has_gone_is_dropped_and_counted() -> None:
    with Publisher({"zmqpubhashtx": ANY_PORT} | REPLAY) as publisher:
        with client(publisher) as ask:
            ask.hello()
            ask.send(pack_request(HelloRequest()))
            ask.socket.close(0)
        with client(publisher) as ask:
            ask.hello()
        stats = publisher.stats().replay
        assert stats is not None
        assert stats.answers + stats.dropped == stats.requests


def test_many_requests_at_once_are_answered_in_order(recorded: Recorded) -> None:
    with client(recorded.publisher) as ask:
        for number in range(4):
            ask.send(pack_request(HelloRequest(number)))
            assert unpack_answer(ask.receive()[0]) == HelloAnswer(recorded.client.hello(), number)


def test_subscribers_do_not_notice(recorded: Recorded) -> None:
    with subscriber(address_of(recorded.publisher)) as sub, client(recorded.publisher) as ask:
        wait_wanted(recorded.publisher)
        ask.everything(recorded.epoch, recorded.starts(*ALL_TOPICS), max_messages=10)
        assert receive_all(sub, 0.1) == []
