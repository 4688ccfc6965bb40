"""Subscriber against real publishers: arguments, the ways to take items, the end, and what is told where nothing can be mended."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from block_samples import chain
from listening import ALL_TOPICS, address_of, everything, wait_for, wait_wanted

from zmqpub import (
    Block,
    ClosedError,
    ConfigError,
    Connected,
    CounterGap,
    CursorError,
    Disconnected,
    HashBlock,
    HashTx,
    Lost,
    Malformed,
    Publisher,
    RawBlock,
    RawTx,
    Received,
    Reconnected,
    Restart,
    Sequence,
    StreamEvent,
    Subscriber,
    SubscriberClosed,
    Topic,
)

PATIENCE = 20.0


@contextlib.contextmanager
def pair(**settings: object) -> Iterator[tuple[Publisher, Subscriber]]:
    """A publisher of all topics at one address, and a subscriber that it knows of."""
    with Publisher(everything()) as publisher, Subscriber(address_of(publisher), **settings) as subscriber:  # type: ignore[arg-type]
        wait_wanted(publisher, len(settings.get("topics", ALL_TOPICS)))  # type: ignore[arg-type]
        yield publisher, subscriber


def take(subscriber: Subscriber, count: int) -> list[Received]:
    """So many notifications, events left out."""
    found: list[Received] = []
    while len(found) < count:
        item = subscriber.recv(PATIENCE)
        if isinstance(item, Received):
            found.append(item)
    return found


# ---- arguments ----


@pytest.mark.parametrize(
    ("arguments", "keywords", "words"),
    [
        ((), {}, ["addresses: at least one is needed"]),
        (("tcp://127.0.0.1:*",), {}, ["the real port"]),
        (("tcp://*:28332",), {}, ["the publisher's host"]),
        (
            ("nonsense",),
            {"topics": ["hashblocks"], "stale_afer": 3},
            ["this is no address", "hashblocks: no topic", "did you mean stale_after?"],
        ),
        (("tcp://a:1", "tcp://a:1"), {}, ["it is there twice"]),
        (("tcp://a:1",), {"topics": []}, ["at least one is needed"]),
        (("tcp://a:1",), {"replay": {"tcp://b:1": "tcp://a:2"}}, ["replay=tcp://b:1: no address that is subscribed to"]),
        (("tcp://a:1",), {"replay": "tcp://a"}, ["a port is missing"]),
        (("tcp://a:1",), {"replay": "tcp://a:2", "latest_only": True}, ["latest_only"]),
        (("tcp://a:1",), {"rpc": object()}, ["zmqpub.Repair"]),
        (("tcp://a:1",), {"byte_bound": 0, "repair_timeout": -1, "latest_only": 1}, ["byte_bound=0", "repair_timeout=-1", "latest_only=1"]),
        (("tcp://a:1",), {"publisher_addresses": {"tcp://b:1": "tcp://c:1"}}, ["publisher_addresses=tcp://b:1"]),
    ],
)
def test_arguments_that_make_no_sense_are_refused_all_at_once(
    arguments: tuple[str, ...], keywords: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        Subscriber(*arguments, **keywords)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_it_says_what_it_is() -> None:
    with Subscriber("tcp://127.0.0.1:1") as subscriber:
        assert repr(subscriber) == "<Subscriber tcp://127.0.0.1:1>"
        assert not subscriber.closed
    assert repr(subscriber) == "<Subscriber closed>"


def test_one_that_was_never_closed_warns() -> None:
    subscriber = Subscriber("tcp://127.0.0.1:1")
    with pytest.warns(ResourceWarning, match="was never closed"):
        del subscriber


# ---- taking ----


def test_every_kind_of_notification_arrives_typed() -> None:
    block = Block(chain(2)[1])
    with pair() as (publisher, subscriber):
        publisher.transaction_added_to_mempool(block[0], 7)
        publisher.updated_block_tip(block)
        assert isinstance(subscriber.recv(PATIENCE), Connected)
        hash_tx, raw_tx, sequence, hash_block, raw_block = take(subscriber, 5)
    assert isinstance(hash_tx, HashTx)
    assert hash_tx.txid == block[0].txid
    assert isinstance(raw_tx, RawTx)
    assert raw_tx.transaction == block[0]
    assert isinstance(sequence, Sequence)
    assert (sequence.hash, sequence.mempool_sequence) == (block[0].txid, 7)
    assert isinstance(hash_block, HashBlock)
    assert hash_block.hash == block.hash
    assert isinstance(raw_block, RawBlock)
    assert raw_block.block == block
    assert not any(item.repaired for item in (hash_tx, raw_tx, sequence, hash_block, raw_block))


def test_iteration_recv_and_batches_take_turns() -> None:
    with pair(topics=["hashblock"]) as (publisher, subscriber):
        for raw in chain(9):
            publisher.updated_block_tip(raw)
        counters = []
        for item in subscriber:
            if not isinstance(item, HashBlock):
                continue
            counters.append(item.counter)
            if len(counters) < 6:
                counters += [one.counter for one in take(subscriber, 1)]
            else:
                break
        while len(counters) < 9:
            counters += [one.counter for one in subscriber.recv_batch(2, PATIENCE) if isinstance(one, HashBlock)]
    assert counters == list(range(9))


def test_next_gives_what_recv_gives() -> None:
    with pair(topics=["hashblock"]) as (publisher, subscriber):
        publisher.updated_block_tip(chain(1)[0])
        assert isinstance(next(subscriber), Connected)
        assert isinstance(next(subscriber), HashBlock)
        subscriber.close()
        with pytest.raises(StopIteration):
            next(subscriber)


def test_nothing_within_the_timeout() -> None:
    with pair() as (_, subscriber):
        subscriber.recv(PATIENCE)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            subscriber.recv(0.2)
        assert 0.19 < time.monotonic() - began < 5
        with pytest.raises(TimeoutError):
            subscriber.recv_batch(10, 0)
        with pytest.raises(ValueError, match="at least one"):
            subscriber.recv_batch(0)


def test_a_batch_is_what_is_there() -> None:
    with pair(topics=["hashtx"]) as (publisher, subscriber):
        subscriber.recv(PATIENCE)
        publisher.block_connected(chain(1)[0])
        wait_for(lambda: subscriber.state().queued_bytes)
        batch = subscriber.recv_batch(1000, PATIENCE)
    assert [type(item) for item in batch] == [HashTx]


def test_only_notifications_leaves_the_rest_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="zmqpub"), pair(only_notifications=True) as (publisher, subscriber):
        publisher.updated_block_tip(chain(1)[0])
        assert isinstance(subscriber.recv(PATIENCE), HashBlock)
        assert subscriber.state().sources[0].connections == 1
    assert "Connected" in caplog.text


# ---- the end ----


def test_closing_ends_an_iteration_in_another_thread() -> None:
    with pair() as (_, subscriber):
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.extend(subscriber))
        thread.start()
        wait_for(lambda: seen)
        subscriber.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert [type(item) for item in seen] == [Connected]
        subscriber.close()
        with pytest.raises(SubscriberClosed):
            subscriber.recv(1)
        assert subscriber.state().status == "closed"


def test_closing_ends_a_recv_in_another_thread() -> None:
    with pair() as (_, subscriber):
        subscriber.recv(PATIENCE)
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                subscriber.recv()
            except ClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        subscriber.close()
        thread.join(PATIENCE)
        assert len(errors) == 1


# ---- what is told where nothing can be mended ----


def test_a_gap_is_told_and_lost_without_anybody_to_ask() -> None:
    blocks = chain(4)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with contextlib.closing(context.socket(zmq.XPUB)) as socket:
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        address = f"tcp://127.0.0.1:{port}"
        with Subscriber(address, topics=["hashblock"]) as subscriber:
            assert socket.poll(10_000)
            for counter in (2**32 - 2, 2**32 - 1, 3):
                socket.send_multipart([b"hashblock", Block(blocks[0]).hash, counter.to_bytes(4, "little")])
            items = [subscriber.recv(PATIENCE) for _ in range(6)]
            assert [type(item) for item in items] == [Connected, HashBlock, HashBlock, CounterGap, Lost, HashBlock]
            assert items[3] == CounterGap(address, Topic.HASHBLOCK, 0, 3, "network")
            assert isinstance(items[4], Lost)
            assert (items[4].first, items[4].until, items[4].messages) == (0, 3, 3)
            state = subscriber.state()
            assert (state.status, state.source(address).lost, state.source(address).gaps) == ("degraded", 3, 1)
            with pytest.raises(KeyError):
                state.source("tcp://elsewhere:1")
            socket.send_multipart([b"hashblock", Block(blocks[0]).hash])
            malformed = subscriber.recv(PATIENCE)
            assert isinstance(malformed, Malformed)
            assert (malformed.topic, malformed.counter) == (Topic.HASHBLOCK, None)
    context.term()


def test_a_restart_and_reconnections_are_told(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/socket"
    with Subscriber(address, topics=["hashblock"], reconnect_interval=0.01) as subscriber:
        with Publisher(everything(address)) as publisher:
            wait_wanted(publisher, 1)
            for raw in chain(3):
                publisher.updated_block_tip(raw)
            assert [item.counter for item in take(subscriber, 3)] == [0, 1, 2]
        with Publisher(everything(address)) as publisher:
            wait_wanted(publisher, 1)
            for raw in chain(2):
                publisher.updated_block_tip(raw)
            items: list[Received | StreamEvent] = [subscriber.recv(PATIENCE) for _ in range(5)]
    assert [type(item) for item in items] == [Disconnected, Reconnected, Restart, HashBlock, HashBlock]
    assert items[2] == Restart(address, Topic.HASHBLOCK, 3, 0)


# ---- cursors without a replay endpoint ----


def test_a_cursor_goes_on_by_the_counter() -> None:
    with pair(topics=["hashblock"]) as (publisher, subscriber):
        blocks = chain(6)
        for raw in blocks[:2]:
            publisher.updated_block_tip(raw)
        take(subscriber, 2)
        cursor = json.loads(json.dumps(subscriber.cursor()))
        address = address_of(publisher)
        assert cursor == {"version": 1, "sources": {address: {"epoch": None, "next": {"hashblock": 2}}}}
        for raw in blocks[2:4]:
            publisher.updated_block_tip(raw)
        take(subscriber, 2)
        subscriber.close()
        wait_for(lambda: not any(notifier.wanted for notifier in publisher.stats().notifiers))
        with Subscriber(address, topics=["hashblock"], resume=cursor) as resumed:
            wait_wanted(publisher, 1)
            publisher.updated_block_tip(blocks[4])
            items = [resumed.recv(PATIENCE) for _ in range(4)]
    assert items[1] == CounterGap(address, Topic.HASHBLOCK, 2, 4)
    assert isinstance(items[2], Lost)
    assert isinstance(items[3], HashBlock)
    assert items[3].counter == 4


@pytest.mark.parametrize(
    ("cursor", "words"),
    [
        ([], "expected an object, got list"),
        ({}, "expected 1, got None"),
        ({"version": 2, "sources": {}}, "expected 1, got 2"),
        ({"version": 1, "sources": {"tcp://b:1": {}}}, "other addresses: tcp://b:1, not tcp://a:1"),
        ({"version": 1, "sources": {"tcp://a:1": {"epoch": None, "next": {"hashtx": 1}}}}, "other topics: hashtx, not hashblock"),
        ({"version": 1, "sources": {"tcp://a:1": {"epoch": "xx", "next": {"hashblock": 1}}}}, "expected 32 hex digits"),
        ({"version": 1, "sources": {"tcp://a:1": {"epoch": None, "next": {"hashblock": 2**32}}}}, "expected a number from 0"),
        ({"version": 1, "sources": {"tcp://a:1": {"epoch": None, "next": {"hashblock": "1"}}}}, "got '1'"),
        ({"version": 1, "sources": {"tcp://a:1": {"epoch": "00" * 16, "next": {"hashblock": 1}}}}, "needs the publisher's replay endpoint"),
    ],
)
def test_a_cursor_that_does_not_fit_is_refused(cursor: object, words: str) -> None:
    with pytest.raises(CursorError, match=words):
        Subscriber("tcp://a:1", topics=["hashblock"], resume=cursor)  # type: ignore[arg-type]


def test_an_interrupt_while_waiting_harms_nothing() -> None:
    with pair(topics=["hashblock"]) as (publisher, subscriber):
        subscriber.recv(PATIENCE)
        timer = threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            subscriber.recv(PATIENCE)
        timer.join()
        publisher.updated_block_tip(chain(1)[0])
        assert isinstance(subscriber.recv(PATIENCE), HashBlock)
