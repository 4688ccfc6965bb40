"""Servers for tests: a plain object at a socket, and what of this process it takes up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zmqpub.ipc import Limits, Listener
from zmqpub.ipc.echo import EchoServer


class EchoInit:
    """An Init with nothing but Echo."""

    def make_echo(self) -> EchoServer:
        return EchoServer()


@contextlib.contextmanager
def serving(path: Path, init: object, **limits: Any) -> Iterator[Listener]:
    """``init`` at the unix socket ``path``."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(128)
    with Listener(sock, init, address=f"unix:{path}", limits=Limits(**{"grace": 1.0, **limits})) as listener:
        yield listener


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return threading.active_count()


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
