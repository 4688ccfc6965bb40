"""What is published: events of a made-up chain, written once to a file, so that any process can go on anywhere.

Transactions enter and leave the mempool, blocks take them, chains reorganize; the same seed gives the same bytes. Nothing
is validated by anybody here, so transactions are small and blocks are not mined.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from zmqpub import Block, BlockHeader, Publisher, Transaction, TxIn, TxOut, build_block, build_transaction, merkle_root

ADDED, REMOVED, CONNECTED, DISCONNECTED, TIP = range(1, 6)

_ROW = struct.Struct("<BxxxIQQQQ")
_REMOVED = 0.02
_REORGANIZED = 0.15
_DEEPEST = 3
_LARGEST = 800


class Event(NamedTuple):
    """One row."""

    kind: int
    size: int
    place: int
    """Where its body begins."""
    mempool_sequence: int
    messages: int
    """How many messages, of all five topics, the events before it make."""
    steps: int
    """How many events before it a follower of the chain tells."""


class Story:
    """The events in a folder."""

    def __init__(self, folder: Path) -> None:
        self._rows = _map(folder / "events")
        self._bodies = _map(folder / "bodies")
        self._count = len(self._rows) // _ROW.size - 1

    def __len__(self) -> int:
        return self._count

    def row(self, place: int) -> Event:
        """The event at ``place``; one row more tells of the end."""
        return Event._make(_ROW.unpack_from(self._rows, place * _ROW.size))

    def body(self, event: Event) -> bytes:
        return self._bodies[event.place : event.place + event.size]

    @property
    def messages(self) -> int:
        return self.row(self._count).messages

    @property
    def steps(self) -> int:
        return self.row(self._count).steps

    def rows(self) -> Iterator[Event]:
        for place in range(self._count):
            yield self.row(place)

    def place_of(self, count: int, column: str) -> int:
        """The last event whose ``column`` (messages or steps) is at most ``count``."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high + 1) // 2
            if getattr(self.row(middle), column) <= count:
                low = middle
            else:
                high = middle - 1
        return low

    def hand_over(self, place: int, publisher: Publisher) -> None:
        """Tell ``publisher`` the event at ``place``, as a node does."""
        event = self.row(place)
        body = self.body(event)
        if event.kind == ADDED:
            publisher.transaction_added_to_mempool(body, event.mempool_sequence)
        elif event.kind == REMOVED:
            publisher.transaction_removed_from_mempool(body, event.mempool_sequence)
        elif event.kind == CONNECTED:
            publisher.block_connected(body)
        elif event.kind == DISCONNECTED:
            publisher.block_disconnected(body)
        else:
            publisher.updated_block_tip(body)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _Placed(NamedTuple):
    """A body that was written."""

    place: int
    size: int
    transactions: int
    """Transactions in it."""


class _Mined(NamedTuple):
    block: _Placed
    hash: bytes
    parent: bytes
    transactions: list[tuple[_Placed, Transaction]]
    """Without the coinbase."""


class StoryWriter:
    """Writes a story of at least so many messages."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = Random(seed)
        self._rows = (folder / "events").open("wb")
        self._bodies = (folder / "bodies").open("wb")
        self._written = 0
        self._sequence = 1
        self._messages = 0
        self._steps = 0
        self._pool: list[tuple[_Placed, Transaction]] = []
        self._chain: list[_Mined] = []
        self._tip = bytes(32)
        self._coinbases = 0

    def write(self, messages: int) -> None:
        random = self._random
        next_block = random.randint(1, _LARGEST)
        while self._messages < messages:
            self._arrive()
            if self._pool and random.random() < _REMOVED:
                self._remove(random.randrange(len(self._pool)))
            if len(self._pool) >= next_block:
                if self._chain and random.random() < _REORGANIZED:
                    self._reorganize(random.randint(1, min(_DEEPEST, len(self._chain))))
                else:
                    self._connect_all([self._take(len(self._pool))])
                next_block = random.randint(1, _LARGEST)
        self._row(0, _Placed(self._written, 0, 0), 0, 0, 0)
        self._rows.close()
        self._bodies.close()

    # What happens

    def _arrive(self) -> None:
        random = self._random
        script = random.randbytes(random.randint(1, 30))
        transaction = build_transaction([TxIn(random.randbytes(32), 0)], [TxOut(random.getrandbits(40), script)], version=2, locktime=0)
        self._admit(self._body(bytes(transaction)), transaction)

    def _admit(self, placed: _Placed, transaction: Transaction) -> None:
        self._pool.append((placed, transaction))
        self._row(ADDED, placed, self._number(), 3, 1)

    def _remove(self, place: int) -> None:
        placed, _ = self._pool.pop(place)
        self._row(REMOVED, placed, self._number(), 1, 1)

    def _take(self, count: int) -> list[tuple[_Placed, Transaction]]:
        taken, self._pool = self._pool[:count], self._pool[count:]
        return taken

    def _reorganize(self, depth: int) -> None:
        """The last blocks go, their transactions return to the mempool, and one block more takes their place."""
        returning: list[tuple[_Placed, Transaction]] = []
        for _ in range(depth):
            mined = self._chain.pop()
            self._tip = mined.parent
            self._row(DISCONNECTED, mined.block, 0, 2 * mined.block.transactions + 1, 1)
            returning[:0] = mined.transactions
        for placed, transaction in returning:
            self._admit(placed, transaction)
        share = max(1, len(self._pool) // (depth + 1))
        self._connect_all([self._take(share) for _ in range(depth + 1)])

    def _connect_all(self, contents: list[list[tuple[_Placed, Transaction]]]) -> None:
        for transactions in contents:
            self._connect(transactions)
        tip = self._chain[-1].block
        self._row(TIP, tip, 0, 2, 0)

    def _connect(self, transactions: list[tuple[_Placed, Transaction]]) -> None:
        self._coinbases += 1
        tag = self._coinbases.to_bytes(8, "little")
        coinbase = build_transaction([TxIn(bytes(32), 0xFFFFFFFF, tag)], [TxOut(50, b"\x51")], version=2, locktime=0)
        contents = [coinbase, *(transaction for _, transaction in transactions)]
        root = merkle_root([transaction.txid for transaction in contents])
        block = build_block(BlockHeader(4, self._tip, root, 1_700_000_000, 0x207FFFFF, self._coinbases), contents)
        self._sequence += len(transactions)  # each leaves the mempool in silence
        placed = self._body(bytes(block), len(block))
        self._chain.append(_Mined(placed, block.hash, self._tip, transactions))
        del self._chain[:-_DEEPEST]
        self._tip = block.hash
        self._row(CONNECTED, placed, 0, 2 * len(block) + 1, 1)

    # Writing

    def _number(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    def _body(self, raw: bytes, count: int = 1) -> _Placed:
        placed = _Placed(self._written, len(raw), count)
        self._bodies.write(raw)
        self._written += len(raw)
        return placed

    def _row(self, kind: int, placed: _Placed, number: int, messages: int, steps: int) -> None:
        self._rows.write(_ROW.pack(kind, placed.size, placed.place, number, self._messages, self._steps))
        self._messages += messages
        self._steps += steps


def block_of(story: Story, event: Event) -> Block:
    """The body of a block's event, parsed."""
    return Block(story.body(event))
