"""What goes into calls and what comes out of them: plain Python on the one side, Cap'n Proto on the other.

Encoders run in the caller's thread, on plain values, and refuse what Cap'n Proto would stumble over; decoders run in the loop and
leave nothing of a response behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from zmqpub.interfaces import MAX_MONEY, BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx

__all__ = [
    "OPERATIONS",
    "Keeper",
    "Operation",
    "block_hash",
    "check_options",
    "create_options",
    "data",
    "hash_list",
    "milliseconds",
    "solution",
    "text",
    "wait_options",
]

_FOREVER_MS: Final = 1.7976931348623157e308


class Keeper(Protocol):
    """Where capabilities stay; what they are known by is a number."""

    def keep(self, interface: str, capability: Any) -> int: ...


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A method of an interface."""

    interface: str
    method: str
    """On the wire."""
    decode: Callable[[Any, Keeper], Any]
    waits: bool = False
    """It may wait for long, so it has a thread of its own in the peer, and can be interrupted."""
    makes: str | None = None
    """The interface of the object that it makes."""


# ---- into calls ----


def text(value: str, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    if not value.isascii():
        value.encode()  # UnicodeEncodeError, a ValueError, for half of a surrogate pair
    return value


def data(value: bytes | bytearray | memoryview, name: str) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name}: expected bytes, got {type(value).__name__}")
    return bytes(value)


def block_hash(value: bytes, name: str) -> bytes:
    """Display order in, internal order out. A node silently takes what is too long, so the length is checked here."""
    value = data(value, name)
    if len(value) != 32:
        raise ValueError(f"{name}: expected 32 bytes, got {len(value)}")
    return value[::-1]


def hash_list(values: Sequence[bytes], name: str) -> list[bytes]:
    return [block_hash(value, f"{name}[{index}]") for index, value in enumerate(values)]


def milliseconds(seconds: float | None, name: str = "timeout") -> float:
    if seconds is None or seconds == math.inf:
        return _FOREVER_MS
    if not seconds >= 0:  # NaN, too, which a node takes for "at once"
        raise ValueError(f"{name}: expected a number of seconds, 0 or more, got {seconds!r}")
    return float(seconds) * 1000.0


def unsigned(value: int, name: str, bits: int) -> int:
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name}: expected a number of {bits} bits, got {value}")
    return int(value)


def create_options(options: BlockCreateOptions | None) -> dict[str, Any]:
    options = options or BlockCreateOptions()
    return {
        "useMempool": bool(options.use_mempool),
        "blockReservedWeight": unsigned(options.block_reserved_weight, "block_reserved_weight", 64),
        "coinbaseOutputMaxAdditionalSigops": unsigned(
            options.coinbase_output_max_additional_sigops, "coinbase_output_max_additional_sigops", 64
        ),
    }


def check_options(options: BlockCheckOptions | None) -> dict[str, Any]:
    options = options or BlockCheckOptions()
    return {"checkMerkleRoot": bool(options.check_merkle_root), "checkPow": bool(options.check_pow)}


def wait_options(timeout: float | None, fee_threshold: int) -> dict[str, Any]:
    if not 0 <= fee_threshold <= MAX_MONEY:
        raise ValueError(f"fee_threshold: expected satoshis from 0 to {MAX_MONEY}, got {fee_threshold}")
    return {"timeout": milliseconds(timeout), "feeThreshold": int(fee_threshold)}


def solution(version: int, timestamp: int, nonce: int, coinbase: bytes) -> dict[str, Any]:
    """A header's version is signed in Bitcoin Core, and unsigned here on the wire: both are taken."""
    if -(1 << 31) <= version < 0:
        version += 1 << 32
    return {
        "version": unsigned(version, "version", 32),
        "timestamp": unsigned(timestamp, "timestamp", 32),
        "nonce": unsigned(nonce, "nonce", 32),
        "coinbase": data(coinbase, "coinbase"),
    }


# ---- out of responses ----


def _nothing(response: Any, keeper: Keeper) -> None:
    return None


def _text(response: Any, keeper: Keeper) -> str:
    return str(response.result)


def _bool(response: Any, keeper: Keeper) -> bool:
    return bool(response.result)


def _data(response: Any, keeper: Keeper) -> bytes:
    return bytes(response.result)


def _numbers(response: Any, keeper: Keeper) -> tuple[int, ...]:
    return tuple(int(number) for number in response.result)


def _hashes(response: Any, keeper: Keeper) -> tuple[bytes, ...]:
    return tuple(bytes(one)[::-1] for one in response.result)


def _transactions(response: Any, keeper: Keeper) -> tuple[bytes | None, ...]:
    return tuple(bytes(one) or None for one in response.result)


def _block_ref(response: Any) -> BlockRef:
    ref = response.result
    return BlockRef(bytes(ref.hash)[::-1], int(ref.height))


def _tip(response: Any, keeper: Keeper) -> BlockRef | None:
    return _block_ref(response) if response.hasResult else None


def _tip_or_null(response: Any, keeper: Keeper) -> BlockRef | None:
    return _block_ref(response) if response._has("result") else None


def _verdict(response: Any, keeper: Keeper) -> CheckResult:
    return CheckResult(bool(response.result), str(response.reason), str(response.debug))


def _short_verdict(response: Any, keeper: Keeper) -> CheckResult:
    return CheckResult(bool(response.result))


def _coinbase(response: Any, keeper: Keeper) -> CoinbaseTx:
    tx = response.result
    return CoinbaseTx(
        version=int(tx.version),
        sequence=int(tx.sequence),
        script_sig_prefix=bytes(tx.scriptSigPrefix),
        witness=bytes(tx.witness) if tx._has("witness") else None,
        block_reward_remaining=int(tx.blockRewardRemaining),
        required_outputs=tuple(bytes(one) for one in tx.requiredOutputs),
        lock_time=int(tx.lockTime),
    )


def _made(interface: str) -> Callable[[Any, Keeper], int | None]:
    """A null capability cannot be told from a dead one but by _has()."""

    def decode(response: Any, keeper: Keeper) -> int | None:
        return keeper.keep(interface, response.result) if response._has("result") else None

    return decode


def _operations() -> dict[str, Operation]:
    table = [
        Operation("Init", "makeEcho", _made("Echo"), makes="Echo"),
        Operation("Init", "makeMining", _made("Mining"), waits=True, makes="Mining"),
        Operation("Init", "makeMiningOld2", _made("Mining"), waits=True, makes="Mining"),
        Operation("Init", "makeRpc", _made("Rpc"), makes="Rpc"),
        Operation("Echo", "destroy", _nothing),
        Operation("Echo", "echo", _text),
        Operation("Rpc", "executeRpc", _text),
        Operation("Mining", "isTestChain", _bool),
        Operation("Mining", "isInitialBlockDownload", _bool),
        Operation("Mining", "getTip", _tip),
        Operation("Mining", "waitTipChanged", _tip_or_null, waits=True),
        Operation("Mining", "createNewBlock", _made("BlockTemplate"), waits=True, makes="BlockTemplate"),
        Operation("Mining", "checkBlock", _verdict),
        Operation("Mining", "interrupt", _nothing),
        Operation("Mining", "submitBlock", _verdict),
        Operation("Mining", "getTransactionsByTxID", _transactions),
        Operation("Mining", "getTransactionsByWitnessID", _transactions),
        Operation("BlockTemplate", "destroy", _nothing),
        Operation("BlockTemplate", "getBlockHeader", _data),
        Operation("BlockTemplate", "getBlock", _data),
        Operation("BlockTemplate", "getTxFees", _numbers),
        Operation("BlockTemplate", "getTxSigops", _numbers),
        Operation("BlockTemplate", "getCoinbaseTx", _coinbase),
        Operation("BlockTemplate", "getCoinbaseMerklePath", _hashes),
        Operation("BlockTemplate", "submitSolution", _verdict),
        Operation("BlockTemplate", "submitSolutionOld7", _short_verdict),
        Operation("BlockTemplate", "waitNext", _made("BlockTemplate"), waits=True, makes="BlockTemplate"),
        Operation("BlockTemplate", "interruptWait", _nothing),
    ]
    operations = {f"{one.interface}.{one.method}": one for one in table}
    # What v30 has under the same names.
    operations["Mining.createNewBlockV30"] = Operation("Mining", "createNewBlock", _made("BlockTemplate"), makes="BlockTemplate")
    operations["BlockTemplate.submitSolutionV30"] = Operation("BlockTemplate", "submitSolution", _short_verdict)
    return operations


OPERATIONS: Final = _operations()
