"""One HTTP connection: a request goes out, an answer comes in, and all of it within a deadline, however slowly it drips."""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
from time import monotonic
from typing import Any, Final, NamedTuple

__all__ = ["Answer", "Connection", "Deadline", "TooLargeError", "UndeliveredError"]

_IDLE: Final = 20.0
"""Seconds for which a connection is kept without use: a node closes it after 30 (-rpcservertimeout)."""
_PIECE: Final = 1 << 20


class TooLargeError(Exception):
    """An answer of more bytes than are wanted; the text says how many these are."""


class UndeliveredError(ConnectionError):
    """The connection ended before the request had been sent, and nothing was answered: nothing can have been done."""


class Deadline:
    """A moment until when something is to be done, ``seconds`` (maybe math.inf) from now."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds

    def left(self) -> float:
        """Seconds; less than 0 when it is over."""
        return self._end - monotonic()

    def timeout(self) -> float | None:
        """… as a socket takes them. Raises TimeoutError when it is over."""
        left = self.left()
        if left <= 0:
            raise TimeoutError
        # A socket cannot count to infinity, nor much further than a month.
        return None if left == math.inf else min(left, 2e6)


class Answer(NamedTuple):
    status: int
    """HTTP's."""
    reason: str
    body: bytes


class _Socket(socket.socket):
    """One whose every operation ends at the deadline. http.client reads through recv_into and writes through sendall."""

    deadline = Deadline(math.inf)

    def recv_into(self, *args: Any, **keywords: Any) -> int:
        self.settimeout(self.deadline.timeout())
        return super().recv_into(*args, **keywords)

    def sendall(self, *args: Any, **keywords: Any) -> None:
        self.settimeout(self.deadline.timeout())
        super().sendall(*args, **keywords)


class Connection:
    """A connection that is kept from one request to the next. One thread at a time, but for abort()."""

    def __init__(self, host: str, port: int, deadline: Deadline) -> None:
        """Connect. Raises OSError, TimeoutError among them."""
        self._socket = _connected(host, port, deadline)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._http = http.client.HTTPConnection(host, port)
        self._http.auto_open = 0
        self._http.sock = self._socket
        self._used = monotonic()
        self._whole = True
        """Nothing is left of a request or an answer."""

    def usable(self) -> bool:
        """Can it take another request, as far as one can know?"""
        if not self._whole or self._http.sock is None or monotonic() - self._used > _IDLE:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # its end, or what nobody has asked for

    def ask(self, target: str, body: bytes, headers: dict[str, str], deadline: Deadline, most: int) -> Answer:
        """POST. Raises OSError, http.client.HTTPException, TooLargeError; the connection is of no use then."""
        self._whole = False
        self._socket.deadline = deadline
        undelivered: OSError | None = None
        try:
            self._http.request("POST", target, body, headers)
        except ConnectionError as error:
            undelivered = error  # who refuses a request may say so before having read it
        try:
            response = self._http.getresponse()
        except (ConnectionError, http.client.HTTPException):
            if undelivered is not None:
                raise UndeliveredError(undelivered.errno, undelivered.strerror) from None
            raise
        with response:  # it keeps the socket open, whatever becomes of the rest
            body = _body(response, most)
        self._whole = undelivered is None
        self._used = monotonic()
        return Answer(response.status, response.reason, body)

    def abort(self) -> None:
        """End whatever another thread is in, with an error."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._http.close()
        self._socket.close()


def _connected(host: str, port: int, deadline: Deadline) -> _Socket:
    """As socket.create_connection(), but with one deadline for all addresses of the host, where that has one for each."""
    trouble = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            connecting = _Socket(family, kind, protocol)
        except OSError as error:  # the system has no IPv6
            trouble = error
            continue
        try:
            connecting.settimeout(deadline.timeout())
            connecting.connect(address)
        except OSError as error:
            connecting.close()
            trouble = error
        else:
            return connecting
    raise trouble


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
    announced = response.length
    if announced is not None and announced > most:
        raise TooLargeError(f"{announced:,} bytes, and at most {most:,} are taken")
    pieces = []
    size = 0
    while piece := response.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise TooLargeError(f"more than {most:,} bytes")
    if response.length:  # http.client does not tell
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)
