"""What the notifications of transactions tell of the mempool. Does no I/O."""

from __future__ import annotations

import enum
from collections import OrderedDict

from zmqpub._fast import RawTx, Transaction

__all__ = ["BodyShelf", "MempoolNumbers", "Seen", "Step", "is_coinbase"]


class Step(enum.Enum):
    """What a mempool sequence number is, after those before it."""

    NEXT = enum.auto()
    KNOWN = enum.auto()
    """A snapshot of the mempool has it already."""
    RESTART = enum.auto()
    """It went back: the node was started anew, and its mempool with it."""


class MempoolNumbers:
    """The mempool sequence of each address, and of the last snapshot."""

    def __init__(self) -> None:
        self.floor = 0
        """Numbers below are in the last snapshot."""
        self.last: dict[str, int] = {}
        """The last number that each address told."""

    def take(self, source: str, number: int) -> Step:
        """``source`` tells ``number``."""
        last = self.last.get(source, -1)
        self.last[source] = number
        if number <= last:
            return Step.RESTART
        return Step.NEXT if number >= self.floor else Step.KNOWN

    def restart(self) -> None:
        """Numbers begin anew."""
        self.floor = 0
        self.last.clear()


class Seen:
    """The txids that were told lately: at least the last ``least``, at most twice as many."""

    def __init__(self, least: int = 100_000) -> None:
        self._least = least
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def add(self, txid: bytes) -> bool:
        """Whether it is new."""
        if txid in self._young or txid in self._old:
            return False
        self._young.add(txid)
        if len(self._young) >= self._least:
            self._old, self._young = self._young, set()
        return True


class BodyShelf:
    """Transactions (``rawtx``) that wait to be named by a ``sequence`` message.

    At an address that sends both, the transaction comes right before its label: the last one is enough. What comes from
    another address may be early by any number: the last few are kept, within a bound in bytes.
    """

    _MOST = 4096
    _MOST_BYTES = 16 * 1024 * 1024

    def __init__(self) -> None:
        self._last: dict[str, RawTx] = {}
        self._others: OrderedDict[bytes, Transaction] = OrderedDict()
        self._bytes = 0

    def put(self, source: str, message: RawTx, *, labels: bool) -> None:
        """``labels``: whether ``source`` also sends ``sequence``."""
        if labels:
            self._last[source] = message
            return
        transaction = message.transaction
        if message.txid not in self._others:
            self._others[message.txid] = transaction
            self._bytes += transaction.size
        while len(self._others) > self._MOST or self._bytes > self._MOST_BYTES:
            self._bytes -= self._others.popitem(last=False)[1].size

    def take(self, source: str, txid: bytes) -> Transaction | None:
        """The transaction, if it is here; it is handed out once."""
        last = self._last.get(source)
        if last is not None and last.txid == txid:
            return last.transaction
        found = self._others.pop(txid, None)
        if found is not None:
            self._bytes -= found.size
        return found


def is_coinbase(raw: memoryview) -> bool:
    """Whether a serialized transaction is a block's first: its only input spends nothing."""
    start = 6 if raw[4] == 0 else 4  # after the version, and the marker and flag of BIP 144
    return raw[start] == 1 and raw[start + 1 : start + 33] == bytes(32)
