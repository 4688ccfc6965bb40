"""What peers that do not behave do to a server: for `ipc_soak.py`, which looks at what the server holds before and after."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import sys

__all__ = ["come_and_go", "kill_clients", "send_noise"]


def come_and_go(path: str, count: int) -> None:
    """Connect and close: at once, after a byte, after the beginning of a message, after noise."""
    chance = random.Random(1)
    for number in range(count):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            kind = number % 4
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if kind:
                    sock.send((b"", b"\0", struct.pack("<II", 0, 20), chance.randbytes(64))[kind])


def send_noise(path: str, size: int) -> None:
    """So many random bytes, over many connections; every other one begins like a message."""
    chance = random.Random(2)
    while size > 0:
        words = chance.randrange(1, 2_000)
        noise = chance.randbytes(8 * words)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.settimeout(60)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(noise if words % 2 else struct.pack("<II", 0, words) + noise)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        size -= len(noise)


_KILLER = """
import os, random, signal, sys, time
from zmqpub import ipc

address, count = sys.argv[1], int(sys.argv[2])
chance = random.Random(3)
for _ in range(count):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        init = ipc.connect(address)
        echo = init.make_echo()
        os.write(writer, b"x")
        while True:
            echo.echo("x" * 10_000)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)
    time.sleep(chance.random() * 0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def kill_clients(path: str, count: int) -> None:
    """Clients, forked from a process that has not connected yet, are killed in the midst of calls."""
    subprocess.run([sys.executable, "-c", _KILLER, f"unix:{path}", str(count)], check=True)
