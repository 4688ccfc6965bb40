"""What a listener tells of what it hears: JSON lines, a table, or lines."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from datetime import datetime, timezone
from time import monotonic

from rich.console import Group, RenderableType
from rich.text import Text

from zmqpub._fast import RawBlock, Received, Sequence
from zmqpub.cli.picture import row_line, table
from zmqpub.cli.screen import Screen, amount, plural, size
from zmqpub.cli.tally import Item, Tally, hash_of
from zmqpub.cli.telling import event_in_words, event_members, event_name
from zmqpub.receiving.state import Status, SubscriberState
from zmqpub.wire import Topic

__all__ = ["Hearing", "JsonHearing", "TextHearing"]

_TROUBLE: tuple[Status, ...] = ("stale", "repairing", "degraded")
"""What is worth a line when it begins and when it ends; connections are events already."""


class Hearing(ABC):
    """Tells what happens as it happens, and what stands at ``due``."""

    due: float
    """When to call show() next, by the monotonic clock."""

    def __init__(self) -> None:
        self._statuses: dict[str, Status] = {}

    def state(self, state: SubscriberState) -> None:
        """Tell of each address that is in trouble now and was not, or the other way round."""
        for source in state.sources:
            before = self._statuses.get(source.address, "connecting")
            if source.status != before:
                self._statuses[source.address] = source.status
                if before in _TROUBLE or source.status in _TROUBLE:
                    self.status(source.address, source.status)

    @abstractmethod
    def happening(self, item: Item, lost: int) -> None:
        """A message, before which ``lost`` others were lost, or an event."""

    @abstractmethod
    def status(self, address: str, status: Status) -> None:
        """How a subscription stands from now on."""

    @abstractmethod
    def show(self) -> None:
        """Tell how things stand."""

    @abstractmethod
    def flush(self) -> None:
        """Let nothing wait in a buffer."""

    @abstractmethod
    def conclude(self, unread: int) -> None:
        """Tell the result. ``unread``: bytes that were received and not looked at any more."""


class JsonHearing(Hearing):
    """An object a line. ``event`` is ``message``, ``state``, ``summary``, or what event_name() calls it."""

    due = float("inf")

    def __init__(self, screen: Screen, tally: Tally, bodies: bool) -> None:
        super().__init__()
        self._screen = screen
        self._tally = tally
        self._bodies = bodies

    def happening(self, item: Item, lost: int) -> None:
        if isinstance(item, Received):
            self._message(item, lost)
        else:
            self.put(event_name(item), item.address, **event_members(item))

    def _message(self, message: Received, lost: int) -> None:
        more: dict[str, object] = {}
        if isinstance(message, RawBlock):
            more["transactions"] = len(message.block)
        elif isinstance(message, Sequence):
            more["label"] = message.label.value
            if message.mempool_sequence is not None:
                more["mempool_sequence"] = message.mempool_sequence
        if message.repaired:
            more["repaired"] = True
        if self._bodies:
            more["body"] = bytes(message.body).hex()
        self.put(
            "message",
            message.address,
            topic=message.topic.value,
            counter=message.counter,
            gap=lost,
            hash=hash_of(message).hex(),
            size=len(message.body),
            **more,
        )

    def status(self, address: str, status: Status) -> None:
        self.put("state", address, state=status)

    def show(self) -> None:
        pass

    def flush(self) -> None:
        self._screen.flush()

    def conclude(self, unread: int) -> None:
        self.put("summary", None, **self.summary(), unread_bytes=unread)
        self._screen.flush()

    def summary(self) -> dict[str, object]:
        """The members of the last object."""
        tally = self._tally
        rows = [
            {
                "address": row.address,
                "topic": row.topic.value,
                "messages": row.messages,
                "size": row.size,
                "counter": row.counter,
                "missed": row.missed,
                "repaired": row.repaired,
                "lost": row.lost,
                "restarts": row.restarts,
                "malformed": row.malformed,
            }
            for row in tally.rows.values()
        ]
        return {
            "messages": tally.messages,
            "missed": tally.missed,
            "repaired": tally.repaired,
            "lost": tally.lost,
            "restarts": tally.restarts,
            "malformed": tally.malformed,
            "states": self._statuses,
            "notifiers": rows,
        }

    def put(self, event: str, address: str | None, **more: object) -> None:
        """An object."""
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        place = {} if address is None else {"address": address}
        self._screen.write(f"{json.dumps({'event': event, 'time': now, **place, **more})}\n")


class TextHearing(Hearing):
    """For people: a table on a terminal, lines elsewhere; whatever goes wrong is a line in both."""

    def __init__(self, screen: Screen, tally: Tally) -> None:
        super().__init__()
        self._screen = screen
        self._tally = tally
        self._statuses = dict.fromkeys(tally.addresses, "connecting")
        self._rates: dict[tuple[str, Topic], float] = {}
        self._start = monotonic()
        self._counts: deque[tuple[float, dict[tuple[str, Topic], int]]] = deque([(self._start, {})], maxlen=screen.span)
        self.due = self._start

    def happening(self, item: Item, lost: int) -> None:
        if not isinstance(item, Received):
            self._screen.report(event_in_words(item))

    def status(self, address: str, status: Status) -> None:
        self._screen.report(f"{status}: {address}")

    def show(self) -> None:
        now = monotonic()
        first = self.due == self._start
        self.due = now + self._screen.every
        before, counts = self._counts[0]
        if now > before:
            self._rates = {key: (row.messages - counts.get(key, 0)) / (now - before) for key, row in self._tally.rows.items()}
        self._counts.append((now, {key: row.messages for key, row in self._tally.rows.items()}))
        if self._screen.live:
            self._screen.draw(self._picture())
        elif not first:
            self._screen.report(self._line())

    def flush(self) -> None:
        pass

    def conclude(self, unread: int) -> None:
        if self._screen.live:
            self._screen.draw(self._picture())
            self._screen.freeze()
        else:
            for row in self._tally.rows.values():
                if row.counter is not None:
                    self._screen.line(row_line(row))
        seconds = monotonic() - self._start
        self._screen.line(f"{plural(self._tally.messages, 'message')} in {seconds:,.1f} s, {self._tally.in_words()}")
        if unread:
            self._screen.line(f"{size(unread)} were received and not looked at any more")

    def _line(self) -> str:
        rate = sum(self._rates.values())
        return f"{plural(self._tally.messages, 'message')} ({amount(rate)}/s), {self._tally.in_words()}; {self._standing()}"

    def _standing(self) -> str:
        return ", ".join(f"{address} {status}" for address, status in self._statuses.items())

    def _picture(self) -> RenderableType:
        return Group(table(self._tally, self._rates, self._screen.width), Text(self._standing(), style="dim"))
