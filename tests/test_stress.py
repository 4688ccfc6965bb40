"""Everything at once, at random: threads that publish, subscribers that come, go and hang, notifiers added and removed, and an
end at any moment. Each round checks what must hold whatever happened:

- who keeps up gets every message of its topics, in order, once, and with the body that belongs to it;
- a notifier's ``published`` is exactly what the events that were taken in make, and so are the counters on the wire;
- nothing is dropped where nothing may be.

A short run is part of the tests; for a long one: ``python tests/test_stress.py --seconds 600 --seed 7``. A round that fails
names its own seed, which ``--round`` repeats. Threads keep their own time, so the same seed is not the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
from listening import ALL_TOPICS
from synthetic import block, transaction

from zmqpub import Block, ClosedError, ConfigError, Publisher, Transaction

PATIENCE = 60.0
"""Seconds that anything may take before it counts as stuck; a sanitizer's build is slow."""

_BLOCKS: list[Block] = [
    block(seed, count, size=size) for seed, (count, size) in enumerate([(0, 0), (1, 0), (65, 300), (300, 0), (40, 5000)])
]
_TRANSACTIONS: list[Transaction] = [transaction(seed, witness=seed % 2 == 0, size=seed * 40) for seed in range(30)]
_TXID_OF = {bytes(tx): tx.txid for tx in [*_TRANSACTIONS, *(tx for one in _BLOCKS for tx in one)]}
_HASH_OF = {bytes(one): one.hash for one in _BLOCKS}
_TXIDS, _HASHES = set(_TXID_OF.values()), set(_HASH_OF.values())


class Healthy:
    """A subscriber that reads all it gets and holds it against what was published."""

    def __init__(self, context: zmq.Context[Any], address: str, topics: set[str], *, gaps_allowed: bool) -> None:
        self.address, self.topics, self.gaps_allowed = address, topics, gaps_allowed
        self.first: dict[str, int] = {}
        self.next: dict[str, int] = {}
        self.received = 0
        self.wrong: list[str] = []
        self._previous: tuple[str, bytes] = ("", b"")
        self._stop = threading.Event()
        self._socket = context.socket(zmq.SUB)
        self._socket.rcvhwm = 0
        self._socket.linger = 0
        for topic in topics:
            self._socket.subscribe(topic)
        self._socket.connect(address)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        with contextlib.suppress(zmq.ContextTerminated):
            while not self._stop.is_set():
                if self._socket.poll(20):
                    for _ in range(1000):
                        try:
                            self._take(self._socket.recv_multipart(zmq.DONTWAIT))
                        except zmq.Again:
                            break
        self._socket.close(0)

    def _take(self, frames: list[bytes]) -> None:
        name, body, number = frames
        topic, counter = name.decode(), int.from_bytes(number, "little")
        self.first.setdefault(topic, counter)
        expected = self.next.get(topic, counter)
        if counter < expected or (counter > expected and not self.gaps_allowed):
            self.wrong.append(f"{topic} {counter} instead of {expected}")
        if not self._belongs(topic, body):
            self.wrong.append(f"{topic} {counter} has a body that was never published")
        self.next[topic] = counter + 1
        self._previous = topic, body
        self.received += 1

    def _belongs(self, topic: str, body: bytes) -> bool:
        paired = not self.gaps_allowed and {"hashtx": "rawtx", "hashblock": "rawblock"}
        if topic in ("rawtx", "rawblock"):
            hash_ = (_TXID_OF if topic == "rawtx" else _HASH_OF).get(body)
            before = topic.replace("raw", "hash")
            return hash_ is not None and (not paired or before not in self.topics or self._previous == (before, hash_))
        if topic == "sequence":
            return body[:32] in _HASHES if len(body) == 33 else len(body) == 41 and body[:32] in _TXIDS
        return body in (_TXIDS if topic == "hashtx" else _HASHES)


class Round:
    """One publisher's life."""

    def __init__(self, seed: int, directory: str) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.failures: list[str] = []
        self.tally: Counter[str] = Counter()
        self._tally_lock = threading.Lock()
        self._calm = threading.Event()
        self.ending = rng.choice(["clean", "clean", "clean", "at once", "soon", "when sent", "terminate"])
        self.slow = rng.choice(["disconnect", "disconnect", "drop", "wait"])
        self.on_full = rng.choice(["wait", "wait", "drop"])
        kinds = ["tcp://127.0.0.1:*", "tcp://127.0.0.1:*", f"ipc://{directory}/{seed}-{{}}", f"inproc://{seed}-{{}}"]
        addresses = [rng.choice(kinds).format(i) for i in range(rng.randint(1, 3))]
        self.mark = rng.choice([0, 1, 2, 10, 100, 1000])
        self.options: dict[str, object] = {}
        self.permanent: list[tuple[str, str]] = []
        for topic in ALL_TOPICS:
            chosen = [address for address in addresses if rng.random() < 0.8]
            self.permanent += [(topic, address) for address in chosen]
            if chosen:
                self.options |= {f"zmqpub{topic}": chosen, f"zmqpub{topic}hwm": self.mark}
        self.roving = f"inproc://{seed}-roving"
        self.settings: dict[str, Any] = {
            "slow_subscriber": self.slow,
            "on_full": self.on_full,
            "journal_bytes": rng.choice([1, 20_000, 1_000_000, 256_000_000]),
            "stall_timeout": rng.choice([0.2, 0.5]),
            "max_lag": PATIENCE,
            "io_threads": rng.choice([1, 2]),
        }
        self.loses = self.slow == "drop" or self.on_full == "drop"

    def __str__(self) -> str:
        where = sorted({address.partition(":")[0] for _, address in self.permanent})
        return f"round {self.seed}: {' '.join(where)} mark {self.mark} {self.settings}, end: {self.ending}"

    def run(self) -> None:
        own = zmq.Context()  # the subscribers'
        given: zmq.Context[Any] | None = zmq.Context() if self.ending == "terminate" or self.rng.random() < 0.3 else None
        publisher = Publisher(self.options, context=given, **self.settings)
        healthy: list[Healthy] = []
        try:
            healthy = self._subscribe(publisher, own)
            self._settle(publisher, healthy)
            publishing = [self._thread(self._publish, publisher, self.rng.randrange(2**32)) for _ in range(self.rng.randint(1, 4))]
            troubling = [self._thread(self._trouble, publisher, own, self.rng.randrange(2**32)) for _ in range(2)]
            self._end(publisher, given, healthy, publishing, troubling)
            self._check(publisher, healthy)
        finally:
            self._calm.set()
            publisher.close(0)
            for one in healthy:
                one.close()
            own.destroy(0)
            publisher.context.destroy(0)  # which a publisher leaves to whoever has inproc sockets in it

    # ---- who takes part ----

    def _subscribe(self, publisher: Publisher, own: zmq.Context[Any]) -> list[Healthy]:
        topics_at: dict[str, set[str]] = {}
        for notifier in publisher.active_notifiers():
            topics_at.setdefault(notifier.address, set()).add(notifier.type.removeprefix("pub"))
        return [
            Healthy(publisher.context if address.startswith("inproc") else own, address, some, gaps_allowed=self.loses)
            for address, topics in topics_at.items()
            for _ in range(self.rng.randint(0, 2))
            if (some := {topic for topic in sorted(topics) if self.rng.random() < 0.7})
        ]

    def _settle(self, publisher: Publisher, healthy: list[Healthy]) -> None:
        """Until every subscription is in: what counts as loss begins there."""
        deadline = time.monotonic() + PATIENCE
        while any(one.topics - one.first.keys() for one in healthy):
            assert time.monotonic() < deadline, "a subscription never came in"
            self._one_event(publisher, self.rng, [1, 5])
            time.sleep(0.005)

    def _thread(self, what: Callable[..., None], *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                what(*arguments)
            except BaseException:
                self.failures.append(traceback.format_exc())

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _one_event(self, publisher: Publisher, rng: random.Random, kinds: list[int]) -> None:
        kind, one, tx = rng.choice(kinds), rng.choice(_BLOCKS), rng.choice(_TRANSACTIONS)
        form: Callable[[Any], Any] = rng.choice([lambda it: it, bytes, lambda it: bytearray(bytes(it)), lambda it: it.raw])
        made: dict[str, int] = {}
        if kind == 1:
            publisher.transaction_added_to_mempool(form(tx), rng.randrange(2**64))
            made = {"hashtx": 1, "rawtx": 1, "sequence": 1}
        elif kind == 2:
            publisher.transaction_removed_from_mempool(tx.txid if rng.random() < 0.5 else form(tx), rng.randrange(2**64))
            made = {"sequence": 1}
        elif kind in (3, 4):
            (publisher.block_connected if kind == 3 else publisher.block_disconnected)(form(one))
            made = {"hashtx": len(one), "rawtx": len(one), "sequence": 1}
        elif kind == 5:
            publisher.updated_block_tip(form(one))
            made = {"hashblock": 1, "rawblock": 1}
        with self._tally_lock:
            self.tally.update(made)

    def _publish(self, publisher: Publisher, seed: int) -> None:
        rng = random.Random(seed)
        with contextlib.suppress(ClosedError):
            for _ in range(rng.randint(20, 300)):
                self._one_event(publisher, rng, [1, 1, 1, 2, 3, 4, 5])
                if rng.random() < 0.1:
                    time.sleep(rng.random() * 0.005)

    def _trouble(self, publisher: Publisher, own: zmq.Context[Any], seed: int) -> None:
        rng = random.Random(seed)
        rude: list[zmq.Socket[bytes]] = []
        try:
            addresses = [notifier.address for notifier in publisher.active_notifiers() if notifier.address != self.roving]
            actions = [self._hang, self._scribble, self._look, self._rove]
            while not self._calm.is_set():
                rng.choice(actions)(publisher, own, rng, rude, addresses)
                time.sleep(rng.random() * 0.02)
                if rude and rng.random() < 0.3:
                    rude.pop(rng.randrange(len(rude))).close(0)
        except ClosedError:
            pass
        except zmq.ZMQError as error:  # not always as ContextTerminated
            if error.errno != zmq.ETERM:
                raise
        finally:
            for one in rude:
                one.close(0)

    def _hang(
        self, publisher: Publisher, own: zmq.Context[Any], rng: random.Random, rude: list[zmq.Socket[bytes]], addresses: list[str]
    ) -> None:
        """A subscriber that takes next to nothing; or one that comes and goes."""
        if not addresses or len(rude) > 3:
            return
        address = rng.choice(addresses)
        inproc = address.startswith("inproc")
        sub = (publisher.context if inproc else own).socket(zmq.SUB)
        rude.append(sub)
        sub.linger, sub.rcvhwm, sub.rcvbuf, sub.reconnect_ivl = 0, 1, 4096, -1
        for prefix in rng.choice([[""], ["hash"], ["raw", "seq"], list(ALL_TOPICS)]):
            sub.subscribe(prefix)
        with contextlib.suppress(zmq.ZMQError):
            sub.connect(address)
            if rng.random() < 0.3:
                sub.unsubscribe("hash")

    def _scribble(
        self, publisher: Publisher, own: zmq.Context[Any], rng: random.Random, rude: list[zmq.Socket[bytes]], addresses: list[str]
    ) -> None:
        """Not a subscriber at all: junk, then a reset."""
        ports = [int(address.rpartition(":")[2]) for address in addresses if address.startswith("tcp")]
        if ports:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", rng.choice(ports)), 5) as peer:
                peer.sendall(rng.choice([b"", b"\xff" + bytes(8) + b"\x7f\x03", rng.randbytes(100), b"GET / HTTP/1.0\r\n\r\n"]))
                if rng.random() < 0.5:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _look(
        self, publisher: Publisher, own: zmq.Context[Any], rng: random.Random, rude: list[zmq.Socket[bytes]], addresses: list[str]
    ) -> None:
        publisher.stats()
        publisher.active_notifiers()
        repr(publisher)
        publisher.flush(rng.choice([0, 0.001, 0.05]))

    def _rove(
        self, publisher: Publisher, own: zmq.Context[Any], rng: random.Random, rude: list[zmq.Socket[bytes]], addresses: list[str]
    ) -> None:
        """A notifier more, or one less; the other troublemaker may have been quicker."""
        with contextlib.suppress(ConfigError):
            topic = rng.choice(ALL_TOPICS)
            if rng.random() < 0.5:
                publisher.add_notifier(topic, self.roving)
            else:
                publisher.remove_notifier(topic, self.roving)

    # ---- the end, and what must hold then ----

    def _end(
        self,
        publisher: Publisher,
        given: zmq.Context[Any] | None,
        healthy: list[Healthy],
        publishing: list[threading.Thread],
        troubling: list[threading.Thread],
    ) -> None:
        if self.ending == "clean":
            self._join(publishing)
            self._calm.set()
            self._join(troubling)
            assert publisher.flush(PATIENCE), "a flush never came to its end"
            if not self.loses:
                self._await_everything(publisher, healthy)
            return
        time.sleep(self.rng.random() * 0.3)
        if self.ending == "when sent":  # it would wait for those who hang
            self._calm.set()
            self._join(troubling)
        if self.ending == "terminate":
            assert given is not None
            terminating = self._thread(given.term)
            self._join(publishing)
            self._calm.set()
            self._join([*troubling, terminating])
        closing = self._thread(publisher.close, {"at once": 0, "soon": 0.05}.get(self.ending))
        self._join([*publishing])
        self._calm.set()
        self._join([*troubling, closing])

    def _join(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"a thread hangs\n{_stacks()}"

    def _await_everything(self, publisher: Publisher, healthy: list[Healthy]) -> None:
        published = {(notifier.topic.value, notifier.address): notifier.published for notifier in publisher.stats().notifiers}
        deadline = time.monotonic() + PATIENCE
        for one in healthy:
            for topic in one.topics:
                while one.next[topic] != published[topic, one.address]:
                    if time.monotonic() > deadline or one.wrong:
                        got = f"{one.address}: {topic} ends at {one.next[topic]} of {published[topic, one.address]}"
                        raise AssertionError(f"{got}; {one.wrong[:5]}; {publisher.stats()}")
                    time.sleep(0.002)

    def _check(self, publisher: Publisher, healthy: list[Healthy]) -> None:
        assert not self.failures, "\n".join(self.failures)
        stats = publisher.stats()
        rows = [notifier for notifier in stats.notifiers if notifier.address != self.roving]
        assert Counter(notifier.topic.value for notifier in rows) == Counter(topic for topic, _ in self.permanent)
        for notifier in rows:
            assert notifier.published == notifier.sent + notifier.unwanted + notifier.dropped
            assert notifier.published == self.tally[notifier.topic.value], f"{notifier} does not add up to {self.tally}"
            if self.ending == "clean" and not self.loses and not notifier.address.startswith("inproc"):
                assert notifier.dropped == 0, f"{notifier} dropped for nobody"
        for one in healthy:
            assert not one.wrong, f"{one.address}: {one.wrong[:5]}"
            assert all(one.next[topic] <= self.tally[topic] for topic in one.next)
        if self.ending == "clean":
            assert stats.journal.events == 0
            assert stats.journal.bytes == 0


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in sys._current_frames().items()
    )


def rounds(seconds: float, seed: int) -> Iterator[Round]:
    """Rounds, until the time is up."""
    rng = random.Random(seed)
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as directory:
        while time.monotonic() < deadline:
            yield Round(rng.randrange(2**32), directory)


@pytest.mark.slow
def test_whatever_happens_nothing_is_lost_and_everything_adds_up() -> None:
    for one in rounds(float(os.environ.get("ZMQPUB_STRESS_SECONDS", "15")), int(os.environ.get("ZMQPUB_STRESS_SEED", "1"))):
        try:
            one.run()
        except BaseException as error:
            raise AssertionError(f"{one}: {error}") from error


def _main() -> int:
    parser = argparse.ArgumentParser(description="Stress a publisher for a while.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--round", type=int, help="only the round of this seed, again and again")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    count = failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for one in rounds(arguments.seconds, arguments.seed):
            this = one if arguments.round is None else Round(arguments.round, directory)
            try:
                this.run()
            except Exception:
                failed += 1
                print(f"FAILED {this}\n{traceback.format_exc()}", flush=True)
            count += 1
    print(f"{count} rounds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(_main())
