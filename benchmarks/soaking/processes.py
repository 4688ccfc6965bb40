"""The processes of a soak: started, stopped, killed and started again, and watched for the memory that they take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import zmqpub

__all__ = ["Member", "Memory"]

_PATIENCE = 60.0
_PATHS = (str(Path(__file__).parents[1]), str(Path(zmqpub.__file__).parents[1]))
_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((*_PATHS, os.environ.get("PYTHONPATH", ""))), "PYTHONUNBUFFERED": "1"}


class Memory:
    """Private memory of a process over its life, in bytes, as of now and then."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        """(share of the work that was done, bytes)."""

    def sample(self, pid: int, done: float) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                self.samples.append((done, int(line.split()[1]) * 1024))

    def most(self, start: float, end: float) -> int:
        """The most between two shares of the work."""
        return max((size for done, size in self.samples if start <= done < end), default=0)


class Member:
    """One process of the soak, under its name."""

    def __init__(self, name: str, folder: Path, module: str, *arguments: str) -> None:
        self.name = name
        self.memory = Memory()
        self.starts = 0
        self._command = [sys.executable, "-m", module, str(folder), *arguments]
        self._errors_path = folder / f"{name}.err"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """Start it (again)."""
        self.starts += 1
        with self._errors_path.open("ab") as errors:
            self._process = subprocess.Popen([*self._command, *more], stdout=subprocess.PIPE, stderr=errors, env=_ENVIRONMENT)

    def wait_ready(self) -> None:
        """Until it says so."""
        assert self._process is not None
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != b"ready":
            raise RuntimeError(f"{self.name} did not start: {self.errors()}")

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def ended(self) -> int | None:
        """Its exit code, if it ended by itself."""
        return None if self._process is None else self._process.poll()

    def finish(self) -> int:
        """Its exit code, once it has seen that the work is done."""
        assert self._process is not None
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return -1

    def sample(self, done: float) -> None:
        if self._process is not None:
            self.memory.sample(self._process.pid, done)

    def errors(self) -> str:
        """The end of what it wrote to stderr."""
        return self._errors_path.read_text()[-2000:] if self._errors_path.exists() else ""

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
