"""`HttpRpc` against a Bitcoin Core node: ZMQPUB_BITCOIN_NODE, or bitcoin-node on PATH."""

from __future__ import annotations

import contextlib
import hmac
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ipc_node import IpcNode, needs_node

from zmqpub import errors
from zmqpub.rpc import HttpRpc, NodeRepair

pytestmark = [needs_node, pytest.mark.unsanitized]

ADDRESS = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpcNode]:
    digest = hmac.new(b"salt", b"mine", "sha256").hexdigest()
    node = IpcNode(tmp_path_factory.mktemp("node"), f"-rpcauth=me:salt${digest}", "-rpcthreads=2", "-rpcworkqueue=1")
    yield node
    node.stop()


@pytest.fixture
def rpc(node: IpcNode) -> Iterator[HttpRpc]:
    with HttpRpc(node.url, user="me", password="mine", timeout=60) as rpc:
        yield rpc


def test_calls(rpc: HttpRpc) -> None:
    (made,) = rpc.execute("generatetoaddress", 1, ADDRESS)
    assert rpc.execute("getbestblockhash") == made
    assert rpc.execute("getblock", made, verbosity=1)["hash"] == made
    height, failed = rpc.batch(["getblockcount", ("getblockhash", 10**6)])
    assert rpc.execute("getblockhash", height) == made
    assert (failed.code, failed.method) == (-8, "getblockhash")
    with pytest.raises(errors.RpcError, match="Method not found"):
        rpc.execute("nonsense")
    # Without wallets in it, a node has no such path.
    with pytest.raises((errors.RpcError, errors.IpcProtocolError), match=r"code -18|HTTP 404"):
        rpc.execute("getwalletinfo", wallet="no such/wallet")
    # A node answers 1.0 with HTTP's own errors, and notifications with nothing at all.
    assert json.loads(rpc.execute_rpc('{"method": "getblockhash", "params": [1000000], "id": 1}'))["error"]["code"] == -8
    assert json.loads(rpc.execute_rpc('{"method": "nonsense", "id": 1}'))["error"]["code"] == -32601
    assert json.loads(rpc.execute_rpc("{"))["error"]["code"] == -32700
    assert rpc.execute_rpc('{"jsonrpc": "2.0", "method": "uptime"}') == "null"


def test_repair(rpc: HttpRpc) -> None:
    repair = NodeRepair(rpc)
    best = repair.get_best_block_hash()
    assert repair.get_block(best).hash == best
    header = repair.get_block_header(best)
    assert header.height == rpc.execute("getblockcount")
    assert repair.get_mempool().txids == []
    assert repair.get_transaction(bytes(32)) is None


def test_the_wrong_password(node: IpcNode) -> None:
    with HttpRpc(node.url, user="me", password="yours") as rpc, pytest.raises(errors.RpcAccessError, match="user 'me'") as caught:
        rpc.execute("uptime")
    assert "yours" not in str(caught.value)
    with HttpRpc(node.url) as rpc, pytest.raises(errors.RpcAccessError, match="without credentials"):
        rpc.execute("uptime")


def test_a_node_whose_queue_is_full_is_asked_until_it_answers(rpc: HttpRpc) -> None:
    """Two threads and one place in the queue: four waits are too many, and all of them are made nonetheless."""
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            rpc.execute("waitfornewblock", 700)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=wait) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_restart(tmp_path: Path) -> None:
    """Nobody there, another cookie, and -28 for a while."""
    node = IpcNode(tmp_path)
    starting = threading.Thread(target=node.start)
    try:
        with HttpRpc(node.url, cookie_file=tmp_path / "regtest" / ".cookie", timeout=60) as rpc:
            rpc.execute("generatetoaddress", 3, ADDRESS)
            node.stop()
            with pytest.raises(errors.IpcConnectError):
                rpc.execute("getblockcount")
            starting.start()
            height = None
            while height is None:
                with contextlib.suppress(errors.IpcConnectError):
                    height = rpc.execute("getblockcount")
            assert height == 3
            starting.join(60)
    finally:
        node.stop()
