"""Subscriptions to any publishers: messages, and connections that come and go."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from zmqpub.addresses import Address, parse_address
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.wire import Topic

__all__ = ["Link", "LinkState", "Receiver", "parse_publisher"]

_MOST_IN_A_ROW: Final = 1000  # messages of one address before the others have their turn
_LONGEST_WAIT: Final = 3600.0  # of one poll; libzmq counts milliseconds in an int
_KEEPALIVE: Final = ((zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 30), (zmq.TCP_KEEPALIVE_INTVL, 10), (zmq.TCP_KEEPALIVE_CNT, 3))


class LinkState(str, enum.Enum):
    """How a connection stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    """… and being made anew."""
    REFUSED = "refused"
    """Something listens there that speaks no ZeroMQ, or not with us."""


_STATES: Final[dict[int, LinkState]] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: LinkState.CONNECTED,
    zmq.EVENT_DISCONNECTED: LinkState.DISCONNECTED,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: LinkState.REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: LinkState.REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: LinkState.REFUSED,
}


def parse_publisher(text: str) -> Address:
    """The address of a publisher to connect to; ConfigError for what can only be bound."""
    try:
        address = parse_address(text)
    except ValueError as error:
        raise ConfigError(ConfigProblem("ADDRESS", text, str(error))) from None
    problem = ""
    if address.scheme == "inproc":
        problem = "inproc exists within one process only; nobody else can listen to it"
    elif address.wildcard:
        problem = "the real port (or path) is needed: the publisher reports it"
    elif address.host == "*":
        problem = f"the publisher's host is needed, as in tcp://127.0.0.1:{address.port}"
    if problem:
        raise ConfigError(ConfigProblem("ADDRESS", text, problem))
    return address


class Link:
    """One address and the socket that is connected to it."""

    def __init__(self, context: zmq.Context[Any], address: Address, topics: Sequence[Topic]) -> None:
        self.address = address.text
        self.state = LinkState.CONNECTING
        self.connections = 0
        """How often it was connected."""
        self.socket: zmq.Socket[Any] = context.socket(zmq.SUB)
        self.socket.linger = 0
        # Whatever is missing must have been lost elsewhere.
        self.socket.rcvhwm = 0
        for option, value in _KEEPALIVE:
            self.socket.setsockopt(option, value)
        if address.ipv6:
            self.socket.setsockopt(zmq.IPV6, 1)
        for topic in topics:
            self.socket.subscribe(topic.frame)
        self.monitor: zmq.Socket[Any] = self.socket.get_monitor_socket(sum(_STATES))
        try:
            self.socket.connect(address.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(ConfigProblem("ADDRESS", address.text, f"cannot connect: {error.strerror}")) from None

    def close(self) -> None:
        """Close both sockets."""
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()

    def changes(self) -> Iterator[LinkState]:
        """New states since the last call."""
        while True:
            try:
                message = recv_monitor_message(self.monitor, zmq.DONTWAIT)
            except zmq.Again:
                return
            state = _STATES.get(message["event"])
            # A refusal is followed by a disconnection that says less; and both come with every new attempt.
            moot = state is LinkState.DISCONNECTED and self.state is not LinkState.CONNECTED
            if state is None or state is self.state or moot:
                continue
            self.state = state
            self.connections += state is LinkState.CONNECTED
            yield state


class Receiver:
    """Subscriptions to ``topics`` at each of ``addresses``. ``context``: a zmq.Context to use, by default one of its own."""

    def __init__(self, addresses: Sequence[Address], topics: Sequence[Topic], *, context: zmq.Context[Any] | None = None) -> None:
        self._own_context = context is None
        self._context: zmq.Context[Any] = zmq.Context() if context is None else context
        self.links: list[Link] = []
        self._poller = zmq.Poller()
        try:
            for address in addresses:
                link = Link(self._context, address, topics)
                self.links.append(link)
                self._poller.register(link.socket, zmq.POLLIN)
                self._poller.register(link.monitor, zmq.POLLIN)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets."""
        for link in self.links:
            link.close()
        self.links.clear()
        if self._own_context:
            self._context.destroy(linger=0)

    def watch(self, descriptor: int) -> None:
        """Let `receive` return, too, when ``descriptor`` becomes readable."""
        self._poller.register(descriptor, zmq.POLLIN)

    def receive(self, seconds: float) -> Iterator[tuple[Link, list[bytes] | LinkState]]:
        """What is there, after waiting for it at most ``seconds``: frames of messages, and changes of connections."""
        if not self._poller.poll(max(0, math.ceil(min(seconds, _LONGEST_WAIT) * 1000))):
            return
        for link in self.links:
            for state in link.changes():
                yield link, state
            for _ in range(_MOST_IN_A_ROW):
                try:
                    frames: list[bytes] = link.socket.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                yield link, frames
