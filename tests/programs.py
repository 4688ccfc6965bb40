"""The program ``zmqpub`` as tests run it: a process of its own, watched line by line, never left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import zmqpub

PATIENCE = 60.0
"""Seconds after which what has not come will not come."""
TOPICS = ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")
ANY_PORT = "tcp://127.0.0.1:*"

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")},
    "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(zmqpub.__file__).parents[1]), os.environ.get("PYTHONPATH")))),
    "PYTHONUNBUFFERED": "",  # the program itself has to flush
}


def everything(address: str = ANY_PORT, dashes: str = "--") -> list[str]:
    """Options for all five topics at one address."""
    return [f"{dashes}zmqpub{topic}={address}" for topic in TOPICS]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Program:
    """``zmqpub`` with ``arguments``; killed at the end of a with statement if it is still there."""

    def __init__(self, *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE, command: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "zmqpub", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        self.seen: list[str] = []
        """Lines of stdout that were looked at."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._read_errors)]
        if self.process.stdout is not None:
            self._threads.append(threading.Thread(target=self._read_lines))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if error is not None:
            print(f"exit code {self.process.returncode}", *self.seen, *self._errors, sep="\n")

    def line(self, pattern: str, timeout: float = PATIENCE) -> re.Match[str]:
        """The next line in which ``pattern`` is found."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} within {timeout} s; stderr: {self._errors}") from None
            if line is None:
                raise AssertionError(f"the program ended without a line with {pattern!r}; stderr: {self._errors}")
            self.seen.append(line)
            if match := re.search(pattern, line):
                return match

    def address(self) -> str:
        """Of the first notifier."""
        return str(self.line(r"^bound pub\w+ (\S+) ")[1])

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int | None = None, timeout: float = PATIENCE) -> int:
        """The exit code, after a signal if one is given. All lines are in ``seen`` then."""
        if number is not None:
            self.send(number)
        code = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(timeout)
        while not self._lines.empty():
            if (line := self._lines.get()) is not None:
                self.seen.append(line)
        return code

    @property
    def errors(self) -> list[str]:
        """The lines of stderr; all of them once the program has ended."""
        return list(self._errors)

    def objects(self) -> list[dict[str, Any]]:
        """The lines in ``seen`` as JSON, each of which has to be an object."""
        return [json.loads(line) for line in self.seen]

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.decode().rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line.decode().rstrip("\n"))


def once(*arguments: str, timeout: float = PATIENCE) -> Program:
    """A program that ends by itself, after it did."""
    with Program(*arguments) as program:
        program.end(timeout=timeout)
        return program


@contextlib.contextmanager
def connected_listener(address: str, *options: str) -> Iterator[Program]:
    """``zmqpub listen --json`` once it is connected."""
    with Program("listen", address, "--json", *options) as listener:
        listener.line('"event": "connected"')
        yield listener


@contextlib.contextmanager
def stopped(listener: Program) -> Iterator[None]:
    """Meanwhile the process does not run at all."""
    listener.send(signal.SIGSTOP)
    try:
        yield
    finally:
        listener.send(signal.SIGCONT)


def plain(output: bytes) -> str:
    """What a terminal shows, without colors and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())


def on_terminal(*arguments: str, until: str, number: int | None = None, columns: int = 100) -> tuple[int, str]:
    """Exit code and output on a terminal; the signal ``number`` is sent once ``until`` was seen there, colors aside."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "zmqpub", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**ENVIRONMENT, "TERM": "xterm-256color"},
    )
    os.close(follower)
    output = b""
    try:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        with contextlib.suppress(OSError):  # EIO: the other end was closed
            while data := os.read(leader, 65536):
                output += data
                if number is not None and re.search(until, plain(output)):
                    process.send_signal(number)
                    number = None
        code = process.wait(PATIENCE)
        watchdog.cancel()
        assert re.search(until, plain(output)), plain(output)[-2000:]
        return code, output.decode()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        os.close(leader)
