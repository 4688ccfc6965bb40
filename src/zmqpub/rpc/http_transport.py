"""JSON-RPC's texts to a node's HTTP server and back: connections that are kept, credentials, what is worth another attempt."""

from __future__ import annotations

import http.client
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Final

from zmqpub.errors import (
    DisconnectedError,
    IpcConnectError,
    IpcError,
    IpcProtocolError,
    IpcTimeoutError,
    OverloadedError,
    RpcAccessError,
)
from zmqpub.rpc.calls import says_warmup
from zmqpub.rpc.credentials import CookieError, Credentials
from zmqpub.rpc.http_connection import Answer, Connection, Deadline, TooLargeError, UndeliveredError
from zmqpub.rpc.http_url import Place

__all__ = ["HttpTransport", "Ticket"]

_MOST_IDLE: Final = 8
"""Connections that are kept: a node has 16 threads for them, and other clients."""
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0
_NOTHING: Final = b"null"
"""The answer to a notification, as over IPC."""


class Ticket:
    """A request, as long as it is under way: another thread may cancel it."""

    def __init__(self) -> None:
        # Reentrant, as that of the transport: the garbage collector may close what it collects while its own thread holds one.
        self._lock = threading.RLock()
        self._cancelled = threading.Event()
        self._connection: Connection | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Whoever is in it gets DisconnectedError; what the node does goes on there."""
        self._cancelled.set()
        with self._lock:
            if self._connection is not None:
                self._connection.abort()

    def use(self, connection: Connection | None) -> None:
        with self._lock:
            self._connection = connection
            if connection is not None and self._cancelled.is_set():
                connection.abort()

    def sleep(self, seconds: float) -> None:
        self._cancelled.wait(seconds)


class HttpTransport:
    """Every method may be called from any thread; requests of several threads go over several connections. Survives a fork."""

    def __init__(self, place: Place, credentials: Credentials, timeout: float, most: int) -> None:
        self.address = place.url
        self.closed = False
        self._place = place
        self._credentials = credentials
        self._timeout = timeout
        self._most = most
        self._children: weakref.WeakSet[HttpTransport] = weakref.WeakSet()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._idle: list[Connection] = []
        self._under_way: set[Ticket] = set()

    def __str__(self) -> str:
        return f"{self.address}, with {self._credentials}"

    def another(self) -> HttpTransport:
        """One like this, with connections of its own, that is closed with this one."""
        self._after_fork()
        child = HttpTransport(self._place, self._credentials, self._timeout, self._most)
        with self._lock:
            self._children.add(child)
            child.closed = self.closed
        return child

    def deadline(self, timeout: float | None) -> Deadline:
        """ValueError for what is no number of seconds."""
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout: expected a number of seconds, 0 or more, got {timeout!r}")
        return Deadline(self._timeout if timeout is None else timeout)

    def close(self) -> None:
        """Calls that other threads are in fail with DisconnectedError. A second close() does nothing."""
        self._after_fork()
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
            under_way, children = list(self._under_way), list(self._children)
        for ticket in under_way:
            ticket.cancel()
        for connection in idle:
            connection.close()
        for child in children:
            child.close()

    def __del__(self) -> None:
        # Nobody is in it any more. Without its connections the node has its threads back.
        for connection in getattr(self, "_idle", ()):
            connection.close()

    # ---- requests ----

    def post(self, request: str, uri: str, method: str, deadline: Deadline, ticket: Ticket | None = None) -> bytes:
        """The body of the answer to ``request``, at least in the beginning JSON. ``method`` is for errors.

        While the node has too much to do, or is starting, it is asked again until the deadline: neither has done anything. Then
        raises OverloadedError, or returns what says that the node is starting. Other errors are those of `HttpRpc`.
        """
        self._after_fork()
        ticket = ticket or Ticket()
        with self._lock:
            self._under_way.add(ticket)
        try:
            body, target = request.encode(), self._place.target(uri)
            for delay in _delays():
                answer = self._admitted(target, body, method, deadline, ticket)
                overloaded = answer.status == 503
                if not overloaded and not says_warmup(answer.body):
                    return self._read(answer, method)
                if deadline.left() <= delay:
                    if overloaded:
                        cause = f"the node has too much to do, or is shutting down (HTTP 503, {_words(answer)})"
                        raise OverloadedError(self.address, "Rpc", method, cause)
                    return answer.body
                ticket.sleep(delay)
            raise AssertionError("delays have an end")
        finally:
            with self._lock:
                self._under_way.discard(ticket)

    def _admitted(self, target: str, body: bytes, method: str, deadline: Deadline, ticket: Ticket) -> Answer:
        """With credentials, read again where those were of the node's last life."""
        while True:
            try:
                authorization = self._credentials.authorization()
            except CookieError as error:
                cause = str(error)
            else:
                headers = {"Content-Type": "application/json"}
                if authorization is not None:
                    headers["Authorization"] = authorization
                answer = self._exchanged(target, body, headers, method, deadline, ticket)
                if answer.status == 401:
                    if self._credentials.changed(authorization):
                        continue
                    raise RpcAccessError(self.address, "Rpc", method, f"the node does not accept {self._credentials} (HTTP 401)", 401)
                if answer.status == 403:
                    cause = f"the node does not allow it with {self._credentials} (HTTP 403): see its -rpcallowip and -rpcwhitelist"
                    raise RpcAccessError(self.address, "Rpc", method, cause, 403)
                return answer
            raise RpcAccessError(self.address, "Rpc", method, cause)

    def _exchanged(self, target: str, body: bytes, headers: dict[str, str], method: str, deadline: Deadline, ticket: Ticket) -> Answer:
        """Over a connection that is there, or a new one."""
        while True:
            if self.closed or ticket.cancelled:
                raise self._failure(ConnectionError(), method, deadline, ticket)
            connection = self._kept()
            is_new = connection is None
            try:
                if connection is None:
                    connection = self._connect(method, deadline)
                ticket.use(connection)
                try:
                    answer = connection.ask(target, body, headers, deadline, self._most)
                finally:
                    ticket.use(None)
                self._keep(connection)
                connection = None
                return answer
            except UndeliveredError as error:
                if not is_new and not ticket.cancelled:
                    continue
                trouble: Exception = error
            except (OSError, http.client.HTTPException, ValueError, TooLargeError) as error:
                if isinstance(error, IpcError):
                    raise
                trouble = error
            finally:
                if connection is not None:
                    connection.close()
            raise self._failure(trouble, method, deadline, ticket) from None

    def _connect(self, method: str, deadline: Deadline) -> Connection:
        try:
            return Connection(self._place.host, self._place.port, deadline)
        except TimeoutError as error:
            if deadline.left() <= 0 or error.errno is None:
                raise
            trouble: OSError = error
        except OSError as error:
            trouble = error
        words = trouble.strerror or str(trouble)
        failure = IpcConnectError(self.address, "Rpc", method, f"cannot connect: {words}; does a node with -server=1 listen there?")
        failure.errno = trouble.errno
        raise failure from None

    def _failure(self, trouble: Exception, method: str, deadline: Deadline, ticket: Ticket) -> IpcError:
        address = self.address
        if self.closed:
            return DisconnectedError(address, "Rpc", method, "the connection was closed")
        if ticket.cancelled:
            return DisconnectedError(address, "Rpc", method, "the call was cancelled")
        if isinstance(trouble, TimeoutError):
            return IpcTimeoutError(address, "Rpc", method, f"no answer within {deadline.seconds:g} s")
        if isinstance(trouble, TooLargeError):
            return IpcProtocolError(address, "Rpc", method, f"the answer has {trouble}: see max_answer_bytes")
        if isinstance(trouble, http.client.IncompleteRead | OSError):
            cause = "the connection was lost before the answer was there; what was asked may have been done"
            return DisconnectedError(address, "Rpc", method, cause)
        return IpcProtocolError(address, "Rpc", method, f"what answers is no HTTP server: {type(trouble).__name__} {str(trouble)[:80]!r}")

    def _read(self, answer: Answer, method: str) -> bytes:
        """What was answered, whatever HTTP's status: a node has errors of JSON-RPC 1.0 with 400, 404 and 500."""
        status, body = answer.status, answer.body
        if status == 204:
            return _NOTHING
        if status == 200 or (status >= 400 and body.lstrip()[:1] in (b"{", b"[")):
            return body
        if 300 <= status < 400:
            cause = f"HTTP {status}: it sends us elsewhere, and we do not follow"
        else:
            cause = f"no answer of JSON-RPC: HTTP {status}, {_words(answer)}"
        raise IpcProtocolError(self.address, "Rpc", method, cause)

    # ---- connections ----

    def _after_fork(self) -> None:
        """In a child the connections are the parent's: letting them go does not end them."""
        if os.getpid() != self._process:
            for connection in self._idle:
                connection.close()
            self._begin()

    def _kept(self) -> Connection | None:
        while True:
            with self._lock:
                if self.closed:
                    return None
                connection = self._idle.pop() if self._idle else None
            if connection is None or connection.usable():
                return connection
            connection.close()

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            if not self.closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()


def _delays() -> Iterator[float]:
    delay = _FIRST_DELAY
    while True:
        yield delay
        delay = min(2 * delay, _LONGEST_DELAY)


def _words(answer: Answer) -> str:
    """What the server says, in a line."""
    text = answer.body[:200].decode(errors="replace").strip().partition("\n")[0]
    return repr(text or answer.reason)
