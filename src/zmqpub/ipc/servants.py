"""What pycapnp calls: each interface's methods, from the wire to a plain Python object and back. For the loop's thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from zmqpub.ipc import handling, schema
from zmqpub.ipc.errors_out import DISCONNECTED, FAILED, OVERLOADED, UNIMPLEMENTED, Refusal, refusal_of
from zmqpub.ipc.handling import ASYNC, INLINE, Call

if TYPE_CHECKING:
    from zmqpub.ipc.incoming import Connection

__all__ = ["EchoServant", "InitServant", "Method", "RpcServant", "Servant", "ThreadMapServant", "ThreadServant", "serves", "too_large"]

S: Final = schema.load()

SHUTDOWN: Final = "the server is shutting down"
"""With which calls are cancelled whose caller is still there, and can be told."""


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A method with a context, between wire and object."""

    wire: str
    name: str
    """Of the plain object's method."""
    read: Callable[[Any], tuple[Any, ...]]
    """Arguments from parameters: nothing of the message may stay in them."""
    write: Callable[[Servant, Any, Any], Refusal | None]
    """The object's result into the message. What it raises is the handler's fault."""
    adapt: Callable[[Any], Any] | None = None
    """Makes a function that takes ``read``'s arguments of the object's method, where that is not the method itself."""


class Servant:
    """Stands between a capability and the plain object behind it. Subclasses are pycapnp servers as well."""

    interface: str
    methods: tuple[Method, ...] = ()

    def __init__(self, connection: Connection, target: object) -> None:
        self.connection = connection
        self.target: Any = target
        self.found: dict[Method, tuple[Any, int]] = {}
        connection.objects += 1

    def find(self, method: Method) -> tuple[Any, int] | Refusal:
        """The plain object's method, and how it is run."""
        if self.target is None:
            return Refusal(FAILED, f"std::exception: {self.interface}.{method.wire}: the object was destroyed")
        function = getattr(self.target, method.name, None)
        if function is None:
            return Refusal(UNIMPLEMENTED, f"{self.interface}.{method.wire} is not implemented here")
        found = self.found[method] = method.adapt(function) if method.adapt else function, handling.kind_of(function)
        return found

    def drop(self) -> None:
        """The peer has destroyed it: nothing of the target is called any more."""
        self.target = None
        self.found.clear()

    def __del__(self) -> None:
        # By pycapnp, in the loop's thread, when the peer has let it go.
        connection = getattr(self, "connection", None)
        if connection is not None:
            connection.objects -= 1
            target, self.target = self.target, None
            self.found.clear()
            if target is not None and self.owns and callable(getattr(target, "destroy", None)):
                connection.clean_up(target.destroy, f"{self.interface}.destroy")

    owns = True
    """Whether the target was made for this capability, and is destroyed with it where it has a destroy()."""


def serves(servant: type[Servant]) -> type[Servant]:
    """Gives the class what pycapnp looks for: a coroutine for each method."""
    for method in servant.methods:
        setattr(servant, f"{method.wire}_context", _entry(method))
    return servant


def _entry(method: Method) -> Callable[[Servant, Any], Any]:
    def entry(self: Servant, context: Any) -> Any:
        return _serve(self, method, context)

    return entry


async def _serve(servant: Servant, method: Method, context: Any) -> None:
    """One call, from its parameters to its results. Raises nothing but WireError, and CancelledError when nobody waits any more."""
    connection = servant.connection
    connection.greeted = True
    outcome: Any
    found = servant.found.get(method) or servant.find(method)
    if connection.refused is not None:
        outcome = connection.refuse()
    elif type(found) is Refusal:
        outcome = found
    elif connection.calls >= connection.limits.max_calls_in_flight:
        outcome = Refusal(OVERLOADED, f"{connection.calls} calls of this connection are under way, which is the limit")
    else:
        outcome = await _run(servant, method, context, *found)
    if type(outcome) is not Refusal:
        try:
            outcome = method.write(servant, context.results, outcome)
        except Exception as error:
            outcome = refusal_of(error, f"{servant.interface}.{method.wire}, as its result does not fit,")
    if type(outcome) is Refusal:
        if outcome.text != SHUTDOWN and _cancelled():
            # The handler made an exception of its own of the cancellation, and nobody would take it.
            raise asyncio.CancelledError
        raise outcome.error()


def _cancelled() -> bool:
    """As far as Python tells: 3.10 does not."""
    return bool(getattr(asyncio.current_task(), "cancelling", int)())


async def _run(servant: Servant, method: Method, context: Any, function: Any, kind: int) -> Any:
    """The handler's result, or a Refusal."""
    connection = servant.connection
    try:
        params = context.params
        threads = params.context
        args = method.read(params)
        named = threads._has("thread")
    except Exception as error:
        return unreadable(f"{servant.interface}.{method.wire}", error)
    if kind == INLINE and not connection.calls and connection.has_thread(named):
        # Nothing else is under way that it could overtake.
        return handling.run_inline(f"{servant.interface}.{method.wire}", function, args)
    call = Call(servant.interface, method.wire)
    connection.begin(call)
    handed_over = False
    lane: handling.Lane | None = None
    try:
        try:
            known = connection.only_lane(named) or await connection.find_lane(threads.thread if named else None)
        except Exception as error:  # what stands there is no thread, or its name no text
            return unreadable(str(call), error)
        if isinstance(known, Refusal):
            return known
        await known.enter()
        lane = known
        if kind == INLINE:
            return handling.run_inline(str(call), function, args)
        if kind == ASYNC:
            return await handling.run_async(call, function, args)
        try:
            answer = known.run(call, function, args, lambda: _finished(connection, known, call))
        except RuntimeError as error:  # the system has no thread left
            return refusal_of(error, str(call))
        lane, handed_over = None, True
        outcome = await answer
        return await handling.run_async(call, _itself, (outcome,)) if asyncio.iscoroutine(outcome) else outcome
    except asyncio.CancelledError as error:
        call.cancel()
        if error.args != (SHUTDOWN,):
            raise
        return Refusal(DISCONNECTED, SHUTDOWN)
    finally:
        if lane is not None:
            lane.leave()
        if not handed_over:
            call.finish()
            connection.end(call)
        else:
            connection.forget_task(call)


async def _itself(coroutine: Any) -> Any:
    return await coroutine


def _finished(connection: Connection, lane: handling.Lane, call: Call) -> None:
    call.finish()
    lane.leave()
    connection.end(call)


def unreadable(call: str, error: Exception) -> Refusal:
    """For parameters that are not what the schema says: text that is no UTF-8, pointers to nowhere, a hash of another length."""
    return Refusal(FAILED, f"std::exception: {call}: parameters that cannot be read ({type(error).__name__})")


# ---- results that several interfaces have ----


def too_large(servant: Servant, size: int) -> Refusal | None:
    """A peer ends the connection that brings it more than its own limit, so a message that large is not begun."""
    most = servant.connection.limits.max_message_bytes - 1_024
    if size > most:
        return Refusal(FAILED, f"std::exception: an answer of {size} bytes is larger than the limit of {most}")
    return None


def write_nothing(servant: Servant, results: Any, value: object) -> None:
    return None


def write_text(servant: Servant, results: Any, value: str) -> Refusal | None:
    if not isinstance(value, str):
        raise TypeError(f"expected a str, got {type(value).__name__}")
    refusal = too_large(servant, len(value) if value.isascii() else len(value.encode()))
    if refusal is None:
        results.result = value
    return refusal


def write_object(make: Callable[[Connection, object], Servant], name: str) -> Callable[[Servant, Any, Any], Refusal | None]:
    """``make``: the servant's class. A null would make bitcoin-cli abort, so there is none."""

    def write(servant: Servant, results: Any, value: object) -> Refusal | None:
        if value is None:
            return Refusal(FAILED, f"std::exception: there is no {name} here")
        refusal = servant.connection.room_for_object()
        if refusal is None:
            results.result = make(servant.connection, value)
        return refusal

    return write


def no_arguments(params: Any) -> tuple[Any, ...]:
    return ()


def destroying(servant: type[Any]) -> type[Any]:
    """Adds destroy(): the object's own if it has one, and in any case the end of what is called on it."""
    destroy = Method("destroy", "destroy", no_arguments, write_nothing)

    async def destroy_context(self: Servant, context: Any) -> None:
        if self.target is None:
            return
        if callable(getattr(self.target, "destroy", None)):
            await _serve(self, destroy, context)
        self.drop()

    servant.destroy_context = destroy_context
    return servant


# ---- the interfaces that are everybody's ----


class ThreadServant(S.Thread.Server):  # type: ignore[misc, name-defined]
    """A thread of ours as the peer holds it."""

    def __init__(self, connection: Connection, lane: handling.Lane) -> None:
        self.connection = connection
        self.lane = lane

    async def getName_context(self, context: Any) -> None:
        context.results.result = self.lane.name

    def __del__(self) -> None:
        if getattr(self, "lane", None) is not None:
            self.connection.drop_lane(self.lane)


class ThreadMapServant(S.ThreadMap.Server):  # type: ignore[misc, name-defined]
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def makeThread_context(self, context: Any) -> None:
        outcome: Any
        try:
            outcome = self.connection.make_lane(str(context.params.name))
        except Exception as error:
            outcome = unreadable("ThreadMap.makeThread", error)
        if type(outcome) is Refusal:
            raise outcome.error()
        context.results.result = ThreadServant(self.connection, outcome)

    async def makePool_context(self, context: Any) -> None:
        refusal = self.connection.make_pool(int(context.params.count))
        if refusal is not None:
            raise refusal.error()


@destroying
@serves
class EchoServant(Servant, S.Echo.Server):  # type: ignore[misc, name-defined]
    interface = "Echo"
    methods = (Method("echo", "echo", lambda params: (params.echo,), write_text),)


@serves
class RpcServant(Servant, S.Rpc.Server):  # type: ignore[misc, name-defined]
    interface = "Rpc"
    methods = (Method("executeRpc", "execute_rpc", lambda params: (params.request, params.uri, params.user), write_text),)


def _make_mining(connection: Connection, target: object) -> Servant:
    from zmqpub.ipc.servants_mining import MiningServant

    return MiningServant(connection, target)


@serves
class InitServant(Servant, S.Init.Server):  # type: ignore[misc, name-defined]
    """The first capability of a connection."""

    interface = "Init"
    owns = False
    methods = (
        Method("makeEcho", "make_echo", no_arguments, write_object(EchoServant, "Echo")),
        Method("makeMining", "make_mining", no_arguments, write_object(_make_mining, "Mining")),
        Method("makeRpc", "make_rpc", no_arguments, write_object(RpcServant, "Rpc")),
    )

    async def construct_context(self, context: Any) -> None:
        # Also where everything else will be refused: bitcoin-cli crashes on an exception here.
        self.connection.greeted = True
        context.results.threadMap = ThreadMapServant(self.connection)

    async def makeMiningOld2_context(self, context: Any) -> None:
        raise Refusal(UNIMPLEMENTED, "Init.makeMiningOld2 is not implemented here; later versions have makeMining").error()
