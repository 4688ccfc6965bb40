"""What the child has not acknowledged, within a bound in bytes. Knows no processes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from zmqpub._fast import Block, Transaction
from zmqpub.errors import ClosedError
from zmqpub.ipc.notifications.codec import Kind

__all__ = ["Backlog", "Entry"]

_OVERHEAD: Final = 256
"""Bytes that an entry takes besides its body, about."""
_LOOK: Final = 0.2
"""Seconds after which a call that waits looks whether anything else has ended its wait."""


class Entry:
    """An event, from the call until its acknowledgement."""

    __slots__ = ("body", "cost", "kind", "mempool_sequence", "number", "size")

    def __init__(self, kind: Kind, body: Block | Transaction | bytes, mempool_sequence: int, shared: bool) -> None:
        self.kind = kind
        self.body = body
        self.mempool_sequence = mempool_sequence
        self.size = memoryview(body).nbytes
        self.cost = _OVERHEAD + (0 if shared else self.size)
        self.number = 0


class Backlog:
    """Entries wait, are under way, and leave when they were acknowledged. Any thread may call any method.

    ``bound``: bytes of what is held. ``drop``: at the bound the oldest entry that waits is dropped, and counted; else add() waits.
    ``wake`` is called, under the lock, when entries are there that nobody has taken, and take() had found none.
    """

    def __init__(self, bound: int, drop: bool, wake: Callable[[], object]) -> None:
        self._bound = bound
        self._drop = drop
        self._wake = wake
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Entry] = deque()
        self._under_way: deque[Entry] = deque()
        self._kept: deque[Entry] = deque()
        self._again = 0  # how many of those that wait, the first ones, a child may have journaled: they are not dropped
        self._block: Block | None = None
        self._idle = True
        self._closed: str | None = None
        self._ended = False
        self._bytes = 0
        self._kept_bytes = 0
        self._under_way_bytes = 0
        self.handed_over = 0
        """Events ever added."""
        self.acknowledged = 0
        self.dropped = 0

    @property
    def held(self) -> tuple[int, int]:
        """Events that are not acknowledged, and their bytes."""
        with self._changed:
            return len(self._waiting) + len(self._under_way), self._bytes

    def add(self, kind: Kind, body: Block | Transaction | bytes, mempool_sequence: int = 0) -> None:
        """Append an event, in its turn; ClosedError after close(), also when that comes while this waits for room."""
        with self._changed:
            if isinstance(body, Block):
                body = self._known(body)
            entry = Entry(kind, body, mempool_sequence, body is self._block)
            if isinstance(body, Block):
                self._block = body
            while self._closed is None and self._bytes + entry.cost > self._bound and self._bytes and not self._make_room(entry):
                self._changed.wait(_LOOK)
            if self._closed is not None:
                raise ClosedError(self._closed)
            self.handed_over += 1
            entry.number = self.handed_over
            if self._bytes and self._bytes + entry.cost > self._bound:  # all that is held is under way, or was
                self.dropped += 1
                return
            self._waiting.append(entry)
            self._bytes += entry.cost
            if self._idle:
                self._idle = False
                self._wake()

    def take(self, most: int, size: int, window: int) -> list[Entry]:
        """The next entries, at most ``most`` and of about ``size`` bytes, which are under way from now on.

        Nothing while more than ``window`` bytes would be, unless nothing is. Without any, add() wakes.
        """
        with self._changed:
            taken: list[Entry] = []
            while self._waiting and len(taken) < most and size > 0:
                entry = self._waiting[0]
                if self._under_way and self._under_way_bytes + entry.cost > window:
                    break
                taken.append(self._waiting.popleft())
                self._again = max(self._again - 1, 0)
                self._under_way.append(entry)
                self._under_way_bytes += entry.cost
                size -= entry.cost
            self._idle = not self._waiting
            return taken

    def acknowledge(self, count: int, settled: bool) -> None:
        """The first ``count`` that are under way are done.

        While the child still looks for repetitions (not ``settled``) they are kept, as far as a quarter of the bound goes: to know
        them again, a child after it needs to see them from the start.
        """
        with self._changed:
            for _ in range(count):
                entry = self._under_way.popleft()
                self._under_way_bytes -= entry.cost
                self._bytes -= entry.cost
                if not settled:
                    self._kept.append(entry)
                    self._kept_bytes += entry.cost
            self.acknowledged += count
            while self._kept and (settled or self._kept_bytes > self._bound // 4):
                self._kept_bytes -= self._kept.popleft().cost
            self._changed.notify_all()

    def rewind(self) -> None:
        """The child is gone: what was under way waits again, and so does what was kept."""
        with self._changed:
            self._bytes += self._kept_bytes
            self.acknowledged -= len(self._kept)
            self._again += len(self._under_way) + len(self._kept)
            self._waiting.extendleft(reversed(self._under_way))
            self._waiting.extendleft(reversed(self._kept))
            self._under_way.clear()
            self._kept.clear()
            self._under_way_bytes = self._kept_bytes = 0
            self._idle = not self._waiting

    def wait_taken(self, timeout: float | None) -> bool:
        """Wait until all that was handed over before the call is acknowledged, or dropped; False: not in time.

        ClosedError when the child will not come back.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            last = self.handed_over
            while (oldest := self._oldest()) is not None and oldest <= last:
                if self._ended:
                    raise ClosedError(self._closed or "")
                left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def refuse(self, why: str) -> None:
        """Take no events any more. What is held stays, and is still handed over."""
        with self._changed:
            if self._closed is None:
                self._closed = why
            self._changed.notify_all()

    def close(self, why: str) -> None:
        """As refuse(), and nothing will be handed over any more."""
        self.refuse(why)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def is_empty(self) -> bool:
        """Is everything acknowledged?"""
        with self._changed:
            return not self._waiting and not self._under_way

    def _oldest(self) -> int | None:
        first = self._under_way or self._waiting
        return first[0].number if first else None

    def _known(self, block: Block) -> Block:
        """The block of the event before, where it is the same: then it is held, and sent, once."""
        last = self._block
        if last is None or last is block or last.hash != block.hash:
            return block
        # Of the same header, and so of the same transactions, but perhaps not with the same witnesses. As bytes, since to compare
        # memoryviews takes 12 ms a MB; the copies and the comparison take 0.1 ms.
        return last if bytes(last) == bytes(block) else block

    def _make_room(self, entry: Entry) -> bool:
        """Under the lock, at the bound: may add() go on?"""
        if not self._drop:
            return False
        while len(self._waiting) > self._again and self._bytes + entry.cost > self._bound:
            self._bytes -= self._waiting[self._again].cost
            del self._waiting[self._again]
            self.dropped += 1
        self._changed.notify_all()
        return True
