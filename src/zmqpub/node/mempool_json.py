"""The mempool as getrawmempool's verbose object, as far as it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zmqpub.node.block_json import amount
from zmqpub.node.view import Waiting
from zmqpub.sources.regtest.coins import stripped_size

__all__ = ["Cost", "mempool_json"]

_WEIGHT_PER_SIGOP = 20  # Bitcoin Core's -bytespersigop


class Cost(NamedTuple):
    """What the events do not tell of a transaction, because it takes the coins that it spends."""

    fee: int
    """Satoshis."""
    sigops: int
    """The cost of its signature operations."""


def mempool_json(mempool: Mapping[bytes, Waiting], cost_of: Callable[[bytes], Cost | None]) -> dict[str, Any]:
    """By txid. ``fees`` is there where ``cost_of`` knows the fees of all that counts; ``fees.chunk`` and ``chunkweight`` only of a
    transaction that has neither parents nor children in the mempool."""
    return _Graph(mempool, cost_of).describe()


class _Graph:
    def __init__(self, mempool: Mapping[bytes, Waiting], cost_of: Callable[[bytes], Cost | None]) -> None:
        self._mempool = mempool
        self._costs = {txid: cost_of(txid) for txid in mempool}
        self._weights: dict[bytes, int] = {}
        self._parents: dict[bytes, list[bytes]] = {}
        self._children: dict[bytes, list[bytes]] = {txid: [] for txid in mempool}
        for txid, entry in mempool.items():
            inputs = entry.transaction.inputs
            self._weights[txid] = 3 * stripped_size(inputs, entry.transaction.outputs) + entry.transaction.size
            self._parents[txid] = sorted({one.prev_txid for one in inputs if one.prev_txid in mempool})
            for parent in self._parents[txid]:
                self._children[parent].append(txid)

    def describe(self) -> dict[str, Any]:
        return {txid.hex(): self._entry(txid, entry) for txid, entry in self._mempool.items()}

    def _entry(self, txid: bytes, entry: Waiting) -> dict[str, Any]:
        ancestors = self._reach(txid, self._parents)
        descendants = self._reach(txid, self._children)
        size = self._size(txid)
        result: dict[str, Any] = {
            "vsize_adjusted": size,
            "vsize": size,
            "vsize_bip141": -(-self._weights[txid] // 4),
            "weight": self._weights[txid],
            "time": entry.time,
            "height": entry.height,
            "descendantcount": len(descendants),
            "descendantsize": sum(map(self._size, descendants)),
            "ancestorcount": len(ancestors),
            "ancestorsize": sum(map(self._size, ancestors)),
            "wtxid": entry.transaction.wtxid.hex(),
        }
        fees = self._fees(txid, ancestors, descendants)
        if fees is not None and "chunk" in fees:
            result["chunkweight"] = self._adjusted(txid)
        if fees is not None:
            result["fees"] = fees
        result["depends"] = [parent.hex() for parent in self._parents[txid]]
        result["spentby"] = [child.hex() for child in self._children[txid]]
        result["unbroadcast"] = False
        return result

    def _fees(self, txid: bytes, ancestors: list[bytes], descendants: list[bytes]) -> dict[str, Any] | None:
        costs = {one: self._costs[one] for one in {*ancestors, *descendants}}
        if any(cost is None for cost in costs.values()):
            return None
        fee = {one: cost.fee for one, cost in costs.items() if cost is not None}
        result = {
            "base": amount(fee[txid]),
            "modified": amount(fee[txid]),
            "ancestor": amount(sum(fee[one] for one in ancestors)),
            "descendant": amount(sum(fee[one] for one in descendants)),
        }
        if len(costs) == 1:
            result["chunk"] = amount(fee[txid])
        return result

    def _adjusted(self, txid: bytes) -> int:
        cost = self._costs[txid]
        return max(self._weights[txid], _WEIGHT_PER_SIGOP * (0 if cost is None else cost.sigops))

    def _size(self, txid: bytes) -> int:
        return -(-self._adjusted(txid) // 4)

    def _reach(self, txid: bytes, neighbors: Mapping[bytes, list[bytes]]) -> list[bytes]:
        """``txid`` and all that can be reached from it."""
        found = {txid: None}
        waiting = [txid]
        while waiting:
            for other in neighbors[waiting.pop()]:
                if other not in found:
                    found[other] = None
                    waiting.append(other)
        return list(found)
