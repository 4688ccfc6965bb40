"""Events on their way out, which wait behind a block whose body is still under way. Does no I/O.

Bitcoin Core tells that a block was connected (``sequence``, label ``C``) before it sends the block (``rawblock``, for the
new tip only). A BlockConnected is worth more with its block, so it waits; order is kept, so what comes after it waits too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from zmqpub._fast import Block
from zmqpub.chain_events import BlockConnected, ChainEvent

__all__ = ["EventQueue"]


class EventQueue:
    """First in, first out; `pop` gives nothing while the first is a block that waits for its body."""

    def __init__(self) -> None:
        self._ready: deque[ChainEvent] = deque()
        self._waiting: deque[ChainEvent] = deque()
        self._tellers: dict[bytes, str | None] = {}
        self.put = self._ready.append
        """Tell an event."""

    def pop(self) -> ChainEvent | None:
        """The next event; None where there is none, or it still waits."""
        return self._ready.popleft() if self._ready else None

    @property
    def holding(self) -> bool:
        """Does a block wait for its body?"""
        return bool(self._tellers)

    def hold(self, event: BlockConnected, teller: str | None) -> None:
        """Tell an event once its body has come, or cannot come any more.

        It cannot once ``teller`` (the address that told of the block and would send the body next) sends something else;
        None if the body comes from elsewhere.
        """
        self._waiting.append(event)
        self._tellers[event.hash] = teller
        self.put = self._waiting.append

    def held(self, block_hash: bytes) -> BlockConnected | None:
        """The block of this hash, if it waits for its body."""
        return next((event for event in self.held_blocks() if event.hash == block_hash), None)

    def held_blocks(self) -> Iterator[BlockConnected]:
        """The blocks that wait for their bodies, first to last."""
        return (event for event in self._waiting if isinstance(event, BlockConnected) and event.hash in self._tellers)

    def waits_for(self, teller: str) -> list[bytes]:
        """The blocks whose bodies cannot come any more, now that ``teller`` has sent something else."""
        return [block_hash for block_hash, name in self._tellers.items() if name == teller]

    def before(self, block_hash: bytes) -> list[bytes]:
        """The blocks held before that one: bodies come in order."""
        hashes = list(self._tellers)
        return hashes[: hashes.index(block_hash)]

    def settle(self, block_hash: bytes, block: Block | None) -> None:
        """The body of a held block has come, or will not come (None)."""
        del self._tellers[block_hash]
        if block is not None:
            place, event = next(
                (place, event)
                for place, event in enumerate(self._waiting)
                if isinstance(event, BlockConnected) and event.hash == block_hash and event.block is None
            )
            self._waiting[place] = replace(event, block=block)
        self._release()

    def withdraw(self, block_hash: bytes) -> None:
        """Take back a held block that comes last."""
        del self._tellers[block_hash]
        self._waiting.remove(next(event for event in self._waiting if isinstance(event, BlockConnected) and event.hash == block_hash))
        self._release()

    def _release(self) -> None:
        waiting, ready = self._waiting, self._ready
        while waiting and not (isinstance(waiting[0], BlockConnected) and waiting[0].hash in self._tellers):
            ready.append(waiting.popleft())
        if not waiting:
            self.put = ready.append

    # A part of a saved cursor

    def save(self) -> tuple[list[ChainEvent], dict[bytes, str | None]]:
        """All that was not handed out yet, and the blocks among it that wait, with their tellers."""
        return [*self._ready, *self._waiting], dict(self._tellers)

    def restore(self, events: list[ChainEvent], tellers: dict[bytes, str | None]) -> None:
        """What `save` returned."""
        for event in events:
            if isinstance(event, BlockConnected) and event.hash in tellers:
                self.hold(event, tellers[event.hash])
            else:
                self.put(event)
