"""What the source asks of a Bitcoin Core node, in few words: headers, blocks, the mempool."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

from zmqpub._fast import Block, Transaction
from zmqpub.errors import DecodeError, IpcProtocolError, RemoteError, RpcError, UnimplementedError, ZmqPubError
from zmqpub.interfaces import BlockRef

__all__ = ["Header", "Listing", "NodeCalls", "NodeConnection", "NodeMining", "NodeRpc"]

logger = logging.getLogger("zmqpub")

_AT_ONCE = 100
"""Transactions in a call: of the largest that Bitcoin Core relays, these are 40 MB, and an answer may have 64 MiB."""
_NO_METHOD = -32601
_NOT_FOUND = -5  # RPC_INVALID_ADDRESS_OR_KEY, what Bitcoin Core says of blocks and transactions that it does not have


class NodeMining(Protocol):
    """What the source uses of interfaces::Mining."""

    def get_tip(self) -> BlockRef | None: ...
    def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef | None: ...
    def is_initial_block_download(self) -> bool: ...
    def get_transactions_by_txid(self, txids: Sequence[bytes]) -> Sequence[bytes | None]: ...


class NodeRpc(Protocol):
    """What the source uses of interfaces::Rpc."""

    def execute(self, method: str, *params: Any) -> Any:
        """The result; RpcError where the node answers with an error. Where it has a method ``batch``, too, that is used for many."""
        ...


class NodeConnection(Protocol):
    """A connection to a node: `zmqpub.ipc.connect` makes one, anything with these methods will do."""

    def make_mining(self) -> NodeMining: ...
    def make_rpc(self) -> NodeRpc: ...
    def close(self) -> None: ...


class Header(NamedTuple):
    """A block's place, in any branch."""

    hash: bytes
    height: int
    previous: bytes
    work: int
    """Of the chain up to it."""
    active: bool
    """Whether it was in the active chain when the node was asked."""


class Listing(NamedTuple):
    """The mempool of one moment."""

    txids: list[str]
    """In hex, parents before their children."""
    sequence: int
    """What the next mempool event is numbered."""
    tip: bytes
    """The chain's tip just after that moment."""


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _sound(ask: Callable[Concatenate[NodeCalls, _P], _R]) -> Callable[Concatenate[NodeCalls, _P], _R]:
    """IpcProtocolError where the answer is not what Bitcoin Core answers."""

    @functools.wraps(ask)
    def asking(calls: NodeCalls, /, *arguments: _P.args, **keywords: _P.kwargs) -> _R:
        try:
            return ask(calls, *arguments, **keywords)
        except (ZmqPubError, LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ZmqPubError) and not isinstance(error, DecodeError):
                raise
            cause = f"an answer that makes no sense: {type(error).__name__}: {error}"
            raise IpcProtocolError("bitcoin-node", "Rpc", ask.__name__, cause) from error

    return asking


class NodeCalls:
    """The questions. Errors of the connection pass through; what the node does not have is None."""

    def __init__(self, mining: NodeMining, rpc: NodeRpc) -> None:
        self.mining = mining
        self._rpc = rpc
        self._by_txid = True

    @_sound
    def header(self, block_hash: bytes) -> Header | None:
        try:
            answer = self._rpc.execute("getblockheader", block_hash.hex())
        except RpcError as error:
            if error.code == _NOT_FOUND:
                return None
            raise
        previous = bytes.fromhex(answer.get("previousblockhash", "00" * 32))
        return Header(block_hash, answer["height"], previous, int(answer["chainwork"], 16), answer["confirmations"] >= 0)

    @_sound
    def hash_at(self, height: int) -> bytes | None:
        """Of the active chain's block of that height."""
        try:
            return bytes.fromhex(self._rpc.execute("getblockhash", height))
        except RpcError as error:
            if error.code == -8:  # RPC_INVALID_PARAMETER: out of range
                return None
            raise

    @_sound
    def block(self, block_hash: bytes) -> Block | None:
        """None where it is unknown, pruned, or not downloaded."""
        try:
            block = Block(bytes.fromhex(self._rpc.execute("getblock", block_hash.hex(), 0)))
        except RpcError as error:
            if error.code in (_NOT_FOUND, -1):  # RPC_MISC_ERROR: pruned, not downloaded
                logger.error("block %s cannot be had from the node: %s", block_hash.hex(), error.message)
                return None
            raise
        if block.hash != block_hash:
            raise IpcProtocolError("bitcoin-node", "Rpc", "getblock", f"asked for {block_hash.hex()}, answered {block.hash.hex()}")
        return block

    @_sound
    def is_invalid(self, tip: bytes) -> bool:
        """Whether the branch that ends there was found, or declared, invalid."""
        branches = self._optional("getchaintips") or ()
        return any(branch["hash"] == tip.hex() and branch["status"] == "invalid" for branch in branches)

    @_sound
    def uptime(self) -> float:
        """Seconds that the node has been running."""
        return float(self._rpc.execute("uptime"))

    def _optional(self, method: str) -> Any:
        """None from peers that lack it: not only Bitcoin Core serves these interfaces."""
        try:
            return self._rpc.execute(method)
        except RpcError as error:
            if error.code == _NO_METHOD:
                return None
            raise

    @_sound
    def mempool_state(self) -> tuple[bool, object]:
        """Whether the mempool was read from disk, and something that changes when it does (except where one transaction came and went)."""
        info = self._optional("getmempoolinfo")
        if info is None:
            return True, object()
        return bool(info.get("loaded", True)), (info["size"], info["bytes"], info["usage"], str(info["total_fee"]))

    @_sound
    def listing(self) -> Listing:
        answer = self._rpc.execute("getrawmempool", False, True)
        return Listing(answer["txids"], answer["mempool_sequence"], bytes.fromhex(self._rpc.execute("getbestblockhash")))

    @_sound
    def transactions(self, txids: Sequence[str]) -> list[Transaction | None]:
        """Of the mempool; None for those that have left it."""
        found: list[Transaction | None] = []
        for start in range(0, len(txids), _AT_ONCE):
            found += [None if raw is None else Transaction(raw) for raw in self._raw(txids[start : start + _AT_ONCE])]
        return found

    def _raw(self, txids: Sequence[str]) -> Sequence[bytes | None]:
        if self._by_txid:
            try:
                return self.mining.get_transactions_by_txid([bytes.fromhex(txid) for txid in txids])
            except UnimplementedError:
                self._by_txid = False
            except RemoteError:
                if len(txids) == 1:
                    raise
                # Larger than a message may be, or one of many that the node stumbles over.
                return [raw for txid in txids for raw in self._raw([txid])]
        batch = getattr(self._rpc, "batch", None)
        if batch is not None and len(txids) > 1:
            try:
                return [_raw_or_none(answer) for answer in batch([("getrawtransaction", txid) for txid in txids])]
            except RemoteError:
                pass  # larger than a message may be
        return [self._one(txid) for txid in txids]

    def _one(self, txid: str) -> bytes | None:
        try:
            return _raw_or_none(self._rpc.execute("getrawtransaction", txid))
        except RpcError as error:
            return _raw_or_none(error)


def _raw_or_none(answer: str | RpcError) -> bytes | None:
    """A transaction; None for one that is not there."""
    if not isinstance(answer, RpcError):
        return bytes.fromhex(answer)
    if answer.code == _NOT_FOUND:
        return None
    raise answer
