"""The IPC client against a Bitcoin Core node: ZMQPUB_BITCOIN_NODE, or bitcoin-node on PATH."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ipc_peers import eventually

from zmqpub import Block, errors, ipc
from zmqpub.ipc.client import connect_over

NODE = os.environ.get("ZMQPUB_BITCOIN_NODE") or shutil.which("bitcoin-node")
OPTIONS = ("-chain=regtest", "-listen=0", "-connect=0", "-listenonion=0", "-discover=0", "-dnsseed=0", "-printtoconsole=0", "-ipcbind=unix")
ADDRESS = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"

pytestmark = [
    pytest.mark.skipif(not NODE, reason="no bitcoin-node: set ZMQPUB_BITCOIN_NODE, or put it on PATH"),
    pytest.mark.unsanitized,
]


class Node:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        assert NODE
        self.process = subprocess.Popen([NODE, f"-datadir={self.directory}", f"-rpcport={self.port}", *OPTIONS])

    @property
    def data_dir(self) -> Path:
        return self.directory / "regtest"

    def connect(self, *, reconnect: bool = True) -> ipc.Init:
        return ipc.connect("unix", data_dir=self.data_dir, deadline=60, reconnect=ipc.Reconnect(first=True) if reconnect else False)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"))
    try:
        with node.connect() as init:
            rpc = init.make_rpc()
            while True:
                try:
                    rpc.execute("getblockcount")
                    break
                except errors.RpcError:  # warming up
                    time.sleep(0.1)
            rpc.execute("generatetoaddress", 1, ADDRESS)
        yield node
    finally:
        node.process.terminate()
        node.process.wait(60)


@pytest.fixture
def init(node: Node) -> Iterator[ipc.Init]:
    with node.connect(reconnect=False) as init:
        yield init
    assert node.process.poll() is None, "the node crashed"


def test_calls_of_each_interface(init: ipc.Init) -> None:
    assert init.version is ipc.NodeVersion.MASTER
    echo, mining, rpc = init.make_echo(), init.make_mining(), init.make_rpc()
    assert echo.echo("grüße") == "grüße"
    tip = mining.get_tip()
    assert tip is not None
    assert mining.is_test_chain()
    assert rpc.execute("getbestblockhash") == tip.hash.hex()
    assert rpc.batch(["getblockcount", ("getblockhash", tip.height), ("getblockhash", 10**6)])[:2] == [tip.height, tip.hash.hex()]
    with pytest.raises(errors.RpcError, match="Method not found"):
        rpc.execute("nonsense")
    raw = bytes.fromhex(rpc.execute("getblock", tip.hash.hex(), verbosity=0))
    assert Block(raw).hash == tip.hash
    assert mining.submit_block(raw).reason == "duplicate"
    assert mining.check_block(raw).result is False
    assert mining.get_transactions_by_txid([bytes(32)]) == (None,)
    with pytest.raises(errors.RemoteError, match="end of data") as caught:
        mining.check_block(b"x")
    assert caught.value.type.startswith("std::")


def test_templates(init: ipc.Init) -> None:
    mining = init.make_mining()
    with mining.create_new_block(cooldown=False) as template:  # type: ignore[union-attr]
        assert len(template.get_block_header()) == 80
        assert template.get_coinbase_tx().block_reward_remaining == 50 * 10**8
        assert template.get_tx_fees() == ()
        assert len(template.get_block()) > 80
        waiters = [threading.Thread(target=template.wait_next) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        time.sleep(0.2)
    for waiter in waiters:
        waiter.join(20)
        assert not waiter.is_alive()
    with pytest.raises(errors.DestroyedError):
        template.get_block()


def test_interrupts_do_not_stick(init: ipc.Init) -> None:
    mining = init.make_mining()
    tip = mining.get_tip()
    assert tip is not None

    async def cancelled() -> None:
        async with ipc.connect_async(init.address) as other:
            theirs = await other.make_mining()
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(theirs.wait_tip_changed(tip.hash), 0.1)
                start = time.monotonic()
                assert await theirs.wait_tip_changed(tip.hash, 0.2) == tip
                assert time.monotonic() - start >= 0.19

    asyncio.run(cancelled())
    for _ in range(3):
        waiters = [threading.Thread(target=mining.wait_tip_changed, args=(tip.hash,)) for _ in range(4)]
        for waiter in waiters:
            waiter.start()
        time.sleep(0.1)
        mining.interrupt()
        for waiter in waiters:
            waiter.join(20)
            assert not waiter.is_alive()
        assert mining.wait_tip_changed(tip.hash, 0.05) == tip


def test_tip_changes_arrive_at_once(init: ipc.Init) -> None:
    mining, rpc = init.make_mining(), init.make_rpc()
    tip = mining.get_tip()
    assert tip is not None
    for _ in range(10):
        arrived: list[float] = []

        def wait(current: bytes = tip.hash, arrived: list[float] = arrived) -> None:
            mining.wait_tip_changed(current)
            arrived.append(time.perf_counter())

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.05)
        (block,) = rpc.execute("generatetoaddress", 1, ADDRESS)
        answered = time.perf_counter()
        waiter.join(20)
        # The tip has changed before the node answers; 2 ms without load.
        assert arrived[0] - answered < 0.5
        tip = mining.get_tip()
        assert tip is not None
        assert tip.hash.hex() == block


def test_a_spawned_node_is_an_echo(tmp_path: Path) -> None:
    """It has no chain, and ends over makeMining with a context: probing its version may not do that."""
    assert NODE
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([NODE, "-ipcfd", str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=tmp_path)
    with connect_over(ours, f"fd:{ours.fileno()}") as init:
        assert init.make_echo().echo("x") == "x"
    assert process.wait(30) == 0


def test_restart(tmp_path: Path) -> None:
    node = Node(tmp_path)
    try:
        with node.connect() as init:
            mining, echo = init.make_mining(), init.make_echo()
            eventually(lambda: mining.get_tip() is not None)
            tip = mining.get_tip()
            assert tip is not None
            outcome: list[object] = []

            def wait(current: bytes = tip.hash) -> None:
                try:
                    outcome.append(mining.wait_tip_changed(current))
                except errors.DisconnectedError as error:
                    outcome.append(error)

            waiter = threading.Thread(target=wait)
            waiter.start()
            time.sleep(0.2)
            node.process.kill()
            node.process.wait()
            waiter.join(20)
            assert isinstance(outcome[0], errors.DisconnectedError)
            node.start()
            assert echo.echo("again") == "again"
            eventually(lambda: mining.get_tip(timeout=60) == tip)  # none while the chain is being loaded
            assert init.reconnects >= 1
    finally:
        node.process.terminate()
        node.process.wait(60)
