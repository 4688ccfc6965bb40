"""What a subscriber asks a node for, over the node's IPC: an implementation of `zmqpub.repair.Repair`."""

from __future__ import annotations

from typing import Any, Final

from zmqpub._fast import Block, Transaction
from zmqpub.errors import DecodeError, IpcError, RepairError, RpcError
from zmqpub.ipc.client import Rpc
from zmqpub.repair import HeaderInfo, MempoolSnapshot

__all__ = ["NodeRepair"]

_NOT_FOUND: Final = -5
"""RPC_INVALID_ADDRESS_OR_KEY: no such block, no such transaction in the mempool."""


class NodeRepair:
    """A `zmqpub.repair.Repair` over ``init.make_rpc()``. Hashes are 32 bytes in display order.

    Every method raises RepairError when the node does not answer or does not know; with ``connect(reconnect=True)`` the next
    question reaches a node that was restarted meanwhile.
    """

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def get_best_block_hash(self) -> bytes:
        return _hash(self._ask("getbestblockhash"))

    def get_block(self, block_hash: bytes, /) -> Block:
        text = self._ask("getblock", block_hash.hex(), 0)
        try:
            return Block(bytes.fromhex(text))
        except (DecodeError, ValueError, TypeError) as error:
            raise RepairError(f"getblock {block_hash.hex()}: {error}") from None

    def get_block_header(self, block_hash: bytes, /) -> HeaderInfo:
        header = self._ask("getblockheader", block_hash.hex())
        try:
            return HeaderInfo(int(header["height"]), _hash(header.get("previousblockhash", "00" * 32)))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise RepairError(f"getblockheader {block_hash.hex()}: no header in the answer: {error}") from None

    def get_mempool(self) -> MempoolSnapshot:
        listing = self._ask("getrawmempool", False, True)
        try:
            return MempoolSnapshot([_hash(txid) for txid in listing["txids"]], int(listing["mempool_sequence"]))
        except (KeyError, ValueError, TypeError) as error:
            raise RepairError(f"getrawmempool: no listing in the answer: {error}") from None

    def get_transaction(self, txid: bytes, /) -> Transaction | None:
        try:
            return Transaction(bytes.fromhex(self._rpc.execute("getrawtransaction", txid.hex())))
        except RpcError as error:
            if error.code == _NOT_FOUND:
                return None
            raise RepairError(str(error)) from None
        except (IpcError, DecodeError, ValueError, TypeError) as error:
            raise RepairError(f"getrawtransaction {txid.hex()}: {error}") from None

    def _ask(self, method: str, *params: Any) -> Any:
        try:
            return self._rpc.execute(method, *params)
        except (RpcError, IpcError) as error:
            raise RepairError(str(error)) from None


def _hash(text: Any) -> bytes:
    try:
        value = bytes.fromhex(text)
    except (TypeError, ValueError):
        value = b""
    if len(value) != 32:
        raise RepairError(f"expected a hash of 64 hex digits, got {text!r}")
    return value
