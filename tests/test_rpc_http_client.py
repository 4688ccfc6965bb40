"""`HttpRpc` against real loopback servers: a node's manners, and those of servers that have none."""

from __future__ import annotations

import gc
import json
import os
import pickle
import socket
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from http_peers import Behavior, HttpNode, Seen, reply

from zmqpub import errors
from zmqpub.rpc import HttpRpc, NodeRepair
from zmqpub.rpc.calls import is_harmless
from zmqpub.rpc.credentials import CookieFile

SECRET = "s3cret/pass:word"


@pytest.fixture
def node() -> Iterator[HttpNode]:
    with HttpNode() as node:
        yield node


@pytest.fixture
def rpc(node: HttpNode) -> Iterator[HttpRpc]:
    with HttpRpc(node.url, timeout=20) as rpc:
        yield rpc


def says(answer: bytes, *, keep: bool = True) -> Behavior:
    """A behavior: the same answer to everything."""

    def behave(seen: Seen, connection: socket.socket) -> bool:
        connection.sendall(answer)
        return keep

    return behave


def first(*answers: bytes) -> Behavior:
    """A behavior: these answers, then the last of them for ever."""
    left = list(answers)

    def behave(seen: Seen, connection: socket.socket) -> bool:
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])
        return True

    return behave


OK = reply('{"jsonrpc":"2.0","result":7,"id":1}')
WARMUP = reply('{"result":null,"error":{"code":-28,"message":"Loading block index…"},"id":1}', "500 Internal Server Error")
BUSY = reply("Work queue depth exceeded", "503 Service Unavailable")


# ---- calls ----


def test_calls(node: HttpNode, rpc: HttpRpc) -> None:
    assert rpc.address == node.url
    assert rpc.execute("a") == ["a", [], "/"]
    assert rpc.execute("b", 1, "x", None, wallet="grün/a b") == ["b", [1, "x", None], "/wallet/gr%C3%BCn%2Fa%20b"]
    assert rpc.execute("c", 1, name="ü") == ["c", {"name": "ü", "args": [1]}, "/"]
    with pytest.raises(errors.RpcError) as caught:
        rpc.execute("unknown")
    assert (caught.value.code, caught.value.method) == (-32601, "unknown")
    one, failed, two = rpc.batch(["a", ("unknown", 1), ("b", {"x": 2})], wallet="w")
    assert (one, two) == (["a", [], "/wallet/w"], ["b", {"x": 2}, "/wallet/w"])
    assert isinstance(failed, errors.RpcError)
    assert rpc.batch([]) == []
    answer = rpc.execute_rpc('{"method": "raw", "params": [], "id": "me"}', "/wallet/x", "somebody")
    assert json.loads(answer) == {"jsonrpc": "2.0", "result": ["raw", [], "/wallet/x"], "id": "me"}
    assert node.connections == 1
    seen = node.requests[0]
    assert seen.line == "POST / HTTP/1.1"
    assert seen.headers["host"] == f"127.0.0.1:{node.port}"
    assert "authorization" not in seen.headers
    assert seen.call["jsonrpc"] == "2.0"


def test_notifications_are_answered_with_null(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = says(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert rpc.execute_rpc('{"jsonrpc": "2.0", "method": "a"}') == "null"
    node.behave = None
    assert rpc.execute("a") == ["a", [], "/"]
    assert node.connections == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "500 Internal Server Error"])
def test_errors_of_json_rpc_1_come_with_a_status(node: HttpNode, rpc: HttpRpc, status: str) -> None:
    node.behave = says(reply('{"result":null,"error":{"code":-8,"message":"Block height out of range"},"id":1}', status))
    with pytest.raises(errors.RpcError, match="getblockhash: Block height out of range") as caught:
        rpc.execute("getblockhash", 10)
    assert caught.value.code == -8
    assert json.loads(rpc.execute_rpc("{}"))["error"]["code"] == -8


def test_what_cannot_be_sent_is_not(node: HttpNode, rpc: HttpRpc) -> None:
    with pytest.raises(TypeError, match="method"):
        rpc.execute(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="JSON"):
        rpc.execute("a", float("nan"))
    with pytest.raises(ValueError, match="uri"):
        rpc.execute_rpc("{}", "/wallet/a b\r\nX: y")
    with pytest.raises(ValueError, match="timeout"):
        rpc.execute("a", timeout=-1)
    with pytest.raises(UnicodeEncodeError):
        rpc.execute_rpc("\ud800")
    assert node.connections == 0


def test_threads_have_connections_of_their_own_and_leave_them_to_others(node: HttpNode, rpc: HttpRpc) -> None:
    together = threading.Barrier(6)

    def behave(seen: Seen, connection: socket.socket) -> bool:
        if seen.call["method"] == "meet":
            together.wait(20)
        return node.answer(seen, connection)

    node.behave = behave
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: rpc.execute("meet"), range(6)))
        assert node.connections == 6
        results = list(pool.map(lambda number: rpc.execute("a", number)[1], range(600)))
    assert results == [[number] for number in range(600)]
    assert node.connections == 6


def test_an_answer_in_chunks(node: HttpNode, rpc: HttpRpc) -> None:
    body = json.dumps({"result": "x" * 100_000}).encode()
    chunks = b"".join(f"{len(piece):x};ext=1\r\n".encode() + piece + b"\r\n" for piece in (body[:1], body[1:70_000], body[70_000:]))
    node.behave = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: y\r\n\r\n")
    for _ in range(3):
        assert rpc.execute("a") == "x" * 100_000
    assert node.connections == 1
    node.behave = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks[:-10], keep=False)
    with pytest.raises(errors.DisconnectedError):
        rpc.execute("a")
    node.behave = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", keep=False)
    with pytest.raises(errors.IpcError):
        rpc.execute("a")


def test_an_answer_that_ends_with_its_connection(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = says(b'HTTP/1.0 200 OK\r\n\r\n{"result": 5}', keep=False)
    assert [rpc.execute("a"), rpc.execute("a")] == [5, 5]
    assert node.connections == 2


def test_a_large_answer(node: HttpNode, rpc: HttpRpc) -> None:
    large = reply('{"result":"' + "ab" * 35_000_000 + '"}')
    node.behave = says(large)
    assert rpc.execute("a") == "ab" * 35_000_000
    assert len(rpc.execute_rpc("{}")) > 70_000_000
    with HttpRpc(node.url, max_answer_bytes=70_000_000) as careful, pytest.raises(errors.IpcProtocolError, match="max_answer_bytes"):
        careful.execute("a")
    endless = b"HTTP/1.0 200 OK\r\n\r\n" + bytes(3_000_000)
    node.behave = says(endless)
    with (
        HttpRpc(node.url, max_answer_bytes=2_000_000) as careful,
        pytest.raises(errors.IpcProtocolError, match="more than 2,000,000 bytes"),
    ):
        careful.execute("a")
    node.behave = says(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999\r\n\r\n")
    with pytest.raises(errors.IpcProtocolError, match="max_answer_bytes"):
        rpc.execute("a")


# ---- connections ----


def test_a_connection_that_the_node_closed_meanwhile_is_not_used(node: HttpNode, rpc: HttpRpc) -> None:
    assert rpc.execute("a")
    node.hang_up()
    end = time.monotonic() + 20
    assert rpc.execute("sendtoaddress")
    assert time.monotonic() < end
    assert node.connections == 2
    assert len(node.requests) == 2


def test_what_nobody_asked_for_does_not_answer_the_next_call(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = says(reply('{"result": "mine"}') + reply('{"result": "forged"}'))
    for _ in range(3):
        assert rpc.execute("a") == "mine"
        time.sleep(0.01)


def test_a_server_that_closes_after_each_answer(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = says(reply('{"result": 1}', headers="Connection: close\r\n"), keep=False)
    for _ in range(3):
        assert rpc.execute("a") == 1
    assert node.connections == 3


@pytest.mark.parametrize("part", [0, 1, 20, -1])
def test_half_an_answer(node: HttpNode, rpc: HttpRpc, part: int) -> None:
    node.behave = says(OK[:part], keep=False)
    with pytest.raises(errors.IpcError) as caught:
        rpc.execute("sendtoaddress", "x")
    assert isinstance(caught.value, errors.DisconnectedError | errors.IpcProtocolError)
    assert (caught.value.address, caught.value.interface, caught.value.method) == (node.url, "Rpc", "sendtoaddress")
    assert len(node.requests) == 1, "what may have been done is not asked for twice"
    node.behave = None
    assert rpc.execute("a")


def test_a_connection_that_is_killed(node: HttpNode, rpc: HttpRpc) -> None:
    def kill(seen: Seen, connection: socket.socket) -> bool:
        connection.sendall(OK[:-5])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        return False

    assert rpc.execute("a")
    node.behave = kill
    with pytest.raises(errors.DisconnectedError, match="may have been done") as caught:
        rpc.execute("a")
    assert isinstance(caught.value, ConnectionError)


def test_a_refusal_before_the_request_was_read(rpc: HttpRpc) -> None:
    """A server that does not take a large request may say so and hang up; the answer is read nonetheless, or the loss told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10)
                connection.sendall(reply("too large", "413 Content Too Large", headers="Connection: close\r\n"))

        thread = threading.Thread(target=refuse)
        thread.start()
        with HttpRpc(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as other, pytest.raises(errors.IpcError) as caught:
            other.execute("a", "x" * 50_000_000)
        thread.join()
    assert isinstance(caught.value, errors.DisconnectedError) or "413" in caught.value.cause


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with HttpRpc(f"http://127.0.0.1:{port}") as rpc, pytest.raises(errors.IpcConnectError, match="Connection refused") as caught:
        rpc.execute("getblockcount")
    assert str(caught.value).startswith(f"http://127.0.0.1:{port}: Rpc.getblockcount: ")
    assert isinstance(caught.value.errno, int)


# ---- servers that are none ----


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-OpenSSH_9.2\r\n", bytes(range(128, 256)) + b"\n", b"\n" * 50, b"HTTP/9.9 200 OK\r\n\r\n", b"x" * 100_000],
)
def test_garbage(node: HttpNode, rpc: HttpRpc, garbage: bytes) -> None:
    node.behave = says(garbage, keep=False)
    with pytest.raises(errors.IpcProtocolError):
        rpc.execute("a")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply("hello"), "no JSON"),
        (reply(""), "no JSON"),
        (reply("[" * 100_000), "no JSON"),
        (reply('{"error":{"code":-28},"x":' + "[" * 100_000), "no JSON"),
        (reply(b"\xff\xfe\x00"), "no JSON"),
        (reply("[1]"), "no JSON-RPC response"),
        (reply("null"), "no JSON-RPC response"),
        (reply("<html>nginx", "404 Not Found"), r"HTTP 404, '<html>nginx'"),
        (reply("", "500 Internal Server Error"), r"HTTP 500, 'Internal Server Error'"),
        (reply("JSONRPC server handles only POST requests", "405 Bad Method"), "only POST"),
        (reply("", "302 Found", headers="Location: http://127.0.0.1:1/\r\n"), "HTTP 302.*do not follow"),
    ],
)
def test_answers_that_are_none(node: HttpNode, rpc: HttpRpc, answer: bytes, words: str) -> None:
    node.behave = says(answer)
    with pytest.raises(errors.IpcProtocolError, match=words):
        rpc.execute("a")
    assert len(node.requests) == 1
    with pytest.raises((errors.IpcProtocolError, errors.RpcError)):
        rpc.batch(["a"])


def test_a_text_that_is_none(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = says(reply(b"\xff"))
    with pytest.raises(errors.IpcProtocolError, match="UTF-8"):
        rpc.execute_rpc("{}")


# ---- time ----


def test_no_answer_in_time(node: HttpNode, rpc: HttpRpc) -> None:
    def late(seen: Seen, connection: socket.socket) -> bool:
        time.sleep(0.5)
        return node.answer(seen, connection)

    node.behave = late
    start = time.monotonic()
    with pytest.raises(errors.IpcTimeoutError, match=r"Rpc\.a: no answer within 0\.1 s") as caught:
        rpc.execute("a", timeout=0.1)
    assert time.monotonic() - start < 10
    assert isinstance(caught.value, TimeoutError)
    assert rpc.execute("b") == ["b", [], "/"], "and not what a came to"
    with pytest.raises(errors.IpcTimeoutError):
        rpc.execute("a", timeout=0)


def test_the_deadline_is_one_for_all_addresses_of_a_host(node: HttpNode, monkeypatch: pytest.MonkeyPatch) -> None:
    mute, refusing = ("127.0.0.1", 1), ("127.0.0.1", 2)
    times: list[float] = []
    connect = socket.socket.connect

    def connected(self: socket.socket, address: tuple[str, int]) -> None:
        if address == mute:
            times.append(self.gettimeout() or 0.0)
            time.sleep(times[-1])
            raise TimeoutError("timed out")
        if address == refusing:
            raise ConnectionRefusedError(111, "refused")
        connect(self, address)

    def found(*addresses: tuple[str, int]) -> None:
        where = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: where)

    monkeypatch.setattr(socket.socket, "connect", connected)
    found(mute, mute, mute)
    with HttpRpc("http://somewhere", timeout=0.2) as rpc, pytest.raises(errors.IpcTimeoutError):
        rpc.execute("uptime")
    assert sum(times) < 0.3
    found(refusing, ("127.0.0.1", node.port))
    with HttpRpc("http://somewhere") as rpc:
        assert rpc.execute("uptime") == ["uptime", [], "/"]
    found(refusing, refusing)
    with HttpRpc("http://somewhere") as rpc, pytest.raises(errors.IpcConnectError, match="refused"):
        rpc.execute("uptime")


def test_an_answer_that_drips_ends_at_the_deadline(node: HttpNode, rpc: HttpRpc) -> None:
    def drip(seen: Seen, connection: socket.socket) -> bool:
        for at in range(len(OK)):
            connection.sendall(OK[at : at + 1])
            time.sleep(0.1)
        return True

    node.behave = drip
    start = time.monotonic()
    with pytest.raises(errors.IpcTimeoutError):
        rpc.execute("a", timeout=0.5)
    assert 0.4 < time.monotonic() - start < 5


def test_a_busy_node_is_asked_again(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = first(BUSY, BUSY, OK)
    assert rpc.execute("a") == 7
    assert len(node.requests) == 3
    node.behave = says(BUSY)
    with pytest.raises(errors.OverloadedError, match="Work queue depth exceeded"):
        rpc.execute("a", timeout=0.4)
    assert 4 < len(node.requests) < 20


def test_a_node_that_starts_is_asked_again(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = first(WARMUP, WARMUP, OK)
    assert rpc.execute("a") == 7
    node.behave = first(WARMUP, OK)
    assert json.loads(rpc.execute_rpc("{}"))["result"] == 7
    both = '[{"error":{"code":-28,"message":"…"},"id":1},{"error":{"code":-28,"message":"…"},"id":2}]'
    node.behave = first(reply(both), reply('[{"error":{"code":-28,"message":"…"},"id":0},{"result":1,"id":0}]'))
    assert len(rpc.batch(["a", "b"])) == 2, "what was done in part is not asked for again"
    node.behave = says(WARMUP)
    with pytest.raises(errors.RpcError) as caught:
        rpc.execute("a", timeout=0.3)
    assert caught.value.code == -28


def test_an_error_that_tells_of_another_code_is_not_warmup(node: HttpNode, rpc: HttpRpc) -> None:
    node.behave = says(reply('{"result":{"code":-28}}'))
    assert rpc.execute("a", timeout=5) == {"code": -28}
    assert len(node.requests) == 1


# ---- who asks ----


def test_user_and_password(node: HttpNode) -> None:
    node.cookie = f"grün:{SECRET}".encode()
    with HttpRpc(node.url, user="grün", password=SECRET) as rpc:
        assert rpc.execute("a")
    with HttpRpc(f"http://gr%C3%BCn:s3cret%2Fpass%3Aword@127.0.0.1:{node.port}/") as rpc:
        assert rpc.execute("a")
        assert rpc.address == node.url
        assert not any(word in repr(rpc) for word in ("s3cret", "pass:", "pass%"))


def test_credentials_that_are_not_accepted(node: HttpNode, tmp_path: Path) -> None:
    node.cookie = b"__cookie__:right"
    cookie = tmp_path / ".cookie"
    cookie.write_text(f"__cookie__:{SECRET}")
    clients = {
        "user 'me'": HttpRpc(node.url, user="me", password=SECRET),
        f"the cookie of {cookie}": HttpRpc(node.url, cookie_file=cookie),
        "without credentials": HttpRpc(node.url),
    }
    for words, client in clients.items():
        with client, pytest.raises(errors.RpcAccessError, match="HTTP 401") as caught:
            client.execute("a")
        assert words in str(caught.value)
        assert caught.value.status == 401
        assert isinstance(caught.value, errors.IpcConnectError)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.status) == (str(caught.value), 401)
        for text in (str(caught.value), repr(caught.value), repr(client)):
            assert SECRET not in text
    node.behave = says(reply("", "403 Forbidden"))
    with HttpRpc(node.url, cookie_file=cookie) as client, pytest.raises(errors.RpcAccessError, match="rpcallowip") as caught:
        client.execute("a")
    assert caught.value.status == 403


def test_the_cookie_of_a_node_that_is_restarted(node: HttpNode, tmp_path: Path) -> None:
    cookie = tmp_path / ".cookie"
    with HttpRpc(node.url, cookie_file=cookie) as rpc:
        with pytest.raises(errors.RpcAccessError, match=f"{cookie}: No such file.* is the node running") as caught:
            rpc.execute("a")
        assert caught.value.status == 0
        for life in range(3):
            node.cookie = f"__cookie__:{life}".encode()
            cookie.write_bytes(node.cookie)
            assert rpc.execute("a")
        before = len(node.requests)
        # Another one of the same size, within a tick of the file system's clock.
        status = cookie.stat()
        node.cookie = b"__cookie__:X"
        cookie.write_bytes(node.cookie)
        os.utime(cookie, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert rpc.execute("a")
        assert len(node.requests) <= before + 2
        cookie.write_bytes(b"nothing of the kind")
        with pytest.raises(errors.RpcAccessError, match=r"no cookie of a node's") as caught:
            rpc.execute("a")
        assert "nothing of" not in str(caught.value)


def test_each_thread_whose_cookie_was_refused_learns_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / ".cookie"
    path.write_text("user:old")
    cookie = CookieFile(path)
    tried = cookie.authorization()
    assert not cookie.changed(tried)
    path.write_text("user:new")
    assert cookie.changed(tried)
    assert cookie.changed(tried), "another thread's question, which the first one did not answer for it"
    assert not cookie.changed(cookie.authorization())
    path.unlink()
    assert not cookie.changed(tried)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    for url in (
        "https://127.0.0.1",
        "127.0.0.1:8332",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://h:0",
        "http://h/?q=1",
        "http://h/#f",
        "http://me@h",
        "http://h\r\nX: y",
        "http://ü",
        "",
        "http://[::1",
    ):
        with pytest.raises(errors.ConfigError, match="url"):
            HttpRpc(url)
    for url in (
        f"http://me:{SECRET}@h:x",
        f"https://me:{SECRET}@h",
        f"http://me:{SECRET.replace('/', '')} @h",
        f"me:{SECRET}@h:8332",
        f"http:me:{SECRET}@h",
        f"http:/me:{SECRET}@h",
    ):
        with pytest.raises(errors.ConfigError) as caught:
            HttpRpc(url)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(errors.ConfigError) as caught:
        HttpRpc("http://a:b@h", user="me", password=SECRET, cookie_file=tmp_path, timeout=0, max_answer_bytes=0)
    assert [problem.option for problem in caught.value.problems] == ["url", "timeout", "max_answer_bytes"]
    for keywords in ({"user": "me"}, {"password": SECRET}, {"user": "a:b", "password": SECRET}, {"user": f"a:{SECRET}"}):
        with pytest.raises(errors.ConfigError, match="user") as caught:
            HttpRpc(**keywords)  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)
    assert HttpRpc("http://localhost").address == "http://localhost:8332"
    assert HttpRpc("http://[::1]:18443/wallet/x").address == "http://[::1]:18443/wallet/x"


def test_the_path_of_the_url_is_for_requests_that_name_none(node: HttpNode) -> None:
    with HttpRpc(f"{node.url}/wallet/w") as rpc:
        assert rpc.execute("a")[2] == "/wallet/w"
        assert rpc.execute("a", wallet="v")[2] == "/wallet/v"


def test_proxies_of_the_environment_are_not_asked(node: HttpNode, rpc: HttpRpc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert rpc.execute("a")


# ---- the end ----


def test_close_ends_calls_of_other_threads(node: HttpNode) -> None:
    arrived = threading.Event()
    over = threading.Event()

    def hang(seen: Seen, connection: socket.socket) -> bool:
        arrived.set()
        over.wait(20)
        return False

    node.behave = hang
    rpc = HttpRpc(node.url, timeout=None)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            rpc.execute("a")
        except errors.DisconnectedError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert arrived.wait(20)
    rpc.close()
    thread.join(20)
    over.set()
    assert [str(error) for error in caught] == [f"{node.url}: Rpc.a: the connection was closed"]
    rpc.close()
    assert rpc.closed
    with pytest.raises(errors.DisconnectedError):
        rpc.execute("a")
    assert "closed" in repr(rpc)


def test_close_ends_a_wait_for_a_busy_node(node: HttpNode) -> None:
    node.behave = says(BUSY)
    rpc = HttpRpc(node.url, timeout=None)
    threading.Timer(0.3, rpc.close).start()
    with pytest.raises(errors.DisconnectedError):
        rpc.execute("a")


def test_a_client_that_is_dropped_leaves_no_connection(node: HttpNode) -> None:
    rpc = HttpRpc(node.url)
    rpc.execute("a")
    del rpc
    gc.collect()  # a ResourceWarning would be an error
    for thread in node._threads[1:]:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_connections_of_its_own(node: HttpNode, rpc: HttpRpc) -> None:
    rpc.execute("a")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(rpc.execute("child")).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        assert json.loads(pipe.read())[0] == "child"
    assert os.waitpid(child, 0)[1] == 0
    assert rpc.execute("b") == ["b", [], "/"]
    assert [seen.connection for seen in node.requests] == [1, 2, 1]


# ---- what it is for ----


def test_a_node_that_repairs(node: HttpNode, rpc: HttpRpc) -> None:
    repair = NodeRepair(rpc)
    node.behave = says(reply(json.dumps({"result": "ab" * 32})))
    assert repair.get_best_block_hash() == b"\xab" * 32
    node.behave = says(reply('{"error":{"code":-5,"message":"No such mempool transaction"}}', "500 Internal Server Error"))
    assert repair.get_transaction(bytes(32)) is None
    node.close()
    with pytest.raises(errors.RepairError, match="cannot connect"):
        repair.get_best_block_hash()


def test_what_may_be_asked_twice() -> None:
    assert all(map(is_harmless, ("getblock", "getrawmempool", "listunspent", "decoderawtransaction", "help", "uptime")))
    assert not any(map(is_harmless, ("sendtoaddress", "getnewaddress", "getrawchangeaddress", "generatetoaddress", "stop", "batch", "")))
