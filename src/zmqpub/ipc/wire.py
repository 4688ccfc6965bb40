"""One connection as long as it lasts: the stream, the peer's Init, and the peer's threads that calls run in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import capnp

from zmqpub.errors import DisconnectedError, IpcError, IpcProtocolError, OverloadedError, RemoteError, UnimplementedError
from zmqpub.ipc import schema
from zmqpub.ipc.client_calls import AsyncCall, Call
from zmqpub.ipc.codec import Operation
from zmqpub.ipc.failures import failure, text_of
from zmqpub.ipc.transport import SocketTransport, open_stream
from zmqpub.ipc.versions import NodeVersion

if TYPE_CHECKING:
    from zmqpub.ipc.connection import Link, Remote

__all__ = ["Facts", "Lane", "Wire"]

_IDLE_LANES: Final = 8
"""Threads that are kept for the next wait."""
_MAX_LANES: Final = 256
"""Threads of the peer's that one connection takes up."""
_SPARE_LANES: Final = 16
"""Of these, how many may be stuck in calls that nobody waits for, before ordinary calls queue behind such a call."""


@dataclass(slots=True, eq=False)
class Facts:
    """What every thread may know of a connection: plain values, written by the loop."""

    address: str
    version: NodeVersion = NodeVersion.V30
    reconnects: int = 0
    closed: bool = False
    trouble: str = ""
    """Why the last attempt to connect again failed; empty while connected."""


class Lane:
    """A thread of the peer's: it runs one call at a time, in the order in which they come."""

    __slots__ = ("_context", "_context_v30", "_stuck", "_thread")

    def __init__(self, thread: Any) -> None:
        self._thread = thread
        self._context = schema.load().Context.new_message(thread=thread)
        self._context_v30: Any = None
        self._stuck: set[Call] = set()

    def context_for(self, remote: Remote) -> Any:
        """The parameter with which a call names this thread."""
        if not remote.old:
            return self._context
        if self._context_v30 is None:
            old = schema.load_v30()
            self._context_v30 = old.Context.new_message(thread=self._thread.cast_as(old.Thread))
        return self._context_v30

    @property
    def stuck(self) -> bool:
        """Is it busy with a call that was given up?"""
        return bool(self._stuck)

    def given_up(self, call: Call) -> None:
        self._stuck.add(call)

    def answered(self, call: Call) -> None:
        self._stuck.discard(call)


@dataclass(slots=True, eq=False)
class Wire:
    """A connection. Everything in it belongs to the loop."""

    link: Link
    facts: Facts
    transport: SocketTransport
    stream: Any
    client: Any
    version: NodeVersion = NodeVersion.V30
    plain: bool = False
    """No call needs to be translated for the peer's version."""
    closed: bool = False
    inflight: dict[Call, tuple[asyncio.Future[Any], Remote, Lane | None]] = field(default_factory=dict)
    lanes: int = 0
    idle: list[Lane] = field(default_factory=list)
    lane: Lane | None = None
    """Where ordinary calls run: one thread for all, as more are slower."""
    _set_aside: list[Lane] = field(default_factory=list)
    _threads: Remote | None = None
    _farewell: Any = None

    @property
    def address(self) -> str:
        return self.facts.address

    def lost(self, operation: Operation | None = None) -> DisconnectedError:
        """The error for a call that this connection does not answer any more."""
        interface, method = (None, None) if operation is None else (operation.interface, operation.method)
        return DisconnectedError(self.address, interface, method, "the peer went away, or the connection was closed")

    @classmethod
    async def open(cls, link: Link, sock: socket.socket, max_message_bytes: int) -> Wire:
        """Set a connection up and see what the peer is. Takes ``sock`` over, and closes it if it fails."""
        try:
            transport = SocketTransport(link.kj.loop, sock)
            stream = open_stream(transport)
        except BaseException:
            sock.close()
            raise
        client = capnp.TwoPartyClient(stream, traversal_limit_in_words=max(1024, max_message_bytes // 8))
        wire = cls(link, link.facts, transport, stream, client)
        try:
            wire._farewell = client.on_disconnect()
            wire._farewell.add_done_callback(wire._gone)
            await wire._introduce()
        except BaseException:
            wire.close()
            raise
        return wire

    async def _introduce(self) -> None:
        from zmqpub.ipc.connection import Remote

        module = schema.load()
        transport = self.transport
        init = Remote("Init", self.client.bootstrap().cast_as(module.Init), self, None)
        self.link.remotes[0] = init
        # All in one round trip. Without a context no node makes the object: the answer tells only whether the method is there.
        threads = self.ask(Operation("Init", "construct", self._thread_map), init, {})
        probes = [self.ask(Operation("Init", method, _nothing), init, {}) for method in ("makeRpc", "makeMining")]
        try:
            self._threads = await threads
            self.lane = await self.new_lane()
            rpc, mining = [await _is_there(probe) for probe in probes]
        except DisconnectedError:
            if self._threads is None and transport.bytes_in:
                cause = "what the peer says is no Cap'n Proto"
                raise IpcProtocolError(self.address, "Init", "construct", cause) from None
            raise
        except UnimplementedError:
            raise IpcProtocolError(self.address, "Init", "construct", "the peer is no Init of Bitcoin Core's") from None
        except RemoteError as error:
            raise IpcProtocolError(self.address, error.interface, error.method, f"the peer does not let us in: {error.cause}") from None
        self.version = NodeVersion.MASTER if rpc else NodeVersion.V31 if mining else NodeVersion.V30
        self.plain = self.version is not NodeVersion.V30

    def _thread_map(self, response: Any, keeper: object) -> Remote:
        from zmqpub.ipc.connection import Remote

        return Remote("ThreadMap", response.threadMap, self, None)

    # ---- calls ----

    def ask(self, operation: Operation, remote: Remote, fields: dict[str, Any], lane: Lane | None = None) -> asyncio.Future[Any]:
        """Send a call of our own; the future holds a plain value or an IpcError, except for what this module keeps to itself."""
        call = AsyncCall(operation, -1, fields, self.link.kj.loop)
        self.send(call, remote, lane)
        return call.outcome

    def send(self, call: Call, remote: Remote, lane: Lane | None) -> None:
        """Send it; its answer, or error, is delivered to it."""
        operation = call.operation
        if self.closed:
            call.fail(self.lost(operation))
            return
        if len(self.inflight) >= self.link.max_calls:
            cause = f"{len(self.inflight)} calls are under way on this connection already"
            call.fail(OverloadedError(self.address, operation.interface, operation.method, cause))
            return
        try:
            method = remote.method(operation.method)
            # The caller's own frame holds the fields, so the context may not get into them.
            promise = method(**call.fields) if lane is None else method(context=lane.context_for(remote), **call.fields)
            # The future behind the promise: it may not be awaited by anybody who can be destroyed in another thread.
            future = next(promise.__await__())
        except Exception as error:
            trouble = f"{type(error).__name__}: {getattr(error, 'description', None) or error}"
        else:
            self.inflight[call] = future, remote, lane
            remote.pending += 1
            future.add_done_callback(partial(self._answered, call))
            return
        call.fail(IpcProtocolError(self.address, operation.interface, operation.method, f"cannot be sent: {trouble}"))

    def _answered(self, call: Call, future: asyncio.Future[Any]) -> None:
        """The peer's answer is here, or will never come."""
        flight = self.inflight.pop(call, None)
        if flight is None:
            return
        _, remote, lane = flight
        remote.pending -= 1
        if lane is not None and lane.stuck:
            lane.answered(call)
        if call.done:
            return
        operation = call.operation
        if future.cancelled():
            call.fail(self.lost(operation))
            return
        exception = future.exception()
        if exception is not None:
            kind, text = text_of(exception)
            call.fail(failure(kind, text, self.address, operation.interface, operation.method, self.version))
            return
        try:
            value = operation.decode(future.result(), self)
        except Exception as error:
            text = text_of(error)[1]
        else:
            left_behind = call.succeed(value)
            if left_behind is not None:
                self.link.release(left_behind)
            return
        call.fail(IpcProtocolError(self.address, operation.interface, operation.method, f"the answer cannot be read: {text}"))

    def given_up(self, call: Call) -> None:
        """Nobody waits for it any more; the peer's thread is busy with it all the same."""
        flight = self.inflight.get(call)
        if flight is not None and flight[2] is not None:
            flight[2].given_up(call)

    # ---- the peer's threads ----

    async def new_lane(self) -> Lane:
        if self.lanes >= _MAX_LANES:
            raise OverloadedError(self.address, "ThreadMap", "makeThread", f"{self.lanes} calls wait on this connection already")
        assert self._threads is not None
        self.lanes += 1
        try:
            name = f"zmqpub-{os.getpid()}/{self.lanes}"
            lane: Lane = await self.ask(Operation("ThreadMap", "makeThread", _lane), self._threads, {"name": name})
        except BaseException:
            self.lanes -= 1
            raise
        return lane

    async def borrow(self) -> Lane:
        """A thread for a call that may wait."""
        return self.idle.pop() if self.idle else await self.new_lane()

    def give_back(self, lane: Lane) -> None:
        """It is idle. A thread is never let go in the middle of a call: a node would end over it."""
        if len(self.idle) < _IDLE_LANES and not self.closed:
            self.idle.append(lane)
        else:
            self.lanes -= 1

    def usual_lane_stuck(self) -> bool:
        """Is it time for another thread for ordinary calls?"""
        return self.lane is not None and self.lane.stuck and len(self._set_aside) < _SPARE_LANES

    async def change_lane(self) -> None:
        """Ordinary calls go on in another thread, as the usual one is busy with what nobody waits for."""
        for index, lane in enumerate(self._set_aside):
            if not lane.stuck:
                fresh = self._set_aside.pop(index)
                break
        else:
            fresh = await self.new_lane()
        if self.lane is not None and self.lane.stuck:
            self._set_aside.append(self.lane)
            self.lane = fresh
        else:
            self.give_back(fresh)

    # ---- the end ----

    def _gone(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            future.exception()
        self.link.lost(self)

    def keep(self, interface: str, capability: Any) -> int:
        """Of `zmqpub.ipc.codec.Keeper`."""
        return self.link.keep(interface, capability, self)

    def close(self) -> None:
        """Calls under way fail. A second call does nothing."""
        if self.closed:
            return
        self.closed = True
        inflight, self.inflight = self.inflight, {}
        for call, (future, remote, _) in inflight.items():
            remote.pending -= 1
            call.fail(self.lost(call.operation))
            future.cancel()
        if self._farewell is not None:
            self._farewell.cancel()
        for remote in [*self.link.remotes.values()]:
            if remote.wire is self:
                remote.forget()
        self._threads = self.lane = None
        self.idle.clear()
        self._set_aside.clear()
        with contextlib.suppress(Exception):
            self.client.close()
        self.transport.abort()
        self.client = self.stream = self._farewell = None


def _nothing(response: Any, keeper: object) -> None:
    return None


def _lane(response: Any, keeper: object) -> Lane:
    return Lane(response.result)


async def _is_there(probe: asyncio.Future[Any]) -> bool:
    try:
        await probe
    except UnimplementedError:
        return False
    except DisconnectedError:
        raise
    except IpcError:
        return True
    return True
