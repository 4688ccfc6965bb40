"""The settings that are zmqpub's own, given as keywords beside Bitcoin Core's options."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.setting_checks import MAX_KEEPALIVE, MAX_SECONDS, integer, parse, seconds

__all__ = ["LEAST_JOURNAL_FILE", "JournalRestart", "OnFull", "Settings", "SlowSubscriber", "parse_settings"]

JournalRestart = Literal["continue", "new_epoch"]
OnFull = Literal["wait", "drop"]
SlowSubscriber = Literal["disconnect", "drop", "wait"]

LEAST_JOURNAL_FILE: Final = 1024 * 1024
"""Bytes: a journal file's head takes 192 KiB of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a publisher behaves. ConfigError, with everything that is wrong, for values that make no sense."""

    journal_bytes: int = 256 * 1024 * 1024
    """The bound of the journal in bytes: what is published and not yet sent to everybody, and what is kept for replay. With
    ``journal_path`` the size of that file, too."""
    on_full: OnFull = "wait"
    """What a call does at that bound: ``wait`` for room, or ``drop`` the oldest events and count them."""
    journal_path: str | None = None
    """A file of ``journal_bytes`` in which what was published outlives the process, to be replayed; None keeps it in memory."""
    journal_sync: Literal["none", "event"] | float = "none"
    """What survives a loss of power: ``none``, what the system happened to write; ``event``, all, as each call waits for the
    disk; or what is older than so many seconds, by a sync in the background. All survives the end of the process."""
    journal_restart: JournalRestart = "continue"
    """Whether a publisher that finds a journal file goes on with its epoch and counters (where nothing is missing in it), or
    begins a new epoch (``new_epoch``), with all counters at 0."""
    stall_timeout: float = 5.0
    """Seconds after which a subscriber that takes nothing is slow."""
    max_lag: float = 30.0
    """Seconds that an endpoint may be behind the journal's head before its slowest subscriber is slow."""
    slow_subscriber: SlowSubscriber = "disconnect"
    """What happens to a slow subscriber: ``disconnect`` it, ``drop`` its messages, or ``wait`` for it."""
    linger: float | None = 0.0
    """Seconds that closing waits for messages on their way; None waits until all are gone."""
    tcp_keepalive_idle: int | None = None
    """Seconds of silence before the first TCP keepalive; None leaves it to the system."""
    tcp_keepalive_interval: int | None = None
    """Seconds between TCP keepalives; None leaves it to the system."""
    io_threads: int = 1
    """libzmq's I/O threads, where the publisher makes its own context."""

    def __post_init__(self) -> None:
        problems = [
            *integer(self, "journal_bytes", 1, sys.maxsize, "bytes"),
            *_choice(self, "on_full", get_args(OnFull)),
            *_journal_file(self),
            *_choice(self, "journal_restart", get_args(JournalRestart)),
            *seconds(self, "stall_timeout", 0.001),
            *seconds(self, "max_lag", 0.001),
            *_choice(self, "slow_subscriber", get_args(SlowSubscriber)),
            *(seconds(self, "linger", 0.0, ", or None") if self.linger is not None else ()),
            *(
                problem
                for name in ("tcp_keepalive_idle", "tcp_keepalive_interval")
                if getattr(self, name) is not None
                for problem in integer(self, name, 1, MAX_KEEPALIVE, "seconds")
            ),
            *integer(self, "io_threads", 1, 1024, "threads"),
        ]
        if problems:
            raise ConfigError(*problems)


def parse_settings(keywords: Mapping[str, Any]) -> Settings:
    """`Settings` from keywords; ConfigError names the unknown ones, too, with the nearest known name."""
    return parse(Settings, keywords)


def _journal_file(settings: Settings) -> list[ConfigProblem]:
    problems = []
    if settings.journal_path is not None:
        problems += _path(settings.journal_path)
        if isinstance(settings.journal_bytes, int) and 0 < settings.journal_bytes < LEAST_JOURNAL_FILE:
            expected = f"a journal file (journal_path) needs at least {LEAST_JOURNAL_FILE} bytes"
            problems.append(ConfigProblem("journal_bytes", repr(settings.journal_bytes), expected))
    if settings.journal_sync not in ("none", "event") and seconds(settings, "journal_sync", 0.001):
        expected = f"expected 'none', 'event' or seconds from 0.001 to {MAX_SECONDS}"
        problems.append(ConfigProblem("journal_sync", repr(settings.journal_sync), expected))
    return problems


def _path(path: object) -> list[ConfigProblem]:
    if not isinstance(path, str) or not path or "\0" in path:
        return [ConfigProblem("journal_path", repr(path), "expected the path of a file as a string")]
    return []


def _choice(settings: Settings, name: str, choices: tuple[str, ...]) -> list[ConfigProblem]:
    value = getattr(settings, name)
    if value in choices:
        return []
    near = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return [ConfigProblem(name, repr(value), f"expected one of {', '.join(map(repr, choices))}{hint}")]
