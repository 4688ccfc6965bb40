"""The child's end: what ``zmqpub -ipcfd N`` serves to its parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import capnp

from zmqpub.errors import ClosedError, ZmqPubError
from zmqpub.ipc.notifications.codec import (
    pack_stats,
    read_events,
    read_options,
    read_snapshot,
    write_notifier,
    write_state,
)
from zmqpub.ipc.notifications.failures import write_failure
from zmqpub.ipc.notifications.hands import Answer, Hands
from zmqpub.ipc.schema import load
from zmqpub.ipc.transport import SocketTransport, open_stream
from zmqpub.publisher import Publisher
from zmqpub.replay.snapshot import Snapshot

__all__ = ["serve_parent"]

_log = logging.getLogger("zmqpub")

_R = TypeVar("_R")

_MESSAGE_WORDS = 2**27
"""A GiB: the parent is trusted, and a block without a lane comes in one message."""
_SNAPSHOT_PATIENCE = 60.0
"""Seconds that the parent has to make a snapshot."""


def serve_parent(sock: socket.socket) -> int:
    """Serve PublisherInit at ``sock`` until the parent has gone; then send what there is, and return the exit status.

    SIGINT is the parent's to answer, as of Bitcoin Core's children; SIGTERM ends this process in good order.
    """
    logging.basicConfig(format="zmqpub: %(message)s", level=logging.WARNING)
    asyncio.run(_serve(sock))
    return 0


class _Parent:
    """What the parent has given: only the loop's thread may let go of it, so the publisher has no reference to it."""

    source: Any = None


async def _serve(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    loop.add_signal_handler(signal.SIGINT, _explain_interrupt)
    hands = Hands()
    hands.start()
    try:
        async with capnp.kj_loop():
            transport = SocketTransport(loop, sock, on_lost=end.set)
            parent = _Parent()
            init = _make_init(hands, loop, parent)
            server = capnp.TwoPartyServer(open_stream(transport), bootstrap=init, traversal_limit_in_words=_MESSAGE_WORDS)
            # Where what the parent sends is no Cap'n Proto, nothing is read any more, and so its end is not seen.
            broken = asyncio.ensure_future(_broken(server, end))
            await end.wait()
            broken.cancel()
            # The loop goes on meanwhile: a parent that is still there sees its calls answered.
            with ThreadPoolExecutor(1) as own:  # the loop's may be full of flushes, which end with the publisher only
                await loop.run_in_executor(own, hands.finish)
            transport.abort()
            parent.source = None
            del server, init
    finally:
        hands.abandon()


async def _broken(server: Any, end: asyncio.Event) -> None:
    with contextlib.suppress(capnp.KjException):
        await server.on_disconnect()
    end.set()


def _explain_interrupt() -> None:
    os.write(2, b"[zmqpub] SIGINT: waiting for the parent to end this process\n")


async def _in_order(hands: Hands, loop: asyncio.AbstractEventLoop, task: Callable[[], _R]) -> _R:
    return await _ask(hands, loop, task)


def _ask(hands: Hands, loop: asyncio.AbstractEventLoop, task: Callable[[], _R]) -> asyncio.Future[_R]:
    """Have ``task`` done in its turn, whatever becomes of the call that asks for it."""
    future: asyncio.Future[_R] = loop.create_future()

    def settle(result: _R | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = task()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, failure)

    hands.do(work)
    return future


def _make_init(hands: Hands, loop: asyncio.AbstractEventLoop, parent: _Parent) -> Any:
    """The capability where the connection begins.

    Methods named …_context are called by pycapnp when the call comes in, in the order of the calls; the coroutine that they return
    begins later, and not at all if the parent has gone by then. So what must not be lost is done in the method itself.
    """
    schema = load()

    class Echo(schema.Echo.Server):  # type: ignore[misc,name-defined]
        async def destroy_context(self, context: Any) -> None:
            pass

        async def echo_context(self, context: Any) -> None:
            context.results.result = context.params.echo

    class Thread(schema.Thread.Server):  # type: ignore[misc,name-defined]
        def __init__(self, name: str) -> None:
            self._name = name

        async def getName_context(self, context: Any) -> None:
            context.results.result = self._name

    class ThreadMap(schema.ThreadMap.Server):  # type: ignore[misc,name-defined]
        async def makeThread_context(self, context: Any) -> None:
            context.results.result = Thread(str(context.params.name))

        async def makePool_context(self, context: Any) -> None:
            pass  # calls need no thread here

    class Notifications(schema.Notifications.Server):  # type: ignore[misc,name-defined]
        def publish_context(self, context: Any) -> Coroutine[Any, Any, None]:
            try:
                events = read_events(context.params.events)
            except Exception as error:
                return _fail(f"events that cannot be read: {type(error).__name__}")
            return _answer(context, _ask(hands, loop, partial(hands.publish, events)))

        async def flush_context(self, context: Any) -> None:
            seconds = context.params.timeout / 1000
            publisher = await _publisher()
            timeout = None if math.isinf(seconds) and seconds > 0 else max(0.0, seconds)
            context.results.flushed = await loop.run_in_executor(None, _flush, publisher, timeout)

        async def activeNotifiers_context(self, context: Any) -> None:
            notifiers = (await _publisher()).active_notifiers()
            for builder, notifier in zip(context.results.init("notifiers", len(notifiers)), notifiers, strict=True):
                write_notifier(builder, notifier)

        async def addNotifier_context(self, context: Any) -> None:
            asked = context.params
            arguments = (str(asked.topic), str(asked.address), int(asked.hwm))
            try:
                notifier = await _in_order(hands, loop, lambda: _there(hands).add_notifier(*arguments))
            except ZmqPubError as error:
                write_failure(context.results.failure, error)
            else:
                write_notifier(context.results.notifier, notifier)

        async def removeNotifier_context(self, context: Any) -> None:
            topic, address = str(context.params.topic), str(context.params.address)
            try:
                await _in_order(hands, loop, lambda: _there(hands).remove_notifier(topic, address))
            except ZmqPubError as error:
                write_failure(context.results.failure, error)

        async def setSnapshot_context(self, context: Any) -> None:
            there = context.params._has("source")
            parent.source = context.params.source if there else None
            (await _publisher()).set_snapshot(partial(_take, loop, parent) if there else None)

        async def stats_context(self, context: Any) -> None:
            context.results.json = pack_stats((await _publisher()).stats())

        async def close_context(self, context: Any) -> None:
            linger = context.params.linger / 1000
            seconds = None if math.isinf(linger) else max(0.0, linger)
            await _in_order(hands, loop, lambda: hands.close(seconds, linger < 0))

    class Init(schema.PublisherInit.Server):  # type: ignore[misc,name-defined]
        async def construct_context(self, context: Any) -> None:
            context.results.threadMap = ThreadMap()

        async def makeEcho_context(self, context: Any) -> None:
            context.results.result = Echo()

        async def makeNotifications_context(self, context: Any) -> None:
            asked = read_options(context.params.options)
            try:
                state = await _in_order(hands, loop, lambda: hands.make(asked))
            except (ZmqPubError, OSError) as error:
                write_failure(context.results.init("failure"), error)
            else:
                write_state(context.results.state, state)
                context.results.notifications = Notifications()

    async def _publisher() -> Publisher:
        return await _in_order(hands, loop, lambda: _there(hands))

    return Init()


def _there(hands: Hands) -> Publisher:
    if hands.publisher is None:
        raise ClosedError("the publisher was closed")
    return hands.publisher


def _flush(publisher: Publisher, timeout: float | None) -> bool:
    return publisher.flush(timeout)


async def _answer(context: Any, future: asyncio.Future[Answer]) -> None:
    answer = await future
    results = context.results
    results.journaled, results.settled = answer.journaled, answer.settled
    if answer.refused:
        for refusal, (index, error) in zip(results.init("refused", len(answer.refused)), answer.refused, strict=True):
            refusal.index = index
            write_failure(refusal.failure, error)


async def _fail(why: str) -> None:
    raise ZmqPubError(why)


def _take(loop: asyncio.AbstractEventLoop, parent: _Parent) -> Snapshot:
    """Ask the parent, from the publisher's own thread."""

    async def ask() -> Snapshot:
        if parent.source is None:
            raise ZmqPubError("the parent has gone")
        try:
            return read_snapshot(await parent.source.take())
        except capnp.KjException as error:
            # Not the exception itself: it may refer to capabilities, which only the loop's thread may let go of.
            raise ZmqPubError(f"the parent has no snapshot: {error.description}") from None

    return asyncio.run_coroutine_threadsafe(ask(), loop).result(_SNAPSHOT_PATIENCE)
