"""Exit codes, and what an error looks like on a terminal. Needs neither click nor rich."""

from __future__ import annotations

import enum
import signal

from zmqpub.errors import (
    BindError,
    ConfigError,
    ConnectError,
    DecodeError,
    IpcAddressError,
    IpcConnectError,
    IpcError,
    IpcTimeoutError,
    JournalError,
    RpcError,
    SourceError,
    UnsupportedError,
)

__all__ = ["ExitCode", "ForcedEnd", "code_of", "lines_of", "one_line"]


class ExitCode(enum.IntEnum):
    """What the program exits with; 128 and more is 128 plus the number of a signal, as a shell counts."""

    OK = 0
    """Done, or ended as asked to: by SIGINT, SIGTERM or SIGHUP."""
    FAILURE = 1
    """Something that has no code of its own."""
    USAGE = 2
    """Options that make no sense; nothing was bound or opened."""
    ADDRESS = 3
    """An address that cannot be bound or connected to, or whose sender failed."""
    SOURCE = 4
    """A source that cannot be read, or not further."""
    MALFORMED = 5
    """Something was received that is no notification, block or transaction."""
    LOST = 6
    """Messages were lost."""
    MISSING_EXTRA = 7
    """click or rich is not installed."""
    TIMEOUT = 8
    """What was waited for did not come in time."""
    UNSUPPORTED = 9
    """This machine or build lacks something."""
    JOURNAL = 10
    """A journal file that cannot be used."""
    PEER = 11
    """A peer over IPC that went away, raised, lacks the method, or speaks something else."""
    RPC = 12
    """The node answered with a JSON-RPC error."""
    BROKEN_PIPE = 128 + 13
    """Who read the output is gone, as in ``zmqpub listen … | head``."""


class ForcedEnd(BaseException):
    """A second signal, while the program was ending in good order after the first."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (BindError, ExitCode.ADDRESS),
    (ConnectError, ExitCode.ADDRESS),
    (SourceError, ExitCode.SOURCE),
    (DecodeError, ExitCode.MALFORMED),
    (UnsupportedError, ExitCode.UNSUPPORTED),
    (JournalError, ExitCode.JOURNAL),
    (IpcAddressError, ExitCode.USAGE),
    (IpcConnectError, ExitCode.ADDRESS),
    (IpcTimeoutError, ExitCode.TIMEOUT),
    (IpcError, ExitCode.PEER),
    (RpcError, ExitCode.RPC),
)


def code_of(error: Exception) -> ExitCode:
    """The exit code for an error that was expected."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILURE)


def lines_of(error: Exception) -> list[str]:
    """What is wrong, a line for each problem."""
    problems = error.problems if isinstance(error, ConfigError) else (error,)
    return [one_line(str(problem)) for problem in problems]


def one_line(text: str) -> str:
    """``text`` without line breaks and control characters: what others wrote must not move the cursor."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)
