"""Bitcoin Core's interfaces: what a client has, and what an object must have to be served. Methods may be ``async``, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from zmqpub.interfaces.values import MAX_MONEY, BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx

__all__ = ["BlockTemplate", "Echo", "Init", "Mining", "Rpc"]


class Echo(Protocol):
    """interfaces::Echo."""

    def echo(self, echo: str, /) -> str: ...


class Rpc(Protocol):
    """interfaces::Rpc: JSON-RPC without HTTP."""

    def execute_rpc(self, request: str, uri: str = "", user: str = "") -> str:
        """A JSON-RPC request, or a batch, as text; the answer as text. ``uri``: ``/wallet/<name>`` for a wallet's."""
        ...


class BlockTemplate(Protocol):
    """interfaces::BlockTemplate: a block that waits to be solved."""

    def get_block_header(self) -> bytes:
        """80 bytes."""
        ...

    def get_block(self) -> bytes:
        """The serialized block, with a coinbase transaction that pays nobody in particular; after a solution, the solved one."""
        ...

    def get_tx_fees(self) -> Sequence[int]:
        """Satoshis of each transaction but the coinbase."""
        ...

    def get_tx_sigops(self) -> Sequence[int]:
        """The cost of signature operations of each transaction but the coinbase."""
        ...

    def get_coinbase_tx(self) -> CoinbaseTx: ...

    def get_coinbase_merkle_path(self) -> Sequence[bytes]:
        """The hashes with which the coinbase's txid becomes the merkle root: 32 bytes each, display order."""
        ...

    def submit_solution(self, version: int, timestamp: int, nonce: int, coinbase: bytes) -> CheckResult:
        """Hand in the solved header's fields and the serialized coinbase transaction."""
        ...

    def wait_next(self, timeout: float | None = None, fee_threshold: int = MAX_MONEY) -> BlockTemplate | None:
        """Wait for a new tip, or for a template whose fees are ``fee_threshold`` satoshis higher; None after ``timeout`` seconds."""
        ...

    def interrupt_wait(self) -> None:
        """End a wait_next() that another thread is in. Where it is served, this may not block: it is called in the event loop."""
        ...


class Mining(Protocol):
    """interfaces::Mining."""

    def is_test_chain(self) -> bool: ...

    def is_initial_block_download(self) -> bool: ...

    def get_tip(self) -> BlockRef | None:
        """None while there is none."""
        ...

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef | None:
        """Wait until the tip is not ``current_tip``; the tip, also after ``timeout`` seconds; None when interrupted or shut down."""
        ...

    def create_new_block(self, options: BlockCreateOptions | None = None, *, cooldown: bool = True) -> BlockTemplate | None:
        """A template on the tip. ``cooldown``: wait while the node is catching up. None when interrupted or shut down."""
        ...

    def check_block(self, block: bytes, options: BlockCheckOptions | None = None) -> CheckResult:
        """Would this serialized block be valid on the tip?"""
        ...

    def interrupt(self) -> None:
        """End a wait that another thread is in. Where it is served, this may not block: it is called in the event loop."""
        ...

    def submit_block(self, block: bytes) -> CheckResult: ...

    def get_transactions_by_txid(self, txids: Sequence[bytes]) -> Sequence[bytes | None]:
        """Of the mempool, serialized, in the order of ``txids``; None for those that are not there."""
        ...

    def get_transactions_by_witness_id(self, wtxids: Sequence[bytes]) -> Sequence[bytes | None]: ...


class Init(Protocol):
    """interfaces::Init: where a connection begins. What an object that is served lacks is answered as unimplemented."""

    def make_echo(self) -> Echo: ...

    def make_mining(self) -> Mining: ...

    def make_rpc(self) -> Rpc: ...
