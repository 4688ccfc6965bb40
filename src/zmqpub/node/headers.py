"""The headers of all blocks that were ever told of, in any branch: 150 bytes a block, whatever their number."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from zmqpub._build import serialize_header
from zmqpub.primitives import BlockHeader
from zmqpub.sources.block_index import NONE, HashTable, Records
from zmqpub.sources.block_networks import work_of_bits

__all__ = ["UNKNOWN", "HeaderRow", "Headers"]

UNKNOWN = NONE
"""The row of a block that is not there."""

_HEADER_SIZE = 80
_WORK_SIZE = 16
_MEDIAN_SPAN = 11
_FIRST_CAPACITY = 1_024


class HeaderRow(NamedTuple):
    """A block without its transactions."""

    hash: bytes
    """32 bytes, display order, as everywhere here."""
    header: BlockHeader
    height: int
    transactions: int
    work: int | None
    """Of the chain up to it, in hashes; None where that does not reach back to a genesis block."""
    parent: int
    """Its parent's row, or UNKNOWN."""


class Headers:
    """Rows, numbered in the order in which they were added."""

    def __init__(self) -> None:
        self._hashes = Records()  # of which it is the digests that count
        self._raw = bytearray()
        self._works = bytearray()  # all zero: unknown
        self._parents = array("i")
        self._heights = array("I")
        self._counts = array("I")
        self._capacity = 0
        self._table = HashTable(self._hashes)

    def __len__(self) -> int:
        return len(self._heights)

    def find(self, block_hash: bytes) -> int:
        """The row of a block, or UNKNOWN."""
        return self._table.find(block_hash[::-1])

    def add(self, block_hash: bytes, header: BlockHeader, height: int, transactions: int) -> int:
        """The row of a block, a new one if it was not known."""
        row = self.find(block_hash)
        if row != UNKNOWN:
            return row
        parent = self.find(header.prev_hash)
        is_genesis = not any(header.prev_hash)
        before = 0 if is_genesis else None if parent == UNKNOWN else self._work(parent)
        work = 0 if before is None else before + work_of_bits(header.bits)
        row = len(self)
        self._hashes.digests += block_hash[::-1]
        self._raw += serialize_header(header)
        self._works += work.to_bytes(_WORK_SIZE, "little")
        self._parents.append(parent)
        self._heights.append(height)
        self._counts.append(transactions)
        if row >= self._capacity:
            self._grow()
        else:
            self._table.insert(row)
        return row

    def __getitem__(self, row: int) -> HeaderRow:
        return HeaderRow(self.hash(row), self.header(row), self._heights[row], self._counts[row], self._work(row), self._parents[row])

    def hash(self, row: int) -> bytes:
        return bytes(self._hashes.digests[32 * row : 32 * row + 32][::-1])

    def height(self, row: int) -> int:
        return self._heights[row]

    def raw(self, row: int) -> bytes:
        """The serialized header."""
        return bytes(self._raw[_HEADER_SIZE * row : _HEADER_SIZE * (row + 1)])

    def header(self, row: int) -> BlockHeader:
        raw = self.raw(row)
        number = int.from_bytes
        return BlockHeader(
            number(raw[:4], "little", signed=True),
            raw[35:3:-1],
            raw[67:35:-1],
            number(raw[68:72], "little"),
            number(raw[72:76], "little"),
            number(raw[76:], "little"),
        )

    def median_time(self, row: int) -> int | None:
        """The median time past as of a block: of eleven, itself included; None where they are not all known."""
        times: list[int] = []
        while row != UNKNOWN and len(times) < _MEDIAN_SPAN:
            raw = self.raw(row)
            times.append(int.from_bytes(raw[68:72], "little"))
            if not any(raw[4:36]):  # a genesis block: there are no more
                break
            row = self._parents[row]
        else:
            if len(times) < _MEDIAN_SPAN:
                return None
        return sorted(times)[len(times) // 2]

    def _work(self, row: int) -> int | None:
        return int.from_bytes(self._works[_WORK_SIZE * row : _WORK_SIZE * (row + 1)], "little") or None

    def _grow(self) -> None:
        """A larger table, with all rows in it."""
        self._capacity = max(2 * self._capacity, _FIRST_CAPACITY)
        self._table = HashTable(self._hashes, self._capacity)
        for row in range(len(self)):
            self._table.insert(row)
