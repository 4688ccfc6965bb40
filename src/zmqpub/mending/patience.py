"""How long and how often something is tried before it is given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Patience"]

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_SHORTEST_ATTEMPT: Final = 0.5
"""Many retries make no attempt so short that nobody could answer."""


class Patience:
    """``retries`` more attempts after the first, and ``timeout`` seconds for all of them, the pauses between them included."""

    def __init__(self, clock: Callable[[], float], timeout: float, retries: int) -> None:
        self._clock = clock
        self._timeout = timeout
        self._retries = retries
        self.renew()

    def renew(self) -> None:
        """Something was achieved: what follows has all attempts and all the time again."""
        self._failed = 0
        self._end = self._clock() + self._timeout

    def attempt(self) -> float:
        """Seconds that the next attempt may take: a fair share of what is left, so that there is time for the others."""
        left = max(self._end - self._clock(), 0.001)
        return min(left, max(left / (self._retries + 1 - self._failed), _SHORTEST_ATTEMPT))

    def pause(self) -> float | None:
        """After an attempt that failed: when to try again; None when that was the last."""
        now = self._clock()
        self._failed += 1
        if self._failed > self._retries or now >= self._end:
            return None
        # Doubling would overflow long before so many attempts were made.
        return min(now + min(_FIRST_PAUSE * 2.0 ** min(self._failed - 1, 8), _LONGEST_PAUSE), self._end)
