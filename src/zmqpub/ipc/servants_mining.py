"""Mining and BlockTemplate on the wire. Hashes are turned here: display order in Python, internal order in messages."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from zmqpub.interfaces import BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx
from zmqpub.ipc.errors_out import Refusal, refusal_of
from zmqpub.ipc.servants import Method, S, Servant, destroying, no_arguments, serves, too_large

__all__ = ["BlockTemplateServant", "MiningServant"]

_FOREVER_MS: Final = 1e300


def _seconds(milliseconds: float) -> float | None:
    """None: without end. What is no time at all, or lies in the past, is none."""
    if milliseconds >= _FOREVER_MS:
        return None
    return 0.0 if math.isnan(milliseconds) or milliseconds < 0 else milliseconds / 1_000


def _hash(data: bytes) -> bytes:
    if len(data) != 32:
        raise ValueError("not a hash")
    return bytes(data)[::-1]


# ---- parameters ----


def _wait_tip_changed(params: Any) -> tuple[Any, ...]:
    return _hash(params.currentTip), _seconds(params.timeout)


def _create_new_block(params: Any) -> tuple[Any, ...]:
    options = params.options
    made = BlockCreateOptions(
        use_mempool=bool(options.useMempool),
        block_reserved_weight=int(options.blockReservedWeight),
        coinbase_output_max_additional_sigops=int(options.coinbaseOutputMaxAdditionalSigops),
    )
    return made, bool(params.cooldown)


def _with_cooldown(create_new_block: Any) -> Any:
    return lambda options, cooldown: create_new_block(options, cooldown=cooldown)


def _check_block(params: Any) -> tuple[Any, ...]:
    options = params.options
    return bytes(params.block), BlockCheckOptions(check_merkle_root=bool(options.checkMerkleRoot), check_pow=bool(options.checkPow))


def _solution(params: Any) -> tuple[Any, ...]:
    return int(params.version), int(params.timestamp), int(params.nonce), bytes(params.coinbase)


def _wait_next(params: Any) -> tuple[Any, ...]:
    return _seconds(params.options.timeout), int(params.options.feeThreshold)


# ---- results ----


def _bool(servant: Servant, results: Any, value: bool) -> None:
    results.result = bool(value)


def _set_ref(results: Any, ref: BlockRef) -> None:
    built = results.init("result")
    built.hash = bytes(ref.hash)[::-1]
    built.height = ref.height


def _tip(servant: Servant, results: Any, ref: BlockRef | None) -> None:
    if ref is not None:
        _set_ref(results, ref)
        results.hasResult = True


def _ref_or_null(servant: Servant, results: Any, ref: BlockRef | None) -> None:
    if ref is not None:
        _set_ref(results, ref)


def _data(servant: Servant, results: Any, data: bytes) -> Refusal | None:
    refusal = too_large(servant, len(data))
    if refusal is None:
        results.result = bytes(data)
    return refusal


def _numbers(servant: Servant, results: Any, numbers: Sequence[int]) -> None:
    results.result = list(numbers)


def _data_list(servant: Servant, results: Any, items: list[bytes]) -> Refusal | None:
    refusal = too_large(servant, sum(len(item) + 16 for item in items))
    if refusal is None:
        results.result = items
    return refusal


def _hashes(servant: Servant, results: Any, hashes: Sequence[bytes]) -> Refusal | None:
    return _data_list(servant, results, [bytes(one)[::-1] for one in hashes])


def _transactions(servant: Servant, results: Any, transactions: Sequence[bytes | None]) -> Refusal | None:
    return _data_list(servant, results, [b"" if one is None else bytes(one) for one in transactions])


def _verdict(servant: Servant, results: Any, verdict: CheckResult | bool) -> None:
    results.result = bool(verdict)
    if isinstance(verdict, CheckResult):
        results.reason = verdict.reason
        results.debug = verdict.debug


def _coinbase(servant: Servant, results: Any, coinbase: CoinbaseTx) -> None:
    built = results.init("result")
    built.version = coinbase.version & 0xFFFF_FFFF
    built.sequence = coinbase.sequence
    built.scriptSigPrefix = bytes(coinbase.script_sig_prefix)
    if coinbase.witness is not None:
        built.witness = bytes(coinbase.witness)
    built.blockRewardRemaining = coinbase.block_reward_remaining
    built.requiredOutputs = [bytes(output) for output in coinbase.required_outputs]
    built.lockTime = coinbase.lock_time


def _template(servant: Servant, results: Any, template: object) -> Refusal | None:
    if template is None:
        return None
    refusal = servant.connection.room_for_object()
    if refusal is None:
        results.result = BlockTemplateServant(servant.connection, template)
    return refusal


# ---- the interfaces ----


def _at_once(name: str) -> Callable[[Servant, Any], Any]:
    """What ends a wait has no context, so it never stands behind that wait."""

    async def interrupt(self: Servant, context: Any) -> None:
        method = getattr(self.target, name, None)
        if method is None:
            return
        refusal = None
        try:
            outcome = method()
            if outcome is not None and hasattr(outcome, "__await__"):
                await outcome
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            refusal = refusal_of(error, f"{self.interface}.{name}")
        if refusal is not None:
            raise refusal.error()

    return interrupt


@serves
class MiningServant(Servant, S.Mining.Server):  # type: ignore[misc, name-defined]
    interface = "Mining"
    methods = (
        Method("isTestChain", "is_test_chain", no_arguments, _bool),
        Method("isInitialBlockDownload", "is_initial_block_download", no_arguments, _bool),
        Method("getTip", "get_tip", no_arguments, _tip),
        Method("waitTipChanged", "wait_tip_changed", _wait_tip_changed, _ref_or_null),
        Method("createNewBlock", "create_new_block", _create_new_block, _template, _with_cooldown),
        Method("checkBlock", "check_block", _check_block, _verdict),
        Method("submitBlock", "submit_block", lambda params: (bytes(params.block),), _verdict),
        Method(
            "getTransactionsByTxID",
            "get_transactions_by_txid",
            lambda params: ([_hash(one) for one in params.txids],),
            _transactions,
        ),
        Method(
            "getTransactionsByWitnessID",
            "get_transactions_by_witness_id",
            lambda params: ([_hash(one) for one in params.wtxids],),
            _transactions,
        ),
    )
    interrupt_context = _at_once("interrupt")


@destroying
@serves
class BlockTemplateServant(Servant, S.BlockTemplate.Server):  # type: ignore[misc, name-defined]
    interface = "BlockTemplate"
    methods = (
        Method("getBlockHeader", "get_block_header", no_arguments, _data),
        Method("getBlock", "get_block", no_arguments, _data),
        Method("getTxFees", "get_tx_fees", no_arguments, _numbers),
        Method("getTxSigops", "get_tx_sigops", no_arguments, _numbers),
        Method("getCoinbaseTx", "get_coinbase_tx", no_arguments, _coinbase),
        Method("getCoinbaseMerklePath", "get_coinbase_merkle_path", no_arguments, _hashes),
        # v31's: the verdict without its reason
        Method("submitSolutionOld7", "submit_solution", _solution, _bool),
        Method("waitNext", "wait_next", _wait_next, _template),
        Method("submitSolution", "submit_solution", _solution, _verdict),
    )
    interruptWait_context = _at_once("interrupt_wait")
