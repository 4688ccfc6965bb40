"""Mining over the simulated chain: templates, solutions, waits, and what is told of a block that a miner hands in."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from zmqpub import Block, Transaction, build_block, build_transaction, merkle_root, mine
from zmqpub.errors import DecodeError
from zmqpub.interfaces import MAX_MONEY, BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult
from zmqpub.primitives import BlockHeader, TxIn, TxOut
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, TransactionAdded, TransactionRemoved, UpdatedBlockTip
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.consensus import BITS, assemble, coinbase, height_script, subsidy
from zmqpub.sources.regtest.mining import RegtestBlockTemplate, RegtestMining
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND
from zmqpub.sources.regtest.shared import SharedChain
from zmqpub.sources.regtest.sigops import legacy_sigops, sigops_cost
from zmqpub.sources.regtest.traffic import Traffic

PATIENCE = 30.0
START_TIME = 1_750_000_000
GOOD = CheckResult(True)
MINERS_SCRIPT = b"\x00\x14" + bytes(range(20))  # nobody's key


class World:
    """A chain with coins, traffic and a miner."""

    def __init__(self, seed: int = 1, undo_depth: int = 20) -> None:
        self.chain = RegtestChain(start_time=START_TIME, undo_depth=undo_depth)
        self.traffic = Traffic(self.chain, Random(seed), coins=600)
        self.traffic.fund()
        self.events: list[Event] = []
        self.shared = SharedChain(self.chain, self.events.append)
        self.mining = RegtestMining(self.shared)

    def arrive(self, count: int) -> None:
        with self.shared.changing():
            made = sum(self.traffic.arrive() is not None for _ in range(2 * count))
        assert made >= count

    def template(self, options: BlockCreateOptions | None = None) -> RegtestBlockTemplate:
        template = self.mining.create_new_block(options)
        assert template is not None
        return template


def solution(template: RegtestBlockTemplate, extra_nonce: bytes = b"\x01\x02") -> tuple[int, int, int, bytes]:
    """What a miner that knows nothing but the interface hands in: version, timestamp, nonce, coinbase."""
    facts = template.get_coinbase_tx()
    header = Block(template.get_block()).header
    required = [TxOut(int.from_bytes(one[:8], "little"), one[9 : 9 + one[8]]) for one in facts.required_outputs]
    witness = (facts.witness,) if facts.witness is not None else ()
    reward = build_transaction(
        [TxIn(bytes(32), 0xFFFFFFFF, facts.script_sig_prefix + extra_nonce, facts.sequence, witness)],
        [TxOut(facts.block_reward_remaining, MINERS_SCRIPT), *required],
        version=facts.version,
        locktime=facts.lock_time,
    )
    root = reward.txid[::-1]
    for other in template.get_coinbase_merkle_path():
        root = merkle_root([root[::-1], other])[::-1]
    solved = mine(header._replace(merkle_root=root[::-1], time=header.time + 1))
    return solved.version & 0xFFFFFFFF, solved.time, solved.nonce, bytes(reward)


def block_on(tip: Block, height: int, tag: bytes, transactions: tuple[Transaction, ...] = (), reward: int | None = None) -> Block:
    outputs = [TxOut(subsidy(height) if reward is None else reward, ANYONE_CAN_SPEND)]
    first = coinbase(height, outputs, tag, [one.wtxid for one in transactions])
    return assemble(tip.hash, tip.header.time + 1, [first, *transactions])


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Starts ``call``; what is returned waits for its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()

    def wait() -> Any:
        thread.join(PATIENCE)
        assert results, "it still waits"
        return results[0]

    return wait


# Templates


def test_template_holds_what_pays_in_the_mempool() -> None:
    world = World()
    world.arrive(30)
    template = world.template()
    block = Block(template.get_block())
    assert block.header.prev_hash == world.chain.tip.hash
    assert block.header.bits == BITS
    assert template.get_block_header() == bytes(block)[:80]
    waiting = {entry.txid: entry for entry in world.chain.mempool}
    assert set(block.txids[1:]) == set(waiting)
    assert template.get_tx_fees() == [waiting[txid].fee for txid in block.txids[1:]]
    assert template.get_tx_sigops() == [0] * (len(block) - 1)  # these locks drop data, and check no signature
    assert merkle_root(block.txids) == block.header.merkle_root


def test_template_without_mempool_is_empty() -> None:
    world = World()
    world.arrive(5)
    template = world.template(BlockCreateOptions(use_mempool=False))
    assert len(Block(template.get_block())) == 1
    assert template.get_coinbase_merkle_path() == []
    assert template.get_coinbase_tx().block_reward_remaining == subsidy(world.chain.height + 1)


def test_coinbase_facts() -> None:
    world = World()
    world.arrive(3)
    template = world.template()
    facts = template.get_coinbase_tx()
    height = world.chain.height + 1
    assert facts.script_sig_prefix == height_script(height)
    assert facts.lock_time == height - 1
    assert facts.sequence == 0xFFFFFFFE
    assert facts.version == 2
    assert facts.witness == bytes(32)
    assert facts.block_reward_remaining == subsidy(height) + sum(template.get_tx_fees())
    (commitment,) = facts.required_outputs
    assert commitment.startswith(bytes(8) + bytes([38]) + bytes.fromhex("6a24aa21a9ed"))
    assert len(commitment) == 47


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 8, 21])
def test_merkle_path_leads_to_the_root(count: int) -> None:
    world = World()
    world.arrive(count)
    with world.shared.changing():
        while len(world.chain.mempool) > count:
            world.chain.evict()
    template = world.template()
    block = Block(template.get_block())
    root = block.txids[0]
    for other in template.get_coinbase_merkle_path():
        root = merkle_root([root, other])
    assert root == block.header.merkle_root


def test_first_heights_pad_the_coinbase() -> None:
    chain = RegtestChain(start_time=START_TIME)
    mining = RegtestMining(SharedChain(chain))
    for height in range(1, 20):
        template = mining.create_new_block()
        assert template is not None
        block = Block(template.get_block())
        assert len(block[0].inputs[0].script_sig) >= 2
        assert mining.check_block(bytes(block), BlockCheckOptions(check_pow=False)) == GOOD
        assert template.submit_solution(*solution(template)) == GOOD
        assert mining.get_tip() == BlockRef(chain.tip.hash, height)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BlockCreateOptions(block_reserved_weight=1_999), "block_reserved_weight (1999) is lower than minimum safety value of (2000)"),
        (
            BlockCreateOptions(block_reserved_weight=4_000_001),
            "block_reserved_weight (4000001) exceeds consensus maximum block weight (4000000)",
        ),
        (
            BlockCreateOptions(coinbase_output_max_additional_sigops=80_001),
            "coinbase_output_max_additional_sigops (80001) exceeds consensus maximum block sigops cost (80000)",
        ),
    ],
)
def test_senseless_options(options: BlockCreateOptions, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        World().mining.create_new_block(options)
    assert str(caught.value) == message


def test_reserved_weight_leaves_no_room() -> None:
    world = World()
    world.arrive(5)
    template = world.template(BlockCreateOptions(block_reserved_weight=4_000_000))
    assert template.get_tx_fees() == []


# Solutions


def test_solution_becomes_the_tip_and_is_told() -> None:
    world = World()
    world.arrive(12)
    template = world.template()
    waiting = {entry.txid for entry in world.chain.mempool}
    height = world.chain.height
    world.events.clear()
    found = solution(template)
    assert template.submit_solution(*found) == GOOD
    solved = Block(template.get_block())
    assert world.mining.get_tip() == BlockRef(solved.hash, height + 1)
    assert set(solved.txids[1:]) == waiting
    assert [type(event) for event in world.events] == [BlockConnected, UpdatedBlockTip]
    assert all(isinstance(event, BlockConnected | UpdatedBlockTip) and event.block == solved for event in world.events)
    assert len(world.chain.mempool) == 0
    assert template.submit_solution(*found) == CheckResult(False, "duplicate")


def test_chain_goes_on_on_a_miners_block() -> None:
    """Coins of others than the traffic's own wallets are no trouble, in reorganizations neither."""
    world = World(undo_depth=30)
    for place in range(60):
        world.arrive(3)
        template = world.template()
        assert template.submit_solution(*solution(template)) == GOOD
        with world.shared.changing() as chain:
            chain.generate()
            if place % 10 == 9:
                chain.reorg(3)
    assert world.chain.tip.header.prev_hash == world.chain.blocks[-2].hash


@pytest.mark.parametrize("bad", [b"", b"\x00", bytes(60)])
def test_coinbase_that_is_no_transaction(bad: bytes) -> None:
    template = World().template()
    with pytest.raises(DecodeError):
        template.submit_solution(4, START_TIME, 0, bad)


def test_solution_without_the_work() -> None:
    world = World()
    template = world.template()
    version, timestamp, _, reward = solution(template)
    results = []
    for nonce in range(64):
        results.append(template.submit_solution(version, timestamp, nonce, reward))
        assert template.get_block_header()[76:] == nonce.to_bytes(4, "little")  # as in Bitcoin Core, what was handed in stays
        if results[-1]:
            break
    assert results[-1] == GOOD
    assert set(results[:-1]) <= {CheckResult(False, "high-hash", "proof of work failed")}


def test_stale_template_is_inconclusive_until_its_branch_is_longer() -> None:
    world = World()
    first, second = world.template(), world.template()
    old = world.chain.tip
    assert first.submit_solution(*solution(first, b"first")) == GOOD
    assert second.submit_solution(*solution(second, b"second")) == CheckResult(False, "inconclusive")
    side = Block(second.get_block())
    assert world.mining.submit_block(bytes(side)).reason == "duplicate"
    world.events.clear()
    longer = block_on(side, world.chain.height + 1, b"longer")
    assert side.header.prev_hash == old.hash
    assert world.mining.submit_block(bytes(longer)) == GOOD
    assert world.chain.tip == longer
    told = [(type(event), event.block.hash) for event in world.events if not isinstance(event, TransactionAdded | TransactionRemoved)]
    assert told == [
        (BlockDisconnected, Block(first.get_block()).hash),
        (BlockConnected, side.hash),
        (BlockConnected, longer.hash),
        (UpdatedBlockTip, longer.hash),
    ]


def test_branch_can_go_back_to_blocks_that_were_disconnected() -> None:
    world = World()
    tip, height = world.chain.tip, world.chain.height
    ours = [block_on(tip, height + 1, b"ours 1")]
    ours.append(block_on(ours[0], height + 2, b"ours 2"))
    theirs = [block_on(tip, height + 1, b"theirs 1")]
    theirs.append(block_on(theirs[0], height + 2, b"theirs 2"))
    theirs.append(block_on(theirs[1], height + 3, b"theirs 3"))
    submit = [world.mining.submit_block(bytes(block)).reason for block in (*ours, *theirs)]
    assert submit == ["", "", "inconclusive", "inconclusive", ""]
    assert world.chain.tip == theirs[-1]
    again = block_on(ours[-1], height + 3, b"ours 3")
    last = block_on(again, height + 4, b"ours 4")
    assert [world.mining.submit_block(bytes(block)).reason for block in (again, last)] == ["inconclusive", ""]
    assert world.chain.tip == last
    assert world.chain.height == height + 4


def test_invalid_branch_changes_nothing() -> None:
    world = World()
    tip, height = world.chain.tip, world.chain.height
    good = block_on(tip, height + 1, b"good")
    greedy = block_on(tip, height + 1, b"greedy", reward=subsidy(height + 1) + 1)
    assert world.mining.submit_block(bytes(good)) == GOOD
    assert world.mining.submit_block(bytes(greedy)).reason == "inconclusive"
    world.events.clear()
    above = block_on(greedy, height + 2, b"above")
    assert world.mining.submit_block(bytes(above)).reason == "bad-cb-amount"
    assert world.chain.tip == good
    assert not world.events
    assert world.mining.submit_block(bytes(greedy)).reason == "duplicate-invalid"
    assert world.mining.submit_block(bytes(block_on(above, height + 3, b"higher"))).reason == "bad-prevblk"


def test_block_of_another_chain() -> None:
    world = World()
    stranger = block_on(build_block(BlockHeader(4, bytes(32), bytes(32), START_TIME, BITS, 0), []), 2, b"stranger")
    assert world.mining.submit_block(bytes(stranger)) == CheckResult(False, "prev-blk-not-found")
    assert world.mining.check_block(bytes(stranger)) == CheckResult(False, "inconclusive-not-best-prevblk")


# Checks


def spend(world: World, sequence: int = 0xFFFFFFFD, locktime: int = 0, version: int = 2) -> Transaction:
    """A spend of a coin that anybody can spend, which the chain has after `ripen`."""
    coin = next(coin for coin in world.chain.coins.values() if coin.script_pubkey == ANYONE_CAN_SPEND and not is_young(world, coin))
    inputs = [TxIn(*coin.outpoint, sequence=sequence, witness=(b"\x51",))]
    return build_transaction(inputs, [TxOut(coin.value - 1_000, ANYONE_CAN_SPEND)], version=version, locktime=locktime)


def is_young(world: World, coin: Any) -> bool:
    return bool(coin.coinbase_height) and world.chain.height + 1 - coin.coinbase_height < 100


def ripen(world: World) -> None:
    """Blocks until a coinbase that anybody can spend is mature."""
    with world.shared.changing() as chain:
        chain.reward_script = ANYONE_CAN_SPEND
        chain.generate(101)


def test_valid_block_with_transactions_that_never_waited() -> None:
    world = World(undo_depth=5)
    ripen(world)
    transaction = spend(world)
    block = block_on(world.chain.tip, world.chain.height + 1, b"mine", (transaction,))
    assert world.mining.check_block(bytes(block)) == GOOD
    assert world.mining.submit_block(bytes(block)) == GOOD
    assert (transaction.txid, 0) in world.chain.coins


def test_refusals_of_transactions() -> None:
    world = World(undo_depth=5)
    ripen(world)
    tip, height = world.chain.tip, world.chain.height + 1

    def result(*transactions: Transaction) -> tuple[str, str]:
        checked = world.mining.check_block(bytes(block_on(tip, height, b"mine", transactions)))
        assert not checked
        return checked.reason, checked.debug

    good = spend(world)
    entry, output = good.inputs[0], good.outputs[0]
    missing = build_transaction([entry._replace(prev_index=7)], [output])
    assert result(missing) == (
        "bad-txns-inputs-missingorspent",
        f"CheckTxInputs: inputs missing/spent in transaction {missing.txid.hex()}",
    )
    again = build_transaction([entry], [TxOut(output.value - 1, ANYONE_CAN_SPEND)])
    assert result(good, again)[0] == "bad-txns-inputs-missingorspent"
    greedy = build_transaction([entry], [TxOut(output.value + 1_001, ANYONE_CAN_SPEND)])
    assert result(greedy)[0] == "bad-txns-in-belowout"
    young = next(coin for coin in world.chain.coins.values() if is_young(world, coin))
    premature = build_transaction([TxIn(*young.outpoint, witness=(b"\x51",))], [TxOut(1_000, ANYONE_CAN_SPEND)])
    depth = height - young.coinbase_height
    assert result(premature) == (
        "bad-txns-premature-spend-of-coinbase",
        f"tried to spend coinbase at depth {depth} in transaction {premature.txid.hex()}",
    )
    assert result(build_transaction([entry, entry], [output]))[0] == "bad-txns-inputs-duplicate"
    assert result(build_transaction([entry], [TxOut(-1, ANYONE_CAN_SPEND)]))[0] == "bad-txns-vout-negative"
    assert result(build_transaction([entry], [TxOut(MAX_MONEY + 1, ANYONE_CAN_SPEND)]))[0] == "bad-txns-vout-toolarge"
    assert result(build_transaction([entry], [TxOut(MAX_MONEY, b"\x51"), TxOut(1, b"\x51")]))[0] == "bad-txns-txouttotal-toolarge"
    assert result(spend(world, locktime=height))[0] == "bad-txns-nonfinal"
    assert result(spend(world, sequence=5))[0] == "bad-txns-nonfinal"
    many = build_transaction([entry], [TxOut(1, b"\xae" * 1_001)])
    assert result(many) == ("bad-blk-sigops", "out-of-bounds SigOpCount")
    null = build_transaction([entry, TxIn(bytes(32), 0xFFFFFFFF)], [output])
    assert result(null)[0] == "bad-txns-prevout-null"


def test_refusals_of_blocks() -> None:
    world = World()
    tip, height = world.chain.tip, world.chain.height + 1
    good = block_on(tip, height, b"mine")
    reward, header = good[0], good.header

    def result(block: Block, **options: bool) -> tuple[str, str]:
        checked = world.mining.check_block(bytes(block), BlockCheckOptions(**options))
        return checked.reason, checked.debug

    def remined(change: dict[str, Any], *transactions: Transaction) -> Block:
        contents = list(transactions or [reward])
        root = merkle_root([transaction.txid for transaction in contents])
        return build_block(mine(header._replace(**{"merkle_root": root, **change})), contents)

    assert result(good) == ("", "")
    tries = (build_block(header._replace(nonce=nonce), [reward]) for nonce in range(64))
    unsolved = next(block for block in tries if block.hash[0] >= 0x80)
    assert result(unsolved) == ("high-hash", "proof of work failed")
    assert result(unsolved, check_pow=False) == ("", "")
    assert result(build_block(header._replace(bits=0x207FFFFF + (1 << 24)), [reward]))[0] == "high-hash"
    rootless = remined({"merkle_root": bytes(32)})
    assert result(rootless) == ("bad-txnmrklroot", "hashMerkleRoot mismatch")
    assert result(rootless, check_merkle_root=False) == ("", "")
    assert result(remined({"bits": 0x207FFFFE}))[0] == "bad-diffbits"
    assert result(remined({"time": world.chain.state.median_time})) == ("time-too-old", "block's timestamp is too early")
    far = int(time.time()) + 7_300
    assert result(remined({"time": far})) == ("time-too-new", "block timestamp too far in the future")
    assert result(remined({"version": 3})) == ("bad-version(0x00000003)", "rejected nVersion=0x00000003 block")
    wrong_height = coinbase(height + 1, [TxOut(1, b"\x51")], b"xx", [])
    assert result(remined({}, wrong_height))[0] in ("bad-cb-height", "bad-txns-nonfinal")
    early = build_transaction([reward.inputs[0]._replace(script_sig=b"\x01\x02\x03")], reward.outputs)
    assert result(remined({}, early)) == ("bad-cb-height", "block height mismatch in coinbase")
    assert result(remined({}, reward, reward))[0] == "bad-txns-duplicate"
    other = build_transaction([reward.inputs[0]._replace(script_sig=b"\x01\x02\x03")], reward.outputs)
    assert result(remined({}, reward, other)) == ("bad-cb-multiple", "more than one coinbase")
    ordinary = build_transaction([TxIn(bytes(31) + b"\x01", 0)], [TxOut(1, b"\x51")])
    assert result(remined({}, ordinary)) == ("bad-cb-missing", "first tx is not coinbase")
    long_script = build_transaction([reward.inputs[0]._replace(script_sig=bytes(101))], reward.outputs)
    assert result(remined({}, long_script))[0] == "bad-cb-length"
    bare = build_transaction([reward.inputs[0]._replace(witness=())], reward.outputs, locktime=reward.locktime)
    assert result(remined({}, bare))[0] == "bad-witness-nonce-size"
    nonce = build_transaction([reward.inputs[0]._replace(witness=(b"\x01" * 32,))], reward.outputs, locktime=reward.locktime)
    assert result(remined({}, nonce))[0] == "bad-witness-merkle-match"
    uncommitted = build_transaction(reward.inputs, reward.outputs[:1], locktime=reward.locktime)
    assert result(remined({}, uncommitted))[0] == "unexpected-witness"
    greedy = block_on(tip, height, b"mine", reward=subsidy(height) + 1)
    limit = subsidy(height)
    assert result(greedy) == ("bad-cb-amount", f"coinbase pays too much (actual={limit + 1} vs limit={limit})")
    assert world.chain.tip == tip


@pytest.mark.parametrize("cut", [0, 1, 79, 80, 81, 100])
def test_truncated_block(cut: int) -> None:
    world = World()
    block = bytes(block_on(world.chain.tip, world.chain.height + 1, b"mine"))
    with pytest.raises(DecodeError):
        world.mining.submit_block(block[:cut])


# Signature operations


def test_signature_operations_of_scripts() -> None:
    multisig = b"\x52" + b"\x21" + bytes(33) + b"\x21" + bytes(33) + b"\x52\xae"
    assert legacy_sigops([], [TxOut(0, b"\xac\xad"), TxOut(0, multisig), TxOut(0, b"\x02\xac\xac"), TxOut(0, b"\x4c")]) == 22
    from zmqpub.sources.regtest.coins import Coin

    key_hash = Coin((bytes(32), 0), 1, b"\x00\x14" + bytes(20))
    script_hash = Coin((bytes(32), 0), 1, b"\x00\x20" + bytes(32))
    pay_to_script = Coin((bytes(32), 0), 1, b"\xa9\x14" + bytes(20) + b"\x87")
    nested = TxIn(bytes(32), 0, b"\x16\x00\x14" + bytes(20), witness=(b"", b""))
    plain = TxIn(bytes(32), 0)
    assert sigops_cost([plain], [], [key_hash]) == 1
    assert sigops_cost([plain._replace(witness=(b"", multisig))], [], [script_hash]) == 2
    assert sigops_cost([plain._replace(script_sig=bytes([len(multisig)]) + multisig)], [], [pay_to_script]) == 8
    assert sigops_cost([nested], [], [pay_to_script]) == 1
    assert sigops_cost([plain._replace(script_sig=b"\xac")], [], [pay_to_script]) == 4  # its own, and no redeem script


# Waits


def test_wait_for_the_tip() -> None:
    world = World()
    tip = world.chain.tip.hash
    assert world.mining.wait_tip_changed(bytes(32)) == world.mining.get_tip()
    assert world.mining.wait_tip_changed(tip, 0.0) == world.mining.get_tip()
    assert world.mining.wait_tip_changed(tip, math.nan) == world.mining.get_tip()
    assert world.mining.wait_tip_changed(tip, -1.0) == world.mining.get_tip()
    waiting = in_thread(lambda: world.mining.wait_tip_changed(tip))
    template = world.template()
    assert template.submit_solution(*solution(template)) == GOOD
    assert waiting() == BlockRef(world.chain.tip.hash, world.chain.height)


def test_interrupt_ends_one_clients_wait_and_is_kept_for_the_next() -> None:
    world = World()
    other = RegtestMining(world.shared)
    tip = world.chain.tip.hash
    waiting, others = in_thread(lambda: world.mining.wait_tip_changed(tip)), in_thread(lambda: other.wait_tip_changed(tip))
    world.mining.interrupt()
    assert waiting() is None
    world.mining.interrupt()
    assert world.mining.wait_tip_changed(tip, 0.0) is None
    assert world.mining.wait_tip_changed(tip, 0.0) is not None
    world.shared.close()
    assert others() is None
    assert world.mining.create_new_block() is None


def test_cancelled_call_waits_no_longer() -> None:
    world = World()
    cancels: list[Callable[[], None]] = []
    mining = RegtestMining(world.shared, on_cancel=cancels.append)
    waiting = in_thread(lambda: mining.wait_tip_changed(world.chain.tip.hash))
    deadline = time.monotonic() + PATIENCE
    while not cancels and time.monotonic() < deadline:
        time.sleep(0.01)
    cancels[0]()
    assert waiting() is None
    assert mining.wait_tip_changed(world.chain.tip.hash, 0.0) is not None  # nothing is left over


def test_wait_for_the_next_template() -> None:
    world = World()
    template = world.template()
    assert template.wait_next(0.0) is None
    assert template.wait_next(0.05, MAX_MONEY) is None
    assert template.wait_next(0.05, 1) is None
    waiting = in_thread(template.wait_next)
    assert world.mining.submit_block(bytes(block_on(world.chain.tip, world.chain.height + 1, b"mine"))) == GOOD
    following = waiting()
    assert Block(following.get_block()).header.prev_hash == world.chain.tip.hash
    template.interrupt_wait()
    assert template.wait_next() is None


def test_wait_for_fees() -> None:
    world = World()
    world.arrive(2)
    template = world.template()
    fees = sum(template.get_tx_fees())
    waiting = in_thread(lambda: template.wait_next(PATIENCE, 1))
    world.arrive(5)
    assert sum(waiting().get_tx_fees()) > fees
    far = in_thread(lambda: template.wait_next(PATIENCE, MAX_MONEY - 1))
    template.interrupt_wait()
    assert far() is None


def test_transactions_of_the_mempool() -> None:
    world = World()
    world.arrive(3)
    waiting = [entry.transaction for entry in world.chain.mempool]
    unknown = bytes(32)
    assert world.mining.get_transactions_by_txid([unknown, waiting[1].txid, waiting[1].txid]) == [None, *[bytes(waiting[1])] * 2]
    assert world.mining.get_transactions_by_witness_id([waiting[0].wtxid, unknown]) == [bytes(waiting[0]), None]


def test_many_miners_at_once() -> None:
    world = World(undo_depth=30)
    first = world.chain.height
    outcomes: list[str] = []

    def work(number: int) -> None:
        mining = RegtestMining(world.shared)
        for place in range(15):
            template = mining.create_new_block()
            assert template is not None
            result = template.submit_solution(*solution(template, bytes([number, place])))
            outcomes.append(result.reason)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(outcomes) == 60
    assert set(outcomes) <= {"", "inconclusive"}
    assert outcomes.count("") == world.chain.height - first
    connected = [event.block for event in world.events if isinstance(event, BlockConnected)]
    assert all(after.header.prev_hash == before.hash for before, after in itertools.pairwise(connected))
