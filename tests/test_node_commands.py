"""The node's commands over a simulated chain, and their errors (tests/test_node_beside_a_node.py compares with a real node)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zmqpub import Block, Transaction
from zmqpub.node import NodeView, node_commands
from zmqpub.node.block_json import amount, difficulty
from zmqpub.node.mempool_json import Cost
from zmqpub.publisher import ActiveNotifier
from zmqpub.rpc import RpcTable
from zmqpub.sources.events import BlockConnected
from zmqpub.sources.regtest.consensus import genesis
from zmqpub.testing import RegtestChain


class Node:
    """A chain under the test's control, and JSON-RPC over it."""

    def __init__(self) -> None:
        self.view = NodeView()
        self.chain = RegtestChain(seed=2)
        self.view.note(BlockConnected(0.0, genesis(), 0))
        for height in range(1, self.chain.height + 1):
            self.view.note(BlockConnected(0.0, self._block(height), height))
        self._told = 0
        self.notifiers = [ActiveNotifier("pubrawtx", "tcp://127.0.0.1:1", 7)]
        self.costs: dict[bytes, Cost] = {}
        self.table = RpcTable(node_commands(self.view, lambda: self.notifiers, cost_of=self.costs.get, chain=lambda: "regtest"))

    def _block(self, height: int) -> Block:
        block_hash = self.chain.get_best_block_hash()
        while self.chain.get_block_header(block_hash).height > height:
            block_hash = self.chain.get_block_header(block_hash).previous
        return self.chain.get_block(block_hash)

    def __call__(self, method: str, *params: Any) -> Any:
        for event in self.chain.events[self._told :]:
            self.view.note(event)
        self._told = len(self.chain.events)
        reply = json.loads(self.table.execute_rpc(json.dumps({"method": method, "params": params, "id": 1})))
        return reply["result"] if reply["error"] is None else (reply["error"]["code"], reply["error"]["message"])


@pytest.fixture(scope="module")
def node() -> Node:
    return Node()


def test_chain(node: Node) -> None:
    node.chain.add_transactions(5)
    (block,) = node.chain.mine()
    tip = block.hash.hex()
    assert node("getblockcount") == node.chain.height
    assert node("getbestblockhash") == tip
    assert node("getblockhash", node.chain.height) == tip
    assert node("getblockhash", 0) == genesis().hash.hex()
    assert node("getblock", tip, 0) == node("getblock", tip, False) == bytes(block).hex()
    assert node("getblockheader", tip, False) == bytes(block)[:80].hex()
    header, whole = node("getblockheader", tip), node("getblock", tip)
    assert whole == node("getblock", tip, 1) == node("getblock", tip, True)
    assert header.items() <= whole.items()
    assert whole["tx"] == [txid.hex() for txid in block.txids]
    assert (whole["size"], whole["nTx"], header["confirmations"]) == (block.size, 6, 1)
    assert header["previousblockhash"] == block.header.prev_hash.hex()
    assert "nextblockhash" not in header
    assert "previousblockhash" not in node("getblockheader", genesis().hash.hex())
    info = node("getblockchaininfo")
    assert (info["chain"], info["blocks"], info["bestblockhash"], info["initialblockdownload"]) == (
        "regtest",
        node.chain.height,
        tip,
        False,
    )
    assert info["difficulty"] == node("getdifficulty") == header["difficulty"]


def test_stale_block(node: Node) -> None:
    (block,) = node.chain.mine()
    node.chain.reorg(1)
    header = node("getblockheader", block.hash.hex())
    assert (header["confirmations"], header["height"]) == (-1, node.chain.height - 1)
    assert node("getblock", block.hash.hex(), 0) == bytes(block).hex()


def test_mempool(node: Node) -> None:
    transactions = node.chain.add_transactions(4)
    txids = {transaction.txid.hex() for transaction in node.chain.mempool}
    assert set(node("getrawmempool")) == txids == set(node("getrawmempool", None, None))
    assert node("getrawmempool", False, True) == {
        "txids": node("getrawmempool"),
        "mempool_sequence": node.chain.mempool_sequence,
    }
    entry = node("getrawmempool", True)[transactions[0].txid.hex()]
    assert entry["wtxid"] == transactions[0].wtxid.hex()
    assert "fees" not in entry
    assert node("getrawtransaction", transactions[0].txid.hex()) == bytes(transactions[0]).hex()
    assert Transaction(bytes.fromhex(node("getrawtransaction", transactions[1].txid.hex(), 0))) == transactions[1]


def test_fees_where_they_are_known() -> None:
    node = Node()
    node.chain.add_transactions(60)
    waiting = node.chain.mempool
    for place, transaction in enumerate(waiting):
        node.costs[transaction.txid] = Cost(1_000 + place, 0)
    entries = node("getrawmempool", True)
    families = 0
    for place, transaction in enumerate(waiting):
        entry = entries[transaction.txid.hex()]
        assert entry["fees"]["base"] == pytest.approx((1_000 + place) / 1e8)
        assert entry["vsize"] == -(-entry["weight"] // 4)
        parents = {one.prev_txid.hex() for one in transaction.inputs} & set(entries)
        assert set(entry["depends"]) == parents
        for parent in parents:
            assert transaction.txid.hex() in entries[parent]["spentby"]
        is_alone = not entry["depends"] and not entry["spentby"]
        families += not is_alone
        assert (entry["ancestorcount"] == entry["descendantcount"] == 1) == is_alone
        assert ("chunk" in entry["fees"]) == ("chunkweight" in entry) == is_alone
    assert families


def test_transaction_of_a_block(node: Node) -> None:
    node.chain.add_transactions(2)
    (block,) = node.chain.mine()
    txid = block.txids[1].hex()
    assert node("getrawtransaction", txid, 0, block.hash.hex()) == bytes(block[1]).hex()
    assert node("getrawtransaction", txid)[0] == -5
    assert node("getrawtransaction", "00" * 32, 0, block.hash.hex()) == (
        -5,
        "No such transaction found in the provided block. Use gettransaction for wallet transactions.",
    )


def test_rest(node: Node) -> None:
    assert node("uptime") >= 0
    assert node("getzmqnotifications") == [{"type": "pubrawtx", "address": "tcp://127.0.0.1:1", "hwm": 7}]
    assert "getblockcount" in node("help")


@pytest.mark.parametrize(
    ("method", "params", "code", "message"),
    [
        ("getblockhash", [-1], -8, "Block height out of range"),
        ("getblockhash", [100_000], -8, "Block height out of range"),
        ("getblockhash", [2**31], -1, "JSON integer out of range"),
        ("getblockhash", [1.5], -1, "JSON integer out of range"),
        ("getblock", ["00" * 32], -5, "Block not found"),
        ("getblockheader", ["00" * 32], -5, "Block not found"),
        ("getblock", ["ab"], -8, "blockhash must be of length 64 (not 2, for 'ab')"),
        ("getblockheader", ["ab"], -8, "hash must be of length 64 (not 2, for 'ab')"),
        ("getblock", ["zz" * 32], -8, f"blockhash must be hexadecimal string (not '{'zz' * 32}')"),
        ("getblock", ["0" * 63 + "\u0661"], -8, "blockhash must be of length 64 (not 65, for '" + "0" * 63 + "\u0661')"),
        ("getblock", ["00" * 32, "x"], -3, "JSON value of type string is not of expected type number"),
        ("getblock", ["00" * 32, []], -3, "JSON value of type array is not of expected type number"),
        ("getblock", ["00" * 32, 2**40], -1, "JSON integer out of range"),
        ("getrawmempool", [True, True], -8, "Verbose results cannot contain mempool sequence values."),
        (
            "getrawtransaction",
            ["00" * 32],
            -5,
            "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain transaction queries. "
            "Use gettransaction for wallet transactions.",
        ),
        ("getrawtransaction", ["00" * 32, 0, "00" * 32], -5, "Block hash not found"),
        ("getrawtransaction", ["0"], -8, "parameter 1 must be of length 64 (not 1, for '0')"),
        ("getrawtransaction", ["00" * 32, 0, "0"], -8, "parameter 3 must be of length 64 (not 1, for '0')"),
        (
            "getrawtransaction",
            ["4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"],
            -5,
            "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved",
        ),
    ],
)
def test_errors(node: Node, method: str, params: list[Any], code: int, message: str) -> None:
    assert node(method, *params) == (code, message)


def test_before_the_first_block() -> None:
    table = RpcTable(node_commands(NodeView()))
    for method in ("getblockcount", "getbestblockhash", "getdifficulty", "getblockchaininfo"):
        reply = json.loads(table.execute_rpc(json.dumps({"method": method, "id": 1})))
        assert reply["error"] == {"code": -28, "message": "Waiting for the first block"}
    assert json.loads(table.execute_rpc('{"method":"getzmqnotifications","id":1}'))["result"] == []


def test_body_that_is_gone() -> None:
    view = NodeView(body_bytes=0)
    view.note(BlockConnected(0.0, genesis(), 0))
    table = RpcTable(node_commands(view))
    request = json.dumps({"method": "getblock", "params": [genesis().hash.hex()], "id": 1})
    assert json.loads(table.execute_rpc(request))["error"] == {"code": -1, "message": "Block not available (pruned data)"}


def test_amounts_and_difficulties() -> None:
    assert [amount(value) for value in (0, 1, -1, 100_000_000, 2_100_000_000_000_000)] == [
        "0.00000000",
        "0.00000001",
        "-0.00000001",
        "1.00000000",
        "21000000.00000000",
    ]
    assert difficulty(0x1D00FFFF) == 1.0
    assert difficulty(0x1B0404CB) == pytest.approx(16307.420938523983)
    assert difficulty(0x207FFFFF) == pytest.approx(4.656542373906925e-10)
