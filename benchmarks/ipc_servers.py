"""Who answers in the IPC benchmarks: zmqpub's own server, or a Bitcoin Core node, each in a process of its own.

``python ipc_servers.py <path>`` serves Echo and Rpc. A node is found by the environment variable ZMQPUB_BITCOIN_NODE, or on PATH.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

NODE_OPTIONS = ("-listen=0", "-connect=0", "-listenonion=0", "-discover=0", "-dnsseed=0", "-printtoconsole=0", "-ipcbind=unix")
PATIENCE = 60.0


class _Answers:
    """Rpc in its smallest form, so that it is not the server's JSON-RPC that is measured."""

    def execute_rpc(self, request: str, uri: str = "", user: str = "") -> str:
        asked = json.loads(request)
        return json.dumps({"jsonrpc": "2.0", "result": 0, "id": asked["id"]})


class _Served:
    def make_echo(self) -> Any:
        from zmqpub import ipc

        return ipc.EchoServer()

    def make_rpc(self) -> Any:
        from zmqpub import ipc

        answers = _Answers()
        answers.execute_rpc = ipc.inline(answers.execute_rpc.__func__).__get__(answers)  # type: ignore[attr-defined,method-assign]
        return answers


@cache
def zmqpub_server() -> str:
    """The path of its socket."""
    path = Path(_directory()) / "zmqpub.sock"
    process = subprocess.Popen([sys.executable, __file__, str(path)], stdout=subprocess.PIPE)
    atexit.register(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return str(path)


@cache
def bitcoin_node() -> str:
    """The path of its socket; skips where there is no node."""
    program = os.environ.get("ZMQPUB_BITCOIN_NODE") or shutil.which("bitcoin-node")
    if not program:
        pytest.skip("no bitcoin-node: set ZMQPUB_BITCOIN_NODE, or put it on PATH")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = f"-rpcport={probe.getsockname()[1]}"  # not one that another node has
    process = subprocess.Popen([program, "-regtest", f"-datadir={_directory()}", port, *NODE_OPTIONS])
    atexit.register(process.wait)
    atexit.register(process.terminate)
    path = Path(_directory()) / "regtest" / "node.sock"
    end = time.monotonic() + PATIENCE
    while True:
        from zmqpub import errors, ipc

        try:
            with ipc.connect(f"unix:{path}") as init:
                init.make_rpc().execute("getblockcount")
                return str(path)
        except (errors.IpcError, errors.RpcError):
            if time.monotonic() > end or process.poll() is not None:
                raise
            time.sleep(0.1)


SERVERS = {"zmqpub's server": zmqpub_server, "bitcoin-node": bitcoin_node}


@cache
def _directory() -> str:
    directory = tempfile.mkdtemp(prefix="zmqpub-bench-")
    atexit.register(shutil.rmtree, directory, True)
    return directory


if __name__ == "__main__":
    import signal

    from zmqpub import ipc

    serving = ipc.Ipc("bench", _Served())
    serving.listen_address(f"unix:{sys.argv[1]}")
    print("ready", flush=True)
    signal.pause()
