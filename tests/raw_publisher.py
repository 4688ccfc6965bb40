"""A bare XPUB socket under a test's control: it sends whatever frames it is told to. And what a receiver makes of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import zmq

from zmqpub._fast import Batch, Received, Receiver
from zmqpub.wire import Topic

TOPICS = tuple(Topic)
ALL = 0b11111
HASHBLOCK, HASHTX, RAWBLOCK, RAWTX, SEQUENCE = range(5)

Item = Received | tuple[Any, ...]


def counted(number: int) -> bytes:
    return (number % 2**32).to_bytes(4, "little")


class RawPublisher:
    """Use as a context manager. ``address``: as bound, with the real port."""

    def __init__(self, address: str = "tcp://127.0.0.1:*", context: zmq.Context[Any] | None = None) -> None:
        self._own = context is None
        self.context = context or zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.socket.sndhwm = 0
        self.socket.linger = 0
        self.socket.bind(address)
        self.address = self.socket.get_string(zmq.LAST_ENDPOINT)
        self.subscriptions: list[bytes] = []

    def __enter__(self) -> RawPublisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close(0)
        if self._own:
            self.context.term()

    def wait_subscribed(self, topics: int = ALL, timeout: float = 10.0) -> None:
        """Until one more subscription to each of the topics (as bits) came."""
        wanted = {TOPICS[i].frame for i in range(5) if topics & 1 << i}
        while wanted:
            if not self.socket.poll(int(timeout * 1000)):
                raise AssertionError(f"no subscription to {wanted} within {timeout} s")
            message = self.socket.recv()
            self.subscriptions.append(message)
            if message[:1] == b"\1":
                wanted.discard(message[1:])

    def send(self, topic: int | bytes, body: bytes, counter: int) -> None:
        frame = TOPICS[topic].frame if isinstance(topic, int) else topic
        self.socket.send_multipart([frame, body, counted(counter)])

    def send_frames(self, *frames: bytes) -> None:
        self.socket.send_multipart(list(frames))


@contextlib.contextmanager
def receiving(
    *addresses: str,
    topics: int = ALL,
    expected: Mapping[int, int] | None = None,
    context: zmq.Context[Any] | None = None,
    **settings: Any,
) -> Iterator[Receiver]:
    """A Receiver of these addresses, closed at the end, as is its context."""
    own = context or zmq.Context()
    settings.setdefault("reconnect_interval", 0.02)
    receiver = Receiver([(address, address, False, topics, expected or {}) for address in addresses], context=own, **settings)
    try:
        yield receiver
    finally:
        receiver.close()
        if context is None:
            own.term()


def items_of(batches: Iterable[Batch]) -> list[Item]:
    return [item for batch in batches for item in batch]


def take_until(receiver: Receiver, enough: Callable[[list[Item]], Any], timeout: float = 15.0) -> list[Item]:
    """Take until ``enough`` of all items so far is true; all items."""
    items: list[Item] = []
    deadline = time.monotonic() + timeout
    while not enough(items):
        batch = receiver.take(max(0.0, deadline - time.monotonic()))
        if batch is None:
            raise AssertionError(f"not enough within {timeout} s: {items}")
        items += batch
    return items


def take_count(receiver: Receiver, count: int, timeout: float = 15.0) -> list[Item]:
    """Take until there are ``count`` items, those about connections aside; those items."""
    return without_connections(take_until(receiver, lambda items: len(without_connections(items)) >= count, timeout))


def take_all(receiver: Receiver, quiet: float = 0.3) -> list[Item]:
    """What comes until it is quiet for a while."""
    items: list[Item] = []
    while (batch := receiver.take(quiet)) is not None:
        items += batch
    return items


def without_connections(items: Iterable[Item]) -> list[Item]:
    return [item for item in items if not (isinstance(item, tuple) and item[0] in ("connected", "disconnected"))]


def events(items: Iterable[Item], kind: str | None = None) -> list[tuple[Any, ...]]:
    return [item for item in items if isinstance(item, tuple) and (kind is None or item[0] == kind)]


def messages(items: Iterable[Item]) -> list[Received]:
    return [item for item in items if isinstance(item, Received)]


def wait_connected(receiver: Receiver, source: int = 0, generation: int = 1, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not (receiver.connected(source) and receiver.generation(source) >= generation):
        if time.monotonic() > deadline:
            raise AssertionError(f"no connection {generation} within {timeout} s")
        time.sleep(0.002)
