"""One peer of a server: what it has under way, what it may take, and its end."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import capnp

from zmqpub.ipc.errors_out import FAILED, OVERLOADED, Refusal, log, refusal_of, rewrite_exception
from zmqpub.ipc.handling import ASYNC, INLINE, Call, Lane, kind_of, run_async
from zmqpub.ipc.limits import Limits
from zmqpub.ipc.loop import KjLoop
from zmqpub.ipc.servants import SHUTDOWN, InitServant
from zmqpub.ipc.transport import SocketTransport, open_stream

__all__ = ["AFTER_CANCEL", "Connection"]

_REFUSAL_PATIENCE: Final = 1.0
"""Seconds that a connection over the limit has to make the call which is then refused."""
AFTER_CANCEL: Final = 1.0
"""Seconds in which calls that were cancelled at the end may still answer."""

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
            if self.closed.done():  # a call under way held the object for longer than the connection lasted
                janitor.close()

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
            await self._until_idle(AFTER_CANCEL)
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
        self._transport.forget()

    def _protocol_ended(self, disconnected: Any) -> None:
        if not disconnected.cancelled():
            disconnected.exception()
        self._transport.close()

    def _check_greeting(self) -> None:
        if not self.greeted or self._one_too_many:
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
    except BaseException as error:
        refusal_of(error, name)
