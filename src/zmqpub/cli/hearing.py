"""What a listener tells of what it hears: JSON lines, a table, or lines."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
from time import monotonic

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zmqpub._fast import Block
from zmqpub.cli.codes import one_line
from zmqpub.cli.receiver import Link, LinkState
from zmqpub.cli.screen import Screen, amount, plural, size
from zmqpub.cli.tally import Happening, Malformed, Received, Row, Tally
from zmqpub.wire import Topic

__all__ = ["Hearing", "JsonHearing", "TextHearing"]

_REST_OF_TABLE = 90  # columns that everything but addresses and hashes takes, with large numbers


class Hearing(ABC):
    """Tells what happens as it happens, and what stands at ``due``."""

    due: float
    """When to call show() next, by the monotonic clock."""

    @abstractmethod
    def happening(self, happening: Happening) -> None:
        """A message came."""

    @abstractmethod
    def link(self, link: Link) -> None:
        """A connection came or went."""

    @abstractmethod
    def show(self) -> None:
        """Tell how things stand."""

    @abstractmethod
    def flush(self) -> None:
        """Let nothing wait in a buffer."""

    @abstractmethod
    def conclude(self) -> None:
        """Tell the result."""


class JsonHearing(Hearing):
    """An object a line. ``event`` is ``message``, ``gap``, ``restart``, ``malformed``, a LinkState, or ``summary``."""

    due = float("inf")

    def __init__(self, screen: Screen, tally: Tally, bodies: bool) -> None:
        self._screen = screen
        self._tally = tally
        self._bodies = bodies

    def happening(self, happening: Happening) -> None:
        if happening.row is not None and happening.previous is not None:
            self._tell_step(happening)
        if isinstance(happening, Malformed):
            topic = {} if happening.row is None else {"topic": happening.row.topic.value}
            self._put("malformed", happening.address, **topic, error=one_line(str(happening.error)))
            return
        notification = happening.notification
        topic_name = notification.topic
        more: dict[str, object] = {"hash": happening.hash.hex(), "size": len(notification.body)}
        if isinstance(happening.content, Block):
            more["transactions"] = len(happening.content)
        elif topic_name is Topic.SEQUENCE:
            body = notification.sequence_body()
            more["label"] = body.label.value
            if body.mempool_sequence is not None:
                more["mempool_sequence"] = body.mempool_sequence
        if self._bodies:
            more["body"] = bytes(notification.body).hex()
        self._put(
            "message",
            happening.row.address,
            topic=topic_name.value,
            counter=notification.counter,
            gap=happening.step.missed,
            **more,
        )

    def _tell_step(self, happening: Happening) -> None:
        row, step = happening.row, happening.step
        if row is None or not (step.missed or step.restarted):
            return
        what: dict[str, object] = {"topic": row.topic.value, "after": happening.previous, "counter": row.counter}
        if step.restarted:
            self._put("restart", row.address, **what)
        if step.missed:
            self._put("gap", row.address, **what, missed=step.missed)

    def link(self, link: Link) -> None:
        self._put(link.state.value, link.address)

    def show(self) -> None:
        pass

    def flush(self) -> None:
        self._screen.flush()

    def conclude(self) -> None:
        tally = self._tally
        rows = [
            {
                "address": row.address,
                "topic": row.topic.value,
                "messages": row.messages,
                "size": row.size,
                "counter": row.counter,
                "missed": row.missed,
                "restarts": row.restarts,
                "malformed": row.malformed,
            }
            for row in tally.rows.values()
        ]
        self._put(
            "summary",
            None,
            messages=tally.messages,
            missed=tally.missed,
            restarts=tally.restarts,
            malformed=tally.malformed,
            notifiers=rows,
        )
        self._screen.flush()

    def _put(self, event: str, address: str | None, **more: object) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        place = {} if address is None else {"address": address}
        self._screen.write(f"{json.dumps({'event': event, 'time': now, **place, **more})}\n")


class TextHearing(Hearing):
    """For people: a table on a terminal, lines elsewhere; gaps and the like are lines in both."""

    def __init__(self, screen: Screen, tally: Tally, links: Sequence[Link]) -> None:
        self._screen = screen
        self._tally = tally
        self._links = links
        self._rates: dict[tuple[str, Topic], float] = {}
        self._start = monotonic()
        self._counts: deque[tuple[float, dict[tuple[str, Topic], int]]] = deque([(self._start, {})], maxlen=screen.span)
        self.due = self._start

    def happening(self, happening: Happening) -> None:
        row, step = happening.row, happening.step
        if row is not None:
            where = f"{row.topic} at {row.address}"
            if step.restarted:
                self._screen.report(f"restart: {where}: the counter went from {happening.previous} to {row.counter}")
            if step.missed and step.restarted:
                self._screen.report(f"gap: {where}: {plural(step.missed, 'message')} missed since the restart")
            elif step.missed:
                between = f"between counters {happening.previous} and {row.counter}"
                self._screen.report(f"gap: {where}: {plural(step.missed, 'message')} missed {between}")
        if isinstance(happening, Malformed):
            self._screen.report(f"malformed message from {happening.address}: {one_line(str(happening.error))}")

    def link(self, link: Link) -> None:
        note = ": what listens there speaks no ZeroMQ" if link.state is LinkState.REFUSED else ""
        self._screen.report(f"{link.state.value}: {link.address}{note}")

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

    def conclude(self) -> None:
        if self._screen.live:
            self._screen.draw(self._picture())
            self._screen.freeze()
        else:
            for row in self._tally.rows.values():
                if row.counter is not None:
                    self._screen.line(_row_line(row))
        tally, seconds = self._tally, monotonic() - self._start
        self._screen.line(
            f"{plural(tally.messages, 'message')} in {seconds:,.1f} s, {tally.missed:,} missed, "
            f"{plural(tally.restarts, 'restart')}, {tally.malformed:,} malformed"
        )

    def _line(self) -> str:
        rate = sum(self._rates.values())
        tally = self._tally
        links = ", ".join(f"{link.address} {link.state.value}" for link in self._links)
        return (
            f"{plural(tally.messages, 'message')} ({amount(rate)}/s), {tally.missed:,} missed, "
            f"{plural(tally.restarts, 'restart')}, {tally.malformed:,} malformed; {links}"
        )

    def _picture(self) -> RenderableType:
        states = ", ".join(f"{link.address} {link.state.value}" for link in self._links)
        return Group(_table(self._tally, self._rates, self._screen.width), Text(states, style="dim"))


def _table(tally: Tally, rates: dict[tuple[str, Topic], float], width: int) -> Table:
    """All rows of ``tally``, with messages a second, on ``width`` columns; hashes are shortened where they do not fit."""
    several = len(tally.addresses) > 1
    address_width = max(map(len, tally.addresses)) + 2 if several else 0
    whole = width >= _REST_OF_TABLE + address_width + 2 * 32
    result = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    result.add_column("topic", no_wrap=True)
    if several:
        result.add_column("address", no_wrap=True)
    for heading in ("messages", "/s", *(("bytes",) if whole else ()), "counter", "missed", "restarts"):
        result.add_column(heading, justify="right", no_wrap=True)
    # The only column that gives way on a narrow terminal; its cells are cut off all the same.
    result.add_column("last")
    for key, row in tally.rows.items():
        cells = [row.topic.value, *((row.address,) if several else ()), f"{row.messages:,}", amount(rates.get(key, 0.0))]
        cells += [*((size(row.size),) if whole else ()), "-" if row.counter is None else f"{row.counter}"]
        trouble = "bold red" if row.missed else ""
        last = Text("-" if row.last is None else _last(row.last, whole), no_wrap=True, overflow="ellipsis")
        result.add_row(*cells, Text(f"{row.missed:,}", style=trouble), f"{row.restarts:,}", last)
    return result


def _row_line(row: Row) -> str:
    last = "" if row.last is None else f", last {_last(row.last)}"
    return (
        f"{row.topic} at {row.address}: {plural(row.messages, 'message')}, {size(row.size)}, counter {row.counter}, "
        f"{row.missed:,} missed, {plural(row.restarts, 'restart')}, {row.malformed:,} malformed{last}"
    )


def _last(received: Received, whole: bool = True) -> str:
    """What it was about; of a shortened hash the end, as those of blocks begin with zeros."""
    text = received.hash.hex() if whole else f"..{received.hash[-6:].hex()}"
    if received.notification.topic is not Topic.SEQUENCE:
        return text
    body = received.notification.sequence_body()
    number = "" if body.mempool_sequence is None else f" {body.mempool_sequence}"
    return f"{body.label} {text}{number}"
