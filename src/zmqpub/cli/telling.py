"""The events of a stream in words and in JSON: one place for how each of them is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zmqpub.cli.codes import one_line
from zmqpub.cli.screen import plural
from zmqpub.stream_events import (
    Connected,
    CounterGap,
    Disconnected,
    Duplicate,
    Lost,
    Malformed,
    MempoolGap,
    Reconnected,
    Refused,
    Reorg,
    Repaired,
    Restart,
    Stale,
    StreamEvent,
)
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["event_in_words", "event_members", "event_name"]


def event_name(event: StreamEvent) -> str:
    """What it is called, in a JSON object's ``event``."""
    return _NAMES[type(event)]


def event_members(event: StreamEvent) -> dict[str, object]:
    """The members of its JSON object besides ``event``, ``time`` and ``address``."""
    members: dict[str, object] = _MEMBERS[type(event)](event)
    return members


def event_in_words(event: StreamEvent) -> str:
    """A line about it."""
    return one_line(_WORDS[type(event)](event))


def _before(counter: int | None) -> int | None:
    return None if counter is None else (counter - 1) % COUNTER_MODULUS


def _where(event: Any) -> str:
    return f"{event.topic} at {event.address}"


# In JSON


def _gap(event: CounterGap) -> dict[str, object]:
    members = {"topic": event.topic.value, "after": _before(event.expected), "counter": event.got, "missed": event.missed}
    return {**members, "cause": event.cause} if event.cause != "network" else members


def _restart(event: Restart) -> dict[str, object]:
    members: dict[str, object] = {}
    if event.topic is not None:
        members |= {"topic": event.topic.value, "after": _before(event.expected), "counter": event.got}
    if event.epoch is not None:
        before = event.previous_epoch
        members |= {"epoch": event.epoch.hex(), "previous_epoch": None if before is None else before.hex()}
    return members


def _malformed(event: Malformed) -> dict[str, object]:
    # A topic is named where the message counts as one of that topic.
    known = isinstance(event.topic, Topic) and event.counter is not None
    return {**({"topic": str(event.topic), "counter": event.counter} if known else {}), "error": one_line(event.reason)}


def _lost(event: Lost) -> dict[str, object]:
    return {
        "topic": event.topic.value,
        "first": event.first,
        "until": event.until,
        "messages": event.messages,
        "reason": one_line(event.reason),
    }


# In words


def _gap_in_words(event: CounterGap) -> str:
    missed = f"gap: {_where(event)}: {plural(event.missed, 'message')} missed"
    if event.cause == "overflow":
        missed += " because this listener was too slow"
    return f"{missed} between counters {_before(event.expected)} and {event.got}"


def _restart_in_words(event: Restart) -> str:
    if event.topic is not None:
        return f"restart: {_where(event)}: the counter went from {_before(event.expected)} to {event.got}"
    return f"restart: {event.address}: the publisher began anew{'' if event.epoch is None else f', as {event.epoch.hex()}'}"


def _lost_in_words(event: Lost) -> str:
    count = "an unknown number of messages" if event.messages is None else plural(event.messages, "message")
    return f"lost: {_where(event)}: {count} from counter {event.first} on: {event.reason}"


def _malformed_in_words(event: Malformed) -> str:
    return f"malformed message from {event.address}: {event.reason}"


def _repaired_in_words(event: Repaired) -> str:
    return f"repaired: {event.address}: {plural(event.messages, 'message')} by {event.by} within {event.seconds:.3f} s"


def _reorg_in_words(event: Reorg) -> str:
    return f"reorg: {event.address}: {event.topic}: {event.old_tip.hex()} is no longer the tip"


_NAMES: Final[dict[type, str]] = {
    CounterGap: "gap",
    MempoolGap: "mempool_gap",
    Restart: "restart",
    Stale: "stale",
    Connected: "connected",
    Reconnected: "connected",
    Disconnected: "disconnected",
    Refused: "refused",
    Reorg: "reorg",
    Malformed: "malformed",
    Duplicate: "duplicate",
    Repaired: "repaired",
    Lost: "lost",
}

_MEMBERS: Final[dict[type, Callable[[Any], dict[str, object]]]] = {
    CounterGap: _gap,
    MempoolGap: lambda event: {"expected": event.expected, "got": event.got},
    Restart: _restart,
    Stale: lambda event: {"silence": event.silence},
    Connected: lambda event: {"connections": 1},
    Reconnected: lambda event: {"connections": event.connections},
    Disconnected: lambda event: {},
    Refused: lambda event: {},
    Reorg: lambda event: {"topic": event.topic.value, "old_tip": event.old_tip.hex(), "block": event.block.hex()},
    Malformed: _malformed,
    Duplicate: lambda event: {"topic": event.topic.value, "counter": event.counter},
    Repaired: lambda event: {"messages": event.messages, "by": event.by, "seconds": event.seconds},
    Lost: _lost,
}

_WORDS: Final[dict[type, Callable[[Any], str]]] = {
    CounterGap: _gap_in_words,
    MempoolGap: lambda event: f"mempool gap: {event.address}: mempool sequence {event.expected} was expected, {event.got} came",
    Restart: _restart_in_words,
    Stale: lambda event: f"stale: {event.address}: nothing came for {event.silence:.1f} s; connecting anew",
    Connected: lambda event: f"connected: {event.address}",
    Reconnected: lambda event: f"connected: {event.address}",
    Disconnected: lambda event: f"disconnected: {event.address}",
    Refused: lambda event: f"refused: {event.address}: what listens there speaks no ZeroMQ",
    Reorg: _reorg_in_words,
    Malformed: _malformed_in_words,
    Duplicate: lambda event: f"duplicate: {_where(event)}: counter {event.counter} came again",
    Repaired: _repaired_in_words,
    Lost: _lost_in_words,
}
