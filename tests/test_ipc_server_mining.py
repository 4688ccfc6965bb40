"""Mining and block templates served to bare pycapnp clients: every field, every null, and waits that are interrupted."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

from bare_capnp import Bare, bare, error_of
from ipc_rig import serving

from zmqpub.interfaces import BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx

HASH = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


class Template:
    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.interrupted = threading.Event()

    def get_block_header(self) -> bytes:
        return bytes(80)

    def get_block(self) -> bytes:
        return b"block"

    def get_tx_fees(self) -> list[int]:
        return [1, -2, 2**62]

    def get_tx_sigops(self) -> tuple[int, ...]:
        return (3,)

    def get_coinbase_tx(self) -> CoinbaseTx:
        return CoinbaseTx(-1, 5, b"prefix", b"w" * 32, 50, (b"one", b""), 9)

    def get_coinbase_merkle_path(self) -> list[bytes]:
        return [HASH, HASH[::-1]]

    def submit_solution(self, version: int, timestamp: int, nonce: int, coinbase: bytes) -> CheckResult:
        self.log.append(("submit_solution", version, timestamp, nonce, coinbase))
        return CheckResult(False, "high-hash", "more")

    def wait_next(self, timeout: float | None = None, fee_threshold: int = 0) -> Template | None:
        self.log.append(("wait_next", timeout, fee_threshold))
        if timeout is None:
            self.interrupted.wait(30)
            return None
        return Template(self.log) if timeout else None

    def interrupt_wait(self) -> None:
        self.interrupted.set()

    def destroy(self) -> None:
        self.log.append("destroy")


class Mining:
    tip: BlockRef | None = BlockRef(HASH, 7)

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.interrupted = threading.Event()

    def is_test_chain(self) -> bool:
        return True

    def is_initial_block_download(self) -> bool:
        return False

    def get_tip(self) -> BlockRef | None:
        return self.tip

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef | None:
        self.log.append(("wait_tip_changed", current_tip, timeout))
        if timeout is None:
            self.interrupted.wait(30)
            return None
        return self.tip

    def create_new_block(self, options: BlockCreateOptions | None = None, *, cooldown: bool = True) -> Template | None:
        self.log.append(("create_new_block", options, cooldown))
        return Template(self.log) if cooldown else None

    def check_block(self, block: bytes, options: BlockCheckOptions | None = None) -> CheckResult:
        self.log.append(("check_block", block, options))
        return CheckResult(True)

    def submit_block(self, block: bytes) -> CheckResult:
        return CheckResult(False, "duplicate", block.decode())

    def get_transactions_by_txid(self, txids: list[bytes]) -> list[bytes | None]:
        return [txid if number else None for number, txid in enumerate(txids)]

    async def get_transactions_by_witness_id(self, wtxids: list[bytes]) -> list[bytes | None]:
        return [b"tx" for _ in wtxids]

    async def interrupt(self) -> None:
        self.interrupted.set()


class Init:
    def __init__(self, mining: Any = Mining) -> None:
        self.log: list[Any] = []
        self.mining = mining

    def make_mining(self) -> Any:
        return self.mining(self.log)


async def every_field(peer: Bare, internal: str) -> Any:
    hash_ = bytes.fromhex(internal)
    context = await peer.context()
    mining = (await peer.init.makeMining(context)).result
    answers: dict[str, Any] = {
        "test": (await mining.isTestChain(context)).result,
        "ibd": (await mining.isInitialBlockDownload(context)).result,
    }
    tip = await mining.getTip(context)
    answers["tip"] = [tip.hasResult, bytes(tip.result.hash).hex(), tip.result.height]
    changed = await mining.waitTipChanged(context, hash_, 1500.0)
    answers["changed"] = [bytes(changed.result.hash).hex(), changed.result.height]
    options = peer.schema.BlockCheckOptions.new_message(checkPow=False)
    checked = await mining.checkBlock(context, b"checked", options)
    answers["checked"] = [checked.result, checked.reason, checked.debug]
    submitted = await mining.submitBlock(context, b"sent")
    answers["submitted"] = [submitted.result, submitted.reason, submitted.debug]
    answers["txs"] = [bytes(one).hex() for one in (await mining.getTransactionsByTxID(context, [hash_, hash_])).result]
    answers["wtxs"] = [bytes(one).hex() for one in (await mining.getTransactionsByWitnessID(context, [hash_])).result]

    options = peer.schema.BlockCreateOptions.new_message(useMempool=False, blockReservedWeight=4_000)
    template = (await mining.createNewBlock(context, options)).result
    answers["header"] = bytes((await template.getBlockHeader(context)).result).hex()
    answers["block"] = bytes((await template.getBlock(context)).result).decode()
    answers["fees"] = list((await template.getTxFees(context)).result)
    answers["sigops"] = list((await template.getTxSigops(context)).result)
    coinbase = (await template.getCoinbaseTx(context)).result
    answers["coinbase"] = [
        coinbase.version,
        coinbase.sequence,
        bytes(coinbase.scriptSigPrefix).decode(),
        bytes(coinbase.witness).decode(),
        coinbase.blockRewardRemaining,
        [bytes(one).decode() for one in coinbase.requiredOutputs],
        coinbase.lockTime,
    ]
    answers["path"] = [bytes(one).hex() for one in (await template.getCoinbaseMerklePath(context)).result]
    old = await template.submitSolutionOld7(context, 2**32 - 1, 2, 3, b"old")
    new = await template.submitSolution(context, 1, 2, 3, b"new")
    answers["solution"] = [old.result, new.result, new.reason, new.debug]
    options = peer.schema.BlockWaitOptions.new_message(timeout=250.0, feeThreshold=9)
    following = await template.waitNext(context, options)
    answers["next"] = following._has("result")
    await following.result.destroy(context)
    await template.destroy(context)
    return answers


def test_every_field(path: Path) -> None:
    init = Init()
    with serving(path, init):
        answers = bare(every_field, path, HASH[::-1].hex())
    assert answers == {
        "test": True,
        "ibd": False,
        "tip": [True, HASH[::-1].hex(), 7],
        "changed": [HASH[::-1].hex(), 7],
        "checked": [True, "", ""],
        "submitted": [False, "duplicate", "sent"],
        "txs": ["", HASH.hex()],
        "wtxs": [b"tx".hex()],
        "header": bytes(80).hex(),
        "block": "block",
        "fees": [1, -2, 2**62],
        "sigops": [3],
        "coinbase": [2**32 - 1, 5, "prefix", "w" * 32, 50, ["one", ""], 9],
        "path": [HASH[::-1].hex(), HASH.hex()],
        "solution": [False, False, "high-hash", "more"],
        "next": True,
    }
    assert init.log == [
        ("wait_tip_changed", HASH, 1.5),
        ("check_block", b"checked", BlockCheckOptions(check_pow=False)),
        ("create_new_block", BlockCreateOptions(use_mempool=False, block_reserved_weight=4_000), True),
        ("submit_solution", 2**32 - 1, 2, 3, b"old"),
        ("submit_solution", 1, 2, 3, b"new"),
        ("wait_next", 0.25, 9),
        "destroy",
        "destroy",
    ]


async def every_null(peer: Bare, hash_: str) -> Any:
    context = await peer.context()
    mining = (await peer.init.makeMining(context)).result
    tip = await mining.getTip(context)
    changed = await mining.waitTipChanged(context, bytes.fromhex(hash_), 0.0)
    options = peer.schema.BlockCreateOptions.new_message()
    none = await mining.createNewBlock(context, options, False)
    template = (await mining.createNewBlock(context, options)).result
    coinbase = (await template.getCoinbaseTx(context)).result
    following = await template.waitNext(context, peer.schema.BlockWaitOptions.new_message(timeout=0.0))
    return [tip.hasResult, *(answer._has("result") for answer in (tip, changed, none, following)), coinbase._has("witness")]


class EmptyTemplate(Template):
    def get_coinbase_tx(self) -> CoinbaseTx:
        return CoinbaseTx(1, 0, b"", None, 0, (), 0)


class EmptyMining(Mining):
    tip = None

    def create_new_block(self, options: BlockCreateOptions | None = None, *, cooldown: bool = True) -> Template | None:
        return EmptyTemplate(self.log) if cooldown else None


def test_every_null(path: Path) -> None:
    with serving(path, Init(EmptyMining)):
        assert bare(every_null, path, HASH.hex()) == [False] * 6


async def timeouts(peer: Bare, hash_: str) -> Any:
    context = await peer.context()
    mining = (await peer.init.makeMining(context)).result
    for timeout in (math.nan, -1.0, 0.0, 1e9):
        await mining.waitTipChanged(context, bytes.fromhex(hash_), timeout)
    return [await error_of(mining.waitTipChanged(context, hash_, 0.0)) for hash_ in (b"", b"short", bytes(33))]


def test_odd_timeouts_and_hashes(path: Path) -> None:
    init = Init()
    with serving(path, init):
        errors = bare(timeouts, path, HASH.hex())
    assert [entry[2] for entry in init.log] == [0.0, 0.0, 0.0, 1e6]
    assert [kind for kind, _ in errors] == ["FAILED"] * 3
    assert "cannot be read" in errors[0][1]


async def interrupts(peer: Bare, hash_: str) -> Any:
    context = await peer.context()
    mining = (await peer.init.makeMining(context)).result
    wait = asyncio.ensure_future(_await(mining.waitTipChanged(context, bytes.fromhex(hash_))))
    await asyncio.sleep(0.3)
    running = not wait.done()
    await mining.interrupt()  # on the very connection whose only thread waits
    first = (await wait)._has("result")
    template = (await mining.createNewBlock(context, peer.schema.BlockCreateOptions.new_message())).result
    wait = asyncio.ensure_future(_await(template.waitNext(context, peer.schema.BlockWaitOptions.new_message())))
    await asyncio.sleep(0.3)
    running = running and not wait.done()
    await template.interruptWait()
    return [running, first, (await wait)._has("result")]


async def _await(call: Any) -> Any:
    return await call


def test_waits_are_interrupted(path: Path) -> None:
    init = Init()
    with serving(path, init):
        assert bare(interrupts, path, HASH.hex()) == [True, False, False]
    assert ("wait_tip_changed", HASH[::-1], None) in init.log
    assert ("wait_next", None, 2_100_000_000_000_000) in init.log


async def unfit(peer: Bare) -> Any:
    context = await peer.context()
    mining = (await peer.init.makeMining(context)).result
    return [
        await error_of(mining.getTip(context)),
        await error_of(mining.isTestChain(context)),
        await error_of(mining.submitBlock(context, b"")),
    ]


class Unfit(Mining):
    tip = BlockRef(HASH, 2**40)

    def is_test_chain(self) -> bool:
        raise LookupError("chain")

    def submit_block(self, block: bytes) -> CheckResult:
        return CheckResult(True, reason=7)  # type: ignore[arg-type]


def test_results_that_do_not_fit_are_errors(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(path, Init(Unfit)):
        answers = bare(unfit, path)
    assert [kind for kind, _ in answers] == ["FAILED"] * 3
    assert answers[1][1] == "remote exception: std::exception: chain"
    assert not [text for _, text in answers if "Traceback" in text or ".py" in text]
    assert "does not fit" in caplog.text
