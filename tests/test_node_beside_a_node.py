"""JSON-RPC beside a real node's: the same chain, the same questions, the same answers, character by character.

Needs a node: see test_simulated_with_node.py.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from test_regtest_mining import block_on, solution, spend
from test_simulated_with_node import START_TIME, Node, submit_block
from test_simulated_with_node import pytestmark as needs_node

from zmqpub import Block, Transaction, build_block, build_transaction, merkle_root, mine
from zmqpub.interfaces import BlockCheckOptions
from zmqpub.node import NodeView, node_commands
from zmqpub.node.mempool_json import Cost
from zmqpub.primitives import TxIn, TxOut
from zmqpub.rpc import RpcTable
from zmqpub.sources.events import BlockConnected, Event, TransactionAdded, UpdatedBlockTip
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.consensus import genesis, subsidy
from zmqpub.sources.regtest.mining import RegtestMining
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND
from zmqpub.sources.regtest.shared import SharedChain
from zmqpub.sources.regtest.sigops import sigops_cost
from zmqpub.sources.regtest.traffic import Traffic
from zmqpub.sources.simulated import Simulated

pytestmark = needs_node


class Pair:
    """A real node, and the simulated one in its state."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.view = NodeView()
        self.view.note(BlockConnected(0.0, genesis(), 0))
        source = Simulated(11, blocks=40, start_time=START_TIME, eviction_rate=0.0, reorg_rate=0.25, transactions_per_second=1.0, coins=150)
        self._events: list[Event] = []
        self.run = source.begin(self._events.append)
        self.chain = self.run.chain
        self._pass_on()
        self.table = RpcTable(node_commands(self.view, cost_of=self._cost, chain=lambda: "regtest"))

    def _cost(self, txid: bytes) -> Cost | None:
        entry = self.chain.mempool.get(txid)
        return None if entry is None else Cost(entry.fee, sigops_cost(entry.transaction.inputs, entry.transaction.outputs, entry.spent))

    def play(self, blocks: int) -> None:
        """Let time pass; the node hears of blocks and of transactions as they come."""
        moved = 0
        while moved < blocks or not len(self.chain.mempool):
            moved += self.run.step()
            self._pass_on()

    def _pass_on(self) -> None:
        # What a reorganization returns to the mempool, the node returns by itself.
        with_blocks = any(isinstance(event, UpdatedBlockTip) for event in self._events)
        for event in self._events:
            self.view.note(event)
            if isinstance(event, BlockConnected):
                submit_block(self.node, event)
            elif isinstance(event, TransactionAdded) and not with_blocks:
                self.node("sendrawtransaction", bytes(event.transaction).hex(), 0)
        self._events.clear()

    def same(self, request: str) -> str:
        """Both answers, which must be equal."""
        ours = self.table.execute_rpc(request)
        theirs = self.node.answer(request).removesuffix("\n") or "null"
        assert ours == theirs
        return ours

    def same_call(self, method: str, *params: Any) -> str:
        return self.same(json.dumps({"method": method, "params": params, "id": 1}))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as directory:
        node = Node(Path(directory))
        try:
            node.wait_until_ready()
            made = Pair(node)
            made.play(25)
            yield made
        finally:
            node.stop()


def test_same_blocks_and_headers(pair: Pair) -> None:
    height = pair.chain.height
    pair.same_call("getblockcount")
    pair.same_call("getbestblockhash")
    pair.same_call("getdifficulty")
    for at in (0, 1, 2, 11, 50, height - 1, height):
        block_hash = json.loads(pair.same_call("getblockhash", at))["result"]
        for verbose in (None, True, False):
            pair.same_call("getblockheader", block_hash, verbose)
        for verbosity in (None, 0, 1, True, False, -1):
            pair.same_call("getblock", block_hash, verbosity)
        pair.same(json.dumps({"method": "getblock", "params": {"verbose": 0, "blockhash": block_hash}, "id": "x", "jsonrpc": "2.0"}))
        pair.same(json.dumps({"method": "getblock", "params": {"args": [block_hash], "verbosity": 0}, "id": "x"}))


def test_same_of_stale_blocks(pair: Pair) -> None:
    tips = pair.node("getchaintips")
    stale = [tip["hash"] for tip in tips if tip["status"] == "valid-fork"]
    assert stale
    for block_hash in stale:
        pair.same_call("getblockheader", block_hash)
        pair.same_call("getblock", block_hash)
        pair.same_call("getblock", block_hash, 0)


def test_same_mempool(pair: Pair) -> None:
    ours, theirs = pair.table.call("getrawmempool", False, True), pair.node("getrawmempool", False, True)
    assert ours["txids"]
    assert set(ours["txids"]) == set(theirs["txids"])
    assert ours["mempool_sequence"] == theirs["mempool_sequence"]
    assert set(pair.table.call("getrawmempool")) == set(pair.node("getrawmempool"))
    for txid in ours["txids"]:
        pair.same_call("getrawtransaction", txid)
    verbose = json.loads(pair.table.execute_rpc('{"method":"getrawmempool","params":[true],"id":1}'))["result"]
    expected = pair.node("getrawmempool", True)
    assert verbose.keys() == expected.keys()
    for txid, entry in verbose.items():
        other = expected[txid]
        for mapping in (entry, other):
            for name in ("time", "unbroadcast", "height"):  # of what returned from a block, too
                del mapping[name]
            mapping["spentby"].sort()
        if "chunkweight" not in entry:  # it is not known here what pays for what
            del other["chunkweight"], other["fees"]["chunk"]
        assert entry == other
    assert any("chunkweight" in entry for entry in verbose.values())


def test_same_chain_info(pair: Pair) -> None:
    ours, theirs = json.loads(pair.table.execute_rpc('{"method":"getblockchaininfo","id":1}')), pair.node("getblockchaininfo")
    for name in ("verificationprogress", "size_on_disk", "warnings"):
        del ours["result"][name], theirs[name]
    assert ours["result"] == theirs


def test_same_transactions_of_blocks(pair: Pair) -> None:
    block = pair.chain.blocks[-1]
    for txid in block.txids[:4]:
        pair.same_call("getrawtransaction", txid.hex(), 0, block.hash.hex())
    pair.same_call("getrawtransaction", block.txids[-1].hex(), 0, genesis().hash.hex())
    pair.same_call("getrawtransaction", block.txids[-1].hex())


TIP = "TIP"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("nosuchmethod", []),
        ("getblockhash", [-1]),
        ("getblockhash", [10_000]),
        ("getblockhash", [2_147_483_647]),
        ("getblockhash", [2_147_483_648]),
        ("getblockhash", [-2_147_483_649]),
        ("getblockhash", [1.5]),
        ("getblockhash", ["1"]),
        ("getblockhash", [None]),
        ("getblockhash", [True]),
        ("getblockhash", {"height": "1"}),
        ("getblockhash", {"heigth": 1}),
        ("getblockhash", {"height": 1, "args": [1]}),
        ("getblockhash", {"args": 1, "height": 0}),
        ("getblockhash", {"args": [0]}),
        ("getblock", [5]),
        ("getblock", ["ab"]),
        ("getblock", [""]),
        ("getblock", ["zz" * 32]),
        ("getblock", ["00" * 32]),
        ("getblock", ["00" * 33]),
        ("getblock", ["AB" * 32]),
        ("getblock", ["\u00e9" * 32]),
        ("getblock", ["\u00e9" * 33]),
        ("getblock", ["00" * 32, "x"]),
        ("getblock", ["00" * 32, []]),
        ("getblock", ["00" * 32, {}]),
        ("getblock", ["00" * 32, 2**40]),
        ("getblock", [TIP, "1"]),
        ("getblock", [TIP, 0.5]),
        ("getblock", {"blockhash": TIP, "verbosity": 1, "verbose": 1}),
        ("getblockheader", ["00" * 32]),
        ("getblockheader", ["ab", 5]),
        ("getblockheader", ["ab"]),
        ("getblockheader", [TIP, 1]),
        ("getblockheader", [TIP, "true"]),
        ("getrawmempool", [1]),
        ("getrawmempool", [None, "x"]),
        ("getrawmempool", [5, "x"]),
        ("getrawmempool", [True, True]),
        ("getrawtransaction", ["00" * 32]),
        ("getrawtransaction", ["ab"]),
        ("getrawtransaction", ["00" * 32, 0, "ab"]),
        ("getrawtransaction", ["00" * 32, 0, "00" * 32]),
        ("getrawtransaction", ["00" * 32, 0, TIP]),
        ("getrawtransaction", [5, 0, 5]),
        ("getrawtransaction", ["00" * 32, "x"]),
        ("getrawtransaction", ["4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"]),
        ("help", ["nosuchmethod"]),
        ("help", [5]),
    ],
)
def test_same_errors(pair: Pair, method: str, params: Any) -> None:
    text = json.dumps(params).replace(TIP, pair.chain.tip.hash.hex())
    for version in ("", ',"jsonrpc":"1.0"', ',"jsonrpc":"2.0"'):
        pair.same(f'{{"method":"{method}","params":{text},"id":7{version}}}')


@pytest.mark.parametrize("method", ["getblockhash", "getblock", "getblockheader", "getrawtransaction"])
@pytest.mark.parametrize("count", [0, 5])
def test_same_usage_for_a_wrong_number_of_arguments(pair: Pair, method: str, count: int) -> None:
    """The help says the same in other words: what is compared is its first line."""
    request = json.dumps({"method": method, "params": [1] * count, "id": 1})
    ours, theirs = (json.loads(text)["error"] for text in (pair.table.execute_rpc(request), pair.node.answer(request)))
    assert ours["code"] == theirs["code"] == -1
    assert ours["message"].splitlines()[0] == theirs["message"].splitlines()[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"method":"getblockcount"}',
        '{"method":"getblockcount","id":null}',
        '{"method":"getblockcount","id":1.50,"jsonrpc":"2.0"}',
        '{"method":"getblockcount","id":{"a":[1,"\\u00e9\\u007f\\n"]},"params":null}',
        '{"method":"getblockcount","id":1,"id":2}',
        '{"method":"getblockcount","method":"x","id":1}',
        '{"method":"getblockcount","params":"x","id":1}',
        '{"method":"getblockcount","params":5,"id":1,"jsonrpc":"2.0"}',
        '{"method":"getblockcount","jsonrpc":2.0,"id":1}',
        '{"method":"getblockcount","jsonrpc":"3.0","id":1}',
        '{"method":"getblockcount","jsonrpc":null,"id":1}',
        '{"method":"getblockcount","jsonrpc":"2.0"}',
        '{"method":"nosuchmethod","jsonrpc":"2.0"}',
        '{"method":5,"jsonrpc":"2.0","id":1}',
        '{"method":5,"jsonrpc":"2.0"}',
        '{"method":null,"id":1}',
        '{"id":1}',
        "{}",
        "5",
        '"x"',
        "null",
        "true",
        "",
        "{",
        "{]",
        "[",
        "nul",
        "NaN",
        '{"method":"getblockcount","id":01}',
        '{"method":"getblockcount","id":"\\ud800"}',
        '{"method":"getblockcount","id":1} x',
        '{"method":"getblockcount","id":1,}',
        "[]",
        "[1]",
        "[[]]",
        "[{}]",
        '[{"method":"getblockcount","jsonrpc":"2.0"}]',
        '[{"method":"getblockcount","id":1},{"method":"x","id":2,"jsonrpc":"2.0"},5,{"method":"getblockcount","jsonrpc":"2.0"}]',
        '[{"method":"getblockcount","jsonrpc":"2.0"},5]',
        '[{"method":5,"jsonrpc":"2.0"}]',
        '[{"method":"getblockhash","params":[0],"id":"a"},{"method":"getblockhash","params":["x"],"id":"b"}]',
        "[" * 512 + "]" * 512,
        "[" * 513 + "]" * 513,
    ],
)
def test_same_envelopes(pair: Pair, text: str) -> None:
    pair.same(text)


# Mining


class Miners:
    """A simulated chain that is mined on, and a real node with the same chain."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.chain = RegtestChain(self._take, start_time=START_TIME, undo_depth=50)
        self.traffic = Traffic(self.chain, Random(4), coins=150)
        self.traffic.fund()
        self.shared = SharedChain(self.chain, self._take)
        self.mining = RegtestMining(self.shared)

    def _take(self, event: Event) -> None:
        if isinstance(event, BlockConnected):
            submit_block(self.node, event)
        elif isinstance(event, UpdatedBlockTip):
            assert self.node("getbestblockhash") == event.block.hash.hex()


@pytest.fixture(scope="module")
def miners() -> Iterator[Miners]:
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as directory:
        node = Node(Path(directory))
        try:
            node.wait_until_ready()
            yield Miners(node)
        finally:
            node.stop()


def test_solved_templates_are_accepted(miners: Miners) -> None:
    for place in range(20):
        with miners.shared.changing():
            for _ in range(8):
                miners.traffic.arrive()
        template = miners.mining.create_new_block()
        assert template is not None
        unsolved = Block(template.get_block())
        proposal = {"mode": "proposal", "data": bytes(unsolved).hex(), "rules": ["segwit"]}
        assert miners.node("getblocktemplate", proposal) is None
        assert template.submit_solution(*solution(template))
        assert miners.node("getbestblockhash") == Block(template.get_block()).hash.hex()
        if place % 5 == 4:
            with miners.shared.changing() as chain:
                chain.reorg(2)
    assert miners.node("getblockcount") == miners.chain.height


def test_template_is_like_the_nodes_own(miners: Miners) -> None:
    template = miners.mining.create_new_block()
    assert template is not None
    theirs = miners.node("getblocktemplate", {"rules": ["segwit"]})
    header, facts = Block(template.get_block()).header, template.get_coinbase_tx()
    assert header.prev_hash.hex() == theirs["previousblockhash"]
    assert f"{header.bits:08x}" == theirs["bits"]
    assert header.time >= theirs["mintime"]
    assert facts.lock_time == theirs["height"] - 1
    if not template.get_tx_fees():
        assert facts.block_reward_remaining == theirs["coinbasevalue"]
        assert facts.required_outputs[0][9:].hex() == theirs["default_witness_commitment"]


def test_refusals_are_the_nodes(miners: Miners) -> None:
    """check_block() beside getblocktemplate's proposals, submit_block() beside submitblock, of one bad block after another."""
    with miners.shared.changing() as chain:
        chain.reward_script = ANYONE_CAN_SPEND
        chain.generate(101)
    world: Any = miners
    tip, height = chain.tip, chain.height + 1
    good = block_on(tip, height, b"good")
    reward, header = good[0], good.header
    payment = spend(world)
    entry, output = payment.inputs[0], payment.outputs[0]
    young = next(coin for coin in chain.coins.values() if coin.coinbase_height and height - coin.coinbase_height < 100)

    def remined(change: dict[str, Any], *transactions: Transaction) -> Block:
        contents = list(transactions or [reward])
        root = merkle_root([transaction.txid for transaction in contents])
        return build_block(mine(header._replace(**{"merkle_root": root, **change})), contents)

    def coinbase_with(**change: Any) -> Transaction:
        inputs = [reward.inputs[0]._replace(**{name: change.pop(name) for name in ("script_sig", "witness") if name in change})]
        return build_transaction(inputs, change.get("outputs", reward.outputs), locktime=change.get("locktime", reward.locktime))

    def with_transactions(*transactions: Transaction) -> Block:
        return block_on(tip, height, b"bad", transactions)

    blocks = {
        "merkle root": remined({"merkle_root": bytes(32)}),
        "bits": remined({"bits": 0x207FFFFE}),
        "early": remined({"time": chain.state.median_time}),
        "late": remined({"time": int(time.time()) + 7_300}),
        "version": remined({"version": 3}),
        "height": remined({}, coinbase_with(script_sig=b"\x01\x02\x03")),
        "twice": remined({}, reward, reward),
        "two coinbases": remined({}, reward, coinbase_with(script_sig=b"\x01\x02\x03")),
        "no coinbase": remined({}, payment),
        "long script": remined({}, coinbase_with(script_sig=bytes(101))),
        "short script": remined({}, coinbase_with(script_sig=b"\x01")),
        "no nonce": remined({}, coinbase_with(witness=())),
        "other nonce": remined({}, coinbase_with(witness=(b"\x01" * 32,))),
        "no commitment": remined({}, coinbase_with(outputs=reward.outputs[:1])),
        "locked coinbase": remined({}, coinbase_with(locktime=height)),
        "greedy": block_on(tip, height, b"greedy", reward=subsidy(height) + 1),
        "missing": with_transactions(build_transaction([entry._replace(prev_index=7)], [output])),
        "spent twice": with_transactions(payment, build_transaction([entry], [TxOut(output.value - 1, ANYONE_CAN_SPEND)])),
        "more out than in": with_transactions(build_transaction([entry], [TxOut(output.value + 1_001, ANYONE_CAN_SPEND)])),
        "young": with_transactions(build_transaction([TxIn(*young.outpoint, witness=(b"\x51",))], [TxOut(1_000, ANYONE_CAN_SPEND)])),
        "twice in one": with_transactions(build_transaction([entry, entry], [output])),
        "negative": with_transactions(build_transaction([entry], [TxOut(-1, ANYONE_CAN_SPEND)])),
        "too much": with_transactions(build_transaction([entry], [TxOut(2_100_000_000_000_001, ANYONE_CAN_SPEND)])),
        "too much in all": with_transactions(build_transaction([entry], [TxOut(2_100_000_000_000_000, b"\x51"), TxOut(1, b"\x51")])),
        "null": with_transactions(build_transaction([entry, TxIn(bytes(32), 0xFFFFFFFF)], [output])),
        "locked": with_transactions(spend(world, locktime=height)),
        "sigops": with_transactions(build_transaction([entry], [TxOut(1, b"\xae" * 1_001)])),
    }
    for name, block in blocks.items():
        checked = miners.mining.check_block(bytes(block))
        assert not checked, name
        proposal = {"mode": "proposal", "data": bytes(block).hex(), "rules": ["segwit"]}
        theirs = miners.node("getblocktemplate", proposal)
        ours = miners.mining.check_block(bytes(block), BlockCheckOptions(check_pow=False))
        assert (name, ours.reason) == (name, theirs)
    for name, block in blocks.items():
        if name == "no nonce":  # submitblock puts it in by itself
            continue
        ours, theirs = miners.mining.submit_block(bytes(block)), miners.node("submitblock", bytes(block).hex())
        assert (name, ours.reason) == (name, theirs)
    assert miners.chain.tip == tip
    assert miners.node("getbestblockhash") == tip.hash.hex()
