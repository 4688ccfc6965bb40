"""Ipc: a parent and its child, a server and its clients, in processes of their own; and Bitcoin Core's node as a child."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zmqpub.errors import BindError, ClosedError, DisconnectedError, IpcAddressError, IpcConnectError, IpcError

pytest.importorskip("capnp", reason="zmqpub[ipc] is not installed")

from zmqpub.ipc.ipc import Ipc

PATIENCE = 60.0


class Echo:
    def echo(self, echo: str) -> str:
        return f"{echo} from {os.getpid()}"


class Init:
    def make_echo(self) -> Echo:
        return Echo()


def child(path: Path, body: str = "") -> Path:
    """A program that is spawned; ``body`` sees ``ipc``."""
    path.write_text(
        f"""#!{sys.executable}
import os, sys
from zmqpub.ipc.ipc import Ipc
class Echo:
    def echo(self, echo):
        return f"{{echo}} from {{os.getpid()}}"
class Init:
    def make_echo(self):
        return Echo()
{body}
with Ipc("child", Init()) as ipc:
    status = ipc.start_spawned_process()
sys.exit(77 if status is None else status)
"""
    )
    path.chmod(0o755)
    return path


def test_a_child_is_called_and_ends_with_its_init(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "zmqpub")
    child(tmp_path / "child")
    with Ipc("parent", argv0=tmp_path / "parent") as ipc:
        init = ipc.spawn_process("child")
        told = init.make_echo().echo("hello")
        assert told.startswith("hello from ")
        assert int(told.rpartition(" ")[2]) != os.getpid()
        gone: list[str] = []
        ipc.add_cleanup(init, lambda: gone.append("gone"))
        init.close()
        assert gone == ["gone"]
        assert "ended with status 0" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.rpartition(" ")[2]), 0)


def test_the_childs_interrupts_are_the_parents_business(tmp_path: Path) -> None:
    child(tmp_path / "child")
    with Ipc("parent", argv0=tmp_path / "parent") as ipc, ipc.spawn_process("child") as init:
        echo = init.make_echo()
        os.kill(int(echo.echo("").rpartition(" ")[2]), signal.SIGINT)
        assert echo.echo("still here").startswith("still here")


def test_a_child_that_dies_is_a_disconnect(tmp_path: Path) -> None:
    child(tmp_path / "child")
    with Ipc("parent", argv0=tmp_path / "parent") as ipc, ipc.spawn_process("child") as init:
        echo = init.make_echo()
        os.kill(int(echo.echo("").rpartition(" ")[2]), signal.SIGKILL)
        with pytest.raises(DisconnectedError):
            echo.echo("anyone?")


def test_a_child_that_ends_at_once_and_one_that_is_not_there(tmp_path: Path) -> None:
    child(tmp_path / "child", "sys.exit(5)")
    with Ipc("parent", argv0=tmp_path / "parent") as ipc:
        with pytest.raises(DisconnectedError):
            ipc.spawn_process("child").make_echo()
        with pytest.raises(IpcConnectError, match="No such file"):
            ipc.spawn_process("other")


def test_closing_ends_the_children(tmp_path: Path) -> None:
    child(tmp_path / "child")
    ipc = Ipc("parent", argv0=tmp_path / "parent")
    inits = [ipc.spawn_process("child") for _ in range(2)]
    pids = [int(init.make_echo().echo("").rpartition(" ")[2]) for init in inits]
    ipc.close()
    for pid in pids:
        deadline = time.monotonic() + PATIENCE
        while Path(f"/proc/{pid}").exists() if Path("/proc/self").exists() else False:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with pytest.raises(ClosedError):
        ipc.spawn_process("child")
    ipc.close()


def test_a_program_that_was_not_spawned_goes_on(tmp_path: Path) -> None:
    assert subprocess.run([str(child(tmp_path / "child"))], timeout=PATIENCE).returncode == 77
    done = subprocess.run([str(tmp_path / "child"), "-ipcfd", "x"], timeout=PATIENCE, capture_output=True, text=True)
    assert "IpcAddressError: fd:x: -ipcfd takes the number of a descriptor, not 'x'" in done.stderr


def test_an_address_is_listened_at_and_connected_to(tmp_path: Path) -> None:
    with Ipc("bitcoin-node", Init(), data_dir=tmp_path) as server, Ipc("client", data_dir=tmp_path) as client:
        assert client.connect_address("") is None
        assert client.connect_address("0") is None
        assert client.connect_address("auto") is None
        with pytest.raises(IpcConnectError, match="nobody listens there"):
            client.connect_address("unix")
        with pytest.raises(IpcAddressError):
            client.connect_address("tcp://127.0.0.1:1")
        address = server.listen_address("unix")
        assert address == f"unix:{tmp_path}/node.sock"
        with pytest.raises(BindError):
            server.listen_address("unix")
        for where in ("auto", "unix", "unix:node.sock", address):
            with client.connect_address(where) as init:
                assert init.address == address
                assert init.make_echo().echo("hi") == f"hi from {os.getpid()}"
        init = client.connect_address("auto")
        echo = init.make_echo()
        server.disconnect_incoming()
        with pytest.raises(DisconnectedError):
            echo.echo("anyone?")
        init.close()
        client.connect_address("auto").close()
    assert not (tmp_path / "node.sock").exists()


def test_auto_is_nobody_where_a_process_left_its_socket_or_the_path_is_too_long(tmp_path: Path) -> None:
    with Ipc("bitcoin-node", Init(), data_dir=tmp_path) as server:
        address = server.listen_address("unix")
        os.rename(tmp_path / "node.sock", tmp_path / "kept")
    os.rename(tmp_path / "kept", tmp_path / "node.sock")
    with Ipc("client", data_dir=tmp_path) as client:
        assert client.connect_address("auto") is None
        with pytest.raises(IpcConnectError) as error:
            client.connect_address("unix")
        assert error.value.address == address
    with Ipc("client", data_dir="/" + "x" * 200) as client:
        assert client.connect_address("auto") is None
        with pytest.raises(IpcAddressError):
            client.connect_address("unix")


def test_without_an_init_nothing_is_made_but_the_connection_stands(tmp_path: Path) -> None:
    with Ipc("bitcoin-node", data_dir=tmp_path) as server:
        address = server.listen_address("unix")
        with server.connect_address(address) as init, pytest.raises(IpcError):
            init.make_echo()
        server.context.anything = 5
        assert server.context.anything == 5


# ---- Bitcoin Core ----


def node() -> str:
    found = os.environ.get("ZMQPUB_BITCOIN_NODE") or shutil.which("bitcoin-node")
    if not found or not os.access(found, os.X_OK):
        pytest.skip("no bitcoin-node: neither ZMQPUB_BITCOIN_NODE nor one on PATH")
    return found


@pytest.mark.unsanitized
def test_bitcoin_node_is_spawned_as_bitcoin_core_spawns_it() -> None:
    program = node()
    with Ipc("zmqpub", argv0=Path(program).parent / "zmqpub") as ipc:
        with ipc.spawn_process(Path(program).name) as init:
            with init.make_echo() as echo:
                for text in ("", "hello", "ä" * 100_000):
                    assert echo.echo(text) == text
