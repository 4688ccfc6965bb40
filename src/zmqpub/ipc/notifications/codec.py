"""Options, states and events as the schema has them, and back. Does no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

from zmqpub.config import parse_options, parse_settings
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.publisher import ActiveNotifier
from zmqpub.replay.snapshot import Snapshot
from zmqpub.stats import (
    EndpointStats,
    JournalStats,
    LatencyStats,
    NotifierStats,
    ReplayStats,
    Stats,
    SubscriberStats,
)
from zmqpub.wire import Topic

__all__ = [
    "SAME",
    "Body",
    "Kind",
    "Place",
    "PublisherOptions",
    "PublisherState",
    "ReceivedEvent",
    "check_options",
    "pack_stats",
    "read_events",
    "read_notifier",
    "read_options",
    "read_snapshot",
    "read_state",
    "unpack_stats",
    "write_notifier",
    "write_options",
    "write_snapshot",
    "write_state",
]


class Kind(IntEnum):
    """Of an event: the schema's EventKind, and, one higher, the core's."""

    TRANSACTION_ADDED = 0
    TRANSACTION_REMOVED = 1
    BLOCK_CONNECTED = 2
    BLOCK_DISCONNECTED = 3
    TIP = 4

    @property
    def of_block(self) -> bool:
        """Is it about a block, rather than a transaction?"""
        return self >= Kind.BLOCK_CONNECTED


class Place(NamedTuple):
    """Where in the lane a body is, in bytes."""

    offset: int
    size: int


class Same:
    """The block of the event before."""


SAME = Same()

Body: TypeAlias = "bytes | Place | Same"


class ReceivedEvent(NamedTuple):
    """An event as the child got it: nothing in it was looked at yet."""

    kind: int
    mempool_sequence: int
    body: Body
    is_txid: bool


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """What makeNotifications asks for: see the schema."""

    options: Mapping[str, object]
    settings: Mapping[str, Any]
    directory: str = ""
    lane: str = ""
    notifiers: tuple[ActiveNotifier, ...] = ()
    resume: bool = False
    journaled: int = 0


@dataclass(frozen=True, slots=True)
class PublisherState:
    """What makeNotifications tells of the publisher that it made."""

    epoch: bytes
    notifiers: tuple[ActiveNotifier, ...]
    replay_address: str | None
    journaled: int
    process_id: int
    lane: bool
    """Could the child open the lane?"""
    settled: bool


# ---- options ----


def check_options(options: Mapping[str, object], settings: Mapping[str, Any]) -> None:
    """Raise ConfigError, with all that is wrong, where something cannot even be said in the schema; the child judges the rest."""
    sayable = all(isinstance(key, str) and all(isinstance(one, (str, int)) for one in _values(value)) for key, value in options.items())
    sayable = sayable and all(value is None or isinstance(value, (int, float, str)) for value in settings.values())
    sayable = sayable and not any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in settings.values())
    foreign = [
        ConfigProblem(name, repr(text), "is no UTF-8, as another process needs it")
        for name, value in (*options.items(), *settings.items())
        for text in (name, *_values(value))
        if isinstance(text, str) and not _is_utf8(text)
    ]
    if sayable and not foreign:
        return
    problems = foreign
    for parse, given in ((parse_options, options), (parse_settings, settings)):
        try:
            parse(given)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)


def write_options(builder: Any, asked: PublisherOptions) -> None:
    builder.directory, builder.lane = asked.directory, asked.lane
    builder.resume, builder.journaled = asked.resume, asked.journaled
    for option, (name, value) in zip(builder.init("options", len(asked.options)), asked.options.items(), strict=True):
        option.name = name
        # str.__str__: what a subclass (an Enum) prints is not what it is.
        option.values = [str.__str__(one) if isinstance(one, str) else str(int(one)) for one in _values(value)]
    for setting, (name, value) in zip(builder.init("settings", len(asked.settings)), asked.settings.items(), strict=True):
        setting.name = name
        _write_setting(setting.value, value)
    for written, notifier in zip(builder.init("notifiers", len(asked.notifiers)), asked.notifiers, strict=True):
        write_notifier(written, notifier)


def read_options(reader: Any) -> PublisherOptions:
    return PublisherOptions(
        {str(option.name): [str(value) for value in option.values] for option in reader.options},
        {str(setting.name): _read_setting(setting.value) for setting in reader.settings},
        str(reader.directory),
        str(reader.lane),
        tuple(read_notifier(one) for one in reader.notifiers),
        bool(reader.resume),
        int(reader.journaled),
    )


def _write_setting(builder: Any, value: object) -> None:
    if isinstance(value, str):
        builder.text = value
    elif isinstance(value, float):
        builder.number = value
    elif isinstance(value, int):
        builder.integer = value
    else:
        builder.none = None


def _read_setting(reader: Any) -> Any:
    kind = reader.which()
    if kind == "text":
        return str(reader.text)
    if kind == "integer":
        return int(reader.integer)
    return float(reader.number) if kind == "number" else None


def _is_utf8(text: str) -> bool:
    """Not, for one, where it is a path that came from the system as other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _values(value: object) -> Sequence[Any]:
    """One or several values of an option."""
    return value if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)) else (value,)


# ---- the state of the publisher ----


def write_notifier(builder: Any, notifier: ActiveNotifier) -> None:
    builder.type, builder.address, builder.hwm = notifier


def read_notifier(reader: Any) -> ActiveNotifier:
    return ActiveNotifier(str(reader.type), str(reader.address), int(reader.hwm))


def write_state(builder: Any, state: PublisherState) -> None:
    builder.epoch = state.epoch
    builder.replayAddress = state.replay_address or ""
    builder.journaled = state.journaled
    builder.processId = state.process_id
    builder.lane = state.lane
    builder.settled = state.settled
    for written, notifier in zip(builder.init("notifiers", len(state.notifiers)), state.notifiers, strict=True):
        write_notifier(written, notifier)


def read_state(reader: Any) -> PublisherState:
    return PublisherState(
        bytes(reader.epoch),
        tuple(read_notifier(one) for one in reader.notifiers),
        str(reader.replayAddress) or None,
        int(reader.journaled),
        int(reader.processId),
        bool(reader.lane),
        bool(reader.settled),
    )


def pack_stats(stats: Stats) -> str:
    """Stats as JSON: an object with the dataclass's fields."""
    return json.dumps(asdict(stats))


def unpack_stats(text: str) -> Stats:
    """pack_stats undone; fields that only a later version knows are left out."""
    plain = json.loads(text)
    return Stats(
        tuple(_make(NotifierStats, one, topic=Topic(one["topic"])) for one in plain["notifiers"]),
        tuple(
            _make(
                EndpointStats,
                one,
                subscribers=tuple(_make(SubscriberStats, each) for each in one["subscribers"]),
                latency=_make(LatencyStats, one["latency"]),
            )
            for one in plain["endpoints"]
        ),
        _make(JournalStats, plain["journal"]),
        None if plain["replay"] is None else _make(ReplayStats, plain["replay"]),
    )


def _make(kind: Any, plain: dict[str, Any], **made: Any) -> Any:
    return kind(**{name: made.get(name, value) for name, value in plain.items() if name in kind.__dataclass_fields__})


# ---- snapshots ----


def write_snapshot(builder: Any, snapshot: Snapshot) -> None:
    """Fill the results of SnapshotSource.take."""
    if snapshot.tip is not None:
        builder.tip = snapshot.tip[::-1]
    if snapshot.height is not None:
        builder.height = snapshot.height
    if snapshot.txids is not None:
        builder.txids = b"".join(txid[::-1] for txid in snapshot.txids)
    builder.mempoolSequence = snapshot.mempool_sequence or 0


def read_snapshot(reader: Any) -> Snapshot:
    """The results of SnapshotSource.take."""
    txids = None
    if reader._has("txids"):
        joined = bytes(reader.txids)
        txids = tuple(joined[at : at + 32][::-1] for at in range(0, len(joined), 32))
    return Snapshot(
        tip=bytes(reader.tip)[::-1] if reader._has("tip") else None,
        height=int(reader.height) if reader.height >= 0 else None,
        txids=txids,
        mempool_sequence=None if txids is None else int(reader.mempoolSequence),
    )


# ---- events ----


def read_events(events: Any) -> list[ReceivedEvent]:
    """The events of a call of publish, as plain Python."""
    return [_read_event(event) for event in events]


def _read_event(event: Any) -> ReceivedEvent:
    body = event.body
    which = body.which()
    kind, sequence = event.kind.raw, event.mempoolSequence
    if which == "data":
        return ReceivedEvent(kind, sequence, bytes(body.data), False)
    if which == "lane":
        return ReceivedEvent(kind, sequence, Place(body.lane.offset, body.lane.size), False)
    if which == "txid":
        return ReceivedEvent(kind, sequence, bytes(body.txid)[::-1], True)
    return ReceivedEvent(kind, sequence, SAME, False)
