"""From records in any order to a chain: connecting by previous hash, the best branch, heights.

The records of a directory form trees. The usual directory has one, rooted at the genesis block, or, where a node pruned
its files, at some later block. Where blocks are missing there are more: each is an island, of which the branch with the
most work counts. Islands are put in order of their heights; of two that claim the same heights the one with more work
counts. What does not count is stale.

Nothing here reads files: records come in through ``Records.add``, and the first bytes of a few blocks are asked for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

from zmqpub.sources.block_networks import work_of_bits

__all__ = ["NONE", "START_OF_BLOCK", "Chain", "HashTable", "Island", "Records", "coinbase_height", "connect"]

START_OF_BLOCK = 240
"""As many bytes of a block as are needed to find the height in its coinbase: 80 + 9 + 4 + 2 + 1 + 36 + 1 + 100."""

NONE = -1
DUPLICATE = -2
FIRST_COINBASE_VERSION = 2


class Records:
    """All records, a few numbers each: 52 bytes a record when connected. A main chain has 900,000 of them."""

    def __init__(self) -> None:
        self.digests = bytearray()
        """The blocks' hashes, 32 bytes each, digest order."""
        self.parents = bytearray()
        """The hashes of their parents, likewise; emptied when they are connected."""
        self.files = array("I")
        self.offsets = array("Q")
        self.sizes = array("I")
        self.bits = array("I")
        self.file = 0
        """The number of the file to which the records that are now added belong."""

    def __len__(self) -> int:
        return len(self.files)

    def add(self, offset: int, size: int, digest: bytes, header: bytes, /) -> None:
        self.digests += digest
        self.parents += header[4:36]
        self.files.append(self.file)
        self.offsets.append(offset)
        self.sizes.append(size)
        self.bits.append(int.from_bytes(header[72:76], "little"))

    def hash(self, record: int) -> bytes:
        """Display order."""
        return bytes(self.digests[32 * record : 32 * record + 32][::-1])

    def parent(self, record: int) -> bytes:
        """Display order; only until they are connected."""
        return bytes(self.parents[32 * record : 32 * record + 32][::-1])


class HashTable:
    """Finds records by hash. Open addressing over one array: 8 to 16 bytes a record, where a dict needs 200.

    ``capacity``: how many records it is for, by default those that there are.
    """

    def __init__(self, records: Records, capacity: int | None = None) -> None:
        self.digests = records.digests
        size = 1 << (2 * (len(records) if capacity is None else capacity)).bit_length()
        self._mask = size - 1
        self._slots = array("I", bytes(4 * size))  # a record's number + 1, or 0

    def insert(self, record: int) -> int:
        """Enter ``record``, or NONE is not what comes back, but the equal one that is there already."""
        place, digests, slots, mask = 32 * record, self.digests, self._slots, self._mask
        digest = digests[place : place + 32]
        # A hash meets its target with zeros at the end of the digest: its beginning is as good as random.
        slot = int.from_bytes(digest[:8], "little") & mask
        while other := slots[slot]:
            if digests[32 * other - 32 : 32 * other] == digest:
                return other - 1
            slot = slot + 1 & mask
        slots[slot] = record + 1
        return NONE

    def find(self, digest: bytes | bytearray) -> int:
        """The record with this hash (digest order), or NONE."""
        digests, slots, mask = self.digests, self._slots, self._mask
        slot = int.from_bytes(digest[:8], "little") & mask
        while other := slots[slot]:
            if digests[32 * other - 32 : 32 * other] == digest:
                return other - 1
            slot = slot + 1 & mask
        return NONE


class Island(NamedTuple):
    """A run of blocks, each the parent of the next."""

    first_height: int
    last_height: int
    root: int
    """The record of its first block."""
    parent: bytes
    """The hash (display order) of the block before it, which is not there; all zero before a genesis block."""


class Chain(NamedTuple):
    """What there is to publish."""

    records: array[int]
    """The numbers of the records in chain order."""
    heights: array[int]
    """Their heights, increasing; by one except where blocks are missing."""
    islands: list[Island]
    """More than one where blocks are missing."""
    stale: int
    """How many blocks are not on it."""
    duplicates: dict[int, list[int]]
    """From a record to later ones of the same block."""

    def position(self, height: int) -> int:
        """Where the first block of at least ``height`` stands."""
        return bisect_left(self.heights, height)


def coinbase_height(start: bytes) -> int | None:
    """The height that a block's coinbase names (BIP 34), from the first START_OF_BLOCK bytes; None where there is none.

    Version 1 blocks are not asked: what stands in their coinbase is anything.
    """
    if len(start) < 81 or int.from_bytes(start[:4], "little", signed=True) < FIRST_COINBASE_VERSION:
        return None
    place = 80 + {0xFD: 3, 0xFE: 5, 0xFF: 9}.get(start[80], 1) + 4
    if start[place : place + 2] == b"\0\1":
        place += 2
    if start[place : place + 37] != b"\1" + bytes(32) + b"\xff\xff\xff\xff":
        return None
    script = start[place + 38 : place + 38 + start[place + 37]] if len(start) > place + 37 else b""
    if not script:
        return None
    if 0x51 <= script[0] <= 0x60:  # OP_1 … OP_16
        return script[0] - 0x50
    number = script[1 : 1 + script[0]]
    if not 1 <= script[0] <= 4 or len(number) < script[0] or number[-1] & 0x80:
        return None
    return int.from_bytes(number, "little")


class _Tree:
    """Records that hang together, and the best of them so far."""

    __slots__ = ("count", "length", "root", "tip", "work")

    def __init__(self, root: int) -> None:
        self.root = root
        self.count = 0
        self.length = 0
        self.tip = root
        self.work = 0


def connect(records: Records, start_of: Callable[[int], bytes]) -> Chain:
    """The best chain, or chains, of ``records``. 2 microseconds and, meanwhile, 70 bytes a record.

    ``start_of`` gives the first START_OF_BLOCK bytes of a record's block. Records' ``parents`` are gone afterwards.
    """
    table = HashTable(records)
    parents = array("i", bytes(4 * len(records)))
    duplicates: dict[int, list[int]] = {}
    for record in range(len(records)):
        known = table.insert(record)
        if known != NONE:
            duplicates.setdefault(known, []).append(record)
            parents[record] = DUPLICATE
    find, hashes = table.find, records.parents
    for record in range(len(records)):
        if parents[record] != DUPLICATE:
            parents[record] = find(hashes[32 * record : 32 * record + 32])
    trees = _grow(records, parents)
    branches = []
    for tree in trees:
        way = array("I", bytes(4 * tree.length))
        record = tree.tip
        for place in range(tree.length - 1, -1, -1):
            way[place] = record
            record = parents[record]
        branches.append(_Branch(way, tree.work, records.parent(tree.root), start_of))
    placed = _place(branches)
    chain, heights = array("I"), array("I")
    islands = []
    for height, branch in placed:
        after = height + len(branch.records)
        chain.extend(branch.records)
        heights.extend(range(height, after))
        islands.append(Island(height, after - 1, branch.records[0], branch.parent))
    records.parents = bytearray()
    distinct = sum(tree.count for tree in trees)
    return Chain(chain, heights, islands, distinct - len(chain), duplicates)


def _grow(records: Records, parents: array[int]) -> list[_Tree]:
    """The trees, each with the tip of its branch of most work; of equal ones that which was written first."""
    count = len(records)
    trees: list[_Tree] = []
    tree_of = array("i", [NONE]) * count
    length = array("I", bytes(4 * count))
    # The work from the root on, in two halves: 128 bits suffice, as every header has its proof of work.
    high, low = array("Q", bytes(8 * count)), array("Q", bytes(8 * count))
    for first in range(count):
        if parents[first] == DUPLICATE or tree_of[first] != NONE:
            continue
        path = [first]
        while (parent := parents[path[-1]]) >= 0 and tree_of[parent] == NONE:
            path.append(parent)
        if parent < 0:
            number, depth, work = len(trees), 0, 0
            trees.append(_Tree(path[-1]))
        else:
            number, depth, work = tree_of[parent], length[parent], high[parent] << 64 | low[parent]
        tree = trees[number]
        for record in reversed(path):
            depth += 1
            work += work_of_bits(records.bits[record])
            tree_of[record] = number
            length[record] = depth
            high[record], low[record] = work >> 64, work & 0xFFFFFFFFFFFFFFFF
            if work > tree.work or (work == tree.work and record < tree.tip):
                tree.work, tree.tip, tree.length = work, record, depth
        tree.count += len(path)
    return trees


class _Branch:
    """The branch of a tree that counts, the missing parent's hash, and what is known of its place."""

    def __init__(self, records: array[int], work: int, parent: bytes, start_of: Callable[[int], bytes]) -> None:
        self.records = records
        self.work = work
        self.parent = parent
        self.height = self._height(start_of)
        self.time = int.from_bytes(start_of(records[0])[68:72], "little")

    def _height(self, start_of: Callable[[int], bytes]) -> int | None:
        """Of the first block. Coinbases name it from BIP 34 on, so the last block is asked before the first."""
        if not any(self.parent):
            return 0
        for place in (len(self.records) - 1, 0):
            height = coinbase_height(start_of(self.records[place]))
            if height is not None and height > place:
                return height - place
        return None


def _place(branches: list[_Branch]) -> list[tuple[int, _Branch]]:
    """Branches with the height of their first block, in order of height, none overlapping.

    One whose height is unknown (before BIP 34, without the genesis block) goes where its first block's time says, and
    is numbered as if one block were missing before it, the very first from 0. If it does not fit between its neighbors
    then, it is stale.
    """
    placed: list[tuple[int, _Branch]] = []
    for branch in sorted(branches, key=lambda branch: -branch.work):
        if branch.height is None:
            continue
        after = bisect_left(placed, branch.height, key=lambda entry: entry[0])
        if _fits(placed, after, branch.height, branch):
            placed.insert(after, (branch.height, branch))
    for branch in sorted((branch for branch in branches if branch.height is None), key=lambda branch: branch.time):
        after = bisect_right(placed, branch.time, key=lambda entry: entry[1].time)
        height = placed[after - 1][0] + len(placed[after - 1][1].records) + 1 if after else 0
        if _fits(placed, after, height, branch):
            placed.insert(after, (height, branch))
    return placed


def _fits(placed: list[tuple[int, _Branch]], after: int, height: int, branch: _Branch) -> bool:
    """Whether ``branch``, from ``height`` on, overlaps neither the ``after - 1``-th nor the ``after``-th."""
    begins = placed[after - 1][0] + len(placed[after - 1][1].records) if after else 0
    ends = placed[after][0] if after < len(placed) else None
    return begins <= height and (ends is None or height + len(branch.records) <= ends)
