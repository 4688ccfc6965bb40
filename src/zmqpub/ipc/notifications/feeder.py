"""The parent's end, in the IPC thread: a child is spawned, fed, and followed by another one when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import capnp

from zmqpub.errors import (
    BindError,
    ClosedError,
    DisconnectedError,
    IpcConnectError,
    IpcProtocolError,
    IpcTimeoutError,
    JournalError,
    ZmqPubError,
)
from zmqpub.ipc.notifications.backlog import Backlog, Entry
from zmqpub.ipc.notifications.codec import (
    Place,
    PublisherOptions,
    PublisherState,
    read_notifier,
    read_state,
    write_options,
    write_snapshot,
)
from zmqpub.ipc.notifications.failures import read_failure
from zmqpub.ipc.notifications.lane import Lane
from zmqpub.ipc.process import Process
from zmqpub.ipc.schema import load
from zmqpub.ipc.transport import SocketTransport, open_stream
from zmqpub.publisher import ActiveNotifier
from zmqpub.replay.snapshot import SnapshotSource

__all__ = ["Feeder", "Link"]

_log = logging.getLogger("zmqpub")

_CALL_EVENTS: Final = 512
_CALL_BYTES: Final = 1 << 20
"""Of one call, about: several are under way, up to the window."""
_LANE_FROM: Final = 16 * 1024
"""Bytes of a body from which on it goes through the lane: below, a copy through the socket costs less than the place."""
_MESSAGE_WORDS: Final = 2**27
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 5.0
"""Seconds between the end of a child and the next one; doubled while they die young."""
_OLD: Final = 10.0
"""Seconds after which a child's end says nothing about the next one's."""
_ANSWER_PATIENCE: Final = 0.25
"""Seconds for which an answer may be under way."""
_END_PATIENCE: Final = 15.0
"""Seconds that a child whose socket was closed has to end; it flushes meanwhile."""


@dataclass
class Link:
    """What other threads may look at."""

    process_id: int | None = None
    restarts: int = 0
    refused: int = 0
    last_refusal: Exception | None = None
    state: PublisherState | None = None
    notifiers: list[ActiveNotifier] = field(default_factory=list)


class Feeder:
    """Feeds one child after the other from a backlog. All methods are for the IPC thread, but for the constructor."""

    def __init__(
        self,
        process: Process,
        program: str,
        asked: PublisherOptions,
        backlog: Backlog,
        *,
        window: int,
        use_lane: bool,
        start_timeout: float,
        takeover: float,
        started: Callable[[Exception | None], object],
    ) -> None:
        self.link = Link()
        self.snapshot: SnapshotSource | None = None
        self._process = process
        self._program = program
        self._asked = asked
        self._backlog = backlog
        self._window = window
        self._lane = Lane(window) if use_lane else None
        self._start_timeout = start_timeout
        self._takeover = takeover
        self._started: Callable[[Exception | None], object] | None = started
        self._journaled = 0
        self._settled = False
        self._capability: Any = None
        self._address = ""
        self._block: Any = None
        self._calls: deque[tuple[list[Entry], list[Place]]] = deque()
        self._tasks: set[asyncio.Future[None]] = set()
        self._wake: asyncio.Event | None = None
        self._connected: asyncio.Event | None = None
        self._stopping = False
        self._drain = True
        self._finished: asyncio.Event | None = None

    # ---- the life of children ----

    async def run(self) -> None:
        """Until stop() was called, or the first child could not begin."""
        loop = asyncio.get_running_loop()
        self._wake, self._connected, self._finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
        pause = _FIRST_PAUSE
        give_up = loop.time() + self._takeover
        try:
            while not self._stopping:
                began = loop.time()
                failure = await self._one_child(loop)
                if self._stopping:
                    break
                if self._started is not None and not (_is_taken(failure) and loop.time() < give_up):
                    self._tell_started(failure or self._gone("makeNotifications"))
                    return
                if self._started is None:
                    self.link.restarts += 1
                    _log.error("the publisher's process has ended (%s); another one is started", failure or "its socket was closed")
                pause = _FIRST_PAUSE if loop.time() - began > _OLD else min(pause * 2, _LONGEST_PAUSE)
                await self._sleep(pause)
        finally:
            self._tell_started(ClosedError("the publisher was closed"))
            self._backlog.close("the publisher was closed")
            if self._lane is not None:
                self._lane.close()
            self._connected.set()  # whoever waits for a child sees that none comes
            self._finished.set()

    def wake(self) -> None:
        """There are events to be taken."""
        if self._wake is not None:
            self._wake.set()

    def stop(self, drain: bool) -> None:
        """End; ``drain``: hand over first what is there."""
        self._stopping = True
        self._drain = drain
        self.wake()

    async def finished(self) -> None:
        """Wait for the end of run(), with which the last child is gone."""
        if self._finished is not None:
            await self._finished.wait()

    async def _sleep(self, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._stopping and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 0.05))

    async def _one_child(self, loop: asyncio.AbstractEventLoop) -> Exception | None:
        """From its spawning to its end; what it says is wrong with the options, or why it could not be spawned."""
        try:
            pid, sock = await loop.run_in_executor(None, self._process.spawn, self._program)
        except ZmqPubError as error:
            return error.with_traceback(None)
        except OSError as error:  # no descriptors are left, say: that passes
            return IpcConnectError(self._program, None, None, f"cannot start it: {error.strerror}")
        self._address = f"fd:{sock.fileno()}"
        self.link.process_id = pid
        lost = asyncio.Event()
        transport = SocketTransport(loop, sock, on_lost=lost.set)
        try:
            client = capnp.TwoPartyClient(open_stream(transport), traversal_limit_in_words=_MESSAGE_WORDS)
            failure = await self._begin(client)
            if failure is None:
                await self._feed(lost)
            return failure
        except ZmqPubError as error:
            return error.with_traceback(None)
        finally:
            self._capability = self._block = None
            self._connected_is(False)
            client = None
            transport.abort()
            self._calls.clear()
            if self._lane is not None:
                self._lane.clear()
            self._backlog.rewind()
            await loop.run_in_executor(None, self._end, pid)
            self.link.process_id = None

    async def _begin(self, client: Any) -> Exception | None:
        """makeNotifications."""
        init = client.bootstrap().cast_as(load().PublisherInit)
        request = init.makeNotifications_request()
        write_options(request.init("options"), self._next_options())
        failure: Exception | None
        failure, state, capability = await self._call("makeNotifications", _made(request.send()), self._start_timeout)
        if failure is not None:
            return failure
        self._capability = capability
        self.link.state, self.link.notifiers = state, list(state.notifiers)
        if not self._asked.resume:
            self._journaled, self._settled = state.journaled, state.settled
        if not state.lane and self._lane is not None:
            self._lane.close()
            self._lane = None
        if self.snapshot is not None:
            await self._call("setSnapshot", self._send_snapshot(capability), self._start_timeout)
        # journal_restart is about this process, and not about children: these go on.
        settings = {name: "continue" if name == "journal_restart" else value for name, value in self._asked.settings.items()}
        self._asked = PublisherOptions({}, settings, self._asked.directory, resume=True)
        self._connected_is(True)
        self._tell_started(None)
        return None

    def _next_options(self) -> PublisherOptions:
        """The first time what was asked for; then what the last child had, with the ports that it got."""
        lane = "" if self._lane is None else self._lane.path
        state = self.link.state
        if state is None:
            return PublisherOptions(self._asked.options, self._asked.settings, self._asked.directory, lane)
        options = {} if state.replay_address is None else {"zmqpubreplay": state.replay_address}
        return PublisherOptions(
            options, self._asked.settings, self._asked.directory, lane, tuple(self.link.notifiers), self._settled, self._journaled
        )

    def _end(self, pid: int) -> None:
        """Wait for a child whose socket is closed; it must be gone before the next one wants its addresses and its journal."""
        try:
            status = self._process.wait_spawned(pid, _END_PATIENCE)
        except subprocess.TimeoutExpired:
            _log.error("the publisher's process %d does not end, and is killed", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = self._process.wait_spawned(pid)
        if status not in (0, -signal.SIGKILL):
            _log.error("the publisher's process %d ended with status %d", pid, status)

    # ---- feeding ----

    async def _feed(self, lost: asyncio.Event) -> None:
        assert self._wake is not None
        gone = asyncio.ensure_future(lost.wait())
        try:
            while not gone.done():
                self._wake.clear()
                while entries := self._backlog.take(_CALL_EVENTS, _CALL_BYTES, self._window):
                    self._publish(entries, lost)
                if self._stopping and (not self._drain or self._backlog.is_empty()):
                    return
                woken = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait([woken, gone], return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            gone.cancel()

    def _publish(self, entries: list[Entry], lost: asyncio.Event) -> None:
        request = self._capability.publish_request()
        places: list[Place] = []
        for event, entry in zip(request.init("events", len(entries)), entries, strict=True):
            event.kind = int(entry.kind)
            body = event.body
            if entry.kind.of_block:
                if entry.body is self._block:
                    body.same = None
                    continue
                self._block = entry.body
            else:
                event.mempoolSequence = entry.mempool_sequence
                if isinstance(entry.body, bytes):
                    body.txid = entry.body[::-1]
                    continue
            place = self._lane.put(entry.body, entry.size) if self._lane is not None and entry.size >= _LANE_FROM else None
            if place is None:
                body.data = memoryview(entry.body)
            else:
                body.init("lane")
                body.lane.offset, body.lane.size = place
                places.append(place)
        call = (entries, places)
        self._calls.append(call)
        task = asyncio.ensure_future(self._acknowledged(request.send(), call, lost))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _acknowledged(self, promise: Any, call: tuple[list[Entry], list[Place]], lost: asyncio.Event) -> None:
        try:
            answer = await promise
            journaled, settled = int(answer.journaled), bool(answer.settled)
            refused = [(int(one.index), read_failure(one.failure)) for one in answer.refused] if answer._has("refused") else []
            del answer
        except capnp.KjException as error:
            if error.type != "DISCONNECTED":
                _log.error("the publisher's process cannot take events: %s", error.description)
            lost.set()
            return
        if not self._calls or self._calls[0] is not call:
            return  # of a child before this one
        self._calls.popleft()
        entries, places = call
        for index, failure in refused:
            self.link.refused += 1
            self.link.last_refusal = failure
            _log.error("%s was refused: %s", entries[index].kind.name.lower(), failure)
        self._journaled, self._settled = journaled, settled
        if self._lane is not None:
            for place in places:
                self._lane.take_back(place)
        self._backlog.acknowledge(len(entries), settled)
        self.wake()

    # ---- calls ----

    async def flush(self, timeout: float | None) -> bool:
        capability = await self._there("flush", timeout)
        # The child says in time that it was not enough, unless it is stuck.
        return bool(await self._call("flush", _flushed(capability, timeout), None if timeout is None else timeout + _ANSWER_PATIENCE))

    async def add_notifier(self, topic: str, address: str, hwm: int) -> ActiveNotifier:
        capability = await self._there("addNotifier", None)
        failure = await self._call("addNotifier", _changed(capability.addNotifier(topic, address, hwm)), None)
        if failure is not None:
            raise failure
        before = list(self.link.notifiers)
        await self._look(capability)
        return next((one for one in self.link.notifiers if one not in before), ActiveNotifier(f"pub{topic}", address, hwm))

    async def remove_notifier(self, topic: str, address: str) -> None:
        capability = await self._there("removeNotifier", None)
        failure = await self._call("removeNotifier", _changed(capability.removeNotifier(topic, address)), None)
        if failure is not None:
            raise failure
        await self._look(capability)

    async def set_snapshot(self, source: SnapshotSource | None) -> None:
        self.snapshot = source
        if self._capability is not None:
            await self._call("setSnapshot", self._send_snapshot(self._capability), None)

    async def stats(self) -> str:
        capability = await self._there("stats", None)
        return str(await self._call("stats", _json(capability), None))

    async def close(self, linger: float | None, as_set: bool) -> None:
        """``linger`` is what will be waited for, also if the child knows it ``as_set``; IpcTimeoutError for a child that is stuck."""
        if self._capability is not None:
            milliseconds = -1.0 if as_set else float("inf") if linger is None else linger * 1000
            await self._call("close", _closed(self._capability, milliseconds), None if linger is None else linger + _END_PATIENCE)

    async def _look(self, capability: Any) -> None:
        self.link.notifiers = await self._call("activeNotifiers", _notifiers(capability), None)

    async def _there(self, method: str, timeout: float | None) -> Any:
        """The capability, once there is a child."""
        assert self._connected is not None
        if self._capability is None and not self._stopping:
            try:
                await asyncio.wait_for(self._connected.wait(), timeout)
            except asyncio.TimeoutError:
                raise IpcTimeoutError(self._address, "Notifications", method, "there is no process yet") from None
        if self._capability is None:
            raise ClosedError("the publisher was closed") if self._stopping else self._gone(method)
        return self._capability

    async def _call(self, method: str, awaitable: Any, timeout: float | None) -> Any:
        """What ``awaitable`` gives, with errors that hold nothing of pycapnp's."""
        interface = "PublisherInit" if method == "makeNotifications" else "Notifications"
        try:
            return await asyncio.wait_for(awaitable, timeout)
        except asyncio.TimeoutError:
            raise IpcTimeoutError(self._address, interface, method, f"no answer within {timeout:g} s") from None
        except capnp.KjException as error:
            if error.type == "DISCONNECTED":
                raise self._gone(method) from None
            if "publisher was closed" in error.description:
                raise ClosedError("the publisher was closed") from None
            raise IpcProtocolError(self._address, interface, method, error.description.splitlines()[0]) from None

    def _gone(self, method: str) -> DisconnectedError:
        return DisconnectedError(self._address, "Notifications", method, "the publisher's process has ended")

    async def _send_snapshot(self, capability: Any) -> None:
        if self.snapshot is None:
            await capability.setSnapshot()
        else:
            await capability.setSnapshot(_snapshot_server(self))

    def _connected_is(self, there: bool) -> None:
        assert self._connected is not None
        if there:
            self._connected.set()
        else:
            self._connected.clear()

    def _tell_started(self, failure: Exception | None) -> None:
        started, self._started = self._started, None
        if started is not None:
            started(failure)


def _is_taken(failure: Exception | None) -> bool:
    """Does another process have what this one needs? The child of a parent before this one may be about to end."""
    if isinstance(failure, BindError):
        return failure.errno == errno.EADDRINUSE
    return isinstance(failure, JournalError) and "another publisher" in failure.got


# ---- calls, whose responses end within the thread ----


async def _made(promise: Any) -> tuple[Exception | None, PublisherState | None, Any]:
    response = await promise
    failure = read_failure(response.failure)
    if failure is not None:
        return failure, None, None
    return None, read_state(response.state), response.notifications


async def _flushed(capability: Any, timeout: float | None) -> bool:
    return bool((await capability.flush(float("inf") if timeout is None else timeout * 1000)).flushed)


async def _changed(promise: Any) -> Exception | None:
    return read_failure((await promise).failure)


async def _notifiers(capability: Any) -> list[ActiveNotifier]:
    return [read_notifier(one) for one in (await capability.activeNotifiers()).notifiers]


async def _json(capability: Any) -> str:
    return str((await capability.stats()).json)


async def _closed(capability: Any, milliseconds: float) -> None:
    await capability.close(milliseconds)


def _snapshot_server(feeder: Feeder) -> Any:
    class Source(load().SnapshotSource.Server):  # type: ignore[misc]
        async def take_context(self, context: Any) -> None:
            source = feeder.snapshot
            if source is None:
                raise ZmqPubError("nobody tells the state any more")
            try:
                snapshot = await asyncio.get_running_loop().run_in_executor(None, source)
            except Exception:
                _log.exception("the snapshot that a subscriber asked for could not be had from %r", source)
                raise ZmqPubError("the source of snapshots raised an exception") from None
            write_snapshot(context.results, snapshot)

    return Source()
