"""`zmqpub listen` and Bitcoin Core itself.

Needs ``bitcoind``: the path in the environment variable ZMQPUB_BITCOIND, or on PATH.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import TOPICS, connected_listener, free_port

pytest.importorskip("click")
pytest.importorskip("rich")

BITCOIND = os.environ.get("ZMQPUB_BITCOIND") or shutil.which("bitcoind")

pytestmark = pytest.mark.skipif(BITCOIND is None, reason="no bitcoind: set ZMQPUB_BITCOIND to the path of one, or put it on PATH")


class Node:
    """A regtest node without peers that publishes all topics at ``address``."""

    def __init__(self, directory: Path) -> None:
        assert BITCOIND is not None
        self.port, self.address = free_port(), f"tcp://127.0.0.1:{free_port()}"
        self.cookie = directory / "regtest" / ".cookie"
        options = ("-regtest", "-listen=0", "-connect=0", "-dnsseed=0", "-printtoconsole=0", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1")
        topics = (f"-zmqpub{topic}={self.address}" for topic in TOPICS)
        self.process = subprocess.Popen(
            [BITCOIND, *options, f"-datadir={directory}", f"-rpcport={self.port}", *topics],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __call__(self, method: str, *parameters: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            authorization = base64.b64encode(self.cookie.read_bytes()).decode()
            body = json.dumps({"method": method, "params": parameters})
            connection.request("POST", "/", body, {"Authorization": f"Basic {authorization}"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["error"] is None, answer["error"]
        return answer["result"]

    def wait_until_ready(self) -> None:
        for _ in range(600):
            try:
                self("getblockcount")
            except (OSError, AssertionError):
                assert self.process.poll() is None, "bitcoind did not start"
                time.sleep(0.1)
            else:
                return
        pytest.fail("bitcoind did not answer within a minute")


@pytest.fixture
def node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as directory:
        made = Node(Path(directory))
        try:
            made.wait_until_ready()
            yield made
        finally:
            made.process.terminate()
            try:
                made.process.wait(60)
            except subprocess.TimeoutExpired:
                made.process.kill()
                made.process.wait()


def test_what_the_node_says_is_what_is_shown(node: Node) -> None:
    with connected_listener(node.address, "--bodies") as listener:
        time.sleep(2)  # until its subscriptions are there, which only the publisher could tell
        hashes = node("generatetodescriptor", 12, "raw(51)")
        node("invalidateblock", hashes[-1])
        listener.line('"label": "D"')
        assert listener.end(signal.SIGTERM) == 0
    *lines, summary = listener.objects()
    messages = [line for line in lines if line["event"] == "message"]
    assert summary["missed"] == summary["malformed"] == summary["restarts"] == 0
    for topic in ("hashblock", "rawblock"):
        assert [line["hash"] for line in messages if line["topic"] == topic] == hashes
    assert [(line["label"], line["hash"]) for line in messages if line["topic"] == "sequence"] == [
        *(("C", block_hash) for block_hash in hashes),
        ("D", hashes[-1]),
    ]
    coinbases = [node("getblock", block_hash)["tx"][0] for block_hash in hashes]
    for topic in ("hashtx", "rawtx"):
        assert [line["hash"] for line in messages if line["topic"] == topic] == [*coinbases, coinbases[-1]]
    bodies = [line["body"] for line in messages if line["topic"] == "rawblock"]
    assert bodies == [node("getblock", block_hash, 0) for block_hash in hashes]
    assert sorted(row["topic"] for row in summary["notifiers"]) == sorted(
        line["type"].removeprefix("pub") for line in node("getzmqnotifications")
    )
