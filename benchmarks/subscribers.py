"""The subscribers of every benchmark: one or more processes that run drain.c."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from native import drain

_SETTLE = 0.2
"""Seconds between the handshake and the moment when the publisher surely knows the subscriptions."""


class Subscribers:
    """``count`` subscribers of ``address`` in one process; a context manager.

    ``topics``: what they subscribe to, by default everything. ``rate``: messages a second that each reads at most.
    ``timed``: the topic whose messages' arrival times are kept. ``wait``: whether to wait until all have connected.
    """

    def __init__(
        self, address: str, count: int = 1, *, topics: Sequence[str] = (), rate: float | None = None, timed: str | None = None
    ) -> None:
        command = [str(drain()), "-n", str(count)]
        for topic in topics:
            command += ["-t", topic]
        if rate is not None:
            command += ["-r", str(rate)]
        if timed is not None:
            command += ["-T", timed]
        self._process = subprocess.Popen([*command, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._buffer = b""
        self.count = count
        if self._line(10.0) is None:
            self.close()
            raise TimeoutError(f"the subscribers did not connect to {address}")
        time.sleep(_SETTLE)

    def begin(self, messages: int) -> None:
        """Expect a run of so many messages for each; nothing may be under way."""
        assert self._process.stdout is not None
        while self._buffer or select.select([self._process.stdout], [], [], 0)[0]:
            self._line(0.1)  # the end of a run that came too late to be of interest
        self._command(f"run {messages}")

    def finished(self, timeout: float) -> int | None:
        """When the last subscriber had the last message of the run, time.monotonic_ns(); None: not in time."""
        line = self._line(timeout)
        return None if line is None else int(line["complete"])

    def report(self) -> dict[str, list[int]]:
        """Of each subscriber: received in this run, total, missing, disorder, connects."""
        return self._command("report")

    def arrivals(self) -> list[list[tuple[int, int]]]:
        """Of each subscriber: (counter, time.monotonic_ns()) of each message of the timed topic."""
        return [[(counter, when) for counter, when in one] for one in self._command("times")["times"]]

    def stop(self) -> None:
        """SIGSTOP: they take nothing any more."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Subscribers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _command(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        while (line := self._line(10.0)) is not None:
            if "complete" not in line:
                return line
        raise TimeoutError(f"the subscribers did not answer to {command!r}")

    def _line(self, timeout: float) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise EOFError(f"the subscribers ended with status {self._process.wait()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        result: dict[str, Any] = json.loads(line)
        return result
