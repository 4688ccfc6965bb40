"""The way from a block back to the chain that is known, by asking a node for one parent after the other. Does no I/O.

Questions are what a generator yields (`Ask`), answers are sent into it, and a RepairError is thrown into it; see `answer`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from zmqpub._fast import Block
from zmqpub.errors import RepairError
from zmqpub.following.line import ChainLine, Link
from zmqpub.repair import HeaderInfo, MempoolSnapshot, Repair

__all__ = ["Ask", "NoWayError", "Questions", "Work", "answer", "ask_best", "ask_block", "ask_header", "ask_mempool", "known_link", "walk"]

Method = Literal["get_best_block_hash", "get_block", "get_block_header", "get_mempool"]
T = TypeVar("T")


class NoWayError(RepairError):
    """The node answers, but its blocks do not lead back to the chain that is known."""


class Ask(NamedTuple):
    """A question to a Repair."""

    method: Method
    arguments: tuple[bytes, ...] = ()


Work = Generator[Ask, Any, T]
"""What needs answers before it is done."""


class Questions:
    """Work under way. Its question stays the same until it is answered, however often the asking is interrupted."""

    def __init__(self, work: Work[None]) -> None:
        self._work = work
        self.ask: Ask | None = next(work, None)
        """The question; None once the work is done."""

    def reply(self, value: Any) -> None:
        """The answer."""
        try:
            self.ask = self._work.send(value)
        except StopIteration:
            self.ask = None

    def fail(self, error: RepairError) -> None:
        """There is no answer."""
        try:
            self.ask = self._work.throw(error)
        except StopIteration:
            self.ask = None


def answer(repair: Repair, ask: Ask) -> Any:
    """What ``repair`` says; may block."""
    return getattr(repair, ask.method)(*ask.arguments)


def ask_best() -> Work[bytes]:
    """The hash of the node's tip."""
    best = yield Ask("get_best_block_hash")
    if not isinstance(best, bytes) or len(best) != 32:
        raise RepairError(f"get_best_block_hash() returned {best!r}, not a hash of 32 bytes")
    return best


def ask_header(block_hash: bytes) -> Work[HeaderInfo]:
    """Height and parent of a block."""
    height, previous = yield Ask("get_block_header", (block_hash,))
    return HeaderInfo(height, previous)


def ask_block(block_hash: bytes) -> Work[Block]:
    """A block, which is the one that was asked for."""
    block = yield Ask("get_block", (block_hash,))
    if not isinstance(block, Block) or block.hash != block_hash:
        raise RepairError(f"get_block({block_hash.hex()}) returned another block")
    return block


def ask_mempool() -> Work[MempoolSnapshot]:
    """What is in the node's mempool."""
    txids, mempool_sequence = yield Ask("get_mempool")
    return MempoolSnapshot(tuple(txids), mempool_sequence)


def known_link(block_hash: bytes, block: Block | None, forgotten: Mapping[bytes, Link]) -> Link | None:
    """A block's place from its body or from when it was disconnected; None where neither tells the parent."""
    if block is not None:
        return Link(block_hash, None, block.header.prev_hash, block)
    link = forgotten.get(block_hash)
    return link if link is not None and link.previous is not None else None


def walk(start: Link, line: ChainLine, forgotten: Mapping[bytes, Link], *, ask: bool, bodies: bool, limit: int) -> Work[list[Link]]:
    """The blocks from the one above a block of ``line`` up to ``start``, in the order in which they are connected.

    ``start`` names its parent. What ``forgotten`` does not know is asked for, if ``ask``: whole blocks, if ``bodies``,
    else headers. RepairError where the way ends: nobody knows a parent, or ``limit`` blocks led to no block of ``line``.
    """
    path = [start]
    while (previous := path[-1].previous) not in line:
        assert previous is not None
        if len(path) >= limit:
            raise NoWayError(f"{limit} blocks back from {start.hash.hex()} there is still none that was connected here")
        link = known_link(previous, None, forgotten)
        if link is None or (bodies and ask and link.block is None):
            link = yield from _ask_link(previous, bodies) if ask else _unknown(previous)
        path.append(link)
    path.reverse()
    ancestor = line.get(path[0].previous or b"")
    height = None if ancestor is None else ancestor.height
    return [link if height is None else link._replace(height=height + place) for place, link in enumerate(path, 1)]


def _ask_link(block_hash: bytes, bodies: bool) -> Work[Link]:
    if bodies:
        block = yield from ask_block(block_hash)
        return Link(block_hash, None, block.header.prev_hash, block)
    height, previous = yield from ask_header(block_hash)
    return Link(block_hash, height, previous)


def _unknown(block_hash: bytes) -> Work[Link]:
    raise RepairError(f"block {block_hash.hex()} was not published, and there is no Repair to ask for it")
    yield  # a generator, as its twin is
