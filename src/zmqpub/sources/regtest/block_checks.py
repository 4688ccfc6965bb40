"""Is a block that somebody else mined valid? Bitcoin Core's checks in Bitcoin Core's order, with its words; scripts are not executed.

The order is that of validation.cpp: CheckBlock, ContextualCheckBlockHeader, ContextualCheckBlock, ConnectBlock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from zmqpub._build import merkle_root, witness_commitment
from zmqpub._fast import Block, Transaction, sha256d
from zmqpub.interfaces.values import CheckResult
from zmqpub.sources.block_networks import target_of_bits
from zmqpub.sources.regtest.coins import Coin, Outpoint, Resolved, created_by, resolved, stripped_size
from zmqpub.sources.regtest.consensus import BITS, COIN, COINBASE_MATURITY, MAX_BLOCK_WEIGHT, MAX_MONEY, height_script, subsidy
from zmqpub.sources.regtest.sigops import MAX_BLOCK_SIGOPS_COST, WITNESS_SCALE, legacy_sigops, sigops_cost
from zmqpub.sources.regtest.template import is_final

__all__ = ["RefusedBlockError", "check_alone", "check_on", "connect_to"]

MAX_FUTURE = 7_200
"""Seconds that a block's time may be ahead of the clock."""

_LEAST_VERSION = 4
_FINAL = 0xFFFFFFFF
_DISABLE_RELATIVE_LOCK = 1 << 31
_HEADER_SIZE = 80
_COMMITMENT_HEADER = bytes.fromhex("6a24aa21a9ed")
_COMMITMENT_SIZE = 38


class RefusedBlockError(ValueError):
    """What is wrong with a block, in Bitcoin Core's words. ``final``: whether a block with this hash can never be valid."""

    def __init__(self, reason: str, debug: str = "", *, final: bool = True) -> None:
        self.reason = reason
        self.debug = debug
        self.final = final
        super().__init__(f"{reason}, {debug}" if debug else reason)

    @property
    def result(self) -> CheckResult:
        return CheckResult(False, self.reason, self.debug)


def check_alone(block: Block, *, check_pow: bool = True, check_merkle_root: bool = True) -> None:
    """What can be seen without the chain; RefusedBlockError."""
    header = block.header
    if check_pow and int.from_bytes(block.hash, "big") > target_of_bits(header.bits):
        raise RefusedBlockError("high-hash", "proof of work failed", final=False)
    if check_merkle_root:
        txids = block.txids
        if not txids or merkle_root(txids) != header.merkle_root:
            raise RefusedBlockError("bad-txnmrklroot", "hashMerkleRoot mismatch", final=False)
        if _is_mutated(txids):
            raise RefusedBlockError("bad-txns-duplicate", "duplicate transaction", final=False)
    if not len(block) or WITNESS_SCALE * len(block) > MAX_BLOCK_WEIGHT or WITNESS_SCALE * _stripped(block) > MAX_BLOCK_WEIGHT:
        raise RefusedBlockError("bad-blk-length", "size limits failed", final=False)
    if not _is_coinbase(block[0]):
        raise RefusedBlockError("bad-cb-missing", "first tx is not coinbase", final=False)
    sigops = 0
    for place, transaction in enumerate(block):
        if place and _is_coinbase(transaction):
            raise RefusedBlockError("bad-cb-multiple", "more than one coinbase", final=False)
    for transaction in block:
        reason = _fault_of(transaction)
        if reason:
            raise RefusedBlockError(reason, f"Transaction check failed (tx hash {transaction.txid.hex()}) ", final=False)
        sigops += legacy_sigops(transaction.inputs, transaction.outputs)
    if WITNESS_SCALE * sigops > MAX_BLOCK_SIGOPS_COST:
        raise RefusedBlockError("bad-blk-sigops", "out-of-bounds SigOpCount", final=False)


def check_on(block: Block, height: int, median_time: int | None, now: float) -> None:
    """What the chain below says, coins apart: the block would be at ``height``; RefusedBlockError.

    ``median_time``: the median time past of the block below, None where that is not known any more; ``now``: seconds since the Unix
    epoch.
    """
    header = block.header
    if header.bits != BITS:
        raise RefusedBlockError("bad-diffbits", "incorrect proof of work", final=False)
    if median_time is not None and header.time <= median_time:
        raise RefusedBlockError("time-too-old", "block's timestamp is too early", final=False)
    if header.time > now + MAX_FUTURE:
        raise RefusedBlockError("time-too-new", "block timestamp too far in the future", final=False)
    if header.version < _LEAST_VERSION:
        version = f"0x{header.version & 0xFFFFFFFF:08x}"
        raise RefusedBlockError(f"bad-version({version})", f"rejected nVersion={version} block", final=False)
    if median_time is not None and not all(_is_final(transaction, height, median_time) for transaction in block):
        raise RefusedBlockError("bad-txns-nonfinal", "non-final transaction")
    reward = block[0]
    if not reward.inputs[0].script_sig.startswith(height_script(height)):
        raise RefusedBlockError("bad-cb-height", "block height mismatch in coinbase")
    _check_commitment(block, reward)
    if 3 * _stripped(block) + block.size > MAX_BLOCK_WEIGHT:
        raise RefusedBlockError("bad-blk-weight", "ContextualCheckBlock : weight limit failed")


def connect_to(
    block: Block, coins: Mapping[Outpoint, Coin], height: int, known: Callable[[bytes], Resolved | None] = lambda txid: None
) -> list[Resolved]:
    """The transactions of a block at ``height`` with the coins that they spend, coinbase first; RefusedBlockError.

    ``known``: an entry that has this txid, as the mempool may have it.
    """
    reward = block[0]
    spent: set[Outpoint] = set()
    made: dict[Outpoint, Coin] = {}
    entries: list[Resolved] = []
    fees = 0
    sigops = WITNESS_SCALE * legacy_sigops(reward.inputs, reward.outputs)
    for transaction in block[1:]:
        entry = _resolve(transaction, coins, made, spent, height, known)
        spent.update([coin.outpoint for coin in entry.spent])
        made.update([(coin.outpoint, coin) for coin in entry.created])
        entries.append(entry)
        fees += entry.fee
        sigops += sigops_cost(transaction.inputs, transaction.outputs, entry.spent)
        if sigops > MAX_BLOCK_SIGOPS_COST:
            raise RefusedBlockError("bad-blk-sigops", "too many sigops")
    outputs = reward.outputs
    paid, limit = sum(output.value for output in outputs), subsidy(height) + fees
    if paid > limit:
        raise RefusedBlockError("bad-cb-amount", f"coinbase pays too much (actual={paid} vs limit={limit})")
    weight = 3 * stripped_size(reward.inputs, outputs) + reward.size
    return [Resolved(reward, (), created_by(reward.txid, outputs, height), 0, weight, reward.locktime), *entries]


def _resolve(
    transaction: Transaction,
    coins: Mapping[Outpoint, Coin],
    made: Mapping[Outpoint, Coin],
    spent: set[Outpoint],
    height: int,
    known: Callable[[bytes], Resolved | None],
) -> Resolved:
    inputs, outputs = transaction.inputs, transaction.outputs
    where = f" in transaction {transaction.txid.hex()}"
    found: list[Coin] = []
    for entry in inputs:
        outpoint = (entry.prev_txid, entry.prev_index)
        coin = made.get(outpoint) or coins.get(outpoint)
        if coin is None or outpoint in spent:
            raise RefusedBlockError("bad-txns-inputs-missingorspent", f"CheckTxInputs: inputs missing/spent{where}")
        found.append(coin)
    for coin in found:
        depth = height - coin.coinbase_height
        if coin.coinbase_height and depth < COINBASE_MATURITY:
            raise RefusedBlockError("bad-txns-premature-spend-of-coinbase", f"tried to spend coinbase at depth {depth}{where}")
    value_in, value_out = sum(coin.value for coin in found), sum(output.value for output in outputs)
    if value_in < value_out:
        message = f"value in ({_money(value_in)}) < value out ({_money(value_out)}){where}"
        raise RefusedBlockError("bad-txns-in-belowout", message)
    if transaction.version >= 2 and any(not entry.sequence & _DISABLE_RELATIVE_LOCK for entry in inputs):
        # Coins do not know their height.
        raise RefusedBlockError("bad-txns-nonfinal", f"a relative lock time, which this chain does not follow{where}")
    waiting = known(transaction.txid)
    if waiting is not None and waiting.transaction == transaction:
        return waiting
    return resolved(transaction, inputs, outputs, tuple(found))


def _check_commitment(block: Block, reward: Transaction) -> None:
    commitment = None
    for output in reward.outputs:
        script = output.script_pubkey
        if len(script) >= _COMMITMENT_SIZE and script.startswith(_COMMITMENT_HEADER):
            commitment = script[len(_COMMITMENT_HEADER) : _COMMITMENT_SIZE]
    if commitment is not None:
        stack = reward.inputs[0].witness
        if len(stack) != 1 or len(stack[0]) != 32:
            message = "CheckWitnessMalleation : invalid witness reserved value size"
            raise RefusedBlockError("bad-witness-nonce-size", message, final=False)
        if witness_commitment([bytes(32), *block.wtxids[1:]], stack[0]) != commitment:
            message = "CheckWitnessMalleation : witness merkle commitment mismatch"
            raise RefusedBlockError("bad-witness-merkle-match", message, final=False)
    elif any(transaction.has_witness for transaction in block):
        raise RefusedBlockError("unexpected-witness", "CheckWitnessMalleation : unexpected witness data found", final=False)


def _fault_of(transaction: Transaction) -> str | None:
    """What Bitcoin Core's CheckTransaction finds."""
    inputs, outputs = transaction.inputs, transaction.outputs
    if not inputs:
        return "bad-txns-vin-empty"
    if not outputs:
        return "bad-txns-vout-empty"
    if WITNESS_SCALE * stripped_size(inputs, outputs) > MAX_BLOCK_WEIGHT:
        return "bad-txns-oversize"
    total = 0
    for output in outputs:
        if output.value < 0:
            return "bad-txns-vout-negative"
        if output.value > MAX_MONEY:
            return "bad-txns-vout-toolarge"
        total += output.value
        if total > MAX_MONEY:
            return "bad-txns-txouttotal-toolarge"
    outpoints = [(entry.prev_txid, entry.prev_index) for entry in inputs]
    if len(set(outpoints)) != len(outpoints):
        return "bad-txns-inputs-duplicate"
    if _is_coinbase(transaction):
        return None if 2 <= len(inputs[0].script_sig) <= 100 else "bad-cb-length"
    return "bad-txns-prevout-null" if any(_is_null(entry.prev_txid, entry.prev_index) for entry in inputs) else None


def _is_final(transaction: Transaction, height: int, median_time: int) -> bool:
    locktime = transaction.locktime
    return not locktime or is_final(locktime, height, median_time) or all(entry.sequence == _FINAL for entry in transaction.inputs)


def _is_coinbase(transaction: Transaction) -> bool:
    inputs = transaction.inputs
    return len(inputs) == 1 and _is_null(inputs[0].prev_txid, inputs[0].prev_index)


def _is_null(txid: bytes, index: int) -> bool:
    return index == 0xFFFFFFFF and not any(txid)


def _is_mutated(txids: Sequence[bytes]) -> bool:
    """Whether a pair in the merkle tree is of two equal hashes (CVE-2012-2459)."""
    if len(set(txids)) == len(txids):
        return False
    level = [txid[::-1] for txid in txids]
    while len(level) > 1:
        pairs = list(zip(level[::2], level[1::2], strict=False))
        if any(left == right for left, right in pairs):
            return True
        if len(level) % 2:
            pairs.append((level[-1], level[-1]))
        level = [sha256d(left + right) for left, right in pairs]
    return False


def _stripped(block: Block) -> int:
    """Bytes of the block without witnesses."""
    count = len(block)
    size = _HEADER_SIZE + (1 if count < 0xFD else 3 if count < 0x10000 else 5)
    return size + sum(stripped_size(transaction.inputs, transaction.outputs) for transaction in block)


def _money(satoshis: int) -> str:
    whole, rest = divmod(satoshis, COIN)
    digits = f"{rest:08d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{digits}"
