"""One address of a publisher that misbehaves: its socket, the relay before it, its counters, its subscriptions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import zmq

from zmqpub.config import EndpointConfig
from zmqpub.errors import BindError
from zmqpub.testing.relay import Relay
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["Outlet", "pack_counter"]

_SEND_WITHIN: Final = 10_000  # milliseconds that a socket may take to give away what it holds, at its end
_PASSED_ON_WITHIN: Final = 1.0
_KNOWN_WITHIN: Final = 2.0


class Outlet:
    """``config``'s notifiers on an XPUB socket with no high-water mark, behind a relay at the address that was asked for."""

    def __init__(self, context: zmq.Context[Any], config: EndpointConfig) -> None:
        self._context = context
        self.counters = {notifier.topic: 0 for notifier in config.notifiers}
        """Of the next message, for each topic that is published here."""
        try:
            self.relay = Relay(config.endpoint)
        except OSError as error:
            raise BindError(config.option, config.address, error.errno or 0) from None
        self._last: dict[Topic, tuple[bytes, ...]] = {}
        self._subscriptions: Counter[bytes] = Counter()
        self._socket: zmq.Socket[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        """With the real port."""
        return self.relay.address

    # Sending

    def send(self, topic: Topic, body: bytes) -> int:
        """A message; the counter that it was sent with."""
        counter = self.pass_over(topic)
        frames = (topic.frame, body, pack_counter(counter))
        self.send_frames(frames)
        self._last[topic] = frames
        return counter

    def pass_over(self, topic: Topic, messages: int = 1) -> int:
        """Count ``messages`` that are not sent; the counter of the first."""
        counter = self.counters[topic]
        self.counters[topic] = (counter + messages) % COUNTER_MODULUS
        return counter

    def repeat(self, topic: Topic) -> None:
        """The last message of ``topic`` once more, counter included."""
        if topic not in self._last:
            raise ValueError(f"no {topic} message was sent at {self.address} that could be repeated")
        self.send_frames(self._last[topic])

    def send_frames(self, frames: Sequence[bytes]) -> None:
        """Whatever ``frames`` are: they reach who subscribed to what the first begins with."""
        if self._socket is None:
            raise ValueError(f"{self.address} is stopped: start() it, or restart()")
        self._socket.send_multipart(frames)

    # Subscribers

    def lacking(self, topics: Collection[Topic], count: int) -> list[Topic]:
        """Those of ``topics`` that are published here and have fewer than ``count`` subscriptions."""
        self._take_subscriptions()
        return [topic for topic in topics if topic in self.counters and self._subscribed(topic) < count]

    def _subscribed(self, topic: Topic) -> int:
        return sum(count for prefix, count in self._subscriptions.items() if topic.frame.startswith(prefix))

    def _take_subscriptions(self) -> None:
        while self._socket is not None and self._socket.poll(0):
            message = self._socket.recv()
            self._subscriptions[message[1:]] += 1 if message[:1] == b"\x01" else -1

    # The network

    def silence(self) -> None:
        """Let the connections that there are go dead."""
        self._sever(self.relay.silence)

    def disconnect(self) -> None:
        """Close the connections that there are."""
        self._sever(self.relay.cut)

    def _sever(self, sever: Callable[[], None]) -> None:
        """Let nobody in until the socket knows that those before are gone: they are counted."""
        self.relay.hold_new()
        sever()
        deadline = time.monotonic() + _KNOWN_WITHIN
        while self._socket is not None and any(self._subscriptions.values()) and time.monotonic() < deadline:
            self._take_subscriptions()
            time.sleep(0.001)
        self.relay.hold_new(False)

    # Beginning and end

    def start(self) -> None:
        """Bind a socket and let subscribers in; nothing if that was done already."""
        if self._socket is not None:
            return
        made: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        # What was not asked to be lost must not be.
        made.sndhwm = 0
        # Every subscription and every end of one, not only the first and the last: they are counted.
        made.set(zmq.XPUB_VERBOSER, 1)
        made.bind("tcp://127.0.0.1:*")
        self._socket = made
        self.relay.turn_to(bytes(made.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode())
        self.relay.refuse(False)

    def stop(self, *, refuse: bool = True) -> None:
        """Close the socket after what it holds was sent. New connections are refused, or wait; silenced ones stay."""
        if self._socket is None:
            return
        if refuse:
            self.relay.refuse()
        else:
            self.relay.hold_new()
        self._socket.close(_SEND_WITHIN)
        self._socket = None
        self._subscriptions.clear()
        if not self.relay.wait_until_idle(_PASSED_ON_WITHIN):  # a trickle, or a subscriber that does not read
            self.relay.cut()

    def reset(self) -> None:
        """Forget what was counted and sent."""
        self.counters = dict.fromkeys(self.counters, 0)
        self._last.clear()

    def close(self) -> None:
        """Let nothing be left, at once."""
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
        self.relay.close()


def pack_counter(counter: int) -> bytes:
    """A third frame."""
    return counter.to_bytes(4, "little")
