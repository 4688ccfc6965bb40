"""Bitcoin Core's commands that a publisher and its source can answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import zmqpub
from zmqpub._fast import Block
from zmqpub.errors import RpcError
from zmqpub.node.block_json import amount, block_json, difficulty, header_json
from zmqpub.node.mempool_json import Cost, mempool_json
from zmqpub.node.view import NodeView, Place
from zmqpub.publisher import ActiveNotifier
from zmqpub.rpc.codes import RpcCode
from zmqpub.rpc.parameters import Kind, Parameter, as_int
from zmqpub.rpc.table import Command
from zmqpub.sources.block_networks import target_of_bits

__all__ = ["node_commands"]

_GENESIS_ROOTS = (
    "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
    "7aa0a7ae1e223414cb807e40cd57e667b718e42aaf9306db9102fe28912b7b4e",  # testnet4
)
_BLOCK_HASH = Parameter("blockhash", Kind.STRING, description="The block's hash")


def node_commands(
    view: NodeView,
    notifiers: Callable[[], Sequence[ActiveNotifier]] = tuple,
    *,
    cost_of: Callable[[bytes], Cost | None] = lambda txid: None,
    chain: Callable[[], str | None] = lambda: None,
) -> list[Command]:
    """The commands, for an RpcTable. Uptime counts from here.

    ``notifiers``: a publisher's active_notifiers. ``cost_of``: what a transaction of the mempool pays, where that is known. ``chain``:
    Bitcoin Core's name for the network, where that is known.
    """
    node = _Node(view, cost_of)
    start = monotonic()

    def command(name: str, function: Callable[..., Any], category: str, description: str, *parameters: Parameter) -> Command:
        return Command(name, function, parameters, category, description)

    verbosity = Parameter("verbosity|verbose", Kind.ANY, False, "0: the serialization in hex; 1: an object")
    return [
        command("getbestblockhash", node.best_block_hash, "Blockchain", "The hash of the active chain's last block."),
        command("getblock", node.block, "Blockchain", "A block, in any branch.", _BLOCK_HASH, verbosity),
        command("getblockchaininfo", lambda: node.chain_info(chain()), "Blockchain", "The state of the chain."),
        command("getblockcount", node.block_count, "Blockchain", "The height of the active chain's last block."),
        command(
            "getblockhash",
            node.block_hash,
            "Blockchain",
            "The hash of the active chain's block at a height.",
            Parameter("height", Kind.NUMBER, description="0 is the genesis block's"),
        ),
        command(
            "getblockheader",
            node.block_header,
            "Blockchain",
            "The header of a block, in any branch.",
            _BLOCK_HASH,
            Parameter("verbose", Kind.BOOL, False, "true: an object; false: the serialization in hex"),
        ),
        command("getdifficulty", node.difficulty, "Blockchain", "Of the last block, as a multiple of the least."),
        command(
            "getrawmempool",
            node.raw_mempool,
            "Blockchain",
            "The txids of the transactions in the mempool.",
            Parameter("verbose", Kind.BOOL, False, "true: what is known of each, too"),
            Parameter("mempool_sequence", Kind.BOOL, False, "true: the number of the next change, too"),
        ),
        command("uptime", lambda: int(monotonic() - start), "Control", "Seconds since the server began."),
        command("getnetworkinfo", _network_info, "Network", "The version. This server has no peers, and says so."),
        command(
            "getrawtransaction",
            node.raw_transaction,
            "Rawtransactions",
            "A transaction of the mempool, or of a block that is named, in hex.",
            Parameter("txid", Kind.STRING, description="The transaction's txid"),
            Parameter("verbosity|verbose", Kind.ANY, False, "0; this server has no more to tell"),
            Parameter("blockhash", Kind.STRING, False, "The block in which to look for it"),
        ),
        command(
            "getzmqnotifications",
            lambda: [{"type": one.type, "address": one.address, "hwm": one.hwm} for one in notifiers()],
            "Zmq",
            "What is published, and where.",
        ),
    ]


def _network_info() -> dict[str, Any]:
    """What bitcoin-cli -getinfo asks for, too."""
    numbers = [int(digits) for digits in re.findall(r"\d+", zmqpub.__version__)[:3]]
    return {
        "version": sum(number * scale for number, scale in zip(numbers, (10_000, 100, 1), strict=False)),
        "subversion": f"/zmqpub:{zmqpub.__version__}/",
        "localservices": "0" * 16,
        "localservicesnames": [],
        "localrelay": False,
        "timeoffset": 0,
        "networkactive": False,
        "connections": 0,
        "connections_in": 0,
        "connections_out": 0,
        "networks": [],
        "relayfee": amount(0),
        "incrementalrelayfee": amount(0),
        "localaddresses": [],
        "warnings": [],
    }


class _Node:
    def __init__(self, view: NodeView, cost_of: Callable[[bytes], Cost | None]) -> None:
        self._view = view
        self._cost_of = cost_of

    def _tip(self) -> Place:
        tip = self._view.tip
        if tip is None:
            raise RpcError(RpcCode.IN_WARMUP, "Waiting for the first block")
        return tip

    def block_count(self) -> int:
        return self._tip().row.height

    def best_block_hash(self) -> str:
        return self._tip().row.hash.hex()

    def difficulty(self) -> float:
        return difficulty(self._tip().row.header.bits)

    def block_hash(self, height: Any) -> str:
        height = as_int(height)
        if not 0 <= height <= self._tip().row.height:
            raise RpcError(RpcCode.INVALID_PARAMETER, "Block height out of range")
        found = self._view.hash_at(height)
        if found is None:
            raise RpcError(RpcCode.MISC_ERROR, "Block not available (not fully downloaded)")
        return found.hex()

    def block_header(self, block_hash: str, verbose: bool | None = None) -> str | dict[str, Any]:
        place = self._find(_hash(block_hash, "hash"))
        return place.raw.hex() if verbose is False else header_json(place)

    def block(self, block_hash: str, verbosity: Any = None) -> str | dict[str, Any]:
        wanted = _hash(block_hash, "blockhash")
        level = _verbosity(verbosity, 1)
        place = self._find(wanted)
        block = self._body(wanted, "Block not available (pruned data)")
        if level <= 0:
            return bytes(block).hex()
        if level > 1:
            raise RpcError(RpcCode.INVALID_PARAMETER, "Verbosity above 1 is not supported here")
        return block_json(place, block)

    def raw_transaction(self, txid: str, verbosity: Any = None, block_hash: str | None = None) -> str:
        wanted = _hash(txid, "parameter 1")
        if txid.lower() in _GENESIS_ROOTS:
            message = "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved"
            raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, message)
        level = _verbosity(verbosity, 0)
        if block_hash is None:
            found = self._view.waiting(wanted)
            message = "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain transaction queries"
        else:
            place = self._view.find(_hash(block_hash, "parameter 3"))
            if place is None:
                raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, "Block hash not found")
            block = self._body(place.row.hash, "Block not available")
            found = next((block[index] for index, one in enumerate(block.txids) if one == wanted), None)
            message = "No such transaction found in the provided block"
        if found is None:
            raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, f"{message}. Use gettransaction for wallet transactions.")
        if level > 0:
            raise RpcError(RpcCode.INVALID_PARAMETER, "Verbosity above 0 is not supported here")
        return bytes(found).hex()

    def raw_mempool(self, verbose: bool | None = None, mempool_sequence: bool | None = None) -> list[str] | dict[str, Any]:
        if verbose and mempool_sequence:
            raise RpcError(RpcCode.INVALID_PARAMETER, "Verbose results cannot contain mempool sequence values.")
        waiting, sequence = self._view.mempool()
        if verbose:
            return mempool_json(waiting, self._cost_of)
        txids = [txid.hex() for txid in waiting]
        return {"txids": txids, "mempool_sequence": sequence} if mempool_sequence else txids

    def chain_info(self, chain: str | None) -> dict[str, Any]:
        tip = self._tip()
        facts = header_json(tip)
        bits = tip.row.header.bits
        result: dict[str, Any] = {
            "chain": chain,
            "blocks": tip.row.height,
            "headers": tip.row.height,
            "bestblockhash": tip.row.hash.hex(),
            "bits": f"{bits:08x}",
            "target": f"{target_of_bits(bits):064x}",
            "difficulty": difficulty(bits),
            "time": tip.row.header.time,
            "mediantime": facts.get("mediantime"),
            "verificationprogress": 1,
            "initialblockdownload": self._view.initial_download,
            "chainwork": facts.get("chainwork"),
            "size_on_disk": 0,
            "pruned": False,
            "warnings": [],
        }
        return {name: value for name, value in result.items() if value is not None}

    def _find(self, block_hash: bytes) -> Place:
        place = self._view.find(block_hash)
        if place is None:
            raise RpcError(RpcCode.INVALID_ADDRESS_OR_KEY, "Block not found")
        return place

    def _body(self, block_hash: bytes, gone: str) -> Block:
        block = self._view.body(block_hash)
        if block is None:
            raise RpcError(RpcCode.MISC_ERROR, gone)
        return block


def _hash(text: str, name: str) -> bytes:
    """A hash of 64 hex digits; RpcError in the words of Bitcoin Core's ParseHashV."""
    size = len(text.encode())
    if size != 64:
        raise RpcError(RpcCode.INVALID_PARAMETER, f"{name} must be of length 64 (not {size}, for '{text}')")
    if not all(character in "0123456789abcdefABCDEF" for character in text):
        raise RpcError(RpcCode.INVALID_PARAMETER, f"{name} must be hexadecimal string (not '{text}')")
    return bytes.fromhex(text)


def _verbosity(value: Any, default: int) -> int:
    if value is None:
        return default
    return int(value) if isinstance(value, bool) else as_int(value)
