"""Several addresses that tell the same, told once. Does no I/O.

A publisher may carry a topic at several addresses, and a subscriber may listen to more than one of them, so that one that
fails costs nothing. Each address then tells the same story at its own pace. The story is kept as a log of keys; each
address has a place in it. Who stands at its end and says something new tells the next part of the story; who says what
stands at its place repeats it. That needs no clock and no trust in one of them, and a part is neither told twice nor left
out, however far one lags behind the other.

An address that was not heard before, or of which something was lost, is out of step: it is not listened to until it says
what stands in the log, or what it said last is told by another. Only when no other address is in step does it lead, after
its hearer has mended what was lost (`Verdict.LEADS`).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Merge", "SavedMerge", "Verdict"]

Key = TypeVar("Key", bound=Hashable)

_LIMIT = 65_536


class Verdict(enum.Enum):
    """What a key is to the story."""

    NEW = enum.auto()
    """Its next part: tell it."""
    SEEN = enum.auto()
    """Another address told it, or its teller is out of step while another is in step."""
    LEADS = enum.auto()
    """From now on its teller leads the story, which has a hole before this part: mend it first."""


@dataclass
class SavedMerge(Generic[Key]):
    """What of a Merge outlives its process."""

    keys: list[Key]
    """What those that lag behind have not said yet."""
    behind: dict[str, int | None]
    """For each address how many of those keys it still has to say; None where it is out of step."""
    has_unique: bool
    """Whether there were unique ones."""
    silent: list[str] = field(default_factory=list)
    """Those that the story does not wait for until they speak."""
    ahead: dict[str, Key] = field(default_factory=dict)
    """Of those out of step, what they said last, if nobody told it yet."""


class Merge(Generic[Key]):
    """The log of one story. ``limit``: how many keys an address may lag behind before it is out of step."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._base = 0
        self._beginning: int | None = 0
        """Where the story begins, which who was never heard may have from there on; None where that is in a former process."""
        self._log: list[Key] = []
        self._last_place: dict[Key, int] = {}
        self._places: dict[str, int | None] = {}
        self._silent: set[str] = set()
        self._ahead: dict[str, Key] = {}
        self._has_unique = False

    def take(self, source: str, key: Key, *, unique: bool) -> Verdict:
        """``source`` says ``key``. ``unique``: whether no other publisher would say it, nor the same one again.

        Who is out of step is in step again once it says a unique key of the log; where there is none (a quiet mempool), any.
        """
        self._silent.discard(source)
        end = self._base + len(self._log)
        place = self._places.get(source, self._beginning)
        if place == end:
            self._append(source, key, unique)
            return Verdict.NEW
        if place is not None and place >= self._base and self._log[place - self._base] == key:
            self._places[source] = place + 1
            return Verdict.SEEN
        telling = unique or not self._has_unique
        known = self._last_place.get(key) if telling else None
        if known is not None and (place is None or known >= place):
            self._put_in_step(source, known + 1)
            return Verdict.SEEN
        self._put_out_of_step(source)
        if self._is_led():
            if telling:
                self._ahead[source] = key
            return Verdict.SEEN
        first_word = end == 0
        self._append(source, key, unique)
        return Verdict.NEW if first_word else Verdict.LEADS

    def lose(self, source: str) -> bool:
        """Something of ``source`` was lost; whether the story goes on without it, as another is in step.

        If not, it goes on with ``source``, after its hearer has mended what was lost.
        """
        self._put_out_of_step(source)
        if self._is_led():
            return True
        self._places[source] = self._base + len(self._log)
        return False

    def silence(self, source: str) -> None:
        """The connection to ``source`` is gone: until it speaks again, the story does not wait for it."""
        self._silent.add(source)

    def _is_led(self) -> bool:
        return any(place is not None and source not in self._silent for source, place in self._places.items())

    def _put_in_step(self, source: str, place: int) -> None:
        self._places[source] = place
        self._ahead.pop(source, None)

    def _put_out_of_step(self, source: str) -> None:
        self._places[source] = None
        self._ahead.pop(source, None)

    def _append(self, source: str, key: Key, unique: bool) -> None:
        self._has_unique = self._has_unique or unique
        self._log.append(key)
        end = self._base + len(self._log)
        self._last_place[key] = end - 1
        self._put_in_step(source, end)
        if self._ahead:
            for other in [other for other, said in self._ahead.items() if said == key]:
                self._put_in_step(other, end)
        if len(self._log) >= 2 * self._limit:
            self._trim(end - self._limit)

    def _trim(self, base: int) -> None:
        for place, key in enumerate(self._log[: base - self._base], self._base):
            if self._last_place.get(key) == place:
                del self._last_place[key]
        del self._log[: base - self._base]
        self._base = base

    # A part of a saved cursor

    def save(self, placed: Collection[str] = ()) -> SavedMerge[Key]:
        """``placed``: those that will begin, or go on, where they were when the others began, though they may not have been heard
        yet: they still have to say everything."""
        end = self._base + len(self._log)
        unheard = [source for source in placed if source not in self._places]
        behind = {source: None if place is None else end - place for source, place in self._places.items()}
        behind.update(dict.fromkeys(unheard, len(self._log)))
        most = max((count for count in behind.values() if count is not None), default=0)
        most = min(most, len(self._log))
        silent = sorted(self._silent.union(unheard))
        return SavedMerge(self._log[len(self._log) - most :], behind, self._has_unique, silent, dict(self._ahead))

    def restore(self, saved: SavedMerge[Key]) -> None:
        """What `save` returned."""
        self._has_unique = saved.has_unique
        self._base = 0
        self._beginning = None if saved.behind else 0
        self._log = list(saved.keys)
        self._last_place = {key: place for place, key in enumerate(self._log)}
        end = len(self._log)
        self._places = {source: None if count is None else max(0, end - count) for source, count in saved.behind.items()}
        self._silent = set(saved.silent)
        self._ahead = dict(saved.ahead)
