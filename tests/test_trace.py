"""What a running Bitcoin Core published, recorded, and the events that made it: the same must come out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from listening import ALL_TOPICS, address_of, everything, receive, subscriber, wait_wanted

from zmqpub import Block, Publisher, Transaction

LINES = [json.loads(line) for line in (Path(__file__).parent / "core-31.99-regtest.jsonl").read_text().splitlines()]
META, EVENTS = LINES[0], LINES[1:]


def frames_of(line: dict[str, Any]) -> list[tuple[bytes, ...]]:
    return [(topic.encode(), bytes.fromhex(body), counter.to_bytes(4, "little")) for topic, body, counter in line["frames"]]


def hand_over(event: dict[str, Any], publisher: Publisher, parsed: bool) -> None:
    kind = event["type"]
    if kind == "transaction_added_to_mempool":
        raw = bytes.fromhex(event["tx"])
        publisher.transaction_added_to_mempool(Transaction(raw) if parsed else raw, event["mempool_sequence"])
    elif kind == "transaction_removed_from_mempool":
        publisher.transaction_removed_from_mempool(bytes.fromhex(event["txid"]), event["mempool_sequence"])
    else:
        raw = bytes.fromhex(event["block"])
        getattr(publisher, kind)(Block(raw) if parsed else raw)


@pytest.mark.parametrize("parsed", [False, True], ids=["bytes", "parsed"])
@pytest.mark.parametrize("scheme", ["tcp", "ipc", "inproc"])
def test_every_frame_is_bitcoin_cores(scheme: str, parsed: bool, tmp_path: Path) -> None:
    address = {"tcp": "tcp://127.0.0.1:*", "ipc": f"unix:{tmp_path}/trace", "inproc": "inproc://trace"}[scheme]
    expected = [frame for line in EVENTS for frame in frames_of(line)]
    assert len(expected) == 414
    with Publisher(everything(address)) as publisher:
        context = publisher.context if scheme == "inproc" else None
        with subscriber(address_of(publisher), context=context) as sub:
            wait_wanted(publisher)
            for line in EVENTS:
                hand_over(line["event"], publisher, parsed)
            assert publisher.flush(10)
            assert receive(sub, len(expected)) == expected
            assert not sub.poll(50)
        counts = {notifier.topic.value: notifier.sent for notifier in publisher.stats().notifiers}
    assert counts == {topic: sum(frame[0] == topic.encode() for frame in expected) for topic in ALL_TOPICS}


@pytest.mark.parametrize("topic", ALL_TOPICS)
def test_a_topic_alone_has_the_same_frames(topic: str) -> None:
    expected = [frame for line in EVENTS for frame in frames_of(line) if frame[0] == topic.encode()]
    with Publisher({f"zmqpub{topic}": "tcp://127.0.0.1:*"}) as publisher, subscriber(address_of(publisher, topic)) as sub:
        wait_wanted(publisher)
        for line in EVENTS:
            hand_over(line["event"], publisher, True)
        assert receive(sub, len(expected)) == expected


def test_frames_come_in_order_with_each_event() -> None:
    """One event at a time: what it causes comes before anything is known of the next."""
    with Publisher(everything()) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        for line in EVENTS[:60]:
            hand_over(line["event"], publisher, False)
            assert receive(sub, len(line["frames"])) == frames_of(line)


def test_the_hashes_in_the_trace_are_found() -> None:
    for line in EVENTS:
        event = line["event"]
        if "block" in event:
            assert Block(bytes.fromhex(event["block"])).hash.hex() == event["hash"]
