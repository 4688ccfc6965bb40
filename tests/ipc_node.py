"""A real Bitcoin Core node in regtest that serves its IPC, and publishes over ZeroMQ beside it.

Found by the environment variable ZMQPUB_BITCOIN_NODE, or on PATH as ``bitcoin-node``.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from programs import TOPICS, free_port

BITCOIN_NODE = os.environ.get("ZMQPUB_BITCOIN_NODE") or shutil.which("bitcoin-node")

needs_node = pytest.mark.skipif(
    BITCOIN_NODE is None, reason="no bitcoin-node: set ZMQPUB_BITCOIN_NODE to the path of one, or put it on PATH"
)

PATIENCE = 60.0


class NodeError(Exception):
    """What the node answers."""


class IpcNode:
    """A node without peers, in ``directory``; controlled over HTTP, so that IPC is left to what is tested."""

    def __init__(self, directory: Path, *options: str) -> None:
        assert BITCOIN_NODE is not None
        self.directory = directory
        self.socket = f"unix:{directory}/regtest/node.sock"
        self.notifications = f"ipc://{directory}/zmq"
        self._port = free_port()
        self._command = [
            BITCOIN_NODE,
            "-chain=regtest",
            f"-datadir={directory}",
            "-ipcbind=unix",
            "-listen=0",
            "-connect=0",
            "-listenonion=0",
            "-discover=0",
            "-dnsseed=0",
            "-server=1",
            "-rpcbind=127.0.0.1",
            "-rpcallowip=127.0.0.1",
            f"-rpcport={self._port}",
            "-printtoconsole=0",
            "-acceptnonstdtxn=1",
            *(f"-zmqpub{topic}{option}" for topic in TOPICS for option in (f"=unix:{directory}/zmq", "hwm=0")),
            *options,
        ]
        self.url = f"http://127.0.0.1:{self._port}"
        self._authorization = ""
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        self.start()

    def start(self) -> None:
        """Again, after kill(); returns when it answers."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                cookie = (self.directory / "regtest" / ".cookie").read_bytes()
                self._authorization = "Basic " + base64.b64encode(cookie).decode()
                self("getblockcount")
                return
            except (OSError, NodeError, http.client.HTTPException, ValueError):
                self._connection.close()
                if self.process.poll() is not None or time.monotonic() > end:
                    self.process.kill()
                    _, errors = self.process.communicate()
                    pytest.fail(f"bitcoin-node did not start: {errors.decode()}")
                time.sleep(0.05)

    def kill(self) -> None:
        """At once, as a loss of power would."""
        self.process.kill()
        self.process.communicate()
        self._connection.close()

    def stop(self) -> None:
        """In good order; nothing where it was killed before."""
        if self.process.returncode is not None:
            return
        try:
            if self.process.poll() is None:
                self("stop")
            self.process.wait(PATIENCE)
        except (OSError, NodeError, http.client.HTTPException, subprocess.TimeoutExpired):
            self.process.kill()
        finally:
            self.process.communicate()
            self._connection.close()

    def __call__(self, method: str, *parameters: object) -> Any:
        body = json.dumps({"method": method, "params": parameters})
        self._connection.request("POST", "/", body, {"Authorization": self._authorization})
        answer = json.loads(self._connection.getresponse().read())
        if answer["error"] is not None:
            raise NodeError(f"{method}: {answer['error']}")
        return answer["result"]
