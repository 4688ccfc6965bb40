"""What is on the wire: the handshake, the frames, and nothing besides, for clients of every version of ZMTP."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from listening import address_of, everything, wait_for, wait_wanted
from raw_zmtp import COMMAND, LONG, MORE, RawPeer, encode_command
from synthetic import block, transaction
from test_trace import EVENTS, frames_of, hand_over

from zmqpub import Publisher

TRACE = [message for line in EVENTS for message in frames_of(line)]


def port_of(publisher: Publisher) -> int:
    port = urlsplit(address_of(publisher)).port
    assert port
    return port


def publish_trace(publisher: Publisher) -> None:
    for line in EVENTS:
        hand_over(line["event"], publisher, True)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher(everything()) as publisher:
        yield publisher


def test_the_greeting(publisher: Publisher) -> None:
    """ZMTP 3.1, NULL, no server of a mechanism; XPUB, which the protocol lets a SUB talk to as to a PUB, and no more."""
    with RawPeer(port_of(publisher)) as peer:
        signature, version, mechanism, rest = peer.greeted[:10], peer.greeted[10:12], peer.greeted[12:32], peer.greeted[32:]
        assert (signature[0], signature[9]) == (0xFF, 0x7F)
        assert version == b"\x03\x01"
        assert mechanism == b"NULL" + bytes(16)
        assert rest == bytes(32)
        assert peer.metadata == {"Socket-Type": b"XPUB"}


@pytest.mark.parametrize("version", [(3, 1), (3, 0), (2, 0)], ids=["3.1", "3.0", "2.0"])
def test_every_message_has_three_frames_and_nothing_is_between(version: tuple[int, int], publisher: Publisher) -> None:
    with RawPeer(port_of(publisher), version) as peer:
        for topic in (b"hashblock", b"hashtx", b"rawblock", b"rawtx", b"sequence"):
            peer.subscribe(topic)
        wait_wanted(publisher)
        publish_trace(publisher)
        for message in TRACE:
            frames = [peer.frame() for _ in message]
            assert [flags for flags, _ in frames] == [MORE | (LONG if len(body) > 255 else 0) for body in message[:2]] + [0]
            assert tuple(body for _, body in frames) == message
        assert peer.is_quiet(0.05)


def test_version_1_which_subscribes_to_everything_by_connecting(publisher: Publisher) -> None:
    with RawPeer(port_of(publisher), (1, 0)) as peer:
        wait_wanted(publisher)
        publish_trace(publisher)
        assert [peer.message() for _ in TRACE] == TRACE


def test_a_block_of_megabytes_is_one_frame(publisher: Publisher) -> None:
    one = block(1, 200, size=20_000)
    with RawPeer(port_of(publisher), (3, 0)) as peer:
        peer.subscribe(b"rawblock")
        wait_wanted(publisher, 1)
        publisher.updated_block_tip(one)
        assert [peer.frame() for _ in range(3)] == [(MORE, b"rawblock"), (MORE | LONG, bytes(one)), (0, bytes(4))]


@pytest.mark.parametrize("as_message", [False, True], ids=["command", "message"])
def test_subscriptions_and_cancellations(as_message: bool, publisher: Publisher) -> None:
    """ZMTP 3.1 has commands for them, and clients that greet as 3.1 and go on with messages (azmq) are understood as well."""
    with RawPeer(port_of(publisher)) as peer:
        peer.subscribe(b"hashtx", as_message=as_message)
        peer.subscribe(b"seq", as_message=as_message)
        wait_wanted(publisher, 2)
        publisher.transaction_added_to_mempool(transaction(1), 7)
        assert [peer.message()[0] for _ in range(2)] == [b"hashtx", b"sequence"]
        peer.cancel(b"hashtx", as_message=as_message)
        wait_for(lambda: sum(one.wanted for one in publisher.stats().notifiers) == 1)
        publisher.transaction_added_to_mempool(transaction(2), 8)
        assert peer.message()[::2] == (b"sequence", b"\x01\0\0\0")
        assert peer.is_quiet(0.05)


def test_a_topic_is_found_by_its_prefix_and_by_nothing_longer(publisher: Publisher) -> None:
    with RawPeer(port_of(publisher)) as peer:
        for prefix in (b"hashtxs", b"rawtx\0", b"HASHTX", b"sequence1"):
            peer.subscribe(prefix)
        peer.subscribe(b"rawb")
        wait_wanted(publisher, 1)
        publisher.block_connected(block(1, 3))
        publisher.updated_block_tip(block(1, 3))
        assert peer.message()[0] == b"rawblock"
        assert peer.is_quiet(0.05)


def test_a_subscribers_heartbeat_is_answered_and_the_publisher_has_none(publisher: Publisher) -> None:
    """Some clients take a PING for an error, others send their own."""
    with RawPeer(port_of(publisher)) as peer:
        peer.subscribe(b"")
        wait_wanted(publisher)
        assert peer.is_quiet(1.5)
        peer.send(encode_command("PING", b"\x00\x64" + b"context"))
        assert peer.frame() == (COMMAND, b"\x04PONGcontext")
        assert peer.is_quiet(0.5)
        publisher.transaction_added_to_mempool(transaction(1), 1)
        assert [peer.message()[0] for _ in range(3)] == [b"hashtx", b"rawtx", b"sequence"]
