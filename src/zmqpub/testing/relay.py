"""A relay between subscribers and a publisher: the network under a test's control, one connection at a time.

It passes bytes on as they are, and on request slowly, not at all, or no longer. What ZeroMQ does about that on either
side is its own doing: nothing here knows the protocol.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeVar

from zmqpub.addresses import Address, parse_address
from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["Relay"]

_Result = TypeVar("_Result")

_CHUNK: Final = 1 << 18
_TICK: Final = 0.02  # seconds between two helpings of a trickle
_CONNECT_WITHIN: Final = 1.0
_ANSWER_WITHIN: Final = 10.0


class Relay:
    """Listens at ``address`` and passes every connection on to ``to``.

    Both are tcp or ipc addresses as Publisher takes them; a port of ``*`` is chosen by the system, and `address` says which
    it became. Without ``to``, or while nothing listens there, a connection is closed as soon as it is accepted.
    Any thread may call any method; each has taken effect when it returns.
    """

    address: str
    """Where it listens, with the real port."""

    def __init__(self, address: str = "tcp://127.0.0.1:*", to: str | None = None) -> None:
        self._listener, self.address = _listen(_parse(address))
        self._to = None if to is None else _parse(to)
        self._rate: float | None = None
        self._pairs: list[_Pair] = []
        self._selector = selectors.DefaultSelector()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._requests: list[Callable[[], None]] = []
        self._ended = False
        self._accepting: socket.socket | None = None
        self._selector.register(self._reader, selectors.EVENT_READ, self._wake)
        self._accept_again()
        self._thread = threading.Thread(target=self._run, name="zmqpub-relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # What a test asks for

    @property
    def connections(self) -> int:
        """Connections that reach the publisher; those that were silenced do not."""
        return self._ask(lambda: sum(not pair.mute for pair in self._pairs))

    def cut(self) -> None:
        """Close all connections, on both sides; new ones are served."""
        self._ask(lambda: self._at_each(self._drop))

    def silence(self) -> None:
        """Let nothing more come through the connections that there are, and do not close them; new ones are served."""
        self._ask(lambda: self._at_each(self._silence))

    def trickle(self, bytes_per_second: float | None) -> None:
        """Pass on so little to each subscriber; 0 holds everything back, None is as fast as it goes, and what waits follows."""
        if bytes_per_second is not None and bytes_per_second < 0:
            raise ValueError(f"a rate is 0 or more bytes a second, not {bytes_per_second}")

        def set_rate() -> None:
            self._rate = bytes_per_second
            now = time.monotonic()
            for pair in self._pairs:
                pair.since, pair.allowance = now, 0.0

        self._ask(set_rate)

    def turn_to(self, address: str | None) -> None:
        """Pass new connections on to ``address``."""
        to = None if address is None else _parse(address)

        def turn() -> None:
            self._to = to

        self._ask(turn)

    def hold_new(self, held: bool = True) -> None:
        """Whether new connections wait, unanswered, until they are let in."""
        self._ask(self._stop_accepting if held else self._accept_again)

    def refuse(self, refused: bool = True) -> None:
        """Whether nothing listens at the address at all; connections that there are stay."""
        self._ask(self._deafen if refused else self._hear_again)

    def wait_until_idle(self, timeout: float) -> bool:
        """Until all connections were closed by their publisher and all that it sent has been passed on; whether they were."""
        deadline = time.monotonic() + timeout
        while self.connections:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def close(self) -> None:
        """Close everything; a second call does nothing."""
        if not self._ended:
            self._ask(self._end)
            self._thread.join()

    # Its thread

    def _ask(self, function: Callable[[], _Result]) -> _Result:
        """Run ``function`` in the relay's thread, which owns all state."""
        if self._ended:
            raise ValueError("the relay was closed")
        results: list[_Result] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                results.append(function())
            except BaseException as error:
                errors.append(error)
            done.set()

        self._requests.append(run)
        self._writer.send(b"\0")
        if not done.wait(_ANSWER_WITHIN):
            raise TimeoutError("the relay's thread does not answer")
        if errors:
            raise errors[0]
        return results[0]

    def _run(self) -> None:
        while not self._ended:
            for pair in self._pairs:
                self._want(pair)
            for key, _ in self._selector.select(_TICK if self._rate else None):
                key.data()
            self._at_each(self._move)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        while self._requests:
            self._requests.pop(0)()

    def _accept(self) -> None:
        if self._accepting is None:
            return
        try:
            subscriber, _ = self._accepting.accept()
        except OSError:  # gone again
            return
        publisher = None if self._to is None else _connect(self._to)
        if publisher is None:
            subscriber.close()
            return
        for each in (subscriber, publisher):
            each.setblocking(False)
        pair = _Pair(subscriber, publisher)
        self._pairs.append(pair)

    def _at_each(self, do: Callable[[_Pair], None]) -> None:
        for pair in list(self._pairs):
            do(pair)

    def _want(self, pair: _Pair) -> None:
        """Register what has to happen next on both sockets of ``pair``."""
        held = self._rate is not None and pair.share(self._rate) == 0
        reading, writing = selectors.EVENT_READ, selectors.EVENT_WRITE
        self._watch(
            pair.subscriber,
            (reading if pair.mute or not pair.up else 0) | (writing if pair.down and not held else 0),
        )
        if not pair.mute:
            self._watch(pair.publisher, (reading if not pair.down and not pair.ended else 0) | (writing if pair.up else 0))

    def _watch(self, one: socket.socket, events: int) -> None:
        known = self._selector.get_map().get(one)
        if not events:
            if known is not None:
                self._selector.unregister(one)
        elif known is None:
            self._selector.register(one, events, _nothing)
        elif known.events != events:
            self._selector.modify(one, events, _nothing)

    def _move(self, pair: _Pair) -> None:
        try:
            if pair.mute:
                while pair.subscriber.recv(_CHUNK):  # taken, and never answered
                    pass
                raise ConnectionError
            pair.carry_up()
            pair.carry_down(self._rate)
        except BlockingIOError:
            return
        except OSError:
            self._drop(pair)

    def _silence(self, pair: _Pair) -> None:
        if not pair.mute:
            pair.mute = True
            pair.down = pair.up = b""
            self._watch(pair.publisher, 0)
            pair.publisher.close()

    def _drop(self, pair: _Pair) -> None:
        for one in (pair.subscriber, pair.publisher):
            if one.fileno() >= 0:
                self._watch(one, 0)
                one.close()
        self._pairs.remove(pair)

    def _accept_again(self) -> None:
        if self._accepting is None:
            self._accepting = self._listener
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._selector.unregister(self._accepting)
            self._accepting = None

    def _deafen(self) -> None:
        self._stop_accepting()
        self._listener.close()
        _remove_socket_file(self.address)

    def _hear_again(self) -> None:
        if self._listener.fileno() < 0:
            self._listener, _ = _listen(_parse(self.address))
        self._accept_again()

    def _end(self) -> None:
        self._at_each(self._drop)
        self._ended = True
        if self._listener.fileno() >= 0:
            self._deafen()
        self._selector.close()
        self._reader.close()
        self._writer.close()


class _Pair:
    """A subscriber's connection, and the one to the publisher that it is passed on to."""

    def __init__(self, subscriber: socket.socket, publisher: socket.socket) -> None:
        self.subscriber = subscriber
        self.publisher = publisher
        self.down: bytes | memoryview = b""
        """Read from the publisher and not yet taken by the subscriber."""
        self.up: bytes | memoryview = b""
        self.ended = False
        """The publisher closed its side; what is in ``down`` is the last."""
        self.mute = False
        self.since = time.monotonic()
        self.allowance = 0.0

    def share(self, rate: float) -> int:
        """How many bytes may pass now at ``rate`` bytes a second."""
        now = time.monotonic()
        self.allowance += (now - self.since) * rate
        self.since = now
        # Who had nothing to say for long does not get to say it all at once.
        self.allowance = min(self.allowance, max(1.0, rate * 5 * _TICK))
        return int(self.allowance)

    def carry_up(self) -> None:
        """From the subscriber to the publisher; ConnectionError once the subscriber is gone."""
        if not self.up:
            try:
                self.up = memoryview(self.subscriber.recv(_CHUNK))
            except BlockingIOError:
                return
            if not self.up:
                raise ConnectionError
        with contextlib.suppress(BlockingIOError):
            self.up = self.up[self.publisher.send(self.up) :]

    def carry_down(self, rate: float | None) -> None:
        """From the publisher to the subscriber; ConnectionError once the publisher is gone and all of it was passed on."""
        if not self.down and not self.ended:
            try:
                self.down = memoryview(self.publisher.recv(_CHUNK))
            except ConnectionError:
                self.ended = True
            else:
                self.ended = not self.down
        if self.down:
            most = len(self.down) if rate is None else self.share(rate)
            if most:
                sent = self.subscriber.send(self.down[:most])
                self.down = self.down[sent:]
                self.allowance -= sent
        if self.ended and not self.down:
            raise ConnectionError


def _nothing() -> None:
    """Readiness ends the wait; what is ready is moved by whoever waited."""


def _parse(text: str) -> Address:
    try:
        address = parse_address(text)
    except ValueError as error:
        raise ConfigError(ConfigProblem("address", text, str(error))) from None
    if address.scheme == "inproc":
        raise ConfigError(ConfigProblem("address", text, "inproc has no connections that could be interfered with; use tcp or ipc"))
    if address.scheme == "ipc" and address.wildcard:
        raise ConfigError(ConfigProblem("address", text, "name the path of the socket"))
    return address


def _unix_name(address: Address) -> str:
    path = address.path or ""
    return "\0" + path[1:] if path.startswith("@") else path


def _listen(address: Address) -> tuple[socket.socket, str]:
    """A listening socket, and the address that it got."""
    if address.scheme == "ipc":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(_unix_name(address))
        listener.listen()
        text = address.endpoint
    else:
        host = "" if address.host in ("*", None) else str(address.host)
        family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
        listener = socket.create_server((host, address.port or 0), family=family)
        shown = f"[{host}]" if address.ipv6 else host or "0.0.0.0"
        text = f"tcp://{shown}:{listener.getsockname()[1]}"
    listener.setblocking(False)
    return listener, text


def _connect(address: Address) -> socket.socket | None:
    """A connection, None when nobody listens."""
    try:
        if address.scheme == "ipc":
            made = socket.socket(socket.AF_UNIX)
            try:
                made.settimeout(_CONNECT_WITHIN)
                made.connect(_unix_name(address))
            except OSError:
                made.close()
                raise
            return made
        made = socket.create_connection((address.host, address.port or 0), _CONNECT_WITHIN)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    except OSError:
        return None


def _remove_socket_file(address: str) -> None:
    parsed = parse_address(address)
    if parsed.scheme == "ipc" and not (parsed.path or "").startswith("@"):
        with contextlib.suppress(OSError):
            os.unlink(parsed.path or "")
