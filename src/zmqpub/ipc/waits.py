"""Calls that wait in the peer, and how to end them early without harm to those that come after.

Bitcoin Core has one flag for each Mining and each BlockTemplate: interrupt() sets it, and the one wait that sees it first takes it back
and returns nothing. So the flag may end a wait other than the one that was meant, and where there is none left, the next. Here is known
what waits on an object; an interrupt goes on until those that were meant have ended, the others wait again, and a flag that nobody took
is taken by a wait of no time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from zmqpub.errors import IpcError, UnimplementedError
from zmqpub.ipc.codec import OPERATIONS

if TYPE_CHECKING:
    from zmqpub.ipc.client_calls import Call
    from zmqpub.ipc.connection import Remote
    from zmqpub.ipc.wire import Wire

__all__ = ["Waits"]

_PATIENCE: Final = 1.0
"""Seconds after which an interrupt that nothing came of is sent again …"""
_ATTEMPTS: Final = 5
"""… so many times in all."""
_SLICE: Final = 1000.0
"""Milliseconds that a wait takes at most where it cannot be interrupted: v30's Mining. It is then asked again."""
_FLAG_TAKERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Mining": ("waitTipChanged", {"currentTip": bytes(32), "timeout": 0.0}),
    "BlockTemplate": ("waitNext", {"options": {"timeout": 0.0, "feeThreshold": 2_100_000_000_000_000}}),
}
_INTERRUPTS: Final = {"Mining": "interrupt", "BlockTemplate": "interruptWait"}


class Waits:
    """The waits on one object of the peer's. Belongs to the loop."""

    def __init__(self, remote: Remote, wire: Wire) -> None:
        self._remote = remote
        self._wire = wire
        self._active: set[Call] = set()
        self._ends = 0
        self._nulls = 0
        self._changed = asyncio.Event()
        self._settling: asyncio.Task[None] | None = None
        interrupt = _INTERRUPTS.get(remote.interface)
        if interrupt is not None and not remote.offers(interrupt):
            interrupt = None
        self._interrupt = interrupt

    async def run(self, call: Call) -> Any:
        """What the peer answers, None where it answers with nothing. For a call that was given up or interrupted, too."""
        wire, loop = self._wire, asyncio.get_running_loop()
        lane = await wire.borrow()
        busy = False
        try:
            fields = call.fields
            total = _milliseconds_of(fields)
            end = None if total is None else loop.time() + total / 1000
            while True:
                while self._settling is not None:
                    await asyncio.shield(self._settling)
                if self._remote.destroyed or call.abandoned or call.interrupted:
                    return None
                answer = wire.ask(call.operation, self._remote, self._next_fields(fields, end, loop.time()), lane)
                busy = True
                wire.link.preparing.pop(call, None)  # from here on it is not cancelled, but interrupted
                self._active.add(call)
                value = None
                try:
                    value = await answer
                finally:
                    busy = not answer.done()
                    self._active.discard(call)
                    self._ends += 1
                    self._nulls += value is None
                    self._changed.set()
                if call.abandoned or call.interrupted or wire.closed:
                    return value
                if value is None:
                    if self._settling is None:
                        return None
                elif not self._sliced(fields) or value.hash[::-1] != fields["currentTip"] or (end is not None and loop.time() >= end):
                    return value
        finally:
            if not busy:
                wire.give_back(lane)

    def stop(self, call: Call) -> None:
        """The caller has given up: end its wait, if it is one that is under way."""
        if call in self._active:
            self._settle()

    async def stop_all(self) -> None:
        """End the waits that are under way, each of which returns nothing, and come back when they have ended."""
        for call in self._active:
            call.interrupted = True
        if self._active and self._interrupt is None:
            while any(call.interrupted for call in self._active):
                self._changed.clear()
                await self._changed.wait()
            return
        if self._active:
            self._settle()
        if self._settling is not None:
            await asyncio.shield(self._settling)

    def _settle(self) -> None:
        if self._settling is None and self._interrupt is not None and not self._wire.closed:
            self._settling = self._wire.link.kj.start(self._settled())

    async def _settled(self) -> None:
        wire, remote = self._wire, self._remote
        assert self._interrupt is not None
        interrupt = OPERATIONS[f"{remote.interface}.{self._interrupt}"]
        flag = False
        attempts = 0
        try:
            while True:
                while not wire.closed and attempts < _ATTEMPTS and any(call.abandoned or call.interrupted for call in self._active):
                    ends, nulls = self._ends, self._nulls
                    await wire.ask(interrupt, remote, {})
                    flag = True
                    while self._ends == ends and not wire.closed:
                        self._changed.clear()
                        try:
                            await asyncio.wait_for(self._changed.wait(), _PATIENCE)
                        except asyncio.TimeoutError:
                            attempts += 1
                            break
                    if self._nulls != nulls:
                        flag = False
                if not flag or wire.closed:
                    break
                flag = False
                await self._take_flag()  # meanwhile others may be given up
        except UnimplementedError:
            self._interrupt = None
        except IpcError:
            pass  # the connection is gone, and the waits with it
        finally:
            self._settling = None

    async def _take_flag(self) -> None:
        wire, remote = self._wire, self._remote
        method, fields = _FLAG_TAKERS[remote.interface]
        lane = await wire.borrow()
        operation = OPERATIONS[f"{remote.interface}.{method}"]
        try:
            value = await wire.ask(operation, remote, dict(fields), lane)
        finally:
            wire.give_back(lane)
        if operation.makes is not None and value is not None:
            wire.link.release(value)

    def _sliced(self, fields: dict[str, Any]) -> bool:
        return self._interrupt is None and "currentTip" in fields

    def _next_fields(self, fields: dict[str, Any], end: float | None, now: float) -> dict[str, Any]:
        """As asked for, with the time that is left of it."""
        fields = dict(fields)
        if end is not None:
            left = max(0.0, end - now) * 1000
            if "options" in fields:
                fields["options"] = {**fields["options"], "timeout": left}
            else:
                fields["timeout"] = left
        if self._sliced(fields):
            fields["timeout"] = min(fields["timeout"], _SLICE)
        return fields


def _milliseconds_of(fields: dict[str, Any]) -> float | None:
    """The time that is waited for at most; None for no end, or for what takes none."""
    options = fields.get("options") or {}
    total: float | None = fields.get("timeout", options.get("timeout"))
    return None if total is None or total > 1e15 else total
