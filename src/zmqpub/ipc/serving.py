"""Plain objects served to peers: connections, what each of them may take, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import capnp

from zmqpub.errors import ClosedError, ForkedError, IpcConnectError
from zmqpub.ipc.errors_out import FAILED, OVERLOADED, Refusal, log, refusal_of, rewrite_exception
from zmqpub.ipc.handling import ASYNC, INLINE, Call, Lane, kind_of, run_async
from zmqpub.ipc.limits import Limits
from zmqpub.ipc.loop import KjLoop, LoopThread
from zmqpub.ipc.servants import SHUTDOWN, InitServant
from zmqpub.ipc.transport import SocketTransport, open_stream

__all__ = ["Connection", "Listener", "Server", "serve_connection"]

_REFUSALS_AT_ONCE: Final = 16
"""Connections over the limit that are kept for as long as it takes to say so."""
_REFUSAL_PATIENCE: Final = 1.0
_AFTER_CANCEL: Final = 1.0
"""Seconds in which calls that were cancelled at the end may still answer."""
_ACCEPTS_AT_ONCE: Final = 64
_ACCEPT_PAUSE: Final = 0.5
"""Seconds without accepting when this process has no descriptors left."""

_numbers = itertools.count(-1, -1)
"""Of connections that are served, in the loop's table: apart from those of clients."""
_thread_numbers = itertools.count(1)


class Connection:
    """One peer. For the loop's thread only."""

    def __init__(
        self,
        kj: KjLoop,
        sock: socket.socket,
        address: str,
        init: object,
        limits: Limits,
        on_closed: Callable[[Connection], None],
        refused: str | None = None,
    ) -> None:
        self.address = address
        self.limits = limits
        self.refused = refused
        """Why every call is refused, where it is."""
        self._one_too_many = refused is not None
        self.greeted = False
        self.calls = 0
        self.objects = 0
        self.closed: asyncio.Future[None] = kj.loop.create_future()
        self._kj = kj
        self._number = next(_numbers)
        self._on_closed = on_closed
        self._under_way: dict[Call, asyncio.Task[Any] | None] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._lanes: dict[str, Lane] = {}
        self._pool: list[Lane] = []
        self._threads = 0
        self._asking = 0
        self._janitor: Lane | None = None
        self._fd = sock.fileno()
        self._transport = SocketTransport(kj.loop, sock, on_lost=self._lost, stop_reading_when_full=True)
        self._transport.rewrite = rewrite_exception
        self._server = capnp.TwoPartyServer(
            open_stream(self._transport), bootstrap=InitServant(self, init), traversal_limit_in_words=limits.max_message_bytes // 8
        )
        self._disconnected = self._server.on_disconnect()
        self._disconnected.add_done_callback(self._protocol_ended)
        kj.connections[self._number] = self
        patience = _REFUSAL_PATIENCE if refused is not None else limits.handshake_timeout
        self._greeting = kj.loop.call_later(patience, self._check_greeting)
        self._watching = kj.loop.call_later(limits.message_timeout, self._watch, 0)

    # ---- calls ----

    def begin(self, call: Call) -> None:
        self.calls += 1
        self._idle.clear()
        self._under_way[call] = asyncio.current_task()

    def forget_task(self, call: Call) -> None:
        """The peer waits no longer, but the handler's thread is still in it."""
        if call in self._under_way:
            self._under_way[call] = None

    def end(self, call: Call) -> None:
        del self._under_way[call]
        self.calls -= 1
        if not self.calls:
            self._idle.set()

    def refuse(self) -> Refusal:
        if self._one_too_many:
            # Once it has been told.
            self._kj.loop.call_later(0.1, self.close)
        return Refusal(OVERLOADED, self.refused or "the server is shutting down")

    def room_for_object(self) -> Refusal | None:
        if self.objects < self.limits.max_objects:
            return None
        return Refusal(OVERLOADED, f"this connection holds {self.objects} objects, which is the limit")

    def clean_up(self, method: Any, name: str) -> None:
        """Call an object's destroy() after its last use, where it may take its time."""
        call = Call(*name.split("."))
        kind = kind_of(method)
        if kind == ASYNC:
            self._kj.start(run_async(call, method, ()))
        elif kind == INLINE:
            self._kj.loop.call_soon(_quietly, name, method)
        else:
            if self._janitor is None:
                self._janitor = Lane(f"zmqpub-ipc-cleanup-{-self._number}")
            janitor = self._janitor
            janitor.busy = True
            janitor.run(call, method, (), janitor.leave)

    # ---- threads ----

    def has_thread(self, named: bool) -> bool:
        """Whether a call may run at all: it names a thread, or there is a pool."""
        return not self._asking and bool(self._lanes if named else self._pool)

    def only_lane(self, named: bool) -> Lane | None:
        """The lane of a call that names a thread where there is but one to name."""
        if named and len(self._lanes) == 1 and not self._asking:
            (lane,) = self._lanes.values()
            return lane
        return None

    async def find_lane(self, thread: Any) -> Lane | Refusal:
        """The lane of this thread capability; None: one of the pool. pycapnp does not tell what is behind a capability, but it is ours,
        so it can be asked. Answers come in the order of questions, which keeps the order of calls."""
        if thread is None:
            if not self._pool:
                return Refusal(FAILED, "std::exception: the call names no thread, and there is no pool of threads")
            return min(self._pool, key=lambda lane: lane.load)
        self._asking += 1
        try:
            name = str((await thread.getName()).result)
        except capnp.KjException:
            name = ""
        finally:
            self._asking -= 1
        return self._lanes.get(name) or Refusal(FAILED, "std::exception: the call names a thread that is not of this connection")

    def make_lane(self, name: str) -> Lane | Refusal:
        refusal = self._room_for_threads(1)
        if refusal is not None:
            return refusal
        self._threads += 1
        # The number tells threads apart that the peer gave the same name.
        lane = Lane(f"{os.getpid()}/{next(_thread_numbers)} (from {name[:100]})")
        self._lanes[lane.name] = lane
        return lane

    def drop_lane(self, lane: Lane) -> None:
        if self._lanes.pop(lane.name, None) is not None:
            self._threads -= 1
            lane.close()

    def make_pool(self, count: int) -> Refusal | None:
        if self._pool:
            return Refusal(FAILED, "std::exception: there is a pool of threads already")
        refusal = self._room_for_threads(count)
        if refusal is None:
            self._threads += count
            self._pool = [Lane(f"{os.getpid()}/{next(_thread_numbers)} (pool)") for _ in range(count)]
        return refusal

    def _room_for_threads(self, count: int) -> Refusal | None:
        if self._threads + count <= self.limits.max_threads:
            return None
        return Refusal(OVERLOADED, f"this connection has {self._threads} threads of at most {self.limits.max_threads}")

    # ---- the end ----

    async def drain(self, grace: float) -> None:
        """Take no more calls; let those under way end; cancel the rest; close."""
        self.refused = self.refused or "the server is shutting down"
        if not await self._until_idle(grace):
            for call, task in list(self._under_way.items()):
                call.cancel()
                if task is not None:
                    task.cancel(SHUTDOWN)
            await self._until_idle(_AFTER_CANCEL)
            # What they answered goes out.
            await asyncio.sleep(0)
        self.close()

    async def _until_idle(self, seconds: float) -> bool:
        if not self.calls:
            await asyncio.sleep(0)
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        # The answer itself is written in the next turns of the loop.
        await asyncio.sleep(0.01)
        return True

    def close(self) -> None:
        """At once. What was answered is still sent."""
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def forget_descriptor(self) -> None:
        """In a forked child: the connection is the parent's alone."""
        os.close(self._fd)

    def _protocol_ended(self, disconnected: Any) -> None:
        if not disconnected.cancelled():
            disconnected.exception()
        self._transport.close()

    def _check_greeting(self) -> None:
        if not self.greeted or self.refused is not None:
            log.debug("IPC: a peer of %s did not make a call within %g s", self.address, self.limits.handshake_timeout)
            self.abort()

    def _watch(self, seen: int) -> None:
        """A message that has begun has to go on: who stops in the middle of one is not waited for."""
        transport = self._transport
        if seen == transport.bytes_in and transport.within_message:
            log.warning("IPC: a peer of %s stopped in the middle of a message", self.address)
            self.abort()
            return
        self._watching = self._kj.loop.call_later(self.limits.message_timeout, self._watch, transport.bytes_in)

    def _lost(self) -> None:
        """Nothing is heard or said any more. Everything that hangs together is taken apart, so that no garbage collection, in whatever
        thread, finds a piece."""
        self._greeting.cancel()
        self._watching.cancel()
        self._kj.connections.pop(self._number, None)
        self._disconnected.cancel()
        self._server.close()
        del self._server, self._disconnected
        for call in list(self._under_way):
            call.cancel()
        for lane in (*self._lanes.values(), *self._pool):
            lane.close()
        self._lanes.clear()
        self._pool.clear()
        if self._janitor is not None:
            self._janitor.close()
        if not self.closed.done():
            self.closed.set_result(None)
        self._on_closed(self)


def _quietly(name: str, method: Callable[[], object]) -> None:
    try:
        method()
    except Exception as error:
        refusal_of(error, name)


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
            _, pending = await asyncio.wait([connection.closed for connection in connections], timeout=_AFTER_CANCEL)
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
