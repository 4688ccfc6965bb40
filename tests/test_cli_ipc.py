"""`zmqpub ipc`, and `zmqpub run` in front of what another process serves: two programs, one socket between them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from ipc_node import IpcNode, needs_node
from programs import ENVIRONMENT, TOPICS, Program, everything, once

pytest.importorskip("capnp")
pytest.importorskip("click")
pytest.importorskip("rich")

SIMULATED = ("--block-interval", "0.5", "--rate", "40", "--reorg-rate", "0.2")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as name:
        yield Path(name)


@pytest.fixture
def served(directory: Path) -> Iterator[str]:
    """The address of a simulated chain that is served, in another process, and stands still nearly always."""
    address = f"unix:{directory}/node.sock"
    with Program("run", *everything(f"ipc://{directory}/zmq"), f"-ipcbind={address}", "--block-interval", "1", "--rate", "1") as program:
        program.line(r"^bound ipc unix:/")
        program.line("publishing")
        yield address
        assert program.end(signal.SIGTERM) == 0


def test_echo(served: str) -> None:
    program = once("ipc", "echo", served, "hello", "--count", "5")
    assert program.process.returncode == 0
    assert program.seen[0] == "hello"
    assert program.seen[1].startswith(served)
    (told,) = once("ipc", "echo", served, "grüezi", "--json").objects()
    assert (told["echo"], told["address"], told["count"]) == ("grüezi", served, 1)
    assert 0 < told["seconds"] < 10


def test_tip_and_wait(served: str) -> None:
    first = once("ipc", "tip", served).seen
    (words,) = first
    name, height = words.split()
    assert len(bytes.fromhex(name)) == 32
    (told,) = once("ipc", "wait", served, name, "--timeout", "20", "--json").objects()
    assert told["hash"] != name
    assert told["height"] >= int(height)
    (told,) = once("ipc", "wait", served, "--json").objects()
    assert set(told) == {"hash", "height"}
    followed = once("ipc", "wait", served, "--follow", "--timeout", "4")
    assert followed.process.returncode == 0
    heights = [int(line.split()[1]) for line in followed.seen]
    assert len(heights) > 1
    assert len({line.split()[0] for line in followed.seen}) == len(heights)


def test_rpc(served: str) -> None:
    (height,) = once("ipc", "rpc", served, "getblockcount").seen
    (name,) = once("ipc", "rpc", served, "getblockhash", height).seen
    assert len(bytes.fromhex(name)) == 32
    (told,) = once("ipc", "rpc", served, "--json", "getblockheader", name).objects()
    assert told["height"] == int(height)
    words = once("ipc", "rpc", served, "getblockheader", name, "true").seen
    assert json.loads("\n".join(words))["hash"] == name
    (quoted,) = once("ipc", "rpc", "--json", served, "getblockhash", height).seen
    assert json.loads(quoted) == name
    for text in ("[NaN]", "1e999"):  # no JSON, and so text
        assert once("ipc", "rpc", served, "getblockhash", text).errors == [
            'zmqpub: error: getblockhash: Wrong type passed:\\n{\\n    "Position 1 (height)": '
            '"JSON value of type string is not of expected type number"\\n} (code -3)'
        ]
    (mempool,) = once("ipc", "rpc", served, "--json", "getrawmempool", "false", "true").objects()
    assert set(mempool) == {"txids", "mempool_sequence"}


def test_errors_are_a_line_and_a_code(served: str, directory: Path) -> None:
    program = once("ipc", "rpc", served, "getblockhash", "999999")
    assert program.process.returncode == 12
    (line,) = program.errors
    assert line == "zmqpub: error: getblockhash: Block height out of range (code -8)"
    program = once("ipc", "rpc", served, "nosuchmethod")
    assert (program.process.returncode, len(program.errors)) == (12, 1)
    program = once("ipc", "wait", served, "abcd")
    assert program.process.returncode == 2
    assert "64 hex digits" in program.errors[0]
    for arguments in (("wait", served, "--timeout", "nan"), ("echo", served, "\udcff"), ("rpc", served, "uptime", "--wallet", "\udcff")):
        program = once("ipc", *arguments)
        assert (program.process.returncode, len(program.errors)) == (2, 1)
    program = once("ipc", "tip", f"unix:{directory}/nobody.sock")
    assert program.process.returncode == 3
    (line,) = program.errors
    assert line.startswith(f"zmqpub: error: unix:{directory}/nobody.sock: ")
    program = once("ipc", "tip", "tcp:1234")
    assert program.process.returncode == 2
    program = once("ipc", "tip", "unix:" + "x" * 200)
    assert program.process.returncode == 2
    assert "107" in program.errors[0]
    program = once("ipc", "tip", "unix", "-chain=mainnet")
    assert program.process.returncode == 2
    assert "-chain" in program.errors[0]


def test_peers_that_say_nothing_or_nonsense(directory: Path) -> None:
    path = directory / "mute.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        program = once("ipc", "tip", f"unix:{path}", "--deadline", "0.5")
        assert program.process.returncode == 8
        (line,) = program.errors
        assert str(path) in line

    path = directory / "http.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 20)

        thread = threading.Thread(target=answer)
        thread.start()
        program = once("ipc", "tip", f"unix:{path}", "--deadline", "5")
        thread.join()
    assert program.process.returncode == 11
    assert len(program.errors) == 1


def test_datadir_and_chain_say_where_the_socket_is(served: str, directory: Path) -> None:
    (directory / "regtest").mkdir()
    os.link(directory / "node.sock", directory / "regtest" / "node.sock")
    for options in ([f"-datadir={directory}"], [f"-datadir={directory}", "-chain=regtest"], [f"--datadir={directory}", "--chain", "main"]):
        program = once("ipc", "tip", "unix", *options)
        assert (program.process.returncode, program.errors) == (0, [])
    program = once("ipc", "tip", "unix:node.sock", f"-datadir={directory}")
    assert program.process.returncode == 0


def test_without_pycapnp_it_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = directory / "sitecustomize.py"
    blocked.write_text(
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'capnp' else found(name, *rest)\n"
    )
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{directory}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}")
    for arguments in (["ipc", "tip", "unix:/run/x"], ["run", "--source", "bitcoin-node:unix:/run/x"]):
        program = once(*arguments)
        assert program.process.returncode == 9
        (line,) = program.errors
        assert "pip install 'zmqpub[ipc]'" in line


@needs_node
@pytest.mark.unsanitized
def test_real_node(directory: Path) -> None:
    """Bitcoin Core itself; and what happens to those who wait when it ends."""
    node = IpcNode(directory)
    try:
        (told,) = once("ipc", "echo", node.socket, "hello", "--json").objects()
        assert (told["echo"], told["version"]) == ("hello", "master")
        (made,) = node("generatetodescriptor", 1, "raw(51)")
        assert once("ipc", "tip", node.socket).seen == [f"{made} 1"]
        assert once("ipc", "tip", "unix", f"-datadir={directory}", "-chain=regtest").seen == [f"{made} 1"]
        (header,) = once("ipc", "rpc", node.socket, "getblockheader", made, "--json").objects()
        assert header["height"] == 1
        program = once("ipc", "rpc", node.socket, "getblock", "00" * 32)
        assert (program.process.returncode, program.errors) == (12, ["zmqpub: error: getblock: Block not found (code -5)"])
        assert once("ipc", "rpc", node.socket, "stop", "now").process.returncode == 12
        assert once("ipc", "wait", node.socket, "--timeout", "0.5").process.returncode == 8
        with (
            Program("ipc", "wait", node.socket, "--follow", "--json") as killed,
            Program("ipc", "wait", node.socket, "--follow") as stopped,
        ):
            for _ in range(100):
                node("generatetodescriptor", 1, "raw(51)")
                if killed.seen and stopped.seen:
                    break
                for program in (killed, stopped):
                    with contextlib.suppress(AssertionError):
                        program.line(".", timeout=0.2)
            assert json.loads(killed.seen[0])["height"] > 1
            node.stop()
            assert stopped.end() == 11
            assert killed.end() == 11
            assert len(killed.errors) == len(stopped.errors) == 1
        node.start()
        with Program("ipc", "wait", node.socket) as waits:
            with contextlib.suppress(AssertionError):
                waits.line(".", timeout=3.0)
            node.kill()
            assert waits.end() == 11
            assert len(waits.errors) == 1
        assert once("ipc", "tip", node.socket).process.returncode == 3  # the socket stayed
    finally:
        node.stop()


# As a source


def test_run_before_another_run_tells_the_same_blocks(directory: Path) -> None:
    """A publisher with a chain, another before it that knows it over IPC only: the same blocks at both, every step of them."""
    node, first, second = f"unix:{directory}/node.sock", f"ipc://{directory}/first", f"ipc://{directory}/second"
    with (
        Program("run", *everything(first), *SIMULATED, f"-ipcbind={node}") as chain,
        zmq.Context() as context,
        context.socket(zmq.SUB) as theirs,
        context.socket(zmq.SUB) as ours,
    ):
        chain.line("^bound ipc")
        with Program("run", "--source", f"bitcoin-node:{node}", *everything(second)) as front:
            front.line("publishing the node at unix:/")
            for subscriber, address in ((theirs, first), (ours, second)):
                subscriber.linger = 0
                subscriber.rcvhwm = 0
                subscriber.subscribe(b"")
                subscriber.connect(address)
            heard: dict[zmq.Socket[bytes], list[tuple[str, bytes]]] = {theirs: [], ours: []}
            while sum(topic == "hashblock" for topic, _ in heard[ours]) < 15:
                for subscriber in heard:
                    while subscriber.poll(50):
                        topic, body, _ = subscriber.recv_multipart()
                        heard[subscriber].append((topic.decode(), body))
                assert front.process.poll() is None
            mine, others = (steps(heard[subscriber]) for subscriber in (ours, theirs))
            start = others.index(mine[0])
            length = min(len(mine), len(others) - start)
            assert length > 15
            assert mine[:length] == others[start : start + length]
            bodies = {body for topic, body in heard[theirs] if topic == "rawtx"}
            added = {body for topic, body in heard[ours] if topic == "rawtx"}
            assert len(added & bodies) > 20
            assert front.end(signal.SIGINT) == 0
            assert any("mempool events not learned" in line or "nothing that the node did was missed" in line for line in front.seen)


def test_run_before_a_node_answers_of_what_it_began_with(directory: Path) -> None:
    """Of the node's tip and mempool, before anything happens."""
    node, served = f"unix:{directory}/node.sock", f"unix:{directory}/front.sock"
    quiet = ("--block-interval=1000000", "--rate=0.01", "--seed=5")
    with Program("run", f"-zmqpubhashtx=ipc://{directory}/first", *quiet, f"-ipcbind={node}") as chain:
        chain.line("^bound ipc")
        arguments = ("--source", f"bitcoin-node:{node}", f"-zmqpubhashtx=ipc://{directory}/second", f"-ipcbind={served}")
        with Program("run", *arguments) as front:
            front.line("publishing the node at unix:/")
            answers: list[str] = []
            while not answers:  # until the source has asked the node
                answers = once("ipc", "rpc", served, "getbestblockhash").seen
            assert answers == once("ipc", "rpc", node, "getbestblockhash").seen
            assert once("ipc", "rpc", served, "getblock", *answers, "0").seen == once("ipc", "rpc", node, "getblock", *answers, "0").seen
            mempool = ("--json", "getrawmempool", "false", "true")
            assert once("ipc", "rpc", served, *mempool).seen == once("ipc", "rpc", node, *mempool).seen
            assert front.end(signal.SIGINT) == 0


def test_node_that_is_killed_and_comes_back(directory: Path) -> None:
    """kill -9 of what is served: the publisher before it stays, and goes on once there is a chain again, from where it stood."""
    node, address = f"unix:{directory}/node.sock", f"ipc://{directory}/front"
    chain = ("run", "--zmqpubhashblock=tcp://127.0.0.1:*", f"-ipcbind={node}", "--block-interval", "0.3", "--rate", "5")
    with zmq.Context() as context, context.socket(zmq.SUB) as ear:
        ear.linger = 0
        ear.rcvhwm = 0
        ear.subscribe(b"sequence")
        ear.connect(address)
        heard: list[bytes] = []

        def hear(blocks: int) -> None:
            until = len(heard) + blocks
            while len(heard) < until:
                assert ear.poll(30_000), (blocks, len(heard))
                _, body, _ = ear.recv_multipart()
                heard.extend([body] if len(body) == 33 else [])

        with Program(*chain) as first:
            first.line("^bound ipc")
            front = Program("run", "--source", f"bitcoin-node:{node}", f"--zmqpubsequence={address}")
            with front:
                front.line("publishing the node at unix:/")
                hear(5)
                first.end(signal.SIGKILL)
                with Program(*chain, "--seed", "1") as second:
                    second.line("^bound ipc")
                    hear(15)
                    assert second.process.poll() is None
                    stack: list[bytes] = []
                    for body in heard:
                        if body[32:] == b"C":
                            stack.append(body[:32])
                        elif stack:
                            assert stack.pop() == body[:32]
                    assert any(body[32:] == b"D" for body in heard)
                    (height,) = once("ipc", "rpc", node, "getblockcount").seen
                    assert int(height) > 5
                    header = once("ipc", "rpc", "--json", node, "getblockheader", stack[-1].hex()).objects()
                    assert header[0]["confirmations"] > 0
                assert front.end(signal.SIGTERM) == 0
    assert any("was restarted" in line or "trying again" in line for line in front.errors)


def steps(heard: list[tuple[str, bytes]]) -> list[bytes]:
    """Blocks connected and disconnected."""
    return [body for topic, body in heard if topic == "sequence" and len(body) == 33]


def test_source_options_that_make_no_sense(directory: Path) -> None:
    source = f"bitcoin-node:unix:{directory}/x"
    for options, names in (
        (["--source", source, "--speed", "3"], "--speed"),
        (["--source", source, "--rate", "3"], "--rate"),
        (["--source", source, "--seed", "3"], "--seed"),
        (["--source", source, "--after", "00"], "--after"),
        (["--source", source, "--poll", "0"], "--poll"),
        (["--source", source, "-chain=moon"], "-chain"),
        (["--source", "bitcoin-nod"], "did you mean bitcoin-node"),
        (["--source", "simulated", "--after", "00" * 32], "--after"),
        (["--source", "bitcoin-node:tcp:1"], "tcp:1"),
    ):
        program = once("run", *options, *everything())
        assert program.process.returncode == 2, options
        assert names in program.errors[0]


def test_source_that_is_not_there(directory: Path) -> None:
    program = once("run", "--source", f"bitcoin-node:unix:{directory}/nobody", *everything())
    assert program.process.returncode == 3
    assert str(directory) in program.errors[-1]
    assert all(topic in " ".join(program.seen) for topic in TOPICS)
