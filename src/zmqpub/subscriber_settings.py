"""How a subscriber behaves: the keywords of Subscriber and AsyncSubscriber that are no addresses."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.setting_checks import MAX_KEEPALIVE, integer, parse, seconds

__all__ = ["SubscriberSettings", "parse_subscriber_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberSettings:
    """ConfigError, with everything that is wrong, for values that make no sense."""

    byte_bound: int = 256 * 1024 * 1024
    """Bytes that are held for a consumer that does not take them; above, messages are discarded and show as a gap."""
    rcvhwm: int = 0
    """ZMQ_RCVHWM; 0 is no limit: the bound in bytes is the limit."""
    latest_only: bool = False
    """Keep only the newest message of each topic and address; what it replaced is no gap."""
    only_notifications: bool = False
    """Leave the stream's events to state() and the logger ``zmqpub``; the stream has notifications only."""
    stale_after: float | None = None
    """Seconds of silence after which a socket is made anew; None: never."""
    heartbeat: float | None = None
    """Seconds between ZMTP heartbeats of ours, which find a dead connection within twice that time; None: none."""
    keepalive_idle: int | None = None
    """Seconds of silence before the first TCP keepalive; None leaves it to the system."""
    keepalive_interval: int | None = None
    """Seconds between TCP keepalives; None leaves it to the system."""
    reconnect_interval: float = 0.1
    """Seconds before the first attempt to connect again; doubles up to the next one."""
    reconnect_interval_max: float = 5.0
    check_interval: float = 30.0
    """Seconds of silence after which the replay endpoint is asked whether anything is missing."""
    repair_timeout: float = 30.0
    """Seconds that a repair may take in which nothing arrives; then what is missing is lost and the stream goes on."""
    repair_retries: int = 5
    """How often a repair is tried again within that time, after 0.1 s, 0.2 s and so on, at most 2 s."""
    repair_blocks: int = 144
    """Blocks that are asked of a node, at most, to find the way back to the last one known."""
    publisher_addresses: Mapping[str, str] | None = None
    """Address here -> address as the publisher itself calls it (``active_notifiers()``), where that cannot be guessed: several
    notifiers of a topic behind a proxy or a forwarded port."""

    def __post_init__(self) -> None:
        optional_seconds = [name for name in ("stale_after", "heartbeat") if getattr(self, name) is not None]
        optional_keepalives = [name for name in ("keepalive_idle", "keepalive_interval") if getattr(self, name) is not None]
        problems = [
            *integer(self, "byte_bound", 1, sys.maxsize, "bytes"),
            *integer(self, "rcvhwm", 0, 2**31 - 1, "messages"),
            *_flag(self, "latest_only"),
            *_flag(self, "only_notifications"),
            *(problem for name in optional_seconds for problem in seconds(self, name, 0.01)),
            *(problem for name in optional_keepalives for problem in integer(self, name, 1, MAX_KEEPALIVE, "seconds")),
            *seconds(self, "reconnect_interval", 0.001),
            *seconds(self, "reconnect_interval_max", 0.001),
            *seconds(self, "check_interval", 0.01),
            *seconds(self, "repair_timeout", 0.01),
            *integer(self, "repair_retries", 0, 1_000_000, "attempts"),
            *integer(self, "repair_blocks", 1, 1_000_000, "blocks"),
            *_addresses(self),
        ]
        if problems:
            raise ConfigError(*problems)


def parse_subscriber_settings(keywords: Mapping[str, Any]) -> SubscriberSettings:
    """`SubscriberSettings` from keywords; ConfigError names the unknown ones, too, with the nearest known name."""
    return parse(SubscriberSettings, keywords)


def _flag(settings: SubscriberSettings, name: str) -> list[ConfigProblem]:
    value = getattr(settings, name)
    return [] if isinstance(value, bool) else [ConfigProblem(name, repr(value), "expected True or False")]


def _addresses(settings: SubscriberSettings) -> list[ConfigProblem]:
    value = settings.publisher_addresses
    if value is None or (isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)):
        return []
    return [ConfigProblem("publisher_addresses", repr(value), "expected a mapping of addresses to addresses")]
