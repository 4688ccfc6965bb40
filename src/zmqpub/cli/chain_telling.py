"""The events of a followed chain in words and in JSON, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from zmqpub.chain_events import (
    BlockConnected,
    BlockDisconnected,
    ChainEvent,
    ChainGap,
    MempoolReset,
    TransactionAdded,
    TransactionRemoved,
)
from zmqpub.cli.codes import one_line
from zmqpub.cli.screen import plural

__all__ = ["ChainTally", "chain_in_words", "chain_members", "chain_name"]


@dataclass(slots=True)
class ChainTally:
    """What happened to the chain and the mempool so far."""

    connected: int = 0
    disconnected: int = 0
    added: int = 0
    removed: int = 0
    resets: int = 0
    gaps: int = 0
    """Where something is missing that could not be had."""
    tip: bytes | None = None
    height: int | None = None

    @property
    def events(self) -> int:
        """All together."""
        return self.connected + self.disconnected + self.added + self.removed + self.resets + self.gaps

    def take(self, event: ChainEvent) -> None:
        """Count ``event``."""
        if isinstance(event, BlockConnected):
            self.connected += 1
            self.tip, self.height = event.hash, event.height
        elif isinstance(event, BlockDisconnected):
            self.disconnected += 1
            # The parent is the tip again; only the event that connected it said its hash.
            self.tip, self.height = None, None if event.height is None else event.height - 1
        elif isinstance(event, TransactionAdded):
            self.added += 1
        elif isinstance(event, TransactionRemoved):
            self.removed += 1
        elif isinstance(event, MempoolReset):
            self.resets += 1
        else:
            self.gaps += 1

    def in_words(self) -> str:
        """In a line."""
        tip = "" if self.tip is None else f"; tip {_block(self.height, self.tip)}"
        gaps = f", {plural(self.gaps, 'gap')}" if self.gaps else ""
        return (
            f"{plural(self.connected, 'block')} connected, {self.disconnected:,} disconnected, "
            f"{plural(self.added, 'transaction')} added, {self.removed:,} removed{gaps}{tip}"
        )


def chain_name(event: ChainEvent) -> str:
    """What it is called, in a JSON object's ``event``."""
    return _NAMES[type(event)]


def chain_members(event: ChainEvent, bodies: bool) -> dict[str, object]:
    """The members of its JSON object besides ``event`` and ``time``; with ``bodies`` the block or transaction, too, where it is known."""
    members: dict[str, object] = _MEMBERS[type(event)](event)
    body = getattr(event, "block", None) or getattr(event, "transaction", None)
    return {**members, "body": bytes(body).hex()} if bodies and body is not None else members


def chain_in_words(event: ChainEvent) -> str:
    """A line about it."""
    return one_line(f"{_NAMES[type(event)].replace('_', ' ')}: {_WORDS[type(event)](event)}")


def _block(height: int | None, block_hash: bytes) -> str:
    return f"{'' if height is None else f'{height} '}{block_hash.hex()}"


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _connected(event: BlockConnected) -> dict[str, object]:
    members: dict[str, object] = {"hash": event.hash.hex(), "height": event.height, "previous": _hex(event.previous)}
    return members if event.block is None else {**members, "transactions": len(event.block)}


def _connected_in_words(event: BlockConnected) -> str:
    count = "" if event.block is None else f" ({plural(len(event.block), 'transaction')})"
    return f"{_block(event.height, event.hash)}{count}"


def _of_transaction(event: TransactionAdded | TransactionRemoved) -> dict[str, object]:
    return {"txid": event.txid.hex(), "mempool_sequence": event.mempool_sequence}


def _gap_in_words(event: ChainGap) -> str:
    parts = [name for name, missing in (("blocks", event.blocks), ("mempool", event.mempool)) if missing]
    return f"{' and '.join(parts) or 'nothing'} incomplete: {event.reason}"


_NAMES: Final[dict[type, str]] = {
    BlockConnected: "block_connected",
    BlockDisconnected: "block_disconnected",
    TransactionAdded: "transaction_added",
    TransactionRemoved: "transaction_removed",
    MempoolReset: "mempool_reset",
    ChainGap: "chain_gap",
}

_MEMBERS: Final[dict[type, Callable[[Any], dict[str, object]]]] = {
    BlockConnected: _connected,
    BlockDisconnected: lambda event: {"hash": event.hash.hex(), "height": event.height},
    TransactionAdded: _of_transaction,
    TransactionRemoved: _of_transaction,
    MempoolReset: lambda event: {"txids": [txid.hex() for txid in event.txids], "mempool_sequence": event.mempool_sequence},
    ChainGap: lambda event: {"reason": one_line(event.reason), "blocks": event.blocks, "mempool": event.mempool},
}

_WORDS: Final[dict[type, Callable[[Any], str]]] = {
    BlockConnected: _connected_in_words,
    BlockDisconnected: lambda event: _block(event.height, event.hash),
    TransactionAdded: lambda event: event.txid.hex(),
    TransactionRemoved: lambda event: event.txid.hex(),
    MempoolReset: lambda event: f"{plural(len(event.txids), 'transaction')}, next mempool sequence {event.mempool_sequence}",
    ChainGap: _gap_in_words,
}
