"""The end of the active chain, as far as a follower was told of it. Does no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from zmqpub._fast import Block

__all__ = ["RECENT_BLOCKS", "ChainLine", "Link"]

RECENT_BLOCKS = 288
"""Two days of blocks: how far back a reorganization, or a saved cursor, can be followed."""

_BODIES = 6


class Link(NamedTuple):
    """A block's place."""

    hash: bytes
    height: int | None = None
    previous: bytes | None = None
    block: Block | None = None


class ChainLine:
    """The last blocks of the active chain, the tip last; each is the parent of the one after it.

    Of the newest few the bodies are kept as well, so that a block that is disconnected can be handed out.
    """

    def __init__(self, links: Iterable[Link] = ()) -> None:
        self._links: deque[Link] = deque()
        self._by_hash: dict[bytes, Link] = {}
        for link in links:
            self.connect(link)

    @property
    def tip(self) -> Link | None:
        return self._links[-1] if self._links else None

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, block_hash: object) -> bool:
        return block_hash in self._by_hash

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    def get(self, block_hash: bytes) -> Link | None:
        return self._by_hash.get(block_hash)

    def connect(self, link: Link) -> Link:
        """Put a block on top; returns it with its height, if that follows from the tip's."""
        tip = self.tip
        if link.height is None and tip is not None and tip.height is not None:
            link = link._replace(height=tip.height + 1)
        self._links.append(link)
        self._by_hash[link.hash] = link
        if len(self._links) > RECENT_BLOCKS:
            del self._by_hash[self._links.popleft().hash]
        if len(self._links) > _BODIES and self._links[-_BODIES - 1].block is not None:
            self._replace(-_BODIES - 1, self._links[-_BODIES - 1]._replace(block=None))
        return link

    def keep_body(self, block_hash: bytes, block: Block) -> None:
        """Remember the body of one of the newest blocks."""
        for place in range(-1, -min(_BODIES, len(self._links)) - 1, -1):
            if self._links[place].hash == block_hash:
                self._replace(place, self._links[place]._replace(block=block))
                return

    def disconnect(self) -> Link:
        """Take the tip off. Below the last block that is known, its parent's name remains, if that is known."""
        link = self._links.pop()
        del self._by_hash[link.hash]
        if not self._links and link.previous is not None:
            self.connect(Link(link.previous, None if link.height is None else link.height - 1))
        return link

    def clear(self) -> None:
        self._links.clear()
        self._by_hash.clear()

    def _replace(self, place: int, link: Link) -> None:
        self._links[place] = link
        self._by_hash[link.hash] = link
