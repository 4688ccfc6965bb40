"""A subscriber's saved position: a small JSON value. Does no I/O.

::

    {"version": 1,
     "sources": {"tcp://127.0.0.1:28332": {"epoch": "32 hex digits, or null", "next": {"hashtx": 1234, "rawblock": null}}}}

``next`` is the number of the next message of each topic that is subscribed to, null where none was handed out yet; ``epoch`` the
life of the publisher within which that counts, null where the publisher has no replay endpoint: then it is the wire's counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zmqpub.errors import CursorError
from zmqpub.replay.protocol import EPOCH_SIZE
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["SavedPosition", "pack_cursor", "unpack_cursor"]

_VERSION: Final = 1
_TOPICS: Final = tuple(Topic)


@dataclass(frozen=True, slots=True)
class SavedPosition:
    """That of one address."""

    epoch: bytes | None
    numbers: Mapping[int, int]
    """By topic index."""


def pack_cursor(positions: Mapping[str, SavedPosition], topics: Sequence[Topic]) -> dict[str, Any]:
    """The cursor of these addresses."""
    return {
        "version": _VERSION,
        "sources": {
            address: {
                "epoch": None if position.epoch is None else position.epoch.hex(),
                "next": {topic.value: position.numbers.get(_TOPICS.index(topic)) for topic in topics},
            }
            for address, position in positions.items()
        },
    }


def unpack_cursor(cursor: object, addresses: Sequence[str], topics: Sequence[Topic]) -> dict[str, SavedPosition]:
    """By address its position; CursorError where the cursor is damaged, or is that of other addresses or topics."""
    whole = _object(cursor, "the cursor")
    version = whole.get("version")
    if version != _VERSION:
        raise CursorError("version", f"expected {_VERSION}, got {version!r}: another version of zmqpub made it, or something else")
    sources = _object(whole.get("sources"), "sources")
    _check_names("sources", "addresses", set(sources), set(addresses))
    return {address: _position(address, sources[address], topics) for address in addresses}


def _position(address: str, value: object, topics: Sequence[Topic]) -> SavedPosition:
    fields = _object(value, address)
    numbers = _object(fields.get("next"), f"{address}: next")
    _check_names(f"{address}: next", "topics", set(numbers), {topic.value for topic in topics})
    epoch = _epoch(address, fields.get("epoch"))
    limit = 2**64 if epoch is not None else COUNTER_MODULUS
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < limit):
            raise CursorError(f"{address}: next: {name}", f"expected a number from 0 to {limit - 1}, or null, got {number!r}")
    return SavedPosition(epoch, {_TOPICS.index(topic): numbers[topic.value] for topic in topics if numbers[topic.value] is not None})


def _epoch(address: str, value: object) -> bytes | None:
    if value is None:
        return None
    try:
        epoch = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        epoch = b""
    if len(epoch) != EPOCH_SIZE:
        raise CursorError(f"{address}: epoch", f"expected {2 * EPOCH_SIZE} hex digits, or null, got {value!r}")
    return epoch


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CursorError(where, f"expected an object, got {type(value).__name__}")
    return value


def _check_names(where: str, what: str, got: set[str], expected: set[str]) -> None:
    if got != expected:
        raise CursorError(where, f"it is of other {what}: {', '.join(sorted(got)) or 'none'}, not {', '.join(sorted(expected))}")
