"""The block files of a real Bitcoin Core, obfuscated and not, whole and pruned."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from zmqpub.sources.blocks import BlockFiles
from zmqpub.sources.events import BlockConnected


def node_program() -> str | None:
    return os.environ.get("ZMQPUB_BITCOIND") or shutil.which("bitcoind")


class Node:
    """A bitcoind on regtest, in a directory of its own, on loopback only."""

    def __init__(self, directory: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.directory = directory
        program = node_program()
        assert program
        self.process = subprocess.Popen(
            [
                program, "-regtest", f"-datadir={directory}", "-listen=0", "-dnsseed=0", "-fixedseeds=0", "-server=1",
                f"-rpcport={self.port}", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-disablewallet", *options,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                self.call("getblockcount")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise
            time.sleep(0.1)

    def call(self, method: str, *params: object) -> object:
        cookie = (self.directory / "regtest" / ".cookie").read_bytes()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/",
            json.dumps({"method": method, "params": params, "id": 1}).encode(),
            {"Authorization": "Basic " + base64.b64encode(cookie).decode()},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["result"]

    def stop(self) -> None:
        self.call("stop")
        self.process.wait(60)


@pytest.fixture(params=["-blocksxor=1", "-blocksxor=0"])
def node_blocks(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, list[bytes], int]:
    """The blocks directory of a stopped node, the hashes of its chain, and how many blocks are stale.

    -fastprune makes files of 64 KiB, so that there are several.
    """
    node = Node(tmp_path, request.param, "-fastprune")
    try:
        node.call("generatetodescriptor", 400, "raw(51)")
        fork = node.call("getblockhash", 395)
        node.call("invalidateblock", fork)
        node.call("generatetodescriptor", 20, "raw(52)")
        hashes = [bytes.fromhex(str(node.call("getblockhash", height))) for height in range(415)]
        assert node.call("getblockcount") == 414
        node.stop()
    finally:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
    return tmp_path / "regtest" / "blocks", hashes, 6


@pytest.mark.skipif(node_program() is None, reason="no bitcoind: neither in ZMQPUB_BITCOIND nor on PATH")
def test_the_files_of_a_real_node(node_blocks: tuple[Path, list[bytes], int]) -> None:
    directory, hashes, stale = node_blocks
    source = BlockFiles(directory, on_damage="fail", verify=True)
    events = [event for event in source if isinstance(event, BlockConnected)]
    assert [event.block.hash for event in events] == hashes
    assert [event.height for event in events] == list(range(415))
    assert (source.network, source.stale, source.duplicates, source.damaged) == ("regtest", stale, 0, [])
    assert len(list(directory.glob("blk*.dat"))) > 1

    (directory / "blk00000.dat").unlink()  # as pruning does
    source = BlockFiles(directory, on_damage="fail")
    events = [event for event in source if isinstance(event, BlockConnected)]
    first = events[0].height
    assert 0 < first < 400
    assert [event.block.hash for event in events] == hashes[first:]
    assert [event.height for event in events] == list(range(first, 415))
