"""Signals as something that can be waited for, instead of exceptions that strike anywhere."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

from zmqpub.cli.codes import ForcedEnd

__all__ = ["Signals"]

_ONE_REQUEST = 0.5  # seconds in which a second signal is the same request: terminals and wrappers both pass it on


class Signals:
    """While entered, SIGINT, SIGTERM and SIGHUP set ``received`` and make ``fileno()`` readable.

    A second one raises ForcedEnd in the main thread, wherever that is: whoever sends it has waited long enough. SIGHUP
    stays ignored under nohup. An Event would not do: to set it from a handler can deadlock with a wait for it.
    """

    received: int | None
    """The number of the first signal, None before."""

    def __init__(self) -> None:
        self.received = None
        self._time = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        signal.set_wakeup_fd(self._previous_wakeup)
        self._reader.close()
        self._writer.close()

    @property
    def name(self) -> str:
        """The signal's name, empty when none came."""
        return "" if self.received is None else signal.Signals(self.received).name

    def fileno(self) -> int:
        """Readable once a signal came, or after wake()."""
        return self._reader.fileno()

    def wait(self, seconds: float) -> None:
        """Until a signal comes or wake() is called, but not longer than ``seconds``."""
        select.select([self._reader], [], [], max(0.0, seconds))
        self.clear()

    def clear(self) -> None:
        """Make ``fileno()`` unreadable again."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def wake(self) -> None:
        """End a wait, from any thread."""
        with contextlib.suppress(OSError):  # full, so it is awake; or closed
            self._writer.send(b"\0")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = monotonic()
        if self.received is None:
            self.received, self._time = number, now
        elif now - self._time > _ONE_REQUEST:
            raise ForcedEnd(number)
