"""zmqpub's IPC client against zmqpub's IPC server, in two processes: plain objects at both ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ipc_peers import eventually

import zmqpub
from zmqpub import errors, ipc
from zmqpub.interfaces import BlockCheckOptions, BlockRef, CheckResult, CoinbaseTx

SERVER = """
import signal, sys, threading
from zmqpub import ipc
from zmqpub.interfaces import BlockRef, CheckResult, CoinbaseTx
changed = threading.Condition()
height, waiting = 100, 0
def ref(): return BlockRef(height.to_bytes(32, "big"), height)
class Waits:
    flag = False
    def wait(self, over, timeout):
        global waiting
        with changed:
            waiting += 1
            changed.wait_for(lambda: self.flag or over(), timeout)
            waiting -= 1
            if self.flag:
                self.flag = False
                return False
            return True
    def interrupt(self):
        with changed:
            self.flag = True
            changed.notify_all()
class Template(Waits):
    def __init__(self): self.base = height
    def get_block_header(self): return bytes(80)
    def get_block(self): return b"block" * 1000
    def get_tx_fees(self): return [1, -2]
    def get_tx_sigops(self): return [3]
    def get_coinbase_tx(self): return CoinbaseTx(2, 1, b"p", b"", 50, (b"a", b"b"), 7)
    def get_coinbase_merkle_path(self): return [bytes(31) + b"\\1"]
    def submit_solution(self, version, timestamp, nonce, coinbase): return CheckResult(nonce == 7, "" if nonce == 7 else "bad", "why")
    def wait_next(self, timeout=None, fee_threshold=0):
        return Template() if self.wait(lambda: height != self.base, timeout) and height != self.base else None
    def interrupt_wait(self): self.interrupt()
class Mining(Waits):
    def is_test_chain(self): return True
    def is_initial_block_download(self): return False
    def get_tip(self): return ref()
    def wait_tip_changed(self, current_tip, timeout=None):
        return ref() if self.wait(lambda: ref().hash != current_tip, timeout) else None
    def create_new_block(self, options=None, *, cooldown=True): return None if cooldown else Template()
    def check_block(self, block, options=None): return CheckResult(False, f"{len(block)} {options.check_pow}")
    def submit_block(self, block): return CheckResult(True)
    def get_transactions_by_txid(self, txids): return [txid[-1:] if txid[-1] else None for txid in txids]
    def get_transactions_by_witness_id(self, wtxids): return []
class Echo:
    def echo(self, echo):
        global height
        if echo == "tip":
            with changed:
                height += 1
                changed.notify_all()
        if echo == "waiting": return str(waiting)
        if echo == "raise": raise ValueError("went wrong")
        return echo
class Init:
    def make_echo(self): return Echo()
    def make_mining(self): return Mining()
server = ipc.Ipc("server", Init())
server.listen_address("unix:" + sys.argv[1])
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "s"
    environment = {**os.environ, "PYTHONPATH": str(Path(zmqpub.__file__).parents[1])}
    tmp_path.chmod(0o700)
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(path)], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield f"unix:{path}"
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def tip(height: int) -> bytes:
    return height.to_bytes(32, "big")


def test_values_go_through_unchanged(address: str) -> None:
    with ipc.connect(address) as init:
        assert init.version is ipc.NodeVersion.V31  # it has no Rpc
        mining = init.make_mining()
        assert mining.is_test_chain()
        assert not mining.is_initial_block_download()
        assert mining.get_tip() == BlockRef(tip(100), 100)
        assert mining.check_block(bytes(7), BlockCheckOptions(check_pow=False)) == CheckResult(False, "7 False", "")
        assert mining.submit_block(b"x") == CheckResult(True)
        assert mining.get_transactions_by_txid([bytes(31) + b"\7", bytes(32)]) == (b"\7", None)
        assert mining.create_new_block() is None
        with mining.create_new_block(cooldown=False) as template:  # type: ignore[union-attr]
            assert template.get_block() == b"block" * 1000
            assert template.get_tx_fees() == (1, -2)
            assert template.get_coinbase_tx() == CoinbaseTx(2, 1, b"p", b"", 50, (b"a", b"b"), 7)
            assert template.get_coinbase_merkle_path() == (bytes(31) + b"\1",)
            assert template.submit_solution(1, 2, 7, b"c") == CheckResult(True, "", "why")
            assert template.submit_solution(1, 2, 8, b"c") == CheckResult(False, "bad", "why")
        with pytest.raises(errors.UnimplementedError):
            init.make_rpc()
        with pytest.raises(errors.RemoteError, match="went wrong") as caught:
            init.make_echo().echo("raise")
        assert "Traceback" not in str(caught.value)


def test_waits_interrupts_and_ends(address: str) -> None:
    with ipc.connect(address) as init:
        mining, echo = init.make_mining(), init.make_echo()
        results: list[BlockRef | None] = []
        waiters = [threading.Thread(target=lambda: results.append(mining.wait_tip_changed(tip(100)))) for _ in range(6)]
        for waiter in waiters:
            waiter.start()
        eventually(lambda: echo.echo("waiting") == "6")
        mining.interrupt()
        for waiter in waiters:
            waiter.join(20)
        assert results == [None] * 6
        assert mining.wait_tip_changed(tip(100), 0.05) == BlockRef(tip(100), 100)
        template = mining.create_new_block(cooldown=False)
        assert template is not None
        waiter = threading.Thread(target=template.wait_next)
        waiter.start()
        eventually(lambda: echo.echo("waiting") == "1")
        template.destroy()
        waiter.join(20)
        assert not waiter.is_alive()
        echo.echo("tip")
        assert mining.wait_tip_changed(tip(100)) == BlockRef(tip(101), 101)


def test_from_asyncio(address: str) -> None:
    async def main() -> None:
        async with ipc.connect_async(address) as init:
            mining, echo = await init.make_mining(), await init.make_echo()
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(mining.wait_tip_changed(tip(100)), 0.1)
                assert await mining.wait_tip_changed(tip(100), 0.05) == BlockRef(tip(100), 100)
            assert await asyncio.gather(*(echo.echo(str(n)) for n in range(500))) == [str(n) for n in range(500)]

    asyncio.run(main())
