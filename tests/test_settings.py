"""The settings that are zmqpub's own."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest

from zmqpub.errors import ConfigError
from zmqpub.settings import Settings, parse_settings


def test_defaults() -> None:
    assert dataclasses.asdict(Settings()) == {
        "journal_bytes": 268435456,
        "on_full": "wait",
        "journal_path": None,
        "journal_sync": "none",
        "journal_restart": "continue",
        "stall_timeout": 5.0,
        "max_lag": 30.0,
        "slow_subscriber": "disconnect",
        "linger": 0.0,
        "tcp_keepalive_idle": None,
        "tcp_keepalive_interval": None,
        "io_threads": 1,
    }


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().max_lag = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_bytes", 1),
        ("journal_bytes", sys.maxsize),
        ("on_full", "drop"),
        ("journal_path", "journal"),
        ("journal_sync", "event"),
        ("journal_sync", 0.5),
        ("journal_sync", 10),
        ("journal_restart", "new_epoch"),
        ("stall_timeout", 0.001),
        ("stall_timeout", 5),
        ("slow_subscriber", "drop"),
        ("slow_subscriber", "wait"),
        ("linger", None),
        ("linger", 0),
        ("tcp_keepalive_idle", 1),
        ("tcp_keepalive_interval", 32767),
        ("io_threads", 4),
    ],
)
def test_accepted(name: str, value: Any) -> None:
    assert getattr(parse_settings({name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_bytes", 0),
        ("journal_bytes", 1.5),
        ("journal_bytes", "1"),
        ("journal_bytes", True),
        ("journal_bytes", sys.maxsize + 1),
        ("on_full", "block"),
        ("on_full", None),
        ("journal_path", ""),
        ("journal_path", b"journal"),
        ("journal_path", "jour\0nal"),
        ("journal_sync", "never"),
        ("journal_sync", 0),
        ("journal_sync", True),
        ("journal_sync", None),
        ("journal_restart", "resume"),
        ("stall_timeout", 0),
        ("stall_timeout", -1.0),
        ("stall_timeout", None),
        ("stall_timeout", True),
        ("stall_timeout", float("nan")),
        ("stall_timeout", float("inf")),
        ("stall_timeout", 10**400),
        ("max_lag", 0.0),
        ("max_lag", "30"),
        ("slow_subscriber", "Wait"),
        ("linger", -0.1),
        ("linger", float("inf")),
        ("tcp_keepalive_idle", 0),
        ("tcp_keepalive_interval", 1.5),
        ("io_threads", 0),
    ],
)
def test_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings({name: value})
    (problem,) = caught.value.problems
    assert (problem.option, problem.value) == (name, repr(value))
    assert problem.message.startswith("expected ")


def test_everything_at_once_with_nearest_names() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings({"stal_timeout": 1, "xyz": 1, "on_full": "drops", "max_lag": -1})
    unknown, alien, choice, lag = caught.value.problems
    assert (unknown.option, unknown.value) == ("stal_timeout", None)
    assert "did you mean stall_timeout?" in unknown.message
    assert "these are known: io_threads, journal_bytes" in alien.message
    assert "did you mean 'drop'?" in choice.message
    assert lag.option == "max_lag"


def test_a_journal_file_has_a_least_size() -> None:
    assert parse_settings({"journal_path": "journal", "journal_bytes": 1024 * 1024}).journal_bytes == 1024 * 1024
    with pytest.raises(ConfigError, match="needs at least 1048576 bytes"):
        parse_settings({"journal_path": "journal", "journal_bytes": 1024 * 1024 - 1})
