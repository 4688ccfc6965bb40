"""The transactions that wait for a block, numbered as Bitcoin Core's CTxMemPool numbers them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from zmqpub.sources.regtest.coins import Coin, Outpoint, Resolved

__all__ = ["Mempool"]


class Mempool:
    """Entries in the order of their arrival. It keeps the books; which transactions belong in it, its owner knows."""

    def __init__(self) -> None:
        self.next_sequence = 1
        """The number that the next arrival or removal takes, whatever the reason of the removal."""
        self._entries: dict[bytes, Resolved] = {}
        self._spends: dict[Outpoint, Resolved] = {}
        self._by_rate: list[tuple[float, int, Resolved]] = []  # a heap; what has left the mempool is skipped when met
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Resolved]:
        return iter(self._entries.values())

    def __contains__(self, txid: object) -> bool:
        return txid in self._entries

    def get(self, txid: bytes) -> Resolved | None:
        return self._entries.get(txid)

    def spender(self, outpoint: Outpoint) -> Resolved | None:
        """The entry that spends ``outpoint``."""
        return self._spends.get(outpoint)

    def coin(self, outpoint: Outpoint) -> Coin | None:
        """The coin that an entry makes there, whether or not another spends it."""
        entry = self._entries.get(outpoint[0])
        if entry is not None:
            for coin in entry.created:
                if coin.outpoint == outpoint:
                    return coin
        return None

    def add(self, entry: Resolved) -> int:
        """Take ``entry`` in, none of whose coins another spends; returns the number of its arrival."""
        self._arrivals += 1
        entry.arrival = self._arrivals
        self._entries[entry.txid] = entry
        for coin in entry.spent:
            self._spends[coin.outpoint] = entry
        if len(self._by_rate) > 2 * len(self._entries) + 64:
            self._by_rate = [(other.rate, other.arrival, other) for other in self._entries.values()]
            heapq.heapify(self._by_rate)
        else:
            heapq.heappush(self._by_rate, (entry.rate, entry.arrival, entry))
        return self._number()

    def remove(self, entry: Resolved) -> int:
        """Take ``entry`` out, and nothing that depends on it; returns the number of its removal."""
        del self._entries[entry.txid]
        for coin in entry.spent:
            del self._spends[coin.outpoint]
        return self._number()

    def _number(self) -> int:
        number = self.next_sequence
        self.next_sequence = number + 1
        return number

    def parents(self, entry: Resolved) -> list[Resolved]:
        """The entries whose coins ``entry`` spends, each once."""
        found = {}
        for coin in entry.spent:
            parent = self._entries.get(coin.outpoint[0])
            if parent is not None:
                found[parent.txid] = parent
        return list(found.values())

    def children(self, entry: Resolved) -> list[Resolved]:
        """The entries that spend coins of ``entry``, each once."""
        found = {}
        for coin in entry.created:
            child = self._spends.get(coin.outpoint)
            if child is not None:
                found[child.txid] = child
        return list(found.values())

    def with_descendants(self, entries: Iterable[Resolved]) -> list[Resolved]:
        """``entries`` and all that cannot be without them, each once, in the order of arrival."""
        found: dict[bytes, Resolved] = {}
        waiting = list(entries)
        while waiting:
            entry = waiting.pop()
            if entry.txid not in found:
                found[entry.txid] = entry
                waiting.extend(self.children(entry))
        return sorted(found.values(), key=lambda entry: entry.arrival) if len(found) > 1 else list(found.values())

    def cluster_size(self, entry: Resolved, limit: int) -> int:
        """How many entries hang together with ``entry``, itself included; counts no further than ``limit``."""
        found = {entry.txid}
        waiting = [entry]
        while waiting and len(found) < limit:
            current = waiting.pop()
            for other in (*self.parents(current), *self.children(current)):
                if other.txid not in found:
                    found.add(other.txid)
                    waiting.append(other)
        return min(len(found), limit)

    def worst(self) -> Resolved | None:
        """The entry that pays least for its weight."""
        while self._by_rate:
            _, arrival, entry = self._by_rate[0]
            if self._entries.get(entry.txid) is entry and entry.arrival == arrival:
                return entry
            heapq.heappop(self._by_rate)
        return None

    def oldest(self) -> Resolved | None:
        """The entry that arrived first."""
        return next(iter(self._entries.values()), None)

    def best_first(self) -> list[Resolved]:
        """All entries, those that pay most for their weight first."""
        return sorted(self._entries.values(), key=lambda entry: entry.rate, reverse=True)
