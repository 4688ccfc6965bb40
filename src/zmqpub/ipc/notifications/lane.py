"""Memory that parent and child both map: what is large goes through it in one copy, and only its place goes through the socket."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import sys
import tempfile
from collections import deque
from typing import TYPE_CHECKING, Final

from zmqpub.errors import DecodeError
from zmqpub.ipc.notifications.codec import Place

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Lane", "LaneReader"]

_PAGE: Final = 4096
# Of <linux/fcntl.h>; Python has names for them from 3.12 on, and only where its own C library has.
_ADD_SEALS, _SEAL_SHRINK = 1033, 2


class Lane:
    """The parent's end: a ring of ``size`` bytes. Not thread-safe."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._descriptor, self.path = _make_file(size)
        self._map = mmap.mmap(self._descriptor, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        self._places: deque[Place] = deque()
        self._next = 0

    def put(self, body: Buffer, size: int) -> Place | None:
        """Copy ``body`` in; None when there is no room before take_back() made some."""
        offset = self._room(size)
        if offset is None:
            return None
        place = Place(offset, size)
        self._map[offset : offset + size] = body
        self._places.append(place)
        self._next = -(-(offset + size) // _PAGE) * _PAGE
        return place

    def take_back(self, place: Place) -> None:
        """What was put first, and is still there, has been read."""
        first = self._places.popleft()
        assert first == place, "the child answers in the order of the calls"

    def clear(self) -> None:
        """Nobody reads any more what was put."""
        self._places.clear()

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()
        os.close(self._descriptor)
        if not self.path.startswith("/proc/"):
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _room(self, size: int) -> int | None:
        """An offset with ``size`` bytes of room: behind what was put last, or at the start."""
        if not self._places:
            return 0 if size <= self.size else None
        oldest = self._places[0].offset
        if self._next > oldest:  # the room is at both ends
            if self._next + size <= self.size:
                return self._next
            return 0 if size < oldest else None
        return self._next if self._next + size <= oldest and self._next < oldest else None


class LaneReader:
    """The child's end."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "is no regular file", path)
            self._map = mmap.mmap(descriptor, status.st_size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        self.size = status.st_size

    def read(self, place: Place) -> bytes:
        """A copy of what is there; DecodeError for a place that is not within the lane."""
        if place.offset + place.size > self.size:
            raise DecodeError("lane", place.offset, f"a place within its {self.size} bytes", f"{place.size} bytes")
        return self._map[place.offset : place.offset + place.size]

    def close(self) -> None:
        self._map.close()


def _make_file(size: int) -> tuple[int, str]:
    """(descriptor, a path under which the child can open it): memory where the system has that, else a file."""
    if sys.platform.startswith("linux"):
        descriptor = os.memfd_create("zmqpub-lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEAL_SHRINK)  # so that no access of the child's can fail
        return descriptor, f"/proc/{os.getpid()}/fd/{descriptor}"
    descriptor, path = tempfile.mkstemp(prefix="zmqpub-lane-")
    os.ftruncate(descriptor, size)
    return descriptor, path
