"""Bitcoin Core's Mining and BlockTemplate interfaces over a simulated chain (src/node/miner.cpp, src/node/interfaces.cpp)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from zmqpub._build import build_block, merkle_root, serialize_header
from zmqpub._fast import Block, Transaction, sha256d
from zmqpub.interfaces.values import MAX_MONEY, BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx
from zmqpub.primitives import BlockHeader, TxOut
from zmqpub.sources.regtest.coins import Coin, Outpoint, Resolved
from zmqpub.sources.regtest.consensus import BITS, BLOCK_VERSION, MAX_BLOCK_WEIGHT, coinbase, height_script, subsidy
from zmqpub.sources.regtest.shared import SharedChain
from zmqpub.sources.regtest.sigops import MAX_BLOCK_SIGOPS_COST, sigops_cost
from zmqpub.sources.regtest.template import Template, fill

__all__ = ["OnCancel", "RegtestBlockTemplate", "RegtestMining"]

OnCancel = Callable[[Callable[[], None]], None]
"""Takes what is to be called, from any thread, when nobody waits for the present call's answer any more. It does not block."""

_LEAST_RESERVED = 2_000
_TICK = 1.0  # seconds between two looks at the fees
_OP_TRUE = b"\x51"
_PAD = b"\x00"  # OP_0, where the height alone is too short a script


class _Waits:
    """Waiting for a shared chain, until somebody interrupts it. An interrupt that comes while nobody waits ends the next wait."""

    def __init__(self, shared: SharedChain, on_cancel: OnCancel | None) -> None:
        self._shared = shared
        self._on_cancel = on_cancel
        self._interrupted = False

    def interrupt(self) -> None:
        self._interrupted = True
        self._shared.wake()

    def start(self, timeout: float | None) -> _Wait:
        """A wait of ``timeout`` seconds, counted from here; None: for ever."""
        wait = _Wait(self, self._shared, timeout)
        if self._on_cancel is not None:
            self._on_cancel(wait.cancel)
        return wait

    def take_interrupt(self) -> bool:
        interrupted, self._interrupted = self._interrupted, False
        return interrupted


class _Wait:
    def __init__(self, waits: _Waits, shared: SharedChain, timeout: float | None) -> None:
        self._waits = waits
        self._shared = shared
        self._cancelled = False
        seconds = math.inf if timeout is None else timeout if timeout > 0 else 0.0  # of NaN, nothing
        self._deadline = monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return monotonic() >= self._deadline

    def cancel(self) -> None:
        self._cancelled = True
        self._shared.wake()

    def until(self, done: Callable[[], bool], most: float = math.inf) -> bool | None:
        """Within the shared chain's condition: whether it is ``done``, for ``most`` seconds at most; None when interrupted."""
        condition = self._shared.condition
        deadline = min(self._deadline, monotonic() + most)
        while True:
            if self._shared.closed or self._cancelled or self._waits.take_interrupt():
                return None
            if done():
                return True
            remaining = deadline - monotonic()
            if remaining <= 0:
                return False
            condition.wait(min(remaining, threading.TIMEOUT_MAX))


class RegtestMining:
    """A `zmqpub.interfaces.Mining`: one object a client, for interrupt() ends that client's wait.

    The chain is never in initial download, and templates come at once. What a wait returns when the chain is closed is None.
    """

    def __init__(self, shared: SharedChain, *, on_cancel: OnCancel | None = None) -> None:
        self._shared = shared
        self._on_cancel = on_cancel
        self._waits = _Waits(shared, on_cancel)

    def is_test_chain(self) -> bool:
        return True

    def is_initial_block_download(self) -> bool:
        return self._shared.chain.initial_download

    def get_tip(self) -> BlockRef | None:
        with self._shared.condition:
            return self._tip()

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef | None:
        wait = self._waits.start(timeout)
        with self._shared.condition:
            if wait.until(lambda: self._shared.chain.tip.hash != current_tip) is None:
                return None
            return self._tip()

    def create_new_block(self, options: BlockCreateOptions | None = None, *, cooldown: bool = True) -> RegtestBlockTemplate | None:
        options = options or BlockCreateOptions()
        _check_options(options)
        with self._shared.condition:
            if self._shared.closed or self._waits.take_interrupt():
                return None
            return RegtestBlockTemplate(self._shared, options, self._on_cancel)

    def check_block(self, block: bytes, options: BlockCheckOptions | None = None) -> CheckResult:
        return self._shared.check(Block(block), options)

    def interrupt(self) -> None:
        self._waits.interrupt()

    def submit_block(self, block: bytes) -> CheckResult:
        return self._shared.submit(Block(block))

    def get_transactions_by_txid(self, txids: Sequence[bytes]) -> list[bytes | None]:
        with self._shared.condition:
            return [_serialized(self._shared.chain.mempool.get(txid)) for txid in txids]

    def get_transactions_by_witness_id(self, wtxids: Sequence[bytes]) -> list[bytes | None]:
        with self._shared.condition:
            wanted = set(wtxids)
            found = {entry.transaction.wtxid: entry for entry in self._shared.chain.mempool if entry.transaction.wtxid in wanted}
            return [_serialized(found.get(wtxid)) for wtxid in wtxids]

    def _tip(self) -> BlockRef:
        return BlockRef(self._shared.chain.tip.hash, self._shared.chain.height)


class RegtestBlockTemplate:
    """A `zmqpub.interfaces.BlockTemplate` on the tip as of now; made by RegtestMining, within the lock of the shared chain."""

    def __init__(self, shared: SharedChain, options: BlockCreateOptions, on_cancel: OnCancel | None) -> None:
        shared.move_clock()
        chain = shared.chain
        self._shared = shared
        self._options = options
        self._on_cancel = on_cancel
        self._waits = _Waits(shared, on_cancel)
        template = _MinersTemplate(chain.state.coins, chain.height + 1, chain.state.median_time, options)
        if options.use_mempool:
            fill(template, chain.mempool)
        self._height = template.height
        self._reward = subsidy(template.height) + template.fees
        self._fees = [entry.fee for entry in template.entries]
        self._sigops = template.sigops
        self._mempool_as_of = chain.mempool.next_sequence
        self._transactions = [entry.transaction for entry in template.entries]
        dummy = self._dummy_coinbase()
        self._commitment = dummy.outputs[-1]
        root = merkle_root([dummy.txid, *(transaction.txid for transaction in self._transactions)])
        header = BlockHeader(BLOCK_VERSION, chain.tip.hash, root, chain.next_time, BITS, 0)
        self._block = build_block(header, [dummy, *self._transactions])

    def _dummy_coinbase(self) -> Transaction:
        tag = _PAD if len(height_script(self._height)) < 2 else b""
        outputs = [TxOut(self._reward, _OP_TRUE)]
        return coinbase(self._height, outputs, tag, [transaction.wtxid for transaction in self._transactions])

    def get_block_header(self) -> bytes:
        return serialize_header(self._block.header)

    def get_block(self) -> bytes:
        return bytes(self._block)

    def get_tx_fees(self) -> list[int]:
        return list(self._fees)

    def get_tx_sigops(self) -> list[int]:
        return list(self._sigops)

    def get_coinbase_tx(self) -> CoinbaseTx:
        dummy = self._dummy_coinbase()
        first = dummy.inputs[0]
        script = self._commitment.script_pubkey
        required = self._commitment.value.to_bytes(8, "little") + bytes([len(script)]) + script
        return CoinbaseTx(
            version=dummy.version,
            sequence=first.sequence,
            script_sig_prefix=height_script(self._height),
            witness=first.witness[0],
            block_reward_remaining=self._reward,
            required_outputs=(required,),
            lock_time=dummy.locktime,
        )

    def get_coinbase_merkle_path(self) -> list[bytes]:
        path = []
        level = [b"", *(transaction.txid[::-1] for transaction in self._transactions)]
        while len(level) > 1:
            if len(level) % 2:
                level.append(level[-1])
            path.append(level[1][::-1])
            level = [b"", *(sha256d(level[place] + level[place + 1]) for place in range(2, len(level), 2))]
        return path

    def submit_solution(self, version: int, timestamp: int, nonce: int, coinbase: bytes) -> CheckResult:
        reward = Transaction(coinbase)
        signed = version - (1 << 32) if version >= 1 << 31 else version
        root = merkle_root([reward.txid, *(transaction.txid for transaction in self._transactions)])
        header = BlockHeader(signed, self._block.header.prev_hash, root, timestamp, self._block.header.bits, nonce)
        self._block = solved = build_block(header, [reward, *self._transactions])
        return self._shared.submit(solved)

    def wait_next(self, timeout: float | None = None, fee_threshold: int = MAX_MONEY) -> RegtestBlockTemplate | None:
        wait = self._waits.start(timeout)
        previous = self._block.header.prev_hash
        looked_at = self._mempool_as_of
        while True:
            with self._shared.condition:
                changed = wait.until(lambda: self._shared.chain.tip.hash != previous, _TICK if fee_threshold < MAX_MONEY else math.inf)
                if changed is None:
                    return None
                mempool_as_of = self._shared.chain.mempool.next_sequence
                if changed or (fee_threshold < MAX_MONEY and mempool_as_of != looked_at):
                    looked_at = mempool_as_of
                    template = RegtestBlockTemplate(self._shared, self._options, self._on_cancel)
                    if changed or sum(template._fees) >= sum(self._fees) + fee_threshold:
                        return template
            if wait.is_over:
                return None

    def interrupt_wait(self) -> None:
        self._waits.interrupt()


class _MinersTemplate(Template):
    """With the signature operations counted, and room for a miner's coinbase."""

    def __init__(self, coins: dict[Outpoint, Coin], height: int, median_time: int, options: BlockCreateOptions) -> None:
        super().__init__(coins, height, median_time, MAX_BLOCK_WEIGHT - options.block_reserved_weight)
        self.sigops: list[int] = []
        self._sigops_left = MAX_BLOCK_SIGOPS_COST - options.coinbase_output_max_additional_sigops

    def add(self, entry: Resolved) -> bool:
        cost = _sigops_of(entry)
        if cost > self._sigops_left or not super().add(entry):
            return False
        self._sigops_left -= cost
        self.sigops.append(cost)
        return True


def _sigops_of(entry: Resolved) -> int:
    return sigops_cost(entry.transaction.inputs, entry.transaction.outputs, entry.spent)


def _serialized(entry: Resolved | None) -> bytes | None:
    return None if entry is None else bytes(entry.transaction)


def _check_options(options: BlockCreateOptions) -> None:
    """ValueError in the words of Bitcoin Core's CheckMiningOptions."""
    reserved, sigops = options.block_reserved_weight, options.coinbase_output_max_additional_sigops
    if reserved < _LEAST_RESERVED:
        raise ValueError(f"block_reserved_weight ({reserved}) is lower than minimum safety value of ({_LEAST_RESERVED})")
    if reserved > MAX_BLOCK_WEIGHT:
        raise ValueError(f"block_reserved_weight ({reserved}) exceeds consensus maximum block weight ({MAX_BLOCK_WEIGHT})")
    if sigops > MAX_BLOCK_SIGOPS_COST:
        name = "coinbase_output_max_additional_sigops"
        raise ValueError(f"{name} ({sigops}) exceeds consensus maximum block sigops cost ({MAX_BLOCK_SIGOPS_COST})")
