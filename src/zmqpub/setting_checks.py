"""What Settings and SubscriberSettings check alike: each check gives the problems that it found, none or one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["MAX_KEEPALIVE", "MAX_SECONDS", "integer", "parse", "seconds"]

MAX_SECONDS: Final = 2_147_483
"""What fits into libzmq's milliseconds, an int: almost 25 days."""
MAX_KEEPALIVE: Final = 32_767
"""The most seconds that Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL."""

_T = TypeVar("_T")


def parse(kind: type[_T], keywords: Mapping[str, Any]) -> _T:
    """A dataclass of settings from keywords; ConfigError names the unknown ones, too, with the nearest known name."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    problems = [_unknown(name, known) for name in keywords if name not in known]
    try:
        settings = kind(**{name: value for name, value in keywords.items() if name in known})
    except ConfigError as error:
        raise ConfigError(*problems, *error.problems) from None
    if problems:
        raise ConfigError(*problems)
    return settings


def _unknown(name: str, known: set[str]) -> ConfigProblem:
    near = difflib.get_close_matches(name, sorted(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"these are known: {', '.join(sorted(known))}"
    return ConfigProblem(name, None, f"no known setting; {hint}")


def integer(settings: object, name: str, least: int, most: int, unit: str) -> list[ConfigProblem]:
    value = getattr(settings, name)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return []
    return [ConfigProblem(name, repr(value), f"expected a whole number of {unit} from {least} to {most}")]


def seconds(settings: object, name: str, least: float, alternative: str = "") -> list[ConfigProblem]:
    """``alternative``: what else would do, for the message."""
    value = getattr(settings, name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= MAX_SECONDS:
        return []
    return [ConfigProblem(name, repr(value), f"expected seconds from {least:g} to {MAX_SECONDS}{alternative}")]
