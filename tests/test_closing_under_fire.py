"""A publisher that is closed while strangers connect, and say what makes libzmq 4.3.5 abort the process if it comes just then.

Such a stranger seems to speak ZMTP 1.0 (2.0, to a replay endpoint), and finishes its handshake while its socket is being closed.
The publisher has a process of its own, whose exit code tells of an abort.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zmq
from listening import address_of, receive, wait_for, wait_wanted
from raw_zmtp import RawPeer
from synthetic import block

from zmqpub import Publisher

pytestmark = pytest.mark.slow

_OPENED_AND_CLOSED = """
import itertools, sys, time
from zmqpub import Publisher

options, linger, threads, seconds = eval(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
end = time.monotonic() + seconds
for number in itertools.count():
    if number >= 20 and time.monotonic() >= end:
        break
    with Publisher(options, io_threads=threads) as publisher:
        time.sleep(0.004)
        publisher.transaction_removed_from_mempool(bytes(32), 1)
        publisher.close(linger)
print(number, "times")
"""

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"


def _handshake(rng: random.Random) -> Iterator[bytes]:
    """In pieces."""
    kind = rng.randrange(4)
    if kind == 0:
        yield b"\x01\x00"
    elif kind == 1:
        yield from (b"\x01", b"\x00")
    elif kind == 2:
        yield from (SIGNATURE, b"\x01\x05", b"\x00", b"\x00")
    else:
        size = rng.randrange(2, 12)
        yield bytes([size + 1])
        yield from itertools.repeat(b"\x00", size + 1)


class Strangers:
    """So many at a time, each of whom connects, says a piece every now and then, and is followed by another."""

    def __init__(self, address: str, seed: int, at_a_time: int = 30) -> None:
        self._address = address
        self._rng = random.Random(seed)
        self._at_a_time = at_a_time
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.said = 0

    def __enter__(self) -> Strangers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _connect(self) -> socket.socket:
        url = urlsplit(self._address)
        stranger = socket.socket(socket.AF_INET if url.scheme == "tcp" else socket.AF_UNIX)
        stranger.setblocking(False)
        stranger.connect_ex((url.hostname, url.port) if url.scheme == "tcp" else url.path)
        return stranger

    def _run(self) -> None:
        waiting: list[tuple[float, int, socket.socket, Iterator[bytes]]] = []
        numbers = itertools.count()
        while not self._stop.wait(0.0002):
            now = time.monotonic()
            while len(waiting) < self._at_a_time:
                at = now + self._rng.random() * 0.002
                heapq.heappush(waiting, (at, next(numbers), self._connect(), _handshake(self._rng)))
            while waiting[0][0] <= now:
                _, number, stranger, pieces = waiting[0]
                if self._say_next(stranger, pieces):
                    heapq.heapreplace(waiting, (now + self._rng.random() * 0.002, number, stranger, pieces))
                    continue
                heapq.heappop(waiting)
                stranger.close()
                if not waiting:
                    break
        for _, _, stranger, _ in waiting:
            stranger.close()

    def _say_next(self, stranger: socket.socket, pieces: Iterator[bytes]) -> bool:
        with contextlib.suppress(OSError):  # nobody let it in, or it was sent away
            for piece in pieces:
                stranger.send(piece)
                self.said += 1
                return True
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def open_and_close(options: dict[str, str], linger: float, threads: int = 1, seconds: float = 2.0) -> None:
    address = options.get("zmqpubreplay", options["zmqpubsequence"])
    with Strangers(address, seed=11) as strangers:
        result = subprocess.run(
            [sys.executable, "-c", _OPENED_AND_CLOSED, repr(options), str(linger), str(threads), str(seconds)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[0]) >= 20
    assert strangers.said > 100


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can be kept out: see docs/adr/0011-closing.md")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("linger", [0.0, 0.3])
def test_an_endpoint_is_closed(linger: float, threads: int) -> None:
    open_and_close({"zmqpubsequence": f"tcp://127.0.0.1:{_free_port()}"}, linger, threads)


@pytest.mark.parametrize("linger", [0.0, 0.3])
def test_a_replay_endpoint_is_closed(linger: float) -> None:
    open_and_close({"zmqpubsequence": "inproc://x", "zmqpubreplay": f"tcp://127.0.0.1:{_free_port()}"}, linger)


@pytest.mark.parametrize("linger", [0.0, 0.3])
@pytest.mark.parametrize("option", ["zmqpubsequence", "zmqpubreplay"])
def test_a_unix_socket_is_closed(option: str, linger: float, tmp_path: Path) -> None:
    open_and_close({"zmqpubsequence": "inproc://x", option: f"ipc://{tmp_path}/socket"}, linger)


@pytest.mark.parametrize("version", [(2, 0), (1, 0)], ids=["2.0", "1.0"])
def test_a_replay_endpoint_refuses_what_is_older_than_itself(version: tuple[int, int]) -> None:
    with Publisher({"zmqpubsequence": "inproc://x", "zmqpubreplay": "tcp://127.0.0.1:*"}) as publisher:
        address = publisher.replay_address
        assert address
        with contextlib.suppress(ConnectionError), RawPeer(urlsplit(address).port or 0, version) as peer:
            assert peer.was_closed()


# ---- what the strangers must not spoil ----

BLOCK = block(5, 40, size=50_000)


@pytest.mark.parametrize("version", [(3, 1), (3, 0), (2, 0), (1, 0)], ids=["3.1", "3.0", "2.0", "1.0"])
def test_with_a_linger_everybody_is_sent_the_rest_whatever_he_speaks(version: tuple[int, int]) -> None:
    """Also who was never sent anything before: he is not taken for one who has not finished his handshake."""
    with Publisher({"zmqpubrawblock": "tcp://127.0.0.1:*"}) as publisher:
        with RawPeer(urlsplit(address_of(publisher, "rawblock")).port or 0, version) as peer:
            if version > (1, 0):
                peer.subscribe(b"rawblock")
            wait_wanted(publisher)
            publisher.updated_block_tip(BLOCK)
            publisher.close(10)
            assert peer.message() == (b"rawblock", bytes(BLOCK), bytes(4))
            assert peer.was_closed()


def _let_subscribe(sub: zmq.Socket[bytes], publisher: Publisher) -> None:
    """libzmq subscribes again while the socket is polled."""
    wait_for(lambda: sub.poll(1) or publisher.stats().notifiers[0].wanted, what="the subscription")


def test_who_reconnects_at_once_reaches_the_next() -> None:
    """Who tries while nobody is let in any more is not told so: a second later his system tries again."""
    address = f"tcp://127.0.0.1:{_free_port()}"
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.reconnect_ivl = 1
        sub.subscribe("")
        sub.connect(address)
        for _ in range(10):
            with Publisher({"zmqpubsequence": address}) as publisher:
                _let_subscribe(sub, publisher)
                publisher.transaction_removed_from_mempool(bytes(32), 1)
                assert receive(sub, 1)[0][0] == b"sequence"


_CROWD = """
import resource, sys, time
from zmqpub import Publisher
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
publisher = Publisher({"zmqpubsequence": "tcp://127.0.0.1:*"})
print(publisher.active_notifiers()[0].address, flush=True)
for line in sys.stdin:
    print(len(publisher.stats().endpoints[0].subscribers), flush=True)
begin = time.monotonic()
publisher.close()
print(time.monotonic() - begin, flush=True)
"""


def test_more_connections_than_libzmq_tells_of_at_a_time_are_closed() -> None:
    """A socket's monitor holds some 2000 events: where nobody reads them, libzmq's threads stop."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 8192:
        pytest.skip("not enough descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", _CROWD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert process.stdin
        assert process.stdout
        port = urlsplit(process.stdout.readline().strip()).port or 0
        peers = [stack.enter_context(RawPeer(port, None)) for _ in range(2500)]

        def known() -> int:
            assert process.stdin
            assert process.stdout
            process.stdin.write("how many\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        wait_for(lambda: known() == len(peers), 20, "all connections")
        process.stdin.close()
        assert process.wait(20) == 0
        assert float(process.stdout.readline()) < 5
