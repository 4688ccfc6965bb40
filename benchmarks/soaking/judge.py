"""What was consumed, held against what was published."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Verdict", "compare"]


class Verdict(NamedTuple):
    """Of one consumer."""

    records: int
    fault: str | None
    """What is wrong first; None where all is there, once and in order."""


def compare(path: Path, expected: Iterator[bytes], record: struct.Struct) -> Verdict:
    """Hold a consumer's file against what it should be, record for record."""
    count = 0
    with path.open("rb") as file:
        for wanted in expected:
            got = file.read(len(wanted))
            if got != wanted:
                return Verdict(count, _describe(count, wanted, got, record))
            count += len(wanted) // record.size
        rest = file.read()
    return Verdict(count, f"{len(rest) // record.size} records too many" if rest else None)


def _describe(count: int, wanted: bytes, got: bytes, record: struct.Struct) -> str:
    for start in range(0, len(wanted), record.size):
        one, other = wanted[start : start + record.size], got[start : start + record.size]
        if one != other:
            found = record.unpack(other) if len(other) == record.size else "the end"
            return f"record {count + start // record.size}: expected {record.unpack(one)}, got {found}"
    raise AssertionError("they are equal")
