"""Publishers are killed, frozen and cut off at random, the consumer pauses at random: whatever comes out has to add up."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import pytest
from raw_publisher import Item, receiving
from remote_publisher import RemotePublisher, free_port

from zmqpub import SequenceLabel, Topic
from zmqpub._fast import Received, Sequence
from zmqpub.testing import Relay

pytestmark = pytest.mark.slow

SECONDS = 8


class Auditor:
    """Holds a stream to its promise: a message is the next of its topic, or what is missing before it was told."""

    def __init__(self) -> None:
        self.next: dict[tuple[int, Topic], int] = {}
        self.connected: dict[int, int] = {}
        self.generation: dict[int, int] = {}
        self.messages = 0
        self.told: dict[str, int] = {}

    def check(self, item: Item, source_of: dict[str, int]) -> None:
        if isinstance(item, Received):
            self._message(item, source_of[item.address])
            return
        kind, source, *rest = item
        self.told[kind] = self.told.get(kind, 0) + 1
        getattr(self, f"_{kind.replace('-', '_')}")(source, *rest)

    def _message(self, item: Received, source: int) -> None:
        self.messages += 1
        assert self.connected.get(source), "a message while there is no connection"
        expected = self.next.get((source, item.topic))
        assert expected in (None, item.counter), f"{item}: expected {expected}"
        self.next[source, item.topic] = item.counter + 1
        if isinstance(item, Sequence):
            assert item.label is SequenceLabel.ADDED
            assert item.mempool_sequence == item.counter + 1, "its publisher numbers them so"

    def _gap(self, source: int, topic: Topic, expected: int, got: int, cause: str) -> None:
        assert cause in ("network", "overflow")
        assert expected < got
        assert self.next.get((source, topic), expected) == expected
        self.next[source, topic] = got

    def _restart(self, source: int, topic: Topic, expected: int, got: int) -> None:
        assert self.next[source, topic] == expected
        assert got < expected
        for one in Topic:
            self.next[source, one] = 0

    def _connected(self, source: int, generation: int, _endpoint: str) -> None:
        assert not self.connected.get(source)
        assert generation > self.generation.get(source, 0)
        self.connected[source], self.generation[source] = 1, generation

    def _disconnected(self, source: int, generation: int) -> None:
        assert self.connected.pop(source)
        assert generation == self.generation[source]

    def _stale(self, _source: int, seconds: float) -> None:
        assert seconds >= 0.5

    def _refused(self, _source: int) -> None:
        """A relay without a publisher behind it."""


class Trouble(threading.Thread):
    """One publisher behind a relay, killed, frozen and cut off at random."""

    def __init__(self, seed: int, relay: Relay, address: str) -> None:
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.relay = relay
        self.address = address
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.published = 0
        self.start()

    def run(self) -> None:
        try:
            while not self.done.is_set():
                with RemotePublisher(self.address) as publisher:
                    self._live(publisher)
        except BaseException as error:
            self.error = error

    def _live(self, publisher: RemotePublisher) -> None:
        for _ in range(self.random.randrange(5, 40)):
            if self.done.is_set():
                return
            transactions = self.random.choice([1, 1, 10, 300, 3000])
            publisher.publish(transactions)
            self.published += 3 * transactions
            trouble = self.random.random()
            if trouble < 0.08:
                self.relay.cut()
            elif trouble < 0.14:
                publisher.stop()
                time.sleep(self.random.choice([0.1, 1.2]))
                publisher.resume()
            time.sleep(self.random.random() * 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("byte_bound", [256 << 20, 200_000])
def test_whatever_comes_out_adds_up(byte_bound: int) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    auditor = Auditor()
    with contextlib.ExitStack() as stack:
        addresses = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
        relays = [stack.enter_context(Relay(to=address)) for address in addresses]
        troubles = [Trouble(rng.randrange(10**6), relay, address) for relay, address in zip(relays, addresses, strict=True)]
        receiver = stack.enter_context(
            receiving(*[relay.address for relay in relays], stale_after=0.5, byte_bound=byte_bound, reconnect_interval_max=0.1)
        )
        source_of = {relay.address: index for index, relay in enumerate(relays)}

        def audit(until: float) -> None:
            while time.monotonic() < until:
                batch = receiver.take(0.1)
                for item in batch or ():
                    auditor.check(item, source_of)
                if rng.random() < 0.05:
                    time.sleep(rng.random() * 0.3)

        audit(time.monotonic() + SECONDS)
        for trouble in troubles:
            trouble.done.set()
        audit(time.monotonic() + 0.5)
        for trouble in troubles:
            trouble.join(20)
            assert trouble.error is None
        stats = receiver.stats()
    assert auditor.messages > 1000
    assert auditor.told["connected"] > 2
    received = sum(source.messages for source in stats.sources)
    assert auditor.messages <= received <= sum(trouble.published for trouble in troubles)
    print(auditor.messages, received, auditor.told)
