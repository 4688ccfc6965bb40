"""The files of a block directory: which there are, their obfuscation, and bytes out of them.

Two kinds of directory: Bitcoin Core's (``blk00000.dat`` …, with or without ``xor.dat``) and one of raw files that hold
one serialized block each. Nothing here knows what a record or a block is.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import threading
from collections import OrderedDict
from typing import Literal

from zmqpub._build import xor
from zmqpub.errors import SourceError

__all__ = ["BlockDirectory", "Obfuscation", "first_of", "map_file"]

KEY_SIZE = 8

_CORE_FILE = re.compile(r"blk(\d{5,})\.dat")
_OPEN_MAPS = 16
"""A chain's neighbors lie within Bitcoin Core's download window of 1,024 blocks: some ten files of 128 MiB."""


class Obfuscation:
    """Bitcoin Core's XOR of block files: the byte at offset ``i`` of a file was combined with ``key[i % 8]``.

    ``key`` is 8 bytes; all zero, or empty, means none. The zeros that Bitcoin Core preallocates at a file's end are
    plain zeros all the same.
    """

    def __init__(self, key: bytes = b"") -> None:
        self.key = key if any(key) else b""

    def read(self, data: mmap.mmap, start: int, end: int) -> memoryview:
        """The bytes ``start`` … ``end`` of a mapped file in the clear, read-only.

        Without a key it is a slice of the mapping, no copy; with one it is a copy.
        """
        view = memoryview(data)[start:end]
        return memoryview(xor(view, self.key, start)) if self.key else view

    def short_pads(self, length: int) -> list[int]:
        """For each residue of an offset modulo 8, the little-endian number to XOR ``length`` bytes from there with."""
        turns = [self.key[turn:] + self.key[:turn] for turn in range(KEY_SIZE)]
        return [int.from_bytes((turn * (length // KEY_SIZE + 1))[:length], "little") for turn in turns]

    def find(self, data: mmap.mmap, wanted: bytes, start: int, end: int) -> int:
        """The first offset from ``start`` on at which ``wanted`` stands, whole, before ``end``; or -1."""
        if not self.key:
            return data.find(wanted, start, end)
        step = 1 << 20
        for here in range(start, end, step):
            clear = bytes(self.read(data, here, min(end, here + step + len(wanted) - 1)))
            place = clear.find(wanted)
            if place >= 0:
                return here + place
        return -1


def map_file(path: str) -> mmap.mmap | None:
    """``path`` mapped read-only, None when it is empty; SourceError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return None
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


def first_of(path: str, length: int) -> tuple[bytes, int]:
    """The first ``length`` bytes of a file (fewer when it is shorter), and its size."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(length), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


class BlockDirectory:
    """The files with blocks in ``path``, as they stood when it was opened, in the order of their names.

    SourceError where there is nothing to read.
    """

    kind: Literal["core", "raw"]
    """``core``: blk*.dat with records. ``raw``: a file is a block."""
    paths: list[str]
    obfuscation: Obfuscation

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
        except NotADirectoryError as error:
            raise SourceError(f"{path}: not a directory; wanted is the directory of the block files") from error
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
        numbered = [(int(match[1]), name) for name in names if (match := _CORE_FILE.fullmatch(name))]
        if numbered or "xor.dat" in names:
            self.kind = "core"
            names = [name for _, name in sorted(numbered)]
            self.obfuscation = Obfuscation(_read_key(os.path.join(path, "xor.dat")))
        else:
            self.kind = "raw"
            self.obfuscation = Obfuscation()
        if not names:
            raise SourceError(f"{path}: no block files: neither blk*.dat nor files of one raw block each{_hint(path)}")
        self.paths = [os.path.join(path, name) for name in names]
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: int, start: int, end: int) -> memoryview:
        """The bytes ``start`` … ``end`` of file number ``file``, in the clear and read-only.

        Fewer when the file has become shorter. SourceError when it cannot be read. A raw file is read, not mapped:
        every mapping holds a descriptor for as long as a block refers to it, and here each block would need its own.
        """
        if self.kind == "raw":
            try:
                with open(self.paths[file], "rb", buffering=0) as raw:
                    raw.seek(start)
                    return memoryview(raw.read(end - start))
            except OSError as error:
                raise SourceError(f"{self.paths[file]}: cannot be read: {error.strerror}") from error
        data = self._map(file)
        return memoryview(b"") if data is None else self.obfuscation.read(data, start, end)

    def _map(self, file: int) -> mmap.mmap | None:
        with self._lock:
            data = self._maps.get(file) or map_file(self.paths[file])
            if data is not None:
                self._maps[file] = data
                self._maps.move_to_end(file)
                if len(self._maps) > _OPEN_MAPS:
                    # Not closed: blocks may still refer to it. The last of them ends the mapping.
                    self._maps.popitem(last=False)
            return data

    def close(self) -> None:
        """Let go of the mappings; those that blocks refer to stay until the last of these is gone."""
        with self._lock:
            self._maps.clear()


def _read_key(path: str) -> bytes:
    if not os.path.exists(path):
        return b""
    key, size = first_of(path, KEY_SIZE)
    if size != KEY_SIZE:
        raise SourceError(f"{path}: the key of the block files has {KEY_SIZE} bytes, this file has {size}")
    return key


def _hint(path: str) -> str:
    """Where below ``path`` the block files are, for one who named Bitcoin Core's data directory."""
    for below in ("blocks", *(os.path.join(name, "blocks") for name in ("testnet3", "testnet4", "signet", "regtest"))):
        candidate = os.path.join(path, below)
        with contextlib.suppress(OSError):
            if any(_CORE_FILE.fullmatch(name) for name in os.listdir(candidate)):
                return f"; those of Bitcoin Core are in {candidate}"
    return ""
