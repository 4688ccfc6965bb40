"""What a subscriber asks a node for, over JSON-RPC: an implementation of `zmqpub.repair.Repair`."""

from __future__ import annotations

from typing import Any

from zmqpub._fast import Block, Transaction
from zmqpub.errors import DecodeError, IpcError, RepairError, RpcError
from zmqpub.repair import HeaderInfo, MempoolSnapshot
from zmqpub.rpc.calls import Executes
from zmqpub.rpc.codes import RpcCode

__all__ = ["NodeRepair"]


class NodeRepair:
    """A `zmqpub.repair.Repair` over an `HttpRpc`, or over ``init.make_rpc()`` of IPC. Hashes are 32 bytes in display order.

    Every method raises RepairError when the node does not answer or does not know. Over HTTP, and over IPC with
    ``connect(reconnect=True)``, the next question reaches a node that was restarted meanwhile.
    """

    def __init__(self, rpc: Executes) -> None:
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
            if error.code == RpcCode.INVALID_ADDRESS_OR_KEY:
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
