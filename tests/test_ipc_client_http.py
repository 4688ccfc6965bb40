"""`connect(…, http=)`: a peer of Bitcoin Core's IPC without Rpc, and its HTTP server beside it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_peers import HttpNode, Seen, reply
from ipc_node import IpcNode, needs_node
from ipc_peers import Peer, eventually

from zmqpub import errors, ipc
from zmqpub.rpc import HttpRpc

COOKIE = b"__cookie__:0123"


@pytest.fixture
def node() -> Iterator[HttpNode]:
    with HttpNode() as node:
        node.cookie = COOKIE
        yield node


@pytest.fixture(params=["v30", "v31"])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    (tmp_path / ".cookie").write_bytes(COOKIE)
    with Peer(tmp_path / "node.sock", request.param) as peer:
        yield peer


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Peer]:
    (tmp_path / ".cookie").write_bytes(COOKIE)
    with Peer(tmp_path / "node.sock", "v31") as peer:
        yield peer


def test_rpc_goes_over_http(peer: Peer, node: HttpNode) -> None:
    with ipc.connect(peer.address, http=node.url) as init:
        with init.make_rpc() as rpc:
            assert isinstance(rpc, ipc.Rpc)
            assert rpc.address == node.url
            assert rpc.execute("a", 1, wallet="w") == ["a", [1], "/wallet/w"]
            with pytest.raises(errors.RpcError, match="Method not found"):
                rpc.execute("unknown")
            assert rpc.batch(["a", ("b", 2)]) == [["a", [], "/"], ["b", [2], "/"]]
            assert rpc.batch([]) == []
            assert json.loads(rpc.execute_rpc('{"method": "a", "params": [], "id": 1}', "/wallet/x"))["result"][2] == "/wallet/x"
            assert ipc.NodeRepair(rpc)
        with pytest.raises(errors.DestroyedError):
            rpc.execute("a")
        other = init.make_rpc()
        assert other.execute("a"), "destroying one leaves another alone"
        assert init.make_mining().get_tip() is not None
    with pytest.raises(errors.DisconnectedError):
        other.execute("a")


def test_asyncio(peer: Peer, node: HttpNode) -> None:
    async def main() -> None:
        async with ipc.connect_async(peer.address, http=node.url) as init:
            async with await init.make_rpc() as rpc:
                assert isinstance(rpc, ipc.AsyncRpc)
                assert rpc.address == node.url
                results = await asyncio.gather(*(rpc.execute("a", number) for number in range(50)))
                assert [result[1] for result in results] == [[number] for number in range(50)]
                with pytest.raises(errors.RpcError, match="Method not found"):
                    await rpc.execute("unknown")
                assert await rpc.batch(["a"], wallet="w") == [["a", [], "/wallet/w"]]
                assert await rpc.batch([]) == []
                assert json.loads(await rpc.execute_rpc('{"method": "a", "params": [], "id": 1}'))["result"] == ["a", [], "/"]
            with pytest.raises(errors.DestroyedError):
                await rpc.execute("a")
            other = await init.make_rpc()
        with pytest.raises(errors.DisconnectedError):
            await other.execute("a")

    asyncio.run(asyncio.wait_for(main(), 60))


def hanging(node: HttpNode) -> threading.Event:
    """From now on nothing is answered; set when the first call is here."""
    arrived = threading.Event()

    def hang(seen: Seen, connection: socket.socket) -> bool:
        arrived.set()
        return bool(connection.recv(1))  # until it is closed

    node.behave = hang
    return arrived


def test_cancelling_frees_the_executor_at_once(old: Peer, node: HttpNode) -> None:
    arrived = hanging(node)

    async def main() -> None:
        async with ipc.connect_async(old.address, http=HttpRpc(node.url, user="__cookie__", password="0123", timeout=None)) as init:
            rpc = await init.make_rpc()
            for _ in range(50):  # more than the executor has threads
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(rpc.execute("a"), 0.02)
            task = asyncio.ensure_future(rpc.execute("b"))
            while not arrived.is_set():
                await asyncio.sleep(0.01)
            node.behave = None
            task.cancel()
            assert await rpc.execute("c") == ["c", [], "/"]

    asyncio.run(asyncio.wait_for(main(), 60))  # which waits for the executor


def test_closing_ends_calls_of_others(old: Peer, node: HttpNode) -> None:
    arrived = hanging(node)
    init = ipc.connect(old.address, http=node.url)
    rpc = init.make_rpc()
    caught: list[BaseException] = []

    def call() -> None:
        try:
            rpc.execute("a")
        except errors.IpcError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert arrived.wait(20)
    init.close()
    thread.join(20)
    assert isinstance(caught[0], errors.DisconnectedError)


def test_deadlines_are_the_connections(old: Peer, node: HttpNode) -> None:
    hanging(node)
    with ipc.connect(old.address, http=node.url, deadline=1.0) as init:
        rpc = init.make_rpc()
        with pytest.raises(errors.IpcTimeoutError, match="within 1 s"):
            rpc.execute("a")
        with pytest.raises(errors.IpcTimeoutError, match=r"within 0\.1 s"):
            rpc.execute("a", timeout=0.1)


def test_without_http_the_error_says_what_would_help(peer: Peer) -> None:
    with ipc.connect(peer.address) as init, pytest.raises(errors.UnimplementedError, match=r"over HTTP.*http=") as caught:
        init.make_rpc()
    assert caught.value.since == "master (after v31)"

    async def main() -> None:
        async with ipc.connect_async(peer.address) as init:
            await init.make_rpc()

    with pytest.raises(errors.UnimplementedError, match="http="):
        asyncio.run(main())
    with ipc.connect(peer.address) as init, pytest.raises(errors.UnimplementedError) as caught:
        init.make_mining().submit_block(bytes(80))
    assert caught.value.instead is None


def test_a_clients_own_http_rpc_is_left_to_it(old: Peer, node: HttpNode) -> None:
    with HttpRpc(node.url, user="__cookie__", password="0123") as own:
        with ipc.connect(old.address, http=own) as init:
            rpc = init.make_rpc()
            assert rpc.execute("a")
        assert own.execute("a")
        with ipc.connect(old.address, http=own) as init:
            rpc = init.make_rpc()
            own.close()
            with pytest.raises(errors.DisconnectedError):
                rpc.execute("a")


def test_where_the_cookie_is(old: Peer, node: HttpNode, tmp_path: Path) -> None:
    elsewhere = tmp_path / "regtest"
    elsewhere.mkdir()
    node.cookie = b"__cookie__:elsewhere"
    with ipc.connect(old.address, http=node.url) as init, pytest.raises(errors.RpcAccessError, match=str(tmp_path / ".cookie")):
        init.make_rpc().execute("a")
    (elsewhere / ".cookie").write_bytes(node.cookie)
    with ipc.connect(old.address, data_dir=elsewhere, http=node.url) as init:
        assert init.make_rpc().execute("a")
    node.cookie = b"me:mine"
    with ipc.connect(old.address, http=f"http://me:mine@127.0.0.1:{node.port}") as init:
        assert init.make_rpc().execute("a")


def test_urls_that_make_no_sense(old: Peer) -> None:
    for url in ("https://127.0.0.1", "8332", ""):
        with pytest.raises(errors.ConfigError, match="http"):
            ipc.connect(old.address, http=url)
        with pytest.raises(errors.ConfigError, match="http"):
            ipc.connect_async(old.address, http=url)
    for host in ("192.0.2.1", "node.example", "[2001:db8::1]"):
        with pytest.raises(errors.ConfigError, match="another machine"):
            ipc.connect(old.address, http=f"http://{host}")


def test_a_peer_with_rpc_is_asked_over_ipc(tmp_path: Path, node: HttpNode) -> None:
    with Peer(tmp_path / "node.sock") as peer, ipc.connect(peer.address, http=node.url) as init:
        rpc = init.make_rpc()
        assert rpc.address == peer.address
        assert rpc.execute("getblockcount") == 100
        assert rpc.batch(["getblockcount"]) == [100]
        assert not node.requests


class Large:
    """A peer of ours: what it answers is more than a node sends over IPC, which says so in Cap'n Proto's words."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def execute_rpc(self, request: str, uri: str = "", user: str = "") -> str:
        self.asked.append(json.loads(request))
        raise RuntimeError("Trying to send Cap'n Proto message larger than our single-message size limit.")


class LargeInit:
    def __init__(self, rpc: Large) -> None:
        self.rpc = rpc

    def make_rpc(self) -> Large:
        return self.rpc


def test_what_is_too_large_goes_over_http(tmp_path: Path, node: HttpNode) -> None:
    (tmp_path / ".cookie").write_bytes(COOKIE)
    large = Large()
    with ipc.Ipc("node", LargeInit(large), data_dir=tmp_path) as server:
        address = server.listen_address("unix:node.sock")
        with ipc.connect(address, http=node.url) as init:
            rpc = init.make_rpc()
            assert rpc.execute("getrawmempool", True) == ["getrawmempool", [True], "/"]
            assert rpc.batch(["getblock", ("help",)]) == [["getblock", [], "/"], ["help", [], "/"]]
            assert len(node.requests) == 2
            # What would be done a second time is not.
            for call in (
                lambda: rpc.execute("generatetoaddress", 1),
                lambda: rpc.batch(["getblock", "sendtoaddress"]),
                lambda: rpc.execute_rpc('{"method": "getblock"}'),
            ):
                with pytest.raises(errors.RemoteError, match="size limit"):
                    call()
            assert len(node.requests) == 2

        async def main() -> None:
            async with ipc.connect_async(address, http=node.url) as init:
                rpc = await init.make_rpc()
                assert await rpc.execute("getrawmempool", True) == ["getrawmempool", [True], "/"]
                assert await rpc.batch(["getblock"]) == [["getblock", [], "/"]]
                with pytest.raises(errors.RemoteError, match="size limit"):
                    await rpc.execute("sendtoaddress")
                with pytest.raises(errors.RemoteError, match="size limit"):
                    await rpc.batch(["sendtoaddress"])

        asyncio.run(asyncio.wait_for(main(), 60))
        with ipc.connect(address) as init, pytest.raises(errors.RemoteError, match="size limit"):
            init.make_rpc().execute("getblock")


def test_dropped_clients_leave_no_connections(old: Peer, node: HttpNode) -> None:
    with ipc.connect(old.address, http=node.url) as init:
        for _ in range(5):
            init.make_rpc().execute("a")
        eventually(lambda: sum(thread.is_alive() for thread in node._threads) == 1)  # the one that accepts


def test_busy_and_starting_nodes(old: Peer, node: HttpNode) -> None:
    answers = [reply("Work queue depth exceeded", "503 Service Unavailable"), reply('{"error":{"code":-28,"message":"Loading…"}}')]

    def behave(seen: Seen, connection: socket.socket) -> bool:
        connection.sendall(answers.pop(0) if answers else reply('{"result":1}'))
        return True

    node.behave = behave
    with ipc.connect(old.address, http=node.url) as init:
        assert init.make_rpc().execute("a") == 1


@needs_node
@pytest.mark.slow
@pytest.mark.unsanitized
def test_an_answer_too_large_for_a_nodes_ipc(tmp_path: Path) -> None:
    """A transaction of 12 MB: of each byte of its scripts JSON has six."""
    outputs, script = 1200, b"\xfd" + (10_000).to_bytes(2, "little") + b"\x51" * 10_000
    one_input = b"\x01" + bytes(36) + b"\x00" + b"\xff" * 4
    raw = b"\x02\0\0\0" + one_input + b"\xfd" + outputs.to_bytes(2, "little") + (bytes(8) + script) * outputs + bytes(4)
    node = IpcNode(tmp_path)
    try:
        with ipc.connect(node.socket, deadline=100) as init, pytest.raises(errors.RemoteError, match="size limit"):
            init.make_rpc().execute("decoderawtransaction", raw.hex())
        with ipc.connect(node.socket, http=node.url, deadline=100) as init:
            decoded = init.make_rpc().execute("decoderawtransaction", raw.hex())
            assert sum(len(out["scriptPubKey"]["hex"]) for out in decoded["vout"]) == 2 * 10_000 * outputs
    finally:
        node.stop()
