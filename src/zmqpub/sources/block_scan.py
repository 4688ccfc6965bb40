"""The index pass: where the records of block files are, without reading more of them than their headers.

A record of blk*.dat is the network's magic (4 bytes), the block's size (4 bytes, little-endian) and the block. What is
taken for a record has a size that a block may have, lies within its file, and has a header that meets its own proof of
work; anything else is damage, and the scan goes on at the next record.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Protocol

from zmqpub._fast import sha256d
from zmqpub.errors import DamagedRecordError, SourceError
from zmqpub.sources.block_files import BlockDirectory, Obfuscation, first_of, map_file
from zmqpub.sources.block_networks import LEAST_LIMIT, NETWORKS, Network, network_of_magic, target_of_bits

__all__ = ["OnDamage", "OnRecord", "RecordScanner", "detect_network", "scan_raw_file"]

HEADER_SIZE = 80
PREFIX_SIZE = 8
START_SIZE = PREFIX_SIZE + HEADER_SIZE
LEAST_BLOCK = HEADER_SIZE + 1
MOST_BLOCK = 4_000_000
"""Bitcoin Core's MAX_BLOCK_SERIALIZED_SIZE."""

OnDamage = Callable[[DamagedRecordError], None]
"""Takes note of a damaged record, or raises it."""


class OnRecord(Protocol):
    """Takes a record: the offset of its block (behind magic and size), the block's size, its hash in digest order, and
    its 80 header bytes."""

    def __call__(self, offset: int, size: int, digest: bytes, header: bytes, /) -> None: ...


class _Targets(dict[bytes, int]):
    """From the four bytes of a header's bits to the target; a chain has few different ones."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __missing__(self, bits: bytes) -> int:
        target = self[bits] = target_of_bits(int.from_bytes(bits, "little"), self.limit)
        return target


def _no_proof(header: bytes, digest: bytes) -> str:
    bits = int.from_bytes(header[72:76], "little")
    return f"no block: the header's hash {digest[::-1].hex()} does not meet its bits {bits:#010x}"


class RecordScanner:
    """Finds the records of one blk*.dat after another.

    1.5 microseconds a record when the files are in the page cache (CPython 3.11); else the disk decides.
    """

    def __init__(self, network: Network, obfuscation: Obfuscation, on_record: OnRecord, on_damage: OnDamage) -> None:
        self.network = network
        self.obfuscation = obfuscation
        self.on_record = on_record
        self.on_damage = on_damage
        self._targets = _Targets(network.limit)
        self._pads = obfuscation.short_pads(START_SIZE)

    def scan(self, path: str) -> None:
        """Report every record of the file; SourceError when it cannot be read or has another network's records."""
        data = map_file(path)
        if data is None:
            return
        with data:
            if hasattr(mmap, "MADV_RANDOM"):
                # Then the disk reads a page a record, not the pages around it, too: 70 microseconds in place of 950
                # (blocks of 1.4 MB, a virtual disk, nothing in the page cache).
                data.madvise(mmap.MADV_RANDOM)
            self._scan(path, data)

    def _scan(self, path: str, data: mmap.mmap) -> None:
        magic, pads, targets, on_record = self.network.magic, self._pads, self._targets, self.on_record
        obfuscated = bool(self.obfuscation.key)
        number = int.from_bytes
        end = len(data)
        place = 0
        last = -1  # where the record before this place begins
        while place + START_SIZE <= end:
            start = data[place : place + START_SIZE]
            if obfuscated:
                start = (number(start, "little") ^ pads[place & 7]).to_bytes(START_SIZE, "little")
            if start[:4] != magic:
                place = self._after_no_magic(path, data, place, last, start)
                last = -1
                continue
            size = number(start[4:8], "little")
            after = place + PREFIX_SIZE + size
            if not LEAST_BLOCK <= size <= MOST_BLOCK or after > end:
                place = self._after_bad_size(path, data, place, size)
                last = -1
                continue
            header = start[PREFIX_SIZE:]
            digest = sha256d(header)
            if number(digest, "little") > targets[header[72:76]]:
                place = self._after_no_proof(path, data, place, after, header, digest)
                last = -1
                continue
            on_record(place + PREFIX_SIZE, size, digest, header)
            last, place = place, after
        if place < end and any(data[place:end]):
            self._damaged(path, place, f"{end - place} bytes are no record, which has at least {START_SIZE + 1}")

    def _damaged(self, path: str, offset: int, reason: str) -> None:
        self.on_damage(DamagedRecordError(path, offset, reason))

    def _start(self, data: mmap.mmap, place: int) -> bytes:
        return bytes(self.obfuscation.read(data, place, place + START_SIZE))

    def _is_record(self, data: mmap.mmap, place: int) -> bool:
        """Whether magic, size and proof of work of what begins at ``place`` are right."""
        start = self._start(data, place)
        if len(start) < START_SIZE or start[:4] != self.network.magic:
            return False
        size = int.from_bytes(start[4:8], "little")
        if not LEAST_BLOCK <= size <= MOST_BLOCK or place + PREFIX_SIZE + size > len(data):
            return False
        return int.from_bytes(sha256d(start[PREFIX_SIZE:]), "little") <= self._targets[start[80:84]]

    def _is_boundary(self, data: mmap.mmap, place: int) -> bool:
        """Whether a record can end at ``place``: the file's end, preallocated zeros or the next record follow."""
        if place == len(data) or not any(data[place : place + 4]):
            return True
        return self._start(data, place)[:4] == self.network.magic

    def starts_well(self, data: mmap.mmap) -> bool:
        """Whether a file begins with a record, and whatever comes after it is one, too."""
        return self._is_record(data, 0) and self._is_boundary(data, PREFIX_SIZE + int.from_bytes(self._start(data, 0)[4:8], "little"))

    def _next_record(self, data: mmap.mmap, first: int, sure_from: int) -> int:
        """Where the first record from ``first`` on begins, the file's end if none does.

        Before ``sure_from``, inside what was taken for a block, it must be followed by another record, too: a
        transaction may carry anything.
        """
        place = first
        while (place := self.obfuscation.find(data, self.network.magic, place, len(data))) >= 0:
            if self._is_record(data, place):
                size = int.from_bytes(self._start(data, place)[4:8], "little")
                if place >= sure_from or self._is_boundary(data, place + PREFIX_SIZE + size):
                    return place
            place += 1
        return len(data)

    def _going_on(self, data: mmap.mmap, place: int) -> str:
        return f"went on at offset {place}" if place < len(data) else "no record after it"

    def _after_no_magic(self, path: str, data: mmap.mmap, place: int, last: int, start: bytes) -> int:
        zeros_end = _end_of_zeros(data, place)
        if zeros_end == len(data):
            return zeros_end  # preallocated
        other = network_of_magic(start[:4])
        if other is not None and _meets_bits(start[PREFIX_SIZE:], other.limit):
            raise SourceError(
                f"{path}: at offset {place}: a record of {other.name} among those of {self.network.name}: "
                "the files of two networks are mixed"
            )
        if zeros_end - place >= 4 and self._is_record(data, zeros_end):
            self._damaged(path, place, f"{zeros_end - place} zero bytes between records; went on at offset {zeros_end}")
            return zeros_end
        # The record before may have been shorter than its size says: look for its successor behind its header.
        first = place + 1 if last < 0 else last + START_SIZE
        found = self._next_record(data, first, sure_from=place)
        expected = f"{self.network.magic.hex()}, the magic of {self.network.name}"
        self._damaged(path, place, f"expected {expected}, got {start[:4].hex()}; {self._going_on(data, found)}")
        return found

    def _after_bad_size(self, path: str, data: mmap.mmap, place: int, size: int) -> int:
        found = self._next_record(data, place + 4, sure_from=place)
        if LEAST_BLOCK <= size <= MOST_BLOCK:
            left = len(data) - place - PREFIX_SIZE
            reason = f"truncated: a block of {size} bytes, {left} before the end of the file"
        else:
            reason = f"a size of {size} bytes: a block has {LEAST_BLOCK} to {MOST_BLOCK}"
        self._damaged(path, place, f"{reason}; {self._going_on(data, found)}")
        return found

    def _after_no_proof(self, path: str, data: mmap.mmap, place: int, after: int, header: bytes, digest: bytes) -> int:
        fits = self._is_boundary(data, after)
        found = after if fits else self._next_record(data, place + 4, sure_from=place)
        self._damaged(path, place, f"{_no_proof(header, digest)}; {self._going_on(data, found)}")
        return found


def _meets_bits(header: bytes, limit: int) -> bool:
    target = target_of_bits(int.from_bytes(header[72:76], "little"), limit)
    return int.from_bytes(sha256d(header), "little") <= target


def _end_of_zeros(data: mmap.mmap, place: int) -> int:
    """The first offset from ``place`` on with a byte other than zero, the end if there is none."""
    step = 1 << 20
    for here in range(place, len(data), step):
        chunk = data[here : here + step]
        left = len(chunk.lstrip(b"\0"))
        if left:
            return here + len(chunk) - left
    return len(data)


def detect_network(directory: BlockDirectory) -> Network:
    """The network of a directory of blk*.dat, by the magic of the first record; SourceError when there is no record.

    A magic that no known network has, before a header with proof of work and again after that block, is that of a
    private network (each private signet has its own).
    """
    obfuscation = directory.obfuscation
    for path in directory.paths:
        data = map_file(path)
        if data is None:
            continue
        with data:
            start = bytes(obfuscation.read(data, 0, START_SIZE))
            if len(start) < START_SIZE or not any(data[:START_SIZE]):
                continue
            network = network_of_magic(start[:4])
            if network is not None:
                return network
            private = Network("private", start[:4], b"", LEAST_LIMIT)
            if RecordScanner(private, obfuscation, lambda *_: None, lambda _: None).starts_well(data):
                return private
            network = _first_magic(data, obfuscation)
            if network is not None:
                return network
    known = ", ".join(f"{network.magic.hex()} ({network.name})" for network in NETWORKS.values())
    key = f"with the key {obfuscation.key.hex()} of xor.dat" if obfuscation.key else "there is no key in xor.dat"
    raise SourceError(f"{directory.path}: no record of any network in blk*.dat: looked for the magic {known}; {key}")


def _first_magic(data: mmap.mmap, obfuscation: Obfuscation) -> Network | None:
    """The known network whose record comes first in a file that is damaged at its start."""
    first: tuple[int, Network] | None = None
    for network in NETWORKS.values():
        scanner = RecordScanner(network, obfuscation, lambda *_: None, lambda _: None)
        place = scanner._next_record(data, 0, 0)
        if place < len(data) and (first is None or place < first[0]):
            first = place, network
    return first[1] if first else None


def scan_raw_file(path: str, limit: int, on_record: OnRecord, on_damage: OnDamage) -> None:
    """Report the one block that is ``path``, which has no magic and no size of its own."""
    header, size = first_of(path, HEADER_SIZE)
    if not LEAST_BLOCK <= size <= MOST_BLOCK:
        on_damage(DamagedRecordError(path, 0, f"{size} bytes: a block has {LEAST_BLOCK} to {MOST_BLOCK}"))
        return
    digest = sha256d(header)
    if _meets_bits(header, limit):
        on_record(0, size, digest, header)
    else:
        on_damage(DamagedRecordError(path, 0, _no_proof(header, digest)))
