"""Several addresses, addresses under other names, an endpoint that stays away, forks."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import pytest
from listening import wait_for, wait_wanted
from programs import free_port
from test_subscriber_replay import TOPICS, TRANSACTIONS, expected, kinds, options, publish, seen, take, take_until

from zmqpub import ClosedError, CounterGap, ForkedError, Lost, Publisher, Received, Repaired, Restart, Subscriber, Topic
from zmqpub.addresses import parse_address
from zmqpub.mending.notifier_match import AmbiguousError, match_notifiers
from zmqpub.replay.protocol import NotifierInfo
from zmqpub.testing import FaultyPublisher
from zmqpub.testing.relay import Relay

PATIENCE = 30.0


def test_two_addresses_of_one_publisher_are_mended_each_for_itself() -> None:
    wanted = {"zmqpubhashtx": "tcp://127.0.0.1:*", "zmqpubrawtx": f"tcp://127.0.0.1:{free_port()}", "zmqpubreplay": "tcp://127.0.0.1:*"}
    with Publisher(wanted) as publisher, Relay() as one, Relay() as other:
        hashes, raws = (notifier.address for notifier in publisher.active_notifiers())
        one.turn_to(hashes)
        other.turn_to(raws)
        with Subscriber(
            one.address,
            other.address,
            topics=["hashtx", "rawtx"],
            replay=publisher.replay_address,
            publisher_addresses={one.address: hashes, other.address: raws},
            reconnect_interval=0.01,
            check_interval=0.5,
        ) as subscriber:
            wait_wanted(publisher)
            items: list[Any] = []
            for number in range(0, 100, 10):
                (one, other)[number // 10 % 2].cut()
                publish(publisher, number, number + 10)
                time.sleep(0.02)
            take_until(subscriber, lambda found: len(seen(found)) >= 200, items)
            assert set(subscriber.cursor()["sources"]) == {one.address, other.address}
    for topic in ("hashtx", "rawtx"):
        assert [counter for name, counter in seen(items) if name == topic] == list(range(100))
    assert kinds(items, Lost) == []
    assert {event.address for event in kinds(items, Repaired)} == {one.address, other.address}


def test_an_address_that_could_be_several_is_not_guessed() -> None:
    wanted = {"zmqpubhashtx": [f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"], "zmqpubreplay": "tcp://127.0.0.1:*"}
    with Publisher(wanted) as publisher, Relay(to=publisher.active_notifiers()[1].address) as relay:
        with Subscriber(relay.address, topics=["hashtx"], replay=publisher.replay_address) as subscriber:
            wait_wanted(publisher, 1)
            publish(publisher, 0, 3)
            items = take(subscriber, 3)
            state = subscriber.state()
    assert len(seen(items)) == 3
    assert state.status == "degraded"
    assert "say which is meant with publisher_addresses" in str(state.sources[0].error)


def _info(number: int, topic: Topic, address: str) -> NotifierInfo:
    return NotifierInfo(number, topic, 0, 5, address)


@pytest.mark.parametrize(
    ("addresses", "here", "called", "alone", "found"),
    [
        (["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"], "tcp://127.0.0.1:2", None, False, [1]),
        (["tcp://0.0.0.0:1", "tcp://0.0.0.0:2"], "tcp://node:2", None, False, [1]),
        (["tcp://127.0.0.1:1"], "tcp://node:9", None, True, [0]),
        (["tcp://127.0.0.1:1", "ipc:///run/x"], "unix:/run/x", None, False, [1]),
        (["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"], "tcp://node:9", "tcp://127.0.0.1:1", False, [0]),
        (["tcp://127.0.0.1:1"], "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", True, []),
        (["tcp://127.0.0.1:1", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1", None, True, [1]),
        ([], "tcp://127.0.0.1:1", None, True, []),
        (["inproc://x", "what no address is"], "inproc://x", None, False, [0]),
    ],
)
def test_which_notifier_is_meant(addresses: list[str], here: str, called: str | None, alone: bool, found: list[int]) -> None:
    notifiers = [_info(number, Topic.HASHTX, address) for number, address in enumerate(addresses)]
    table = match_notifiers(notifiers, [Topic.HASHTX], parse_address(here), called, alone)
    assert [info.id for info in table.values()] == found
    assert match_notifiers(notifiers, [Topic.RAWTX], parse_address(here), called, alone) == {}


@pytest.mark.parametrize(
    ("addresses", "here", "alone"),
    [
        (["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"], "tcp://node:9", True),
        (["tcp://127.0.0.1:1"], "tcp://node:9", False),
        (["tcp://127.0.0.1:1", "tcp://10.0.0.1:1"], "tcp://node:1", True),
    ],
)
def test_who_could_be_several_is_nobody(addresses: list[str], here: str, alone: bool) -> None:
    notifiers = [_info(number, Topic.HASHTX, address) for number, address in enumerate(addresses)]
    with pytest.raises(AmbiguousError):
        match_notifiers(notifiers, [Topic.HASHTX], parse_address(here), None, alone)


@pytest.mark.slow
def test_an_endpoint_that_stays_away_holds_the_stream_up_once() -> None:
    with FaultyPublisher({"zmqpubhashtx": "tcp://127.0.0.1:*"}) as publisher:
        replay = f"tcp://127.0.0.1:{free_port()}"
        with Subscriber(
            publisher.address, topics=["hashtx"], replay=replay, repair_timeout=1.0, repair_retries=2, check_interval=0.5
        ) as subscriber:
            publisher.wait_for_subscribers()
            publisher.publish("hashtx", TRANSACTIONS[0].txid)
            take(subscriber, 1)  # after all attempts at the connection
            began = time.monotonic()
            for number in range(1, 41):
                publisher.gap("hashtx")
                publisher.publish("hashtx", TRANSACTIONS[2 * number % 50].txid)
            items = take(subscriber, 40)
            assert time.monotonic() - began < 20  # each for itself would have taken 40
    assert len(kinds(items, CounterGap)) == 40
    assert sum(event.messages for event in kinds(items, Lost)) == 40


def test_a_replay_endpoint_that_comes_back_is_used_again() -> None:
    live = f"tcp://127.0.0.1:{free_port()}"
    with Relay() as away, Publisher(options(live)) as publisher:
        with Subscriber(live, topics=TOPICS, replay=away.address, repair_timeout=0.5, repair_retries=1, check_interval=0.5) as subscriber:
            wait_wanted(publisher)
            publish(publisher, 0, 3)
            take(subscriber, 9)
            assert subscriber.state().status == "degraded"
            away.turn_to(publisher.replay_address)
            away.cut()

            def healed() -> bool:
                with contextlib.suppress(TimeoutError):
                    subscriber.recv(0.1)
                return subscriber.state().status == "live"

            wait_for(healed, PATIENCE)
            assert subscriber.state().sources[0].epoch == publisher.epoch
            publish(publisher, 3, 6)
            assert seen(take(subscriber, 9)) == expected(3, 6)


def test_a_forked_child_is_told_that_it_is_not_its_own() -> None:
    with Publisher(options()) as publisher:
        with Subscriber(publisher.active_notifiers()[0].address, topics=TOPICS, replay=publisher.replay_address) as subscriber:
            wait_wanted(publisher)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    subscriber.recv(1)
                except ForkedError:
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
            publish(publisher, 0, 3)
            assert seen(take(subscriber, 9)) == expected(0, 3)
        with pytest.raises(ClosedError):
            subscriber.recv()


@pytest.mark.parametrize("away", [False, True])
def test_a_notifier_that_is_removed_and_added_again_counts_anew_and_the_others_go_on(away: bool) -> None:
    with Relay() as relay, Publisher(options()) as publisher:
        address = publisher.active_notifiers()[0].address
        relay.turn_to(address)
        with Subscriber(
            relay.address, topics=TOPICS, replay=publisher.replay_address, reconnect_interval=0.01, check_interval=0.5
        ) as subscriber:
            wait_wanted(publisher)
            publish(publisher, 0, 5)
            items = take(subscriber, 15)
            if away:
                relay.hold_new()
                relay.cut()
            publish(publisher, 5, 6)
            publisher.remove_notifier("hashtx", address)
            publish(publisher, 6, 8)
            publisher.add_notifier("hashtx", address)
            publish(publisher, 8, 12)
            relay.hold_new(False)
            items += take(subscriber, 3 + 2 * 2 + 4 * 3)
    counters = {topic: [item.counter for item in kinds(items, Received) if item.topic.value == topic] for topic in TOPICS}
    assert counters == {"hashtx": [*range(6), *range(4)], "rawtx": list(range(12)), "sequence": list(range(12))}
    assert [(event.topic, event.got) for event in kinds(items, Restart)] == [(Topic.HASHTX, 0)]
    assert kinds(items, Lost) == []
