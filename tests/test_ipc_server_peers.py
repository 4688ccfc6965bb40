"""Bitcoin Core's own programs as clients of this server: bitcoin-cli, unmodified.

bitcoin-cli: the path in the environment variable ZMQPUB_BITCOIN_CLI, or on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

from ipc_rig import serving, until

BITCOIN_CLI = os.environ.get("ZMQPUB_BITCOIN_CLI") or shutil.which("bitcoin-cli")

pytestmark = [
    pytest.mark.unsanitized,
    pytest.mark.skipif(BITCOIN_CLI is None, reason="no bitcoin-cli: set ZMQPUB_BITCOIN_CLI to the path of one, or put it on PATH"),
]


class Rpc:
    def __init__(self) -> None:
        self.requests: list[tuple[Any, str, str]] = []
        self.began = threading.Event()

    def make_rpc(self) -> Any:
        return self

    def execute_rpc(self, request: str, uri: str = "", user: str = "") -> str:
        decoded = json.loads(request)
        self.requests.append((decoded, uri, user))
        if isinstance(decoded, list):
            return json.dumps([self.answer(one) for one in decoded])
        self.began.set()
        method = decoded["method"]
        if method == "fail":
            raise FileNotFoundError(2, "No such file", "/secret/place")
        if method == "slow":
            time.sleep(1)
        if method == "hang":
            time.sleep(20)
        return json.dumps(self.answer(decoded))

    def answer(self, request: Any) -> Any:
        if request["method"] == "unknown":
            return {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": request["id"]}
        return {"jsonrpc": "2.0", "result": f"{request['method']} was called", "id": request["id"]}


class AsyncRpc(Rpc):
    async def execute_rpc(self, request: str, uri: str = "", user: str = "") -> str:  # type: ignore[override]
        return super().execute_rpc(request, uri, user)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    assert BITCOIN_CLI is not None
    command = [BITCOIN_CLI, f"-datadir={path.parent}", "-regtest", f"-ipcconnect=unix:{path}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def cli(path: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(path, *arguments)
    try:
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, output.strip(), errors


@pytest.mark.parametrize("rpc", [Rpc, AsyncRpc])
def test_a_call(path: Path, rpc: type[Rpc]) -> None:
    init = rpc()
    with serving(path, init) as listener:
        assert cli(path, "getblockcount") == (0, "getblockcount was called", "")
        assert cli(path, "slow", "1", "two")[:2] == (0, "slow was called")
        assert cli(path, "-named", "given", "a=1")[0] == 0
        assert cli(path, "-rpcwallet=a b", "-rpcuser=me", "getbalance")[0] == 0
        until(lambda: not listener.connections, "a connection is still there")
    requests = init.requests
    assert requests[0] == ({"method": "getblockcount", "params": [], "id": "1", "jsonrpc": "2.0"}, "/", "")
    assert requests[1][0]["params"] == ["1", "two"]
    assert requests[2][0]["params"] == {"a": "1"}
    assert requests[3][1:] == ("/wallet/a%20b", "me")


def test_errors(path: Path) -> None:
    with serving(path, Rpc()):
        status, _, errors = cli(path, "unknown")
        assert (status, "Method not found" in errors) == (32601 & 0xFF, True)
        status, output, errors = cli(path, "fail")
    assert (status, output) == (1, "")
    assert "failed: remote exception: std::exception: No such file" in errors
    assert "secret" not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("answer", [None, "missing"])
def test_no_rpc_here(path: Path, answer: str | None) -> None:
    class Init:
        pass

    class NullInit:
        def make_rpc(self) -> None:
            return None

    with serving(path, Init() if answer else NullInit()):
        status, _, errors = cli(path, "getblockcount")
    assert status == 1, "it does not abort"
    assert ("Init.makeRpc is not implemented here" if answer else "there is no Rpc here") in errors


def test_too_many_peers(path: Path) -> None:
    init = Rpc()
    with serving(path, init, max_connections=1):
        first = start(path, "slow")
        assert init.began.wait(30)
        status, _, errors = cli(path, "getblockcount")
        assert first.communicate(timeout=30)[0].strip() == "slow was called"
    assert status == 1
    assert "overloaded" in errors


@pytest.mark.parametrize("how", ["close", "kill"])
def test_an_end_amid_a_call(path: Path, how: str) -> None:
    init = Rpc()
    with serving(path, init, grace=0.1) as listener:
        process = start(path, "hang")
        assert init.began.wait(30)
        if how == "kill":
            process.kill()
            until(lambda: not listener.connections, "the connection is still there")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (1 if how == "close" else -9)
    assert how == "kill" or "disconnect" in errors or "shutting down" in errors
