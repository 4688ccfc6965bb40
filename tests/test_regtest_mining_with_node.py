"""Mining over the simulated chain beside a real node's Mining interface: the same calls over the same chain, the same answers.

Needs bitcoin-node: see ipc_node.py.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ipc_node import IpcNode, needs_node
from test_regtest_mining import block_on, solution, spend

from zmqpub import Block, build_transaction
from zmqpub.errors import RemoteError
from zmqpub.interfaces import BlockCheckOptions, BlockCreateOptions, CheckResult
from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.events import BlockConnected, Event, TransactionAdded, UpdatedBlockTip
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.consensus import subsidy
from zmqpub.sources.regtest.mining import RegtestMining
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND
from zmqpub.sources.regtest.shared import SharedChain
from zmqpub.sources.regtest.traffic import Traffic

pytestmark = needs_node
pytest.importorskip("capnp")
ipc = importlib.import_module("zmqpub.ipc")

START_TIME = int(time.time()) - 700
"""The last block must be younger than 20 minutes: beyond, a node calls every template of a test network old."""


class Both:
    """A simulated chain and a real node with the same blocks and transactions, and Mining of each."""

    def __init__(self, node: IpcNode, theirs: Any) -> None:
        self.node = node
        self.theirs = theirs
        self._events: list[Event] = []
        self.chain = RegtestChain(self._events.append, start_time=START_TIME, undo_depth=50)
        self.traffic = Traffic(self.chain, Random(8), coins=150)
        self.traffic.fund()
        self.chain.reward_script = ANYONE_CAN_SPEND
        self.chain.generate(101)
        self.shared = SharedChain(self.chain, self._events.append)
        self.ours = RegtestMining(self.shared)
        self.pass_on()

    def pass_on(self) -> None:
        """Let the node hear of what happened."""
        with_blocks = any(isinstance(event, UpdatedBlockTip) for event in self._events)
        for event in self._events:
            if isinstance(event, BlockConnected):
                self.node("submitblock", bytes(event.block).hex())
            elif isinstance(event, TransactionAdded) and not with_blocks:
                self.node("sendrawtransaction", bytes(event.transaction).hex(), 0)
        self._events.clear()
        assert self.ours.get_tip() == self.theirs.get_tip()

    def arrive(self, count: int) -> None:
        with self.shared.changing():
            for _ in range(count):
                self.traffic.arrive()
        self.pass_on()


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as directory:
        node = IpcNode(Path(directory), "-persistmempool=0")
        try:
            with ipc.connect(node.socket) as init:
                yield Both(node, init.make_mining())
        finally:
            node.stop()


def same(both: Both, call: str, *arguments: Any) -> Any:
    ours, theirs = getattr(both.ours, call)(*arguments), getattr(both.theirs, call)(*arguments)
    assert ours == (list(theirs) if isinstance(ours, list) else theirs)
    return ours


def test_state(both: Both) -> None:
    same(both, "is_test_chain")
    same(both, "get_tip")
    assert same(both, "wait_tip_changed", bytes(32), 1.0) == both.ours.get_tip()
    assert same(both, "wait_tip_changed", both.chain.tip.hash, 0.0) == both.ours.get_tip()


def test_templates(both: Both) -> None:
    both.arrive(12)
    options = BlockCreateOptions(block_reserved_weight=4_000)
    ours, theirs = both.ours.create_new_block(options, cooldown=False), both.theirs.create_new_block(options, cooldown=False)
    assert ours is not None
    mine, other = Block(ours.get_block()), Block(theirs.get_block())
    assert set(mine.txids[1:]) == set(other.txids[1:])
    assert len(mine) > 5
    assert sorted(ours.get_tx_fees()) == sorted(theirs.get_tx_fees())
    assert sorted(ours.get_tx_sigops()) == sorted(theirs.get_tx_sigops())
    facts, expected = ours.get_coinbase_tx(), theirs.get_coinbase_tx()
    for name in ("version", "sequence", "script_sig_prefix", "witness", "block_reward_remaining", "lock_time"):
        assert getattr(facts, name) == getattr(expected, name), name
    assert [one[:15] for one in facts.required_outputs] == [one[:15] for one in expected.required_outputs]
    assert mine[0].outputs[0].value == other[0].outputs[0].value
    assert len(mine[0].outputs) == len(other[0].outputs)
    assert mine[0].inputs[0].script_sig == other[0].inputs[0].script_sig
    for template in (ours, theirs):
        assert template.wait_next(0.0) is None
        assert template.wait_next(0.1, 1) is None
    # Each is a good block for the other.
    for block in (mine, other):
        unchecked = BlockCheckOptions(check_merkle_root=False, check_pow=False)
        assert same(both, "check_block", bytes(block), unchecked) == CheckResult(True)
    # And each one's solution.
    solved = solution(ours)
    assert ours.submit_solution(*solved)
    both.pass_on()
    late = theirs.submit_solution(*solution(theirs))
    assert late == CheckResult(False, "inconclusive")
    assert both.ours.submit_block(theirs.get_block()) == late
    assert theirs.wait_next(60.0).get_block_header()[4:36] == both.chain.tip.hash[::-1]


def test_transactions(both: Both) -> None:
    both.arrive(4)
    waiting = [entry.transaction for entry in both.chain.mempool]
    assert same(both, "get_transactions_by_txid", [bytes(32), waiting[0].txid])[1] == bytes(waiting[0])
    assert same(both, "get_transactions_by_witness_id", [waiting[1].wtxid, bytes(32)])[0] == bytes(waiting[1])


@pytest.mark.parametrize(
    "options",
    [
        BlockCreateOptions(block_reserved_weight=1_999),
        BlockCreateOptions(block_reserved_weight=4_000_001),
        BlockCreateOptions(coinbase_output_max_additional_sigops=80_001),
    ],
)
def test_senseless_options(both: Both, options: BlockCreateOptions) -> None:
    with pytest.raises(ValueError) as ours:  # noqa: PT011
        both.ours.create_new_block(options)
    with pytest.raises(RemoteError) as theirs:
        both.theirs.create_new_block(options, cooldown=False)
    assert str(ours.value) == theirs.value.message


def test_refusals_say_the_same(both: Both) -> None:
    """Reason and explanation, of check_block() and of submit_block()."""
    chain, world = both.chain, both
    tip, height = chain.tip, chain.height + 1
    payment = spend(world)  # type: ignore[arg-type]
    entry, output = payment.inputs[0], payment.outputs[0]
    young = next(coin for coin in chain.coins.values() if coin.coinbase_height and height - coin.coinbase_height < 100)
    blocks = {
        "good": block_on(tip, height, b"good", (payment,)),
        "greedy": block_on(tip, height, b"greedy", reward=subsidy(height) + 1),
        "missing": block_on(tip, height, b"bad", (build_transaction([entry._replace(prev_index=7)], [output]),)),
        "below": block_on(tip, height, b"bad", (build_transaction([entry], [TxOut(output.value + 1_050, ANYONE_CAN_SPEND)]),)),
        "young": block_on(
            tip, height, b"bad", (build_transaction([TxIn(*young.outpoint, witness=(b"\x51",))], [TxOut(1, ANYONE_CAN_SPEND)]),)
        ),
        "twice": block_on(tip, height, b"bad", (build_transaction([entry, entry], [output]),)),
        "locked": block_on(tip, height, b"bad", (spend(world, locktime=height),)),  # type: ignore[arg-type]
        "height": block_on(tip, height + 1, b"bad"),
        "sigops": block_on(tip, height, b"bad", (build_transaction([entry], [TxOut(1, b"\xae" * 1_001)]),)),
        "other tip": block_on(chain.blocks[-2], height - 1, b"stale"),
    }
    for name, block in blocks.items():
        checked = same(both, "check_block", bytes(block))
        assert bool(checked) == (name == "good"), name
    for name, block in blocks.items():
        if name not in ("good", "other tip"):
            assert not same(both, "submit_block", bytes(block))
            assert not same(both, "submit_block", bytes(block))  # known to be bad, or not known
            assert not same(both, "submit_block", bytes(block_on(block, height + 1, b"child")))
    assert same(both, "submit_block", bytes(blocks["other tip"])) == CheckResult(False, "inconclusive")
    assert same(both, "submit_block", bytes(blocks["other tip"])) == CheckResult(False, "duplicate")
    assert same(both, "submit_block", bytes(blocks["good"])) == CheckResult(True)
    assert same(both, "submit_block", bytes(blocks["good"])) == CheckResult(False, "duplicate")
    assert both.ours.get_tip() == both.theirs.get_tip()


def test_longer_branches_win_in_both(both: Both) -> None:
    tip, height = both.chain.tip, both.chain.height
    ours = [block_on(tip, height + 1, b"a1")]
    ours.append(block_on(ours[0], height + 2, b"a2"))
    theirs = [block_on(tip, height + 1, b"b1")]
    for place in (2, 3):
        theirs.append(block_on(theirs[-1], height + place, b"b%d" % place))
    reasons = [same(both, "submit_block", bytes(block)).reason for block in (*ours, *theirs)]
    assert reasons == ["", "", "inconclusive", "inconclusive", ""]
    more = [block_on(ours[-1], height + 3, b"a3")]
    more.append(block_on(more[0], height + 4, b"a4"))
    assert [same(both, "submit_block", bytes(block)).reason for block in more] == ["inconclusive", ""]
    greedy = block_on(both.chain.tip, height + 5, b"c1")
    bad = block_on(both.chain.tip, height + 5, b"d1", reward=subsidy(height + 5) + 1)
    assert same(both, "submit_block", bytes(greedy))
    assert not same(both, "submit_block", bytes(bad))
    assert both.ours.get_tip() == both.theirs.get_tip()
