"""Those who publish a block: each does the whole work, from raw bytes to five topics, with the same interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

TOPICS = ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")


class Contender(Protocol):
    """A publisher that has bound its one address."""

    address: str

    def burst(self, raw: bytes) -> None:
        """Connect a block that is the new tip; return when all its messages are with libzmq."""

    def transaction(self, raw: bytes, mempool_sequence: int) -> None:
        """A transaction entered the mempool; it may still be on its way to libzmq."""

    def flush(self) -> None:
        """Return when all messages are with libzmq."""

    def close(self) -> None: ...


def _zmqpub(hwm: int) -> Contender:
    """zmqpub itself."""
    from contenders.core import Core

    return Core(hwm)


def _by_hand(hwm: int) -> Contender:
    """pyzmq and hashlib."""
    from contenders.by_hand import ByHand

    return ByHand(hwm)


def _bitcoinlib(hwm: int) -> Contender:
    """python-bitcoinlib and pyzmq; skips the test where it is not installed."""
    import pytest

    pytest.importorskip("bitcoin.core", reason="python-bitcoinlib is not installed")
    from contenders.bitcoinlib import BitcoinLib

    return BitcoinLib(hwm)


CONTENDERS: dict[str, Callable[[int], Contender]] = {
    "zmqpub": _zmqpub,
    "pyzmq by hand": _by_hand,
    "python-bitcoinlib": _bitcoinlib,
}
"""What makes each, given a high-water mark."""
