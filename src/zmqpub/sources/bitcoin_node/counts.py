"""What a source in front of a node did, and what it could not learn."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NodeCounts"]


@dataclass(slots=True)
class NodeCounts:
    """Counted since the source was made."""

    connected: bool = False
    """Whether the node answers now."""
    connections: int = 0
    """How often a connection was made: more than one after a restart of the node."""
    blocks: int = 0
    """Blocks told as connected."""
    disconnected: int = 0
    """Blocks told as disconnected."""
    reorganizations: int = 0
    mempool: int = 0
    """Transactions in the mempool as last seen."""
    looks: int = 0
    """How often the whole mempool was listed, as of the tip that was told last."""
    added: int = 0
    removed: int = 0
    """Transactions told as added and as removed."""
    untold_numbers: int = 0
    """Mempool sequence numbers of which nobody can tell what they were: what came and left between two looks, two each."""
    unseen_bodies: int = 0
    """Transactions that were listed, but had left when they were asked for. Their numbers are among ``untold_numbers``."""
    renumbered: int = 0
    """How often the stream's mempool sequence had to be set back to the node's."""
    missing_blocks: int = 0
    """Blocks that the node could not give: pruned, or lost in a crash."""

    @property
    def complete(self) -> bool:
        """Whether everything that happened in the node, as far as one can know, was told."""
        return not (self.untold_numbers or self.missing_blocks)

    def in_words(self) -> str:
        """For a status line."""
        parts = ["node connected" if self.connected else "node not there", f"mempool {self.mempool:,}"]
        if self.connections > 1:
            parts.append(f"reconnected {self.connections - 1:,} times")
        return ", ".join(filter(None, [*parts, self.shortcomings()]))

    def shortcomings(self) -> str:
        """What could not be learned; empty where nothing is missing."""
        parts = []
        if self.untold_numbers:
            parts.append(f"{self.untold_numbers:,} mempool events not learned")
        if self.missing_blocks:
            parts.append(f"{self.missing_blocks:,} blocks not had")
        return ", ".join(parts)
