"""What `zmqpub listen --follow` tells: the chain and the mempool instead of messages, beside whatever goes wrong on the way."""

from __future__ import annotations

from zmqpub.chain_events import ChainEvent
from zmqpub.cli.chain_telling import ChainTally, chain_in_words, chain_members, chain_name
from zmqpub.cli.hearing import JsonHearing, TextHearing
from zmqpub.cli.screen import Screen
from zmqpub.cli.tally import Item, Tally
from zmqpub.stream_events import EVENT_TYPES

__all__ = ["ChainHearing", "JsonChainHearing", "TextChainHearing"]


class JsonChainHearing(JsonHearing):
    """An object a line; ``event`` is what chain_name() calls it, or one of the others but ``message``."""

    def __init__(self, screen: Screen, tally: Tally, chain: ChainTally, bodies: bool) -> None:
        super().__init__(screen, tally, bodies)
        self._chain = chain

    def happening(self, item: Item, lost: int) -> None:
        if isinstance(item, EVENT_TYPES):
            super().happening(item, lost)

    def chain(self, event: ChainEvent) -> None:
        """A block or a transaction came or went."""
        self.put(chain_name(event), None, **chain_members(event, self._bodies))

    def summary(self) -> dict[str, object]:
        chain = self._chain
        return {
            **super().summary(),
            "blocks_connected": chain.connected,
            "blocks_disconnected": chain.disconnected,
            "transactions_added": chain.added,
            "transactions_removed": chain.removed,
            "chain_gaps": chain.gaps,
            "tip": None if chain.tip is None else chain.tip.hex(),
        }


class TextChainHearing(TextHearing):
    """A line for each event."""

    def __init__(self, screen: Screen, tally: Tally, chain: ChainTally) -> None:
        super().__init__(screen, tally)
        self._chain = chain

    def chain(self, event: ChainEvent) -> None:
        """A block or a transaction came or went."""
        self._screen.report(chain_in_words(event))

    def conclude(self, unread: int) -> None:
        super().conclude(unread)
        self._screen.line(self._chain.in_words())

    def _line(self) -> str:
        return f"{super()._line()}; {self._chain.in_words()}"


ChainHearing = JsonChainHearing | TextChainHearing
