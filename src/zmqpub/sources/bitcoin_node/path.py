"""The way from the block that was told last to the node's tip: which blocks to disconnect, which to connect."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from zmqpub._fast import Block
from zmqpub.interfaces import BlockRef
from zmqpub.sources.bitcoin_node.calls import NodeCalls

__all__ = ["Path", "Recent", "find_path"]

_STRETCH = 500
"""Blocks of one path: what lies beyond is looked for when these are told."""
_RECENT_BLOCKS = 100
_RECENT_BYTES = 64 << 20
_RECENT_PLACES = 5_000


class Path(NamedTuple):
    """From one block to another."""

    disconnect: list[BlockRef]
    """The highest first."""
    connect: list[BlockRef]
    """The lowest first; may end below the tip where that is far away."""
    broken: bool = False
    """The node knows nothing of where it begins, and neither does this end: what lies between is missing."""


class Recent:
    """Blocks told lately: their bodies within a bound, their places within a larger one. After a crash the node may have lost them."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._bytes = 0
        self._previous: OrderedDict[bytes, bytes] = OrderedDict()

    def add(self, block: Block) -> None:
        if block.hash not in self._blocks:
            self._blocks[block.hash] = block
            self._bytes += block.size
            while len(self._blocks) > _RECENT_BLOCKS or (self._bytes > _RECENT_BYTES and len(self._blocks) > 1):
                _, oldest = self._blocks.popitem(last=False)
                self._bytes -= oldest.size
        self._previous[block.hash] = block.header.prev_hash
        if len(self._previous) > _RECENT_PLACES:
            self._previous.popitem(last=False)

    def block(self, block_hash: bytes) -> Block | None:
        return self._blocks.get(block_hash)

    def previous(self, block_hash: bytes) -> bytes | None:
        return self._previous.get(block_hash)


def find_path(calls: NodeCalls, recent: Recent, start: BlockRef, target: BlockRef) -> Path:
    """From ``start``, which was told last, to ``target``, which is or was the node's tip.

    By heights where ``start`` is in the active chain, which takes a question a block; else back to back until both meet.
    """
    if target.height > start.height:
        header = calls.header(start.hash)
        if header is not None and header.active and calls.hash_at(target.height) == target.hash:
            connect = _along(calls, start.height + 1, min(target.height, start.height + _STRETCH))
            if connect is not None:
                return Path([], connect)
    disconnect: list[BlockRef] = []
    connect = []
    old, new = start, target
    while old.hash != new.hash:
        if new.height >= old.height:
            connect.append(new)
            previous = _previous(calls, recent, new)
            if previous is None:
                return Path([], [target], broken=True)
            new = previous
        else:
            disconnect.append(old)
            previous = _previous(calls, recent, old)
            if previous is None:
                return Path([], [target], broken=True)
            old = previous
    return Path(disconnect, connect[::-1])


def _along(calls: NodeCalls, first: int, last: int) -> list[BlockRef] | None:
    """Of the active chain; None where it became shorter meanwhile."""
    found = []
    for height in range(first, last + 1):
        block_hash = calls.hash_at(height)
        if block_hash is None:
            return None
        found.append(BlockRef(block_hash, height))
    return found


def _previous(calls: NodeCalls, recent: Recent, block: BlockRef) -> BlockRef | None:
    known = recent.previous(block.hash)
    if known is None:
        header = calls.header(block.hash)
        if header is None or block.height == 0:
            return None
        known = header.previous
    return BlockRef(known, block.height - 1)
