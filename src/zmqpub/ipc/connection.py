"""Connections as their users see them, who know them by number: objects by number, calls, reconnecting. All in the loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from zmqpub.errors import DestroyedError, DisconnectedError, IpcConnectError, IpcError, IpcTimeoutError, UnimplementedError
from zmqpub.ipc import schema
from zmqpub.ipc.backoff import Reconnect
from zmqpub.ipc.client_calls import AsyncCall, Call
from zmqpub.ipc.codec import OPERATIONS, Operation
from zmqpub.ipc.failures import text_of
from zmqpub.ipc.loop import KjLoop
from zmqpub.ipc.versions import INSTEAD, SINCE, NodeVersion
from zmqpub.ipc.waits import Waits
from zmqpub.ipc.wire import Facts, Wire

__all__ = ["Link", "Remote", "begin", "close_unwanted"]

_numbers: Final = itertools.count(1)
_OLD_MINING: Final = ("Mining", "BlockTemplate")

Opener = Callable[[float], socket.socket]
"""Makes a connected socket within so many seconds, 0 for at once; raises IpcTimeoutError where that is too little."""


class Remote:
    """An object of the peer's."""

    def __init__(self, interface: str, capability: Any, wire: Wire, recipe: Operation | None) -> None:
        self.interface = interface
        self.wire = wire
        self.recipe = recipe
        """What makes it again on the next connection; None for what is lost with this one."""
        self.old = wire.version is NodeVersion.V30 and interface in _OLD_MINING
        """Is it of the other schema?"""
        if self.old:
            capability = capability.cast_as(getattr(schema.load_v30(), interface))
        self.destroyed = False
        self.pending = 0
        self._capability = capability
        self._methods: dict[str, Any] = {}
        self._waits: Waits | None = None

    def method(self, name: str) -> Any:
        method = self._methods.get(name)
        if method is None:
            method = getattr(self._capability, name)
            if name == "makeThread":  # its one parameter has the name of one of pycapnp's own
                method = _by_position(method)
            self._methods[name] = method
        return method

    def offers(self, method: str) -> bool:
        """Is it in the interface at all, of the peer's version?"""
        return method in self._capability.schema.method_names_inherited

    @property
    def waits(self) -> Waits:
        if self._waits is None:
            self._waits = Waits(self, self.wire)
        return self._waits

    def stop(self, call: Call) -> None:
        if self._waits is not None:
            self._waits.stop(call)

    async def stop_waits(self) -> None:
        if self._waits is not None:
            await self._waits.stop_all()

    def forget(self) -> None:
        """Let the capability go, which tells the peer."""
        self._capability = None
        self._methods.clear()


class Link:
    """A connection, or with ``reconnect`` one after the other."""

    def __init__(
        self, kj: KjLoop, facts: Facts, opener: Opener | None, reconnect: Reconnect | None, max_message_bytes: int, max_calls: int
    ) -> None:
        self.kj = kj
        self.facts = facts
        self.number = next(_numbers)
        self.max_calls = max_calls
        self.remotes: dict[int, Remote] = {}
        self.wire: Wire | None = None
        self._opener = opener
        self._reconnect = reconnect
        self._max_message_bytes = max_message_bytes
        self.preparing: dict[Call, asyncio.Task[Any]] = {}
        """What is on its way to be sent, and may be called back."""
        self._next = itertools.count(1)
        self._reopening: asyncio.Task[None] | None = None
        self._hopeful = 0
        """Calls that wait for the next connection."""
        kj.connections[self.number] = self

    # ---- opening ----

    async def open(self, sock: socket.socket | None, deadline: float) -> None:
        """The first connection, over ``sock`` or, without one, through the opener. Raises IpcError; ``deadline`` in seconds."""
        try:
            try:
                await asyncio.wait_for(self._open_first(sock), deadline)
            except asyncio.TimeoutError:
                pass
            else:
                return
            cause = f"nothing that makes sense came from the peer within {deadline:g} s; is it Cap'n Proto that it speaks?"
            if self.facts.trouble:
                cause = f"could not connect within {deadline:g} s: {self.facts.trouble}"
            raise IpcTimeoutError(self.facts.address, "Init", "construct", cause)
        except BaseException:
            self.close()
            raise

    async def _open_first(self, sock: socket.socket | None) -> None:
        if sock is not None:
            await self._adopt(sock)
        elif self._reconnect is not None and self._reconnect.first:
            await self._open_somehow(self._reconnect)
        else:
            await self._adopt(await self._socket())

    async def _adopt(self, sock: socket.socket) -> None:
        wire = await Wire.open(self, sock, self._max_message_bytes)
        if self.facts.closed:
            wire.close()
            raise wire.lost()
        self.wire = wire
        self.facts.version = wire.version
        self.facts.trouble = ""

    async def _socket(self) -> socket.socket:
        assert self._opener is not None
        while True:
            with contextlib.suppress(IpcTimeoutError):  # its backlog is full
                return self._opener(0.0)
            await asyncio.sleep(0.02)

    async def _open_somehow(self, settings: Reconnect) -> None:
        for delay in settings.delays():
            try:
                await asyncio.wait_for(self._open_next(), max(1.0, settings.max_delay))
            except (IpcConnectError, DisconnectedError) as error:
                self.facts.trouble = error.cause
            except asyncio.TimeoutError:
                self.facts.trouble = "the peer does not answer"
            else:
                return
            await asyncio.sleep(delay)

    async def _open_next(self) -> None:
        await self._adopt(await self._socket())

    async def _reopen(self, settings: Reconnect) -> None:
        try:
            await self._open_somehow(settings)
            self.facts.reconnects += 1
        finally:
            if self._reopening is asyncio.current_task():
                self._reopening = None

    async def _connected(self, call: Call) -> Wire:
        """The connection, made again if it may be."""
        operation = call.operation
        while self.wire is None:
            if self.facts.closed:
                raise DisconnectedError(self.facts.address, operation.interface, operation.method, "the connection was closed")
            if self._reconnect is None or self._opener is None:
                raise DisconnectedError(self.facts.address, operation.interface, operation.method, "the connection was lost")
            if self._reopening is None:
                self._reopening = self.kj.start(self._reopen(self._reconnect))
            self._hopeful += 1
            try:
                await asyncio.shield(self._reopening)
            finally:
                self._hopeful -= 1
                if not self._hopeful and self._reopening is not None:
                    self._reopening.cancel()
                    self._reopening = None
        return self.wire

    # ---- calls ----

    def begin(self, call: Call) -> None:
        wire, remote = self.wire, self.remotes.get(call.target)
        if remote is None:
            call.fail(self._destroyed(call.operation))
        elif wire is not None and remote.wire is wire and wire.plain and not call.operation.waits and not wire.usual_lane_stuck():
            wire.send(call, remote, wire.lane)
        else:
            self.preparing[call] = self.kj.start(self._prepare(call))

    def abandon(self, call: Call) -> None:
        """Nobody waits for it any more; a wait in the peer is ended."""
        if call.abandoned:
            return
        call.abandoned = True
        if call.done:
            left_behind = call.left_behind()
            if left_behind is not None:
                self.release(left_behind)
        elif (task := self.preparing.get(call)) is not None:
            task.cancel()
        elif self.wire is not None and call in self.wire.inflight:
            self.wire.given_up(call)
        elif call.operation.waits and (remote := self.remotes.get(call.target)) is not None:
            remote.stop(call)

    async def _prepare(self, call: Call) -> None:
        """The longer way: another connection, another version, a thread of the call's own."""
        try:
            wire = await self._connected(call)
            remote = await self._remote(call, wire)
            operation, fields, lane = _for_version(call, wire, self.facts)
            if operation.waits:
                call.fields = fields
                call.operation = operation
                left_behind = call.succeed(await remote.waits.run(call))
                if left_behind is not None:
                    self.release(left_behind)
                return
            if lane and wire.usual_lane_stuck():
                with contextlib.suppress(IpcError):
                    await wire.change_lane()
            call.operation, call.fields = operation, fields
            if self.remotes.get(call.target) is not remote:
                raise self._destroyed(operation)
            wire.send(call, remote, wire.lane if lane else None)
            return
        except IpcError as error:
            failed: BaseException = error
        except asyncio.CancelledError:
            failed = DisconnectedError(self.facts.address, call.operation.interface, call.operation.method, "the connection was closed")
        except Exception as error:
            failed = IpcError(self.facts.address, call.operation.interface, call.operation.method, text_of(error)[1])
        finally:
            self.preparing.pop(call, None)
        failed.__traceback__ = None
        call.fail(failed)
        del failed

    async def _remote(self, call: Call, wire: Wire) -> Remote:
        """The object, made again if it is of an earlier connection."""
        remote = self.remotes.get(call.target)
        if remote is None:
            raise self._destroyed(call.operation)
        if remote.wire is wire:
            return remote
        if remote.recipe is None:
            cause = "the object was lost with an earlier connection"
            raise DisconnectedError(self.facts.address, call.operation.interface, call.operation.method, cause)
        fresh: int = await self.ask(remote.recipe, 0, {})
        made = self.remotes.pop(fresh)
        current = self.remotes.get(call.target)
        if current is remote:
            self.remotes[call.target] = made
            return made
        made.forget()
        if current is None:
            raise self._destroyed(call.operation)
        return current

    async def ask(self, operation: Operation, target: int, fields: dict[str, Any]) -> Any:
        """A call within the loop."""
        call = AsyncCall(operation, target, fields, self.kj.loop)
        self.begin(call)
        try:
            return await call.outcome
        except asyncio.CancelledError:
            self.abandon(call)
            raise

    def _destroyed(self, operation: Operation) -> IpcError:
        if self.facts.closed:
            return DisconnectedError(self.facts.address, operation.interface, operation.method, "the connection was closed")
        return DestroyedError(self.facts.address, operation.interface, operation.method, "the object was destroyed")

    # ---- objects ----

    def keep(self, interface: str, capability: Any, wire: Wire) -> int:
        number = next(self._next)
        recipe = None
        if interface in ("Mining", "Rpc", "Echo"):
            recipe = OPERATIONS[f"Init.make{interface}"]
        self.remotes[number] = Remote(interface, capability, wire, recipe)
        return number

    def release(self, number: int) -> None:
        """Nobody uses the object any more."""
        remote = self.remotes.pop(number, None)
        if remote is not None:
            remote.destroyed = True
            remote.forget()

    async def destroy(self, number: int, *, tell: bool) -> None:
        """End the calls under way on it, then the object. With ``tell`` the peer has deleted it when this returns."""
        remote = self.remotes.pop(number, None)
        if remote is None:
            return
        remote.destroyed = True
        wire = self.wire
        if wire is None or remote.wire is not wire:
            remote.forget()
            return
        await remote.stop_waits()
        while remote.pending and not wire.closed:
            await asyncio.sleep(0.001)
        if tell and wire.usual_lane_stuck():
            with contextlib.suppress(IpcError):
                await wire.change_lane()
        if tell and not wire.closed:
            await wire.ask(OPERATIONS[f"{remote.interface}.destroy"], remote, {}, wire.lane)
        remote.forget()

    async def interrupt(self, number: int) -> None:
        remote = self.remotes.get(number)
        if remote is not None:
            await remote.stop_waits()

    # ---- the end ----

    def lost(self, wire: Wire) -> None:
        """The peer has gone."""
        wire.close()
        if self.wire is wire:
            self.wire = None

    def close(self) -> None:
        """A second call does nothing."""
        if self.facts.closed:
            return
        self.facts.closed = True
        self.kj.connections.pop(self.number, None)
        if self._reopening is not None:
            self._reopening.cancel()
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.close()
        for remote in self.remotes.values():
            remote.forget()
        self.remotes.clear()

    def forget_descriptor(self) -> None:
        """In a forked child: the peer shall see the parent's end, and not wait for the child's. Only where the loop cannot go on here."""
        if self.wire is not None and self.kj.ident != threading.get_ident():
            self.wire.transport.forget()


def begin(kj: KjLoop, number: int, call: Call, address: str) -> None:
    """Start a call on the connection with that number."""
    link = kj.connections.get(number)
    if link is None:
        call.fail(DisconnectedError(address, call.operation.interface, call.operation.method, "the connection was closed"))
    else:
        link.begin(call)


def close_unwanted(kj: KjLoop, facts: Facts) -> bool:
    """Close the connection with these facts, as who asked for it has given up; False where there is none."""
    for link in kj.connections.values():
        if getattr(link, "facts", None) is facts:
            link.close()
            return True
    return False


def _by_position(method: Any) -> Any:
    return lambda name: method(name)


def _has_context(operation: Operation) -> bool:
    return operation.method not in ("interrupt", "interruptWait")


def _for_version(call: Call, wire: Wire, facts: Facts) -> tuple[Operation, dict[str, Any], bool]:
    """The operation and fields that the peer's version has for it, and whether it takes a context."""
    operation, fields = call.operation, call.fields
    name = f"{operation.interface}.{operation.method}"
    version = wire.version
    since = SINCE.get(name, "")
    if version is NodeVersion.V30 and since not in ("", "v30"):  # what has that number there may be something else
        raise UnimplementedError(facts.address, operation.interface, operation.method, since, str(version), INSTEAD.get(name))
    context = _has_context(operation)
    if version is NodeVersion.V30:
        if name == "Init.makeMining":
            operation = OPERATIONS["Init.makeMiningOld2"]
        elif name == "Mining.createNewBlock":
            operation, context = OPERATIONS["Mining.createNewBlockV30"], False
            fields = {"options": fields["options"]}
        elif name == "Mining.checkBlock":
            context = False
        elif name == "BlockTemplate.submitSolution":
            operation = OPERATIONS["BlockTemplate.submitSolutionV30"]
    return operation, fields, context
