"""A follower's position as a small JSON value, and back. Does no I/O.

===================  ==========================================================================================================
version              1
recent               the last blocks told, oldest first: [height or null, hash], and a third element null where it is not sure
                     that the entry before is the parent
heard                who told so far: ``sequence``, ``rawblock``
flags                what holds: ``catching_up``, ``uncertain``, ``owes_blocks``, ``owes_mempool``
mempool              ``floor``: the number of the last snapshot; ``last``: by address the last mempool sequence
pending              events not handed out yet: [kind, hash, …]; ``held``: those that wait for a body, with who would send it
merge                for several addresses: ``keys`` that some of them still have to repeat, and how many of them each has to
                     (``behind``); ``silent``: those that are not waited for; ``ahead``: of those out of step, what they said last
subscriber           the subscriber's own cursor
===================  ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NoReturn, TypeAlias

from zmqpub.chain_events import BlockConnected, BlockDisconnected, ChainEvent, ChainGap, MempoolReset, TransactionAdded, TransactionRemoved
from zmqpub.errors import CursorError
from zmqpub.following.blocks import BlockTeller
from zmqpub.following.line import RECENT_BLOCKS, ChainLine, Link
from zmqpub.following.merge import SavedMerge
from zmqpub.following.state import ChainState, StoryKey

__all__ = ["JSONValue", "pack_cursor", "subscriber_part", "unpack_cursor"]

JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"

_VERSION: Final = 1
_FLAGS: Final = ("catching_up", "uncertain", "owes_blocks", "owes_mempool")


def pack_cursor(
    state: ChainState, subscriber: JSONValue, *, placed: Collection[str] = (), unfinished: bool = False
) -> dict[str, JSONValue]:
    """The position of ``state`` and the subscriber's, together.

    ``placed``: the addresses whose part of the story the subscriber will go on with where it is now, heard or not.
    ``unfinished``: whether what the last item asks of the node was not answered yet; it is asked anew then.
    """
    events, held = state.queue.save()
    flags = [name for name in _FLAGS if getattr(_owner(state, name), name) or (unfinished and name.startswith("owes_"))]
    if any(isinstance(event, MempoolReset) for event in events):
        # A snapshot may be large, and a new one is as good: it is asked for again.
        events = [event for event in events if not isinstance(event, (MempoolReset, TransactionAdded, TransactionRemoved))]
        flags = [*flags, *({"owes_mempool"} - set(flags))]
    cursor: dict[str, JSONValue] = {
        "version": _VERSION,
        "recent": _recent(state.line),
        "heard": [topic for topic, heard in (("sequence", state.labels_heard), ("rawblock", state.blocks.bodies_heard)) if heard],
        "flags": list[JSONValue](flags),
        "mempool": {"floor": state.numbers.floor, "last": dict[str, JSONValue](state.numbers.last)},
        "subscriber": subscriber,
    }
    if events:
        cursor["pending"] = [_pack_event(event) for event in events]
    if held:
        cursor["held"] = {block_hash.hex(): teller for block_hash, teller in held.items()}
    if state.merge is not None:
        cursor["merge"] = _pack_merge(state.merge.save(placed))
    return cursor


def _owner(state: ChainState, flag: str) -> ChainState | BlockTeller:
    return state if flag.startswith("owes_") else state.blocks


def subscriber_part(cursor: Mapping[str, Any]) -> Any:
    """What the subscriber is to be resumed from."""
    _check_version(cursor)
    return _take(cursor, "subscriber", lambda value: value)


def unpack_cursor(cursor: Mapping[str, Any], state: ChainState) -> None:
    """Put a new ``state`` where `pack_cursor` found the old one; CursorError for what is no cursor of ours."""
    _check_version(cursor)
    state.blocks.line = _take(cursor, "recent", _line)
    heard = _take(cursor, "heard", lambda value: {str(topic) for topic in value})
    state.labels_heard, state.blocks.bodies_heard = "sequence" in heard, "rawblock" in heard
    for flag in _take(cursor, "flags", lambda value: [str(name) for name in value]):
        if flag not in _FLAGS:
            _refuse("flags", f"{flag!r} is none that this version knows")
        setattr(_owner(state, flag), flag, True)
    floor, last = _take(
        cursor, "mempool", lambda value: (int(value["floor"]), {str(key): int(number) for key, number in value["last"].items()})
    )
    state.numbers.floor, state.numbers.last = floor, last
    held = _take(cursor, "held", lambda value: {_hash(name): teller for name, teller in value.items()}, {})
    state.queue.restore(_take(cursor, "pending", lambda value: [_unpack_event(row) for row in value], []), held)
    merge = state.merge
    if merge is not None and "merge" in cursor:
        _take(cursor, "merge", lambda value: merge.restore(_unpack_merge(value)))


# The chain


def _recent(line: ChainLine) -> list[JSONValue]:
    rows: list[JSONValue] = []
    parent: bytes | None = None
    for link in line:
        row: list[JSONValue] = [link.height, link.hash.hex()]
        if rows and link.previous != parent:
            row.append(None)
        rows.append(row)
        parent = link.hash
    return rows


def _line(rows: Any) -> ChainLine:
    if len(rows) > RECENT_BLOCKS:
        raise ValueError(f"at most {RECENT_BLOCKS} blocks")
    line = ChainLine()
    parent: bytes | None = None
    for height, block_hash, *unsure in rows:
        link = Link(_hash(block_hash), None if height is None else int(height), None if unsure else parent)
        if link.hash in line:
            raise ValueError("a block stands there twice")
        line.connect(link)
        parent = link.hash
    return line


# Events


def _pack_event(event: ChainEvent) -> JSONValue:
    if isinstance(event, BlockConnected):
        return ["connected", event.hash.hex(), event.height, None if event.previous is None else event.previous.hex()]
    if isinstance(event, BlockDisconnected):
        return ["disconnected", event.hash.hex(), event.height]
    if isinstance(event, TransactionAdded):
        return ["added", event.txid.hex(), event.mempool_sequence]
    if isinstance(event, TransactionRemoved):
        return ["removed", event.txid.hex(), event.mempool_sequence]
    assert isinstance(event, ChainGap)
    return ["gap", event.reason, event.blocks, event.mempool]


def _unpack_event(row: Any) -> ChainEvent:
    kind, *values = row
    if kind == "connected":
        block_hash, height, previous = values
        return BlockConnected(_hash(block_hash), _number(height), None if previous is None else _hash(previous))
    if kind == "disconnected":
        block_hash, height = values
        return BlockDisconnected(_hash(block_hash), _number(height))
    if kind in ("added", "removed"):
        txid, number = values
        added, removed = TransactionAdded(_hash(txid), None, _number(number)), TransactionRemoved(_hash(txid), _number(number))
        return added if kind == "added" else removed
    if kind == "gap":
        reason, blocks, mempool = values
        return ChainGap(str(reason), bool(blocks), bool(mempool))
    raise ValueError(f"no event is called {kind!r}")


# Several addresses


def _pack_merge(saved: SavedMerge[StoryKey]) -> JSONValue:
    merge: dict[str, JSONValue] = {
        "keys": [_pack_key(key) for key in saved.keys],
        "behind": dict[str, JSONValue](saved.behind),
        "unique": saved.has_unique,
    }
    if saved.silent:
        merge["silent"] = list[JSONValue](saved.silent)
    if saved.ahead:
        merge["ahead"] = {source: _pack_key(key) for source, key in saved.ahead.items()}
    return merge


def _unpack_merge(value: Any) -> SavedMerge[StoryKey]:
    return SavedMerge(
        [_unpack_key(row) for row in value["keys"]],
        {str(name): _number(count) for name, count in value["behind"].items()},
        bool(value["unique"]),
        [str(name) for name in value.get("silent", [])],
        {str(name): _unpack_key(row) for name, row in value.get("ahead", {}).items()},
    )


def _pack_key(key: StoryKey) -> JSONValue:
    label, name, number = key
    return [label, name.hex(), number]


def _unpack_key(row: Any) -> StoryKey:
    label, name, number = row
    return str(label), _hash(name), _number(number)


# Checks


def _check_version(cursor: Mapping[str, Any]) -> None:
    if not isinstance(cursor, Mapping):
        _refuse("version", f"a ChainFollower's cursor is an object, not {type(cursor).__name__}")
    version = cursor.get("version")
    if version != _VERSION or "recent" not in cursor:
        _refuse("version", f"expected {_VERSION} and a chain, got {version!r}: it is not from a ChainFollower of this version")


_REQUIRED: Final = object()


def _take(cursor: Mapping[str, Any], name: str, read: Callable[[Any], Any], default: Any = _REQUIRED) -> Any:
    if name not in cursor and default is not _REQUIRED:
        return default
    try:
        return read(cursor[name])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CursorError(name, f"damaged: {type(error).__name__}: {error}") from None


def _refuse(where: str, reason: str) -> NoReturn:
    raise CursorError(where, reason)


def _hash(text: Any) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != 32:
        raise ValueError(f"a hash has 32 bytes, not {len(value)}")
    return value


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
