"""`--http`: `zmqpub ipc rpc` and `zmqpub run` with a node whose IPC has no JSON-RPC."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from http_peers import HttpNode
from ipc_node import IpcNode, needs_node
from ipc_peers import Peer
from programs import Program, once

from zmqpub import ipc
from zmqpub.interfaces import BlockRef

pytest.importorskip("click")
pytest.importorskip("rich")

ADDRESS = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as name:
        yield Path(name)


def test_rpc(directory: Path) -> None:
    chain = directory / "regtest"
    chain.mkdir()
    with HttpNode() as node, Peer(chain / "node.sock", "v31") as peer:
        node.cookie = b"__cookie__:1"
        (chain / ".cookie").write_bytes(node.cookie)
        (told,) = once("ipc", "rpc", peer.address, "a", "1", "--json", "--http", node.url).seen
        assert told == '["a", [1], "/"]'
        program = once("ipc", "rpc", "unix", "-datadir", str(directory), "-chain=regtest", "a", "--json", "--http", node.url)
        assert program.seen == ['["a", [], "/"]']
        program = once("ipc", "rpc", peer.address, "unknown", "--http", node.url)
        assert (program.process.returncode, program.errors) == (12, ["zmqpub: error: unknown: Method not found (code -32601)"])
        program = once("ipc", "rpc", peer.address, "a", "--http", f"http://me:secret@127.0.0.1:{node.port}")
        assert program.process.returncode == 3
        (line,) = program.errors
        assert "user 'me'" in line
        assert "secret" not in line
        program = once("ipc", "rpc", peer.address, "a")
        assert program.process.returncode == 11
        assert "http=" in program.errors[0]
        program = once("ipc", "rpc", peer.address, "a", "--http", "https://me:secret@127.0.0.1")
        assert program.process.returncode == 2
        assert "secret" not in program.errors[0]
        program = once("ipc", "rpc", peer.address, "a", "--http", "http://127.0.0.1:1", "--deadline", "5")
        assert program.process.returncode == 3


def test_run_checks_its_url() -> None:
    program = once("run", "--source", "bitcoin-node:unix:/nowhere/node.sock", "--http", "ftp://127.0.0.1")
    assert program.process.returncode == 2
    (line,) = program.errors
    assert line.startswith("zmqpub: error: --http=ftp://127.0.0.1: expected http://")
    program = once("run", "--http", "http://127.0.0.1")
    assert program.process.returncode == 2
    assert "--http: is for --source bitcoin-node only" in program.errors[0]


class OldMining:
    """A node's, as far as v31 has it."""

    def __init__(self, mining: ipc.Mining) -> None:
        self._mining = mining

    def get_tip(self) -> BlockRef | None:
        return self._mining.get_tip()

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef | None:
        return self._mining.wait_tip_changed(current_tip, timeout)

    def is_initial_block_download(self) -> bool:
        return self._mining.is_initial_block_download()


class OldInit:
    def __init__(self, mining: ipc.Mining) -> None:
        self._mining = mining

    def make_mining(self) -> OldMining:
        return OldMining(self._mining)


@needs_node
@pytest.mark.unsanitized
def test_run_before_a_node_without_rpc_in_its_ipc(directory: Path) -> None:
    """A node of today behind an Init of v31's: blocks come over HTTP, and are published."""
    node = IpcNode(directory)
    address = f"ipc://{directory}/mine"
    try:
        (base,) = node("generatetoaddress", 1, ADDRESS)
        options = ("--source", f"bitcoin-node:unix:{directory}/regtest/old.sock", "--http", node.url, "--after", base)
        with ipc.connect(node.socket) as init, ipc.Ipc("old", OldInit(init.make_mining()), data_dir=directory / "regtest") as server:
            server.listen_address("unix:old.sock")
            with (
                Program(
                    "run", *options, f"--zmqpubrawblock={address}", f"--zmqpubsequence={address}", "--wait-subscribers", "1"
                ) as program,
                zmq.Context() as context,
                context.socket(zmq.SUB) as subscriber,
            ):
                subscriber.linger = 0
                subscriber.rcvtimeo = 30_000
                subscriber.subscribe(b"")
                subscriber.connect(address)
                program.line("publishing")
                made = node("generatetoaddress", 2, ADDRESS)
                bodies: list[str] = []
                names: list[bytes] = []
                while len(bodies) < 2 or len(names) < 2:
                    topic, body, _ = subscriber.recv_multipart()
                    if topic == b"rawblock":
                        bodies.append(body.hex())
                    else:
                        names.append(body[:33])
                assert bodies == [node("getblock", name, 0) for name in made]
                assert names == [bytes.fromhex(name) + b"C" for name in made]
                assert program.end(signal.SIGTERM) == 0
    finally:
        node.stop()
