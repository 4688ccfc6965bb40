"""`zmqpub listen` where something goes wrong on the way: what it asks for again, what it shows of that, and how it ends."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from listening import everything, wait_for
from programs import ANY_PORT, Program, connected_listener, once

from zmqpub import Publisher, Subscriber, Topic
from zmqpub.testing import FaultyPublisher, RegtestChain, Relay

pytest.importorskip("click")
pytest.importorskip("rich")


@pytest.fixture
def faulty() -> Iterator[FaultyPublisher]:
    with FaultyPublisher() as made:
        yield made


def of_kind(listener: Program, *kinds: str) -> list[dict[str, Any]]:
    return [line for line in listener.objects() if line["event"] in kinds]


# Without anybody to ask


def test_what_is_lost_is_said_and_counted(faulty: FaultyPublisher) -> None:
    with connected_listener(faulty.address) as listener:
        faulty.wait_for_subscribers()
        faulty.publish("hashtx")
        faulty.gap("hashtx", 3)
        faulty.publish("hashtx")
        listener.line('"counter": 4, "gap": 3')
        assert listener.end(signal.SIGTERM) == 6
        (lost,) = of_kind(listener, "lost")
        assert (lost["topic"], lost["first"], lost["until"], lost["messages"]) == ("hashtx", 1, 4, 3)
        assert lost["reason"] == "there is no replay endpoint to ask"
        summary = listener.objects()[-1]
        assert (summary["missed"], summary["repaired"], summary["lost"]) == (3, 0, 3)
        assert [line["state"] for line in of_kind(listener, "state")] == ["degraded"]
        assert summary["states"] == {faulty.address: "degraded"}


def test_whatever_a_publisher_does_wrong_is_a_line(faulty: FaultyPublisher) -> None:
    with connected_listener(faulty.address) as listener:
        faulty.wait_for_subscribers()
        faulty.publish("hashtx")
        faulty.duplicate("hashtx")
        faulty.two_frames("rawtx")
        faulty.malformed_body("rawtx")
        replaced = faulty.chain.mine(2)[-1]
        faulty.reorg(1)
        faulty.chain.add_transaction()
        faulty.chain.skip_mempool_sequence(5)
        faulty.chain.add_transaction()
        listener.line('"event": "mempool_gap"')
        faulty.restart()
        listener.line('"event": "connected"')
        faulty.wait_for_subscribers()
        faulty.publish("hashtx")
        listener.line('"event": "restart"')
        assert listener.end(signal.SIGINT) == 5
        (duplicate,) = of_kind(listener, "duplicate")
        assert (duplicate["topic"], duplicate["counter"]) == ("hashtx", 0)
        assert [line.get("counter") for line in of_kind(listener, "malformed")] == [None, 1]
        assert [(line["topic"], line["old_tip"]) for line in of_kind(listener, "reorg")] == [
            ("sequence", replaced.hash.hex()),
            ("rawblock", replaced.hash.hex()),
        ]
        assert [line["connections"] for line in of_kind(listener, "connected")] == [1, 2]
        (gap,) = of_kind(listener, "mempool_gap")
        assert gap["got"] - gap["expected"] == 5


def test_silence_is_left_for_a_new_connection(faulty: FaultyPublisher) -> None:
    with connected_listener(faulty.address, "--stale-after=1.5", "--topic=hashtx") as listener:
        faulty.wait_for_subscribers(topics=["hashtx"])
        faulty.publish("hashtx")
        listener.line('"event": "message"')
        faulty.silence()
        listener.line('"event": "stale"')
        faulty.wait_for_subscribers(topics=["hashtx"])
        faulty.publish("hashtx")
        listener.line('"event": "message"')
        assert listener.end(signal.SIGTERM) == 0
        kinds = [line["event"] for line in listener.objects() if line["event"] != "state"]  # states pass too quickly to be counted on
        assert kinds == ["connected", "message", "disconnected", "stale", "connected", "message", "summary"]
        assert of_kind(listener, "stale")[0]["silence"] >= 1.5


# With a replay endpoint


@pytest.fixture
def replayed() -> Iterator[tuple[Publisher, Relay, str]]:
    """A publisher, the relay before it, and its replay endpoint."""
    with Publisher({**everything(), "zmqpubreplay": ANY_PORT}) as publisher:
        assert publisher.replay_address is not None
        with Relay(to=publisher.active_notifiers()[0].address) as relay:
            yield publisher, relay, publisher.replay_address


def test_what_was_missed_is_asked_for_and_comes_in_its_place(replayed: tuple[Publisher, Relay, str]) -> None:
    publisher, relay, replay = replayed
    chain = RegtestChain(publisher)
    with connected_listener(relay.address, "--replay", replay) as listener:
        chain.mine(1, txs=5)
        listener.line(chain.tip.hash.hex())
        relay.refuse()
        relay.cut()
        listener.line('"event": "disconnected"')
        chain.mine(3, txs=5)
        relay.refuse(False)
        listener.line('"event": "repaired"')
        chain.mine(1, txs=5)
        listener.line(f"rawblock.*{chain.tip.hash.hex()}")
        assert listener.end(signal.SIGTERM) == 0
        summary = listener.objects()[-1]
        assert summary["lost"] == 0
        assert summary["repaired"] > 0
        messages = of_kind(listener, "message")
        for row in summary["notifiers"]:
            counters = [line["counter"] for line in messages if line["topic"] == row["topic"]]
            assert counters == list(range(counters[0], counters[0] + row["messages"]))
        assert any(line.get("repaired") for line in messages)
        assert [line["hash"] for line in messages if line["topic"] == "rawblock"] == [block.hash.hex() for block in chain.blocks]


def test_repairs_in_words(replayed: tuple[Publisher, Relay, str]) -> None:
    publisher, relay, replay = replayed
    chain = RegtestChain(publisher)
    with Program("listen", relay.address, f"--replay={relay.address}={replay}") as listener:
        listener.line("Z connected: ")
        chain.mine()
        relay.refuse()
        relay.cut()
        listener.line("Z disconnected: ")
        chain.mine()
        relay.refuse(False)
        listener.line(rf"Z repaired: {relay.address}: \d+ messages by replay within \d+\.\d+ s$")
        assert listener.end(signal.SIGINT) == 0
        assert " repaired, 0 lost, " in listener.seen[-1]


@pytest.mark.parametrize(
    ("replay", "problem"),
    [
        ("127.0.0.1:1", "--replay=127.0.0.1:1: the scheme is missing"),
        ("tcp://127.0.0.1:9=tcp://127.0.0.1:1", "tcp://127.0.0.1:9 is no address that is listened to: tcp://127.0.0.1:2"),
        ("tcp://127.0.0.1:2=tcp://*:1", "--replay=tcp://*:1: the publisher's host is needed"),
    ],
)
def test_replay_endpoints_that_cannot_be(replay: str, problem: str) -> None:
    program = once("listen", "tcp://127.0.0.1:2", "--replay", replay)
    assert program.process.returncode == 2
    assert problem in program.errors[0]


def test_two_replay_endpoints_of_one_publisher() -> None:
    program = once("listen", "tcp://127.0.0.1:2", "--replay=tcp://127.0.0.1:3", "--replay=tcp://127.0.0.1:2=tcp://127.0.0.1:4")
    assert program.process.returncode == 2
    assert "the replay endpoint of tcp://127.0.0.1:2 is tcp://127.0.0.1:3 already" in program.errors[0]


@pytest.mark.parametrize("as_json", [True, False])
def test_what_was_not_looked_at_any_more_is_said(faulty: FaultyPublisher, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """A listener that was stopped while more had been received does not claim to have seen all."""
    from zmqpub.cli.hearing import JsonHearing, TextHearing
    from zmqpub.cli.listening import ItemListening
    from zmqpub.cli.screen import Screen
    from zmqpub.cli.signals import Signals
    from zmqpub.cli.tally import Tally

    with Subscriber(faulty.address) as subscriber, Screen(essential=True, draw=False) as screen, Signals() as signals:
        faulty.wait_for_subscribers()
        faulty.publish("rawblock")
        wait_for(lambda: subscriber.state().queued_bytes > 500)
        tally = Tally([faulty.address], list(Topic))
        hearing = JsonHearing(screen, tally, False) if as_json else TextHearing(screen, tally)
        ItemListening(subscriber, tally, hearing, signals).conclude()
    last = capsys.readouterr().out.splitlines()[-1]
    if as_json:
        assert json.loads(last)["unread_bytes"] > 500
    else:
        assert re.fullmatch(r"[\d.]+ K?i?B were received and not looked at any more", last)
