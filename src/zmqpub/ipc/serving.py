"""Plain objects served to peers: the sockets that listen, the connections that come from them, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from types import TracebackType
from typing import Final

from zmqpub.errors import ClosedError, ForkedError, IpcConnectError
from zmqpub.ipc.errors_out import log, refusal_of
from zmqpub.ipc.incoming import AFTER_CANCEL, Connection
from zmqpub.ipc.limits import Limits
from zmqpub.ipc.loop import KjLoop, LoopThread

__all__ = ["Listener", "Server", "serve_connection"]

_REFUSALS_AT_ONCE: Final = 16
"""Connections over the limit that are kept for as long as it takes to say so."""
_ACCEPTS_AT_ONCE: Final = 64
_ACCEPT_PAUSE: Final = 0.5
"""Seconds without accepting when this process has no descriptors left."""


class Server:
    """Sockets that listen, and the connections that came from them. For the loop's thread only."""

    def __init__(self, kj: KjLoop, limits: Limits) -> None:
        self._kj = kj
        self._limits = limits
        self._connections: set[Connection] = set()
        self._refused = 0
        self._listening: dict[int, tuple[socket.socket, object, str]] = {}
        self._closed = False
        self.accepted = 0

    @property
    def connections(self) -> int:
        return len(self._connections)

    def listen(self, sock: socket.socket, init: object, address: str) -> None:
        sock.setblocking(False)
        self._listening[sock.fileno()] = sock, init, address
        self._kj.listening.add(sock)
        self._kj.loop.add_reader(sock.fileno(), self._accept, sock, init, address)

    def _accept(self, sock: socket.socket, init: object, address: str) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                accepted, _ = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError as error:
                log.warning("IPC: %s: cannot accept: %s", address, error.strerror)
                self._kj.loop.remove_reader(sock.fileno())
                self._kj.loop.call_later(_ACCEPT_PAUSE, self._accept_again, sock.fileno())
                return
            self.accepted += 1
            try:
                self.add(accepted, init, address)
            except Exception as error:
                accepted.close()
                refusal_of(error, f"accepting a peer at {address}")

    def _accept_again(self, fd: int) -> None:
        if fd in self._listening:
            self._kj.loop.add_reader(fd, self._accept, *self._listening[fd])

    def add(self, sock: socket.socket, init: object, address: str) -> Connection | None:
        """Serve a connected socket, which belongs to this from here on; None where even a refusal is too much."""
        refused = None
        if len(self._connections) >= self._limits.max_connections:
            if self._refused >= _REFUSALS_AT_ONCE:
                sock.close()
                return None
            refused = f"{len(self._connections)} peers are connected, which is the limit"
            self._refused += 1
        connection = Connection(self._kj, sock, address, init, self._limits, self._gone, refused)
        if refused is None:
            self._connections.add(connection)
        return connection

    def _gone(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        else:
            self._refused -= 1

    def stop_listening(self) -> None:
        for fd, (sock, _, _) in self._listening.items():
            self._kj.loop.remove_reader(fd)
            self._kj.listening.discard(sock)
            sock.close()
        self._listening.clear()

    async def disconnect_incoming(self) -> None:
        """End the connections that there are, at once."""
        gone = [connection.closed for connection in self._connections]
        for connection in list(self._connections):
            connection.close()
        if gone:
            await asyncio.wait(gone)

    async def close(self, grace: float | None = None) -> None:
        self.stop_listening()
        connections = list(self._connections)
        grace = self._limits.grace if grace is None else grace
        if connections:
            await asyncio.gather(*(connection.drain(grace) for connection in connections))
            _, pending = await asyncio.wait([connection.closed for connection in connections], timeout=AFTER_CANCEL)
            if pending:
                for connection in connections:
                    connection.abort()
                await asyncio.wait(pending)


class Listener:
    """A plain object, served in the background to whoever connects. Any thread may call any method; a context manager."""

    def __init__(self, sock: socket.socket, init: object, *, address: str, limits: Limits | None = None) -> None:
        """``sock``: bound and listening; it belongs to this from here on. ``init``: see `zmqpub.interfaces.Init`. Methods that are
        ``async`` or marked `zmqpub.ipc.inline` run in zmqpub's own event loop, others in threads of their own."""
        self.address = address
        self._thread = LoopThread.shared()
        self._server: Server = self._thread.call(_make_server, self._thread.kj, limits or Limits())
        self._lock = threading.Lock()
        self._thread.call(_listen, self._server, sock, init, address)

    @property
    def connections(self) -> int:
        """How many peers are connected."""
        return self._server.connections

    def disconnect_incoming(self) -> None:
        """End the connections that there are; new ones are accepted."""
        self._thread.call(self._server.disconnect_incoming)

    def close(self, grace: float | None = None) -> None:
        """Stop listening, give calls under way ``grace`` seconds (`Limits.grace`), cancel them, and end all connections."""
        with self._lock:
            # Where the loop has ended its connections have, too; and in a forked child they are another process's.
            with contextlib.suppress(ClosedError, ForkedError):
                self._thread.call(self._server.close, grace)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


async def _make_server(kj: KjLoop, limits: Limits) -> Server:
    return Server(kj, limits)


async def _listen(server: Server, sock: socket.socket, init: object, address: str) -> None:
    server.listen(sock, init, address)


def serve_connection(sock: socket.socket, init: object, *, address: str, limits: Limits | None = None) -> None:
    """Serve ``init`` to the peer at the other end of ``sock``, which belongs to this from here on; returns when the peer has gone."""
    thread = LoopThread.shared()
    thread.call(_serve_one, thread.kj, sock, init, address, limits or Limits())


async def _serve_one(kj: KjLoop, sock: socket.socket, init: object, address: str, limits: Limits) -> None:
    server = Server(kj, limits)
    connection = server.add(sock, init, address)
    if connection is None:
        raise IpcConnectError(address, None, None, "no connection is allowed")
    try:
        await asyncio.shield(connection.closed)
    except asyncio.CancelledError:
        connection.abort()
        raise
