"""Where a subscriber turns for what a publisher does not replay: a node's answers, behind five questions.

`Repair` is a protocol, so whatever has these methods will do: a JSON-RPC client, an index, a test's chain. Hashes are 32
bytes in display order everywhere. A method that cannot answer raises `RepairError`; the subscriber tries again within its
bounds, and says what stays lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from zmqpub._fast import Block, Transaction

__all__ = ["HeaderInfo", "MempoolSnapshot", "Repair"]


class HeaderInfo(NamedTuple):
    """A block's place in the chain."""

    height: int
    previous: bytes
    """The parent's hash; 32 zero bytes for the first block of all."""


class MempoolSnapshot(NamedTuple):
    """The mempool as of one moment."""

    txids: Sequence[bytes]
    mempool_sequence: int
    """The mempool sequence that the next message has: what Bitcoin Core's ``getrawmempool false true`` reports."""


@runtime_checkable
class Repair(Protocol):
    """A node that can be asked. Methods may block; a subscriber calls one at a time, from the thread that reads it.

    (`AsyncSubscriber` calls them in an executor's thread.)
    """

    def get_best_block_hash(self) -> bytes:
        """The hash of the active chain's tip."""
        ...

    def get_block(self, block_hash: bytes, /) -> Block:
        """A block, in any branch; RepairError where the node does not have it."""
        ...

    def get_block_header(self, block_hash: bytes, /) -> HeaderInfo | tuple[int, bytes]:
        """Height and parent of a block, in any branch; RepairError where the node does not know it."""
        ...

    def get_mempool(self) -> MempoolSnapshot:
        """The txids in the mempool, and the mempool sequence that belongs to them."""
        ...

    def get_transaction(self, txid: bytes, /) -> Transaction | None:
        """A transaction of the mempool; None where it is not there (any more)."""
        ...
