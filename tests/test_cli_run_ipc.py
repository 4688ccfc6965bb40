"""`zmqpub run -ipcbind`: Bitcoin Core's interfaces served beside the publisher, for our own client, bitcoin-cli and sv2-tp.

bitcoin-cli: the path in the environment variable ZMQPUB_BITCOIN_CLI, or on PATH.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from block_samples import chain, hash_of, write_raw
from programs import ANY_PORT, ENVIRONMENT, PATIENCE, Program, once
from test_regtest_mining import solution

from zmqpub import Block, HashBlock, Sequence, SequenceLabel, Subscriber
from zmqpub.errors import RpcError, UnimplementedError

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("capnp")
ipc = importlib.import_module("zmqpub.ipc")

BITCOIN_CLI = os.environ.get("ZMQPUB_BITCOIN_CLI") or shutil.which("bitcoin-cli")
needs_bitcoin_cli = pytest.mark.skipif(
    BITCOIN_CLI is None, reason="no bitcoin-cli: set ZMQPUB_BITCOIN_CLI to the path of one, or put it on PATH"
)
QUIET = ("--block-interval=1000000", "--rate=20", "--seed=5")

WAITER = """
import sys
from zmqpub import ipc
from zmqpub.errors import IpcError

with ipc.connect(sys.argv[1]) as init:
    mining = init.make_mining()
    tip = mining.get_tip()
    template = mining.create_new_block()
    print("waiting", flush=True)
    try:
        print(template.wait_next())
    except IpcError:
        print("gone")
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as made:
        yield Path(made)


def address_of(program: Program) -> str:
    return str(program.line(r"^bound ipc (\S+)$")[1])


def publisher(directory: Path, *arguments: str) -> Program:
    return Program("run", f"-ipcbind=unix:{directory}/node.sock", f"-zmqpubhashblock={ANY_PORT}", *arguments)


def wait_for_blocks(rpc: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while rpc.execute("getrawmempool") == []:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_chain_is_the_published_one(directory: Path) -> None:
    with publisher(directory, "--block-interval=0.5", "--rate=20", "--reorg-rate=0.3") as program:
        zmq_address, address = program.address(), address_of(program)
        assert address == f"unix:{directory}/node.sock"
        with Subscriber(zmq_address, topics=["hashblock"]) as subscriber, ipc.connect(address) as init:
            rpc, mining = init.make_rpc(), init.make_mining()
            assert init.make_echo().echo("\u00e9") == "\u00e9"
            assert rpc.execute("getzmqnotifications") == [{"type": "pubhashblock", "address": zmq_address, "hwm": 1000}]
            height = rpc.execute("getblockcount")
            assert height > 100
            seen = 0
            while seen < 5:
                message = subscriber.recv(PATIENCE)
                if not isinstance(message, HashBlock):
                    continue
                header = rpc.execute("getblockheader", message.hash.hex())  # known before it is published
                assert header["height"] >= height - 3
                assert Block(bytes.fromhex(rpc.execute("getblock", message.hash.hex(), 0))).hash == message.hash
                seen += 1
            assert mining.get_tip().height > height
        assert program.end(signal.SIGINT) == 0
        assert program.errors == []
    assert not (directory / "node.sock").exists()


def test_mined_block_is_published(directory: Path) -> None:
    with publisher(directory, *QUIET, f"-zmqpubsequence={ANY_PORT}") as program:
        zmq_address = program.address()
        with Subscriber(zmq_address, topics=["hashblock", "sequence"]) as subscriber, ipc.connect(address_of(program)) as init:
            mining, rpc = init.make_mining(), init.make_rpc()
            wait_for_blocks(rpc)
            mined = []
            for _ in range(5):
                tip = mining.get_tip()
                with mining.create_new_block() as template:
                    assert template.submit_solution(*solution(template))
                    solved = Block(template.get_block())
                changed = mining.wait_tip_changed(tip.hash, timeout=PATIENCE)
                assert (changed.hash, changed.height) == (solved.hash, tip.height + 1)
                assert rpc.execute("getbestblockhash") == solved.hash.hex()
                mined.append(solved.hash)
            assert mining.submit_block(bytes(solved)).reason == "duplicate"
            told: list[bytes] = []
            connected: list[bytes] = []
            while mined[-1] not in told or mined[-1] not in connected:
                message = subscriber.recv(PATIENCE)
                if isinstance(message, HashBlock):
                    told.append(message.hash)
                elif isinstance(message, Sequence) and message.label is SequenceLabel.CONNECTED:
                    connected.append(message.hash)
            assert told == mined[-len(told) :]
            assert connected == mined[-len(connected) :]
        assert program.end(signal.SIGTERM) == 0


def test_clients_wait_while_the_program_ends(directory: Path) -> None:
    """A call that waits for the chain does not hold up the end."""
    with publisher(directory, *QUIET) as program:
        with Program(command=[sys.executable, "-c", WAITER, address_of(program)]) as client:
            client.line("waiting")
            start = time.monotonic()
            assert program.end(signal.SIGTERM) == 0
            assert time.monotonic() - start < PATIENCE / 2
            assert client.end() == 0
            assert client.seen[-1] in ("None", "gone")


def test_killed_client_leaves_the_rest_alone(directory: Path) -> None:
    with publisher(directory, *QUIET) as program:
        address = address_of(program)
        for _ in range(3):
            with Program(command=[sys.executable, "-c", WAITER, address]) as client:
                client.line("waiting")
                client.send(signal.SIGKILL)
                client.end()
        with ipc.connect(address) as init:
            mining = init.make_mining()
            with mining.create_new_block() as template:
                assert template.submit_solution(*solution(template))
        assert program.end(signal.SIGTERM) == 0
        assert program.errors == []


def test_block_files_are_read_again(directory: Path) -> None:
    blocks = chain(12)
    write_raw(directory / "blocks", blocks)
    with publisher(directory, f"--source=blocks:{directory}/blocks", "--rate=20", "--wait-subscribers=1", "--linger=forever") as program:
        zmq_address, address = program.address(), address_of(program)
        with ipc.connect(address) as init:
            rpc = init.make_rpc()
            with pytest.raises(RpcError, match="Waiting for the first block"):
                rpc.execute("getblockcount")
            with pytest.raises(UnimplementedError):
                init.make_mining()
            with Subscriber(zmq_address, topics=["hashblock"]) as subscriber:
                while rpc.execute("getzmqnotifications") and not isinstance(subscriber.recv(PATIENCE), HashBlock):
                    pass
                deadline = time.monotonic() + PATIENCE
                while rpc.execute("getblockcount") < 5:
                    assert time.monotonic() < deadline
                assert rpc.execute("getblock", hash_of(blocks[1]).hex(), 0) == blocks[1].hex()
                assert rpc.execute("getblockchaininfo")["chain"] == "regtest"


@pytest.mark.parametrize(
    ("address", "code", "text"),
    [
        ("unix:" + "/x" * 100, 2, "unix:/x/x"),
        ("tcp:1", 2, "tcp:1"),
        ("unix:/dev/null/node.sock", 3, "unix:/dev/null/node.sock"),
    ],
)
def test_bad_addresses(address: str, code: int, text: str) -> None:
    program = once("run", f"-ipcbind={address}", f"-zmqpubhashblock={ANY_PORT}")
    assert program.process.returncode == code
    (line,) = program.errors
    assert line.startswith("zmqpub: error: ")
    assert text in line


def test_address_that_is_taken(directory: Path) -> None:
    with publisher(directory, *QUIET) as program:
        address = address_of(program)
        other = once("run", f"-ipcbind={address}", f"-zmqpubhashblock={ANY_PORT}")
        assert other.process.returncode == 3
        assert address in other.errors[0]
        with ipc.connect(address) as init:
            assert init.make_echo().echo("still there") == "still there"
        assert program.end(signal.SIGTERM) == 0


def test_stale_socket_is_replaced(directory: Path) -> None:
    path = directory / "node.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with publisher(directory, *QUIET) as program:
        with ipc.connect(address_of(program)) as init:
            assert init.make_echo().echo("x") == "x"
        assert program.end(signal.SIGTERM) == 0


def test_without_the_extra(directory: Path) -> None:
    code = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'capnp' else find(name, *rest)\n"
        "from zmqpub.cli.app import run_program\n"
        "sys.exit(run_program(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "run", f"-ipcbind=unix:{directory}/x", f"-zmqpubhashblock={ANY_PORT}"]
    with Program(command=command) as program:
        assert program.end() == 9
        assert program.errors == ["zmqpub: error: zmqpub.ipc needs pycapnp: pip install 'zmqpub[ipc]'"]


# bitcoin-cli


def bitcoin_cli(address: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert BITCOIN_CLI is not None
    command = [BITCOIN_CLI, "-regtest", f"-datadir={directory}", f"-ipcconnect={address}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ENVIRONMENT, check=False)


@needs_bitcoin_cli
@pytest.mark.unsanitized
def test_bitcoin_cli_is_answered(directory: Path) -> None:
    with publisher(directory, *QUIET) as program:
        zmq_address, address = program.address(), address_of(program)

        def ask(*arguments: str, code: int = 0) -> str:
            done = bitcoin_cli(address, directory, *arguments)
            assert done.returncode == code, done
            return (done.stdout if code == 0 else done.stderr).strip()

        with ipc.connect(address) as init:
            tip = init.make_mining().get_tip()
            wait_for_blocks(init.make_rpc())
        best = ask("getbestblockhash")
        assert (int(ask("getblockcount")), best) == (tip.height, tip.hash.hex())
        assert ask("getblockhash", str(tip.height)) == best
        block = Block(bytes.fromhex(ask("getblock", best, "0")))
        assert block.hash == tip.hash
        assert json.loads(ask("getblock", best))["tx"] == [txid.hex() for txid in block.txids]
        assert json.loads(ask("-named", "getblockheader", f"blockhash={best}"))["height"] == tip.height
        assert bytes.fromhex(ask("getblockheader", best, "false")) == bytes(block)[:80]
        waiting = json.loads(ask("getrawmempool", "false", "true"))
        assert waiting["mempool_sequence"] > len(waiting["txids"]) > 0
        assert set(waiting["txids"]) <= set(json.loads(ask("getrawmempool", "true")))
        assert json.loads(ask("getzmqnotifications")) == [{"type": "pubhashblock", "address": zmq_address, "hwm": 1000}]
        assert int(ask("uptime")) >= 0
        assert "== Blockchain ==" in ask("help")
        assert ask("help", "getblock").startswith('getblock "blockhash" ( verbosity )')
        info = ask("-getinfo")
        assert "Chain: regtest" in info
        assert f"Blocks: {tip.height}" in info
        assert ask("getblockhash", "100000", code=8) == "error code: -8\nerror message:\nBlock height out of range"
        assert ask("getblockhash", code=1).startswith("error code: -1\nerror message:\ngetblockhash height")
        assert "Method not found" in ask("stop", code=89)
        assert program.end(signal.SIGTERM) == 0
        assert program.errors == []
