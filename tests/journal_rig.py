"""A stream of events that follows from their numbers alone, so that any process can tell what a journal file should hold."""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from listening import wait_wanted
from synthetic import block, transaction

from zmqpub import Publisher
from zmqpub._fast import _describe_history, _event_of_history

ADDED, REMOVED, CONNECTED, DISCONNECTED, TIP = range(1, 6)
LEAST = 1024 * 1024
"""The smallest journal file; its ring has 851,968 bytes."""

# Where things are in a file: docs/journal.md.
STATE, EPOCHS, RING = 1024, 65536, 196608
BOOT, CLEAN, SYNCED, COMMITTED, TAILS = STATE, STATE + 20, STATE + 24, STATE + 32, STATE + 40
RECORD = 80


@lru_cache(maxsize=256)
def event_of(n: int) -> tuple[int, bytes, int]:
    """(kind, body as it is retained, mempool sequence) of event n."""
    turn, kind = divmod(n, 5)
    if kind == 0:
        return CONNECTED, bytes(block(turn, turn % 40 + 1)), 0
    if kind == 1:
        return TIP, bytes(block(turn, turn % 40 + 1)), 0
    if kind == 2:
        return ADDED, bytes(transaction(n, size=turn * 37 % 3000)), n
    if kind == 3:
        return REMOVED, transaction(n).txid, n
    return DISCONNECTED, bytes(block(turn, 2)), 0


def publish(publisher: Publisher, n: int) -> None:
    kind, raw, number = event_of(n)
    if kind == ADDED:
        publisher.transaction_added_to_mempool(raw, number)
    elif kind == REMOVED:
        publisher.transaction_removed_from_mempool(raw, number)
    elif kind == CONNECTED:
        publisher.block_connected(raw)
    elif kind == DISCONNECTED:
        publisher.block_disconnected(raw)
    else:
        publisher.updated_block_tip(raw)


def held(publisher: Publisher) -> range:
    """The events that are held, of all epochs."""
    epochs = _describe_history(publisher.engine)
    return range(epochs[0][3], epochs[-1][4])


def check_held(publisher: Publisher, expected: Any = None) -> range:
    """Everything that is held is what was published."""
    numbers = held(publisher)
    for n in numbers:
        got = _event_of_history(publisher.engine, n)
        assert not isinstance(got, str), (n, got, numbers)
        assert got[:3] == (expected or event_of)(n), n
    return numbers


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def committed(path: Path) -> int:
    (number,) = struct.unpack("<Q", read(path, COMMITTED, 8))
    return int(number)


def records(path: Path) -> list[tuple[int, int, int]]:
    """(offset in the file, length, event) of each record, for a ring that was not gone around yet."""
    found: list[tuple[int, int, int]] = []
    at = RING
    while True:
        _crc, magic, _position, length, event = struct.unpack("<IIQQQ", read(path, at, 32))
        if magic != 0x7A706A72:
            return found
        found.append((at, length, event))
        at += length


def main() -> None:
    """Publish from event N on, for ever, and say after each how many there are: argv is path, address, N and settings.

    It begins at a line on stdin; where that says so, when somebody subscribes to each topic."""
    path, address, first, *settings = sys.argv[1:]
    options = {f"zmqpub{topic}": address for topic in ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")}
    keywords: dict[str, Any] = {name: int(value) if value.isdigit() else value for name, value in (s.split("=") for s in settings)}
    with Publisher(options, journal_path=path, **{"journal_bytes": LEAST, **keywords}) as publisher:
        print("ready", publisher.epoch.hex(), held(publisher).stop, flush=True)
        if sys.stdin.readline() == "once wanted\n":
            wait_wanted(publisher)
        n = int(first)
        while True:
            publish(publisher, n)
            n += 1
            sys.stdout.write(f"{n}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
