"""Clients that misbehave: whoever else is connected gets everything, in time, and nothing of them stays behind."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from listening import RemoteSubscriber, address_of, everything, receive, subscriber, wait_for, wait_wanted
from raw_zmtp import COMMAND, LONG, RawPeer, encode, encode_command, greeting, ready
from synthetic import block, transaction

from zmqpub import Publisher

pytestmark = pytest.mark.slow

BLOCKS = [block(seed, 20) for seed in range(60)]
MESSAGES = sum(2 * len(one) + 3 for one in BLOCKS)
PACE = 0.004
"""Seconds between two blocks."""


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def resident() -> int:
    """MiB of this process, which is the publisher's; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() // 2**20 if statm.exists() else 0


@dataclass
class Siege:
    publisher: Publisher
    port: int
    healthy: str
    """The address of the subscriber that behaves, as the publisher shows it."""

    def expect(self, peers: list[RawPeer]) -> None:
        """The publisher shows just these connections besides the healthy one, which leaves when it has everything."""
        wanted = sorted(peer.address for peer in peers)
        wait_for(lambda: self._others() == wanted, 5, "the list of subscribers")

    def _others(self) -> list[str]:
        shown = [one.address for one in self.publisher.stats().endpoints[0].subscribers]
        assert shown.count(self.healthy) <= 1
        return sorted(address for address in shown if address != self.healthy)


SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
"""AddressSanitizer keeps what was freed, up to 256 MiB: resident memory says nothing then."""


@contextlib.contextmanager
def siege(within: float = 20.0, memory: int = 64) -> Iterator[Siege]:
    """A publisher at work, with a subscriber that behaves, while the body of the with statement attacks.

    That subscriber must then have everything within so many seconds, and the publisher must have no connection and no
    descriptor left, and at no time have taken more than ``memory`` MiB.
    """
    with Publisher(everything()) as publisher:
        address = address_of(publisher)
        descriptors_before, memory_before, most = descriptors(), resident(), 0

        def publish() -> None:
            nonlocal most
            for one in BLOCKS:
                publisher.block_connected(one)
                publisher.updated_block_tip(one)
                most = max(most, resident())
                time.sleep(PACE)

        with RemoteSubscriber(address, expect=MESSAGES) as remote:
            wait_wanted(publisher)
            worker = threading.Thread(target=publish)
            worker.start()
            try:
                yield Siege(publisher, urlsplit(address).port or 0, publisher.stats().endpoints[0].subscribers[0].address)
                most = max(most, resident())
            finally:
                worker.join()
            result = remote.result(within)
        assert (result["received"], result["gaps"]) == (MESSAGES, 0)
        assert publisher.flush(5)
        stats = publisher.stats()
        assert (stats.sent, stats.dropped) == (MESSAGES, 0)
        wait_for(lambda: not publisher.stats().endpoints[0].subscribers, 5, "the end of all connections")
        wait_for(lambda: descriptors() == descriptors_before, 5, "the end of all descriptors")
        if not SANITIZED:
            assert most - memory_before < memory


@contextlib.contextmanager
def peers_of(siege: Siege, count: int, version: tuple[int, int] | None = (3, 1)) -> Iterator[list[RawPeer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(RawPeer(siege.port, version)) for _ in range(count)]


# ---- who says nothing, or nonsense ----


def test_silence() -> None:
    with siege() as besieged:
        with peers_of(besieged, 50, None) as peers:
            besieged.expect(peers)
        besieged.expect([])


@pytest.mark.parametrize("version", [None, (3, 1), (3, 0), (2, 0), (1, 0)], ids=["at once", "3.1", "3.0", "2.0", "1.0"])
def test_random_bytes(version: tuple[int, int] | None) -> None:
    rng = random.Random(7)
    with siege() as besieged:
        with peers_of(besieged, 30, version) as peers:
            for peer in peers:
                with contextlib.suppress(ConnectionError):  # refused while it is still talking
                    peer.send(rng.randbytes(rng.randrange(1, 20_000)))
        besieged.expect([])


FIRST_BYTES = greeting() + ready() + encode_command("SUBSCRIBE", b"hashtx")


def test_handshakes_that_stop_anywhere() -> None:
    with siege() as besieged, contextlib.ExitStack() as stack:
        stopped = []
        for size in range(len(FIRST_BYTES)):
            stopped.append(stack.enter_context(RawPeer(besieged.port, None)))
            stopped[-1].send(FIRST_BYTES[:size])
        besieged.expect(stopped)


def test_a_handshake_byte_by_byte_is_slow_but_right() -> None:
    with Publisher(everything()) as publisher, RawPeer(urlsplit(address_of(publisher)).port or 0, None) as peer:
        for byte in FIRST_BYTES:
            peer.send(bytes([byte]))
            time.sleep(0.001)
        wait_wanted(publisher, 1)
        publisher.transaction_added_to_mempool(transaction(1), 1)
        assert peer.take(64)[:1] == b"\xff"
        assert peer.frame().body[:6] == b"\x05READY"
        assert peer.message() == (b"hashtx", transaction(1).txid, bytes(4))


PROPERTY_TOO_LONG = b"\x0bSocket-Type" + struct.pack(">I", 2**31) + b"SUB"


REFUSED = {
    "plain": greeting(mechanism=b"PLAIN"),
    "curve": greeting(mechanism=b"CURVE"),
    "no mechanism": greeting(mechanism=b"\xff" * 20),
    "push": greeting() + ready("PUSH"),
    "req": greeting() + ready("REQ"),
    "no type": greeting() + ready("SUBMARINE"),
    "property cut short": greeting() + encode_command("READY", PROPERTY_TOO_LONG),
    "name cut short": greeting() + encode_command("READY", b"\xff"),
    "early command": greeting() + encode_command("SUBSCRIBE", b"hashtx"),
    "early message": greeting() + encode(b"\x01hashtx"),
    "huge": greeting() + bytes([COMMAND | LONG]) + struct.pack(">Q", 2**30) + bytes(1000),
}


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED)
def test_handshakes_that_are_refused(said: bytes) -> None:
    with Publisher(everything()) as publisher:
        port = urlsplit(address_of(publisher)).port or 0
        with subscriber(address_of(publisher), "hashtx") as sub:
            wait_wanted(publisher, 1)
            with RawPeer(port, None) as peer:
                peer.send(said)
                assert peer.was_closed()
                wait_for(lambda: len(publisher.stats().endpoints[0].subscribers) == 1)
            publisher.transaction_added_to_mempool(transaction(1), 1)
            assert receive(sub, 1) == [(b"hashtx", transaction(1).txid, bytes(4))]


# ---- who asks for too much ----


@pytest.mark.parametrize("flags", [0, COMMAND], ids=["message", "command"])
@pytest.mark.parametrize("size", [10**6, 2**30, 2**63, 2**64 - 1])
def test_a_frame_that_claims_to_be_huge(size: int, flags: int) -> None:
    """Nobody subscribes to so much: the connection is closed before any of it is taken in."""
    with siege() as besieged, peers_of(besieged, 10) as peers:
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                peer.send(bytes([flags | LONG]) + struct.pack(">Q", size) + bytes(100_000))
        assert all(peer.was_closed() for peer in peers)
        besieged.expect([])


def test_a_huge_frame_of_version_1() -> None:
    with siege() as besieged, RawPeer(besieged.port, (1, 0)) as peer:
        with contextlib.suppress(ConnectionError):
            peer.send(b"\xff" + struct.pack(">Q", 2**30) + bytes(100_000))
        assert peer.was_closed()


@pytest.mark.parametrize("as_message", [False, True], ids=["commands", "messages"])
def test_ten_thousand_long_subscriptions(as_message: bool) -> None:
    """Each byte of a prefix that nobody else has costs libzmq a node of its tree, some 50 bytes."""
    rng = random.Random(3)
    with siege() as besieged:
        with peers_of(besieged, 1) as (peer,), contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                peer.subscribe(rng.randbytes(1000), as_message=as_message)
            time.sleep(0.5)
        besieged.expect([])


def test_ten_thousand_short_subscriptions() -> None:
    with siege() as besieged:
        with peers_of(besieged, 4) as peers, contextlib.suppress(ConnectionError):
            for number in range(10_000):
                for peer in peers:
                    peer.subscribe(b"hashtx%d" % number)
        besieged.expect([])


FLOODS = {
    "subscriptions": encode(b"\x01zz") + encode(b"\x00zz"),
    "messages": encode(b"x"),
    "pings": encode_command("PING", b"\0\0context"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood(kind: str) -> None:
    """Somebody talks without end and reads nothing; the others must not wait until he is done."""
    flood = FLOODS[kind] * 100_000
    with siege(within=10) as besieged, RawPeer(besieged.port) as peer:

        def talk() -> None:
            with contextlib.suppress(OSError):  # either side ends the connection
                while True:
                    peer.send(flood)

        peer.socket.settimeout(None)
        worker = threading.Thread(target=talk)
        worker.start()
        try:
            time.sleep(1)
            assert besieged.publisher.flush(1), "nothing is sent while it lasts"
        finally:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
            worker.join()


# ---- who cancels what is not his ----


@pytest.mark.parametrize("version", [(3, 1), (3, 0)], ids=["command", "message"])
def test_nobody_can_cancel_the_subscriptions_of_others(version: tuple[int, int]) -> None:
    with siege() as besieged, RawPeer(besieged.port, version) as peer:
        for topic in (b"", b"hashblock", b"hashtx", b"rawblock", b"rawtx", b"sequence"):
            peer.cancel(topic)
        time.sleep(0.2)
        assert all(notifier.wanted for notifier in besieged.publisher.stats().notifiers)


def test_to_subscribe_twice_and_cancel_twice_concerns_nobody_else() -> None:
    with siege() as besieged, RawPeer(besieged.port) as peer:
        for step in (peer.subscribe, peer.subscribe, peer.cancel, peer.cancel, peer.cancel):
            step(b"")
        time.sleep(0.2)
        assert all(notifier.wanted for notifier in besieged.publisher.stats().notifiers)


# ---- who comes and goes ----


def leave_in_a_frame(peer: RawPeer) -> None:
    peer.send(encode_command("SUBSCRIBE", bytes(60_000))[:30_000])


def leave_in_a_length(peer: RawPeer) -> None:
    peer.send(bytes([LONG, 0, 0]))


def leave_while_reading(peer: RawPeer) -> None:
    peer.subscribe(b"")
    peer.take(1000)


@pytest.mark.parametrize("before", [leave_in_a_frame, leave_in_a_length, leave_while_reading])
@pytest.mark.parametrize("end", [RawPeer.close, RawPeer.abort], ids=["close", "reset"])
def test_leaving_in_the_middle(before: Callable[[RawPeer], None], end: Callable[[RawPeer], None]) -> None:
    with siege() as besieged:
        with peers_of(besieged, 20) as peers:
            for peer in peers:
                before(peer)
            for peer in peers:
                end(peer)
        besieged.expect([])


@pytest.mark.parametrize("version", [None, (3, 1)], ids=["silent", "greeted"])
def test_five_hundred_connections_in_quick_succession(version: tuple[int, int] | None) -> None:
    with siege() as besieged:
        for number in range(500):
            peer = RawPeer(besieged.port, version)
            if version:
                peer.subscribe(b"")
            (peer.abort if number % 2 else peer.close)()
        besieged.expect([])


_FEW_DESCRIPTORS = """
import resource, sys
from zmqpub import Publisher
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with Publisher({"zmqpubsequence": "tcp://127.0.0.1:*"}) as publisher:
    print(publisher.active_notifiers()[0].address, flush=True)
    for number, line in enumerate(sys.stdin):
        publisher.transaction_removed_from_mempool(bytes(32), number)
        publisher.flush()
        print(len(publisher.stats().endpoints[0].subscribers), flush=True)
"""


def test_more_connections_than_the_process_may_have_descriptors() -> None:
    """Who was there before is served on; who comes when the others have gone is served, too."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", _FEW_DESCRIPTORS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert process.stdin
        assert process.stdout
        address = process.stdout.readline().strip()

        def publish() -> int:
            assert process.stdin
            assert process.stdout
            process.stdin.write("go\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        sub = stack.enter_context(subscriber(address))
        wait_for(lambda: publish() == 1 and sub.poll(10))
        first = receive(sub, 1)[0][2][0]
        with contextlib.ExitStack() as crowd:
            peers = [crowd.enter_context(RawPeer(urlsplit(address).port or 0, None)) for _ in range(100)]
            for _ in range(20):
                publish()
                time.sleep(0.01)
            accepted = sum(not peer.is_quiet(0.001) for peer in peers)
            assert 10 < accepted < 64, "libzmq greets whom it accepts, and has no descriptors for all"
        wait_for(lambda: publish() == 1)
        late = stack.enter_context(subscriber(address))
        wait_for(lambda: publish() == 2 and late.poll(10))
        last = receive(late, 1)[0][2][0]
        counters = [message[2][0] for message in receive(sub, last - first)]
        assert counters == list(range(first + 1, last + 1))
