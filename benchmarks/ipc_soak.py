"""Does IPC leave anything behind? Connections made and closed, peers killed: descriptors, threads and memory before and after.

``python ipc_soak.py [section …] [--scale 0.1]``. Without sections all of them, in full. Each says what it found on a line of its own; the
exit code is 1 where something grew that should not.

A section is a function here that takes the scale (1: in full) and yields nothing, but raises `Leak`. ``SECTIONS`` names them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ipc_hostile
import ipc_servers

from zmqpub import errors, ipc

CONNECTIONS = 10_000
KILLED = 1_000
MEMORY = 8 << 20
"""Bytes by which a process may have grown at the end: allocators keep what they had."""


class Leak(AssertionError):
    """Something was left behind."""


class Usage:
    """What a process holds, by /proc."""

    def __init__(self, pid: int | None = None) -> None:
        gc.collect()
        process = Path("/proc") / str(pid or os.getpid())
        self.descriptors = len(list((process / "fd").iterdir()))
        self.threads = len(list((process / "task").iterdir()))
        self.memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def check(self, later: Usage, what: str) -> None:
        grown = later.memory - self.memory
        held = f"descriptors {self.descriptors} -> {later.descriptors}, threads {self.threads} -> {later.threads}"
        line = f"{what}: {held}, {grown / 1024:+.0f} KiB"
        print(line, flush=True)
        if later.descriptors > self.descriptors or later.threads > self.threads or grown > MEMORY:
            raise Leak(line)


@contextlib.contextmanager
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """zmqpub's server in a process of its own, and its address."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s"
        process = subprocess.Popen([sys.executable, ipc_servers.__file__, path], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process, f"unix:{path}"
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def settled(before: Usage, pid: int | None = None) -> Usage:
    """What is held once the ends of the last connections have been noticed."""
    end = time.monotonic() + 10
    while True:
        now = Usage(pid)
        if (now.descriptors <= before.descriptors and now.threads <= before.threads) or time.monotonic() > end:
            return now
        time.sleep(0.1)


def connections(scale: float) -> None:
    """Connect, call, close; both ends are looked at."""
    with server() as (process, address):

        def once() -> None:
            with ipc.connect(address) as init:
                echo = init.make_echo()
                assert echo.echo("x") == "x"
                assert init.make_rpc().execute("getblockcount") == 0

        for _ in range(200):
            once()
        time.sleep(0.5)
        client, served = Usage(), Usage(process.pid)
        for _ in range(int(CONNECTIONS * scale)):
            once()
        client.check(settled(client), f"{int(CONNECTIONS * scale)} connections, the client")
        served.check(settled(served, process.pid), f"{int(CONNECTIONS * scale)} connections, the server")


def asyncio_connections(scale: float) -> None:
    """As connections, from asyncio, with loops that come and go."""
    import asyncio

    async def several(address: str, count: int) -> None:
        for _ in range(count):
            async with ipc.connect_async(address) as init:
                echo = await init.make_echo()
                assert await echo.echo("x") == "x"

    with server() as (_, address):
        asyncio.run(several(address, 200))
        asyncio.run(several(address, 1))
        before = Usage()
        for _ in range(20):
            asyncio.run(several(address, max(1, int(CONNECTIONS * scale / 20))))
        before.check(settled(before), f"{int(CONNECTIONS * scale)} connections from asyncio, the client")


def killed_peers(scale: float) -> None:
    """Peers that are killed in the middle of calls. A forked relay stands for each, so that a thousand do not take an hour."""
    with server() as (_, address):

        def once() -> None:
            with _Relay(address) as relay, ipc.connect(relay.address) as init:
                echo = init.make_echo()
                calls = [threading.Thread(target=_until_lost, args=(echo,)) for _ in range(3)]
                for call in calls:
                    call.start()
                assert echo.echo("x") == "x"
                relay.kill()
                for call in calls:
                    call.join(30)
                    assert not call.is_alive()

        for _ in range(30):
            once()
        before = Usage()
        for _ in range(int(KILLED * scale)):
            once()
        before.check(settled(before), f"{int(KILLED * scale)} killed peers, the client")


def calls(scale: float) -> None:
    """Many calls on one connection, some of which fail or are given up."""
    with server() as (_, address), ipc.connect(address) as init:
        echo, text = init.make_echo(), "x" * 10_000

        def some(count: int) -> None:
            for number in range(count):
                assert echo.echo(text) == text
                if number % 10 == 0:
                    with contextlib.suppress(errors.IpcError):
                        init.make_mining()
                    with contextlib.suppress(errors.IpcTimeoutError):
                        echo.echo("x", timeout=0)

        some(2000)
        before = Usage()
        some(int(50_000 * scale))
        before.check(settled(before), f"{int(50_000 * scale)} calls of 10 kB, the client")


def _until_lost(echo: ipc.Echo) -> None:
    with contextlib.suppress(errors.DisconnectedError):
        while True:
            echo.echo("x")


RELAY = """
import socket, sys, threading
listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen()
print("ready", flush=True)
while True:
    ours, _ = listener.accept()
    if not ours.recv(1, socket.MSG_PEEK): continue
    theirs = socket.socket(socket.AF_UNIX); theirs.connect(sys.argv[2])
    def pump(a, b):
        while data := a.recv(65536): b.sendall(data)
    threading.Thread(target=pump, args=(theirs, ours), daemon=True).start()
    threading.Thread(target=pump, args=(ours, theirs), daemon=True).start()
"""


class _Relay:
    """A process between the client and the server."""

    def __init__(self, address: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        path = f"{self._directory.name}/r"
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", RELAY, path, address.removeprefix("unix:")], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.address = f"unix:{path}"

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> _Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._directory.cleanup()


# ---- the server among peers that do not behave ----


def _hostile(what: str, act: Callable[[str, int], None], first: int, full: int) -> Callable[[float], None]:
    def section(scale: float) -> None:
        with server() as (process, address):
            path = address.removeprefix("unix:")

            def now(before: Usage | None = None) -> Usage:
                with ipc.connect(address) as init:  # it still serves
                    assert init.make_echo().echo("x") == "x"
                return settled(before or Usage(process.pid), process.pid)

            act(path, first)
            time.sleep(0.5)
            before = now()
            act(path, int(full * scale))
            before.check(now(before), f"{int(full * scale)} {what}, the server")

    return section


SECTIONS: dict[str, Callable[[float], None]] = {
    "connections": connections,
    "asyncio": asyncio_connections,
    "killed": killed_peers,
    "calls": calls,
    "come and go": _hostile("bare connections", ipc_hostile.come_and_go, 500, CONNECTIONS),
    "noise": _hostile("random bytes", ipc_hostile.send_noise, 500_000, 10_000_000),
    "killed clients": _hostile("killed clients", ipc_hostile.kill_clients, 50, KILLED),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Does IPC leave anything behind?")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; by default all")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full numbers")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    failed = False
    for name in options.sections or SECTIONS:
        start = time.monotonic()
        try:
            SECTIONS[name](options.scale)
        except Leak:
            failed = True
            print(f"{name}: LEAK", flush=True)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
