"""Numbers that the processes of a soak share: a small file that each maps. Each number has one writer."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

__all__ = ["Shared"]

_NUMBER = struct.Struct("<Q")
_HANDED, _LIMIT, _STOP, _FIRST_CONSUMER = range(4)
_SIZE = 4096


class Shared:
    """``handed``: events handed to the publisher, by the publisher's process; ``limit``: events it may hand over, and
    ``stop``, by the conductor; ``progress``: how far each consumer's saved position is, by that consumer."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        path = folder / "shared"
        if create:
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._parent = os.getppid()

    def _get(self, place: int) -> int:
        number: int = _NUMBER.unpack_from(self._map, place * _NUMBER.size)[0]
        return number

    def _set(self, place: int, number: int) -> None:
        _NUMBER.pack_into(self._map, place * _NUMBER.size, number)

    @property
    def handed(self) -> int:
        return self._get(_HANDED)

    @handed.setter
    def handed(self, number: int) -> None:
        self._set(_HANDED, number)

    @property
    def limit(self) -> int:
        return self._get(_LIMIT)

    @limit.setter
    def limit(self, number: int) -> None:
        self._set(_LIMIT, number)

    @property
    def stop(self) -> bool:
        """Also where the conductor is gone: no process outlives it."""
        return self._get(_STOP) != 0 or os.getppid() != self._parent

    @stop.setter
    def stop(self, value: bool) -> None:
        self._set(_STOP, value)

    def progress(self, consumer: int) -> int:
        return self._get(_FIRST_CONSUMER + consumer)

    def set_progress(self, consumer: int, number: int) -> None:
        self._set(_FIRST_CONSUMER + consumer, number)
