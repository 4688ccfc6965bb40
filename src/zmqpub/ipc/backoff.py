"""When to connect again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["Reconnect"]


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a connection that was lost is made again: by the next call, which waits for it within its own deadline.

    The call under way when the connection was lost fails with DisconnectedError, as nobody knows whether the peer did it. Block
    templates and their like are lost with it; Mining, Rpc and Echo are made again. With ``first``, so is the first
    connection of all: connect() waits for a peer that is yet to come.
    """

    delay: float = 0.05
    """Seconds before the second attempt; twice as many before each further one."""
    max_delay: float = 5.0
    jitter: float = 0.2
    """Each delay is longer or shorter by up to this part of it, so that many clients do not come at once."""
    first: bool = False

    def __post_init__(self) -> None:
        problems = [
            ConfigProblem(name, str(value), text)
            for name, value, fine, text in (
                ("delay", self.delay, self.delay > 0, "expected more than 0 seconds"),
                ("max_delay", self.max_delay, self.max_delay >= self.delay, "expected at least the first delay"),
                ("jitter", self.jitter, 0 <= self.jitter < 1, "expected a part of 1"),
            )
            if not fine
        ]
        if problems:
            raise ConfigError(*problems)

    def delays(self) -> Iterator[float]:
        """Seconds to wait before each attempt but the first, without end."""
        delay = self.delay
        while True:
            yield delay * random.uniform(1 - self.jitter, 1 + self.jitter)
            delay = min(delay * 2, self.max_delay)
