"""The active chain: its tip, the coins that it has made and not spent, and what it takes to step back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

from zmqpub._fast import Block
from zmqpub.sources.regtest.coins import Coin, Outpoint, Resolved
from zmqpub.sources.regtest.consensus import COINBASE_MATURITY, genesis

__all__ = ["ChainState", "Record"]

_MEDIAN_SPAN = 11


class Record(NamedTuple):
    """A block of the active chain."""

    block: Block
    height: int
    entries: Sequence[Resolved]
    """Its transactions, the coinbase first."""


class ChainState:
    """Starts at regtest's genesis block and can step back ``undo_depth`` blocks; older ones are forgotten."""

    def __init__(self, undo_depth: int) -> None:
        block = genesis()
        self.coins: dict[Outpoint, Coin] = {}
        """What the next block may spend, coinbases that are too young included."""
        self.records: deque[Record] = deque([Record(block, 0, ())], maxlen=undo_depth + 1)
        """The last blocks, the tip last."""
        self._times: deque[int] = deque([block.header.time], maxlen=undo_depth + _MEDIAN_SPAN)
        self._rewards: deque[tuple[Coin, ...]] = deque([()], maxlen=undo_depth + COINBASE_MATURITY)

    @property
    def tip(self) -> Block:
        return self.records[-1].block

    @property
    def height(self) -> int:
        return self.records[-1].height

    @property
    def median_time(self) -> int:
        """The median time past, of the last eleven blocks: the next block's time must be above it."""
        times = sorted(list(self._times)[-_MEDIAN_SPAN:])
        return times[len(times) // 2]

    def matured(self) -> tuple[Coin, ...]:
        """The coins of the youngest coinbase that the next block may spend."""
        return self._rewards[-COINBASE_MATURITY] if len(self._rewards) >= COINBASE_MATURITY else ()

    def copy(self) -> ChainState:
        """One that can be changed without changing this one."""
        twin = copy(self)
        twin.coins = self.coins.copy()
        twin.records, twin._times, twin._rewards = self.records.copy(), self._times.copy(), self._rewards.copy()
        return twin

    def connect(self, block: Block, entries: Sequence[Resolved]) -> Record:
        """Put ``block``, which holds ``entries`` (coinbase first), on top; it must be valid there."""
        coins = self.coins
        for entry in entries:
            for coin in entry.spent:
                del coins[coin.outpoint]
            for coin in entry.created:
                coins[coin.outpoint] = coin
        record = Record(block, self.height + 1, entries)
        self.records.append(record)
        self._times.append(block.header.time)
        self._rewards.append(entries[0].created)
        return record

    def disconnect(self) -> Record:
        """Take the tip off again."""
        if len(self.records) < 2:
            raise ValueError("no block left that could be disconnected")
        record = self.records.pop()
        self._times.pop()
        self._rewards.pop()
        coins = self.coins
        for entry in reversed(record.entries):
            for coin in entry.created:
                del coins[coin.outpoint]
            for coin in entry.spent:
                coins[coin.outpoint] = coin
        return record
