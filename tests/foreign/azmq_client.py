"""python azmq_client.py ADDRESS COUNT: all five topics through azmq, until COUNT messages came and then none for a moment.

Each message goes to stdout as a count of frames, then length and bytes of each (lengths and count: 4 bytes, little-endian).
"""

from __future__ import annotations

import asyncio
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from typing import Any

# azmq dates from Python 3.5: beyond its protocol code, two habits of that time have to be made good.


class OldSource(SourceFileLoader):
    """In azmq.socket, a comma that was no syntax error then, and a lock as it was taken then."""

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        return data.replace(b"is connection,\n", b"is connection\n").replace(b"with await self._read_lock", b"async with self._read_lock")


class OldSources:
    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> Any:
        if name != "azmq.socket":
            return None
        file = f"{path[0]}/socket.py"
        return spec_from_file_location(name, file, loader=OldSource(name, file))


def without_loop(function: Any) -> Any:
    """It names its event loop to functions that take none since Python 3.10."""
    return lambda *args, loop=None, **keywords: function(*args, **keywords)


for name in ("Event", "Lock", "Queue", "gather", "open_connection", "sleep", "wait", "wait_for"):
    setattr(asyncio, name, without_loop(getattr(asyncio, name)))

sys.meta_path.insert(0, OldSources)

import azmq  # noqa: E402


def write(frames: list[bytes]) -> None:
    out = sys.stdout.buffer
    out.write(len(frames).to_bytes(4, "little"))
    for frame in frames:
        out.write(len(frame).to_bytes(4, "little") + frame)


async def main(address: str, count: int) -> None:
    sub = azmq.Context().socket(azmq.SUB)
    for topic in (b"hashblock", b"hashtx", b"rawblock", b"rawtx", b"sequence"):
        await sub.subscribe(topic)
    sub.connect(address)
    received = 0
    while True:
        try:
            write(await asyncio.wait_for(sub.recv_multipart(), 20 if received < count else 0.2))
        except asyncio.TimeoutError:
            break
        received += 1
    sys.stdout.flush()


if __name__ == "__main__":
    runner = asyncio.new_event_loop()
    asyncio.set_event_loop(runner)
    runner.run_until_complete(main(sys.argv[1], int(sys.argv[2])))
