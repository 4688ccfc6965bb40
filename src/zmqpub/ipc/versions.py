"""Which Bitcoin Core a peer is like: what was added when."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["INSTEAD", "SINCE", "NodeVersion"]


class NodeVersion(enum.IntEnum):
    """As far as interfaces go; what is in between counts as the older one, and so does a peer of another kind that lacks Rpc."""

    V30 = 30
    V31 = 31
    MASTER = 32
    """With Rpc; no release yet as of August 2026."""

    def __str__(self) -> str:
        return "master" if self is NodeVersion.MASTER else f"v{int(self)}"


SINCE: Final = {
    "Init.makeRpc": "master (after v31)",
    "Mining.interrupt": "v31",
    "Mining.submitBlock": "master (after v31)",
    "Mining.getTransactionsByTxID": "master (after v31)",
    "Mining.getTransactionsByWitnessID": "master (after v31)",
    "BlockTemplate.getCoinbaseTx": "v31",
    "Init.makeMining": "v30",
    "Init.makeEcho": "v30",
}
"""What a peer may lack, and since when Bitcoin Core has it. The rest is as old as IPC."""

INSTEAD: Final = {"Init.makeRpc": "its JSON-RPC can be had over HTTP: give connect() the node's URL as http="}
"""How else a client of ours gets what a peer may lack."""
