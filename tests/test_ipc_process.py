"""Addresses, sockets and processes: where peers are, and who may be one."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zmqpub.errors import BindError, IpcAddressError, IpcConnectError, IpcTimeoutError

pytest.importorskip("capnp", reason="zmqpub[ipc] is not installed")

from zmqpub.ipc.address import MAX_PATH, canonical, default_data_dir, is_disabled, parse_address
from zmqpub.ipc.process import UnixProcess, find_program
from zmqpub.ipc.unix_sockets import peer_uid


@pytest.fixture
def process() -> UnixProcess:
    return UnixProcess()


# ---- addresses ----


@pytest.mark.parametrize(
    ("address", "exe", "expected"),
    [
        ("unix", "bitcoin-node", "/data/node.sock"),
        ("unix:", "bitcoin-node", "/data/node.sock"),
        ("auto", "bitcoin-node", "/data/node.sock"),
        ("unix", "zmqpub", "/data/zmqpub.sock"),
        ("unix:other.sock", "bitcoin-node", "/data/other.sock"),
        ("unix:sub/other.sock", "bitcoin-node", "/data/sub/other.sock"),
        ("unix:../x.sock", "bitcoin-node", "/x.sock"),
        ("unix:/abs/x.sock", "bitcoin-node", "/abs/x.sock"),
        ("unix:a:b", "bitcoin-node", "/data/a:b"),
    ],
)
def test_addresses_are_those_of_bitcoin_core(address: str, exe: str, expected: str) -> None:
    assert parse_address(address, "/data", exe) == Path(expected)
    assert canonical(parse_address(address, "/data", exe)) == f"unix:{expected}"


@pytest.mark.parametrize("address", ["", "0", "tcp://127.0.0.1:1", "unix ", "UNIX", "/path", "unixx:/a", "unix:/a\0b"])
def test_other_addresses_are_errors_that_name_them(address: str) -> None:
    with pytest.raises(IpcAddressError) as error:
        parse_address(address, "/data")
    assert (address or "''").partition("\0")[0] in error.value.address
    assert is_disabled(address) == (address in ("", "0"))


def test_half_of_a_surrogate_pair_is_no_path() -> None:
    with pytest.raises(IpcAddressError, match=r"'unix:/a\\ud800': a path cannot contain"):
        parse_address("unix:/a\ud800")


def test_a_path_that_is_too_long_is_refused_with_its_length() -> None:
    directory = "/" + "d" * 50
    longest = "unix:" + "x" * (MAX_PATH - len(directory) - 1)
    assert len(os.fsencode(parse_address(longest, directory))) == MAX_PATH
    with pytest.raises(IpcAddressError, match=f"has {MAX_PATH + 1} bytes, and that of a unix socket has at most {MAX_PATH}"):
        parse_address(longest + "x", directory)
    with pytest.raises(IpcAddressError, match=f"has {MAX_PATH + 1} bytes"):  # bytes, not characters
        parse_address(longest[:-1] + "ä", directory)


def test_without_a_directory_it_is_bitcoin_cores_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/satoshi")
    assert parse_address("unix") == default_data_dir() / "node.sock"
    assert str(default_data_dir()).startswith("/home/satoshi/")


# ---- bind and connect ----


def test_a_socket_is_for_its_owner_alone_and_goes_with_its_close(process: UnixProcess, tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "regtest"
    before = os.umask(0)
    try:
        listener, address = process.bind(data_dir, "zmqpub", "unix")
    finally:
        os.umask(before)
    path = data_dir / "zmqpub.sock"
    assert address == f"unix:{path}"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700
    connection, connected = process.connect(data_dir, "zmqpub", "unix")
    with connection, listener.accept()[0] as accepted:
        assert connected == address
        assert connection.getblocking()
        assert peer_uid(connection) == peer_uid(accepted) == os.geteuid()
        connection.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
    listener.close()
    assert not path.exists()
    listener.close()


def test_a_live_socket_is_left_alone_and_a_stale_one_is_replaced(process: UnixProcess, tmp_path: Path) -> None:
    first, address = process.bind(tmp_path, "zmqpub", "unix:a.sock")
    with pytest.raises(BindError) as error:
        process.bind(tmp_path, "zmqpub", "unix:a.sock")
    assert (error.value.errno, error.value.address) == (errno.EADDRINUSE, address)
    connection, _ = process.connect(tmp_path, "zmqpub", "unix:a.sock")
    connection.close()
    socket.socket.close(first)  # without the removal: as a process that was killed leaves it
    assert (tmp_path / "a.sock").exists()
    with pytest.raises(IpcConnectError) as refused:
        process.connect(tmp_path, "zmqpub", "unix:a.sock")
    assert (refused.value.errno, refused.value.address) == (errno.ECONNREFUSED, address)
    second, _ = process.bind(tmp_path, "zmqpub", "unix:a.sock")
    process.connect(tmp_path, "zmqpub", "unix:a.sock")[0].close()
    second.close()


def test_a_socket_whose_backlog_is_full_is_live(process: UnixProcess, tmp_path: Path) -> None:
    busy = socket.socket(socket.AF_UNIX)
    busy.bind(str(tmp_path / "a.sock"))
    busy.listen(0)
    with busy, contextlib.ExitStack() as connections:
        fill = (connections.enter_context(process.connect(tmp_path, "x", "unix:a.sock", timeout=0.3)[0]) for _ in range(1000))
        with pytest.raises(IpcTimeoutError) as error:
            list(fill)
        assert error.value.address == f"unix:{tmp_path}/a.sock"
        with pytest.raises(BindError) as in_use:
            process.bind(tmp_path, "x", "unix:a.sock")
        assert in_use.value.errno == errno.EADDRINUSE


def test_another_ones_socket_is_not_removed_at_close(process: UnixProcess, tmp_path: Path) -> None:
    first, _ = process.bind(tmp_path, "zmqpub", "unix:a.sock")
    (tmp_path / "a.sock").unlink()
    second, _ = process.bind(tmp_path, "zmqpub", "unix:a.sock")
    first.close()
    process.connect(tmp_path, "zmqpub", "unix:a.sock")[0].close()
    second.close()


def test_a_forked_child_does_not_remove_it(process: UnixProcess, tmp_path: Path) -> None:
    listener, _ = process.bind(tmp_path, "zmqpub", "unix:a.sock")
    pid = os.fork()
    if pid == 0:
        listener.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "a.sock").exists()
    listener.close()


@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("precious"), lambda path: path.mkdir(), lambda path: path.symlink_to("/nowhere")]
)
def test_what_is_no_socket_is_never_removed(process: UnixProcess, tmp_path: Path, make: object) -> None:
    path = tmp_path / "a.sock"
    assert callable(make)
    make(path)
    with pytest.raises(BindError, match="no socket"):
        process.bind(tmp_path, "zmqpub", "unix:a.sock")
    assert os.path.lexists(path)


def test_a_directory_that_others_can_write_to_is_refused(process: UnixProcess, tmp_path: Path) -> None:
    for mode in (0o777, 0o1777, 0o770):
        tmp_path.chmod(mode)
        with pytest.raises(BindError, match=f"has mode {mode:o}, so that others could replace the socket"):
            process.bind(tmp_path, "zmqpub", "unix:a.sock")
    tmp_path.chmod(0o755)
    process.bind(tmp_path, "zmqpub", "unix:a.sock")[0].close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_what_belongs_to_another_user_is_refused_unless_allowed(process: UnixProcess, tmp_path: Path) -> None:
    listener, address = process.bind(tmp_path, "zmqpub", "unix:a.sock")
    os.chown(tmp_path / "a.sock", 12345, -1)
    with listener:
        with pytest.raises(IpcConnectError, match=f"the socket belongs to user 12345, not to user {os.geteuid()}") as error:
            process.connect(tmp_path, "zmqpub", "unix:a.sock")
        assert error.value.address == address
        process.connect(tmp_path, "zmqpub", "unix:a.sock", allow_other_owner=True)[0].close()
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(BindError, match="belongs to user 12345, who could replace the socket"):
        process.bind(tmp_path, "zmqpub", "unix:b.sock")
    os.chown(tmp_path, os.geteuid(), -1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_refused_though_the_socket_is_ours(process: UnixProcess, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    code = f"""
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind({str(path)!r})
os.setuid(12345)
listener.listen()
print("there", flush=True)
sys.stdin.readline()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        with pytest.raises(IpcConnectError, match="the process that listens there belongs to user 12345"):
            process.connect(tmp_path, "zmqpub", "unix:a.sock")
    finally:
        other.communicate("\n")


@pytest.mark.parametrize("where", ["unix:nothing.sock", "unix:no/directory.sock", "unix:file/x.sock"])
def test_nobody_there(process: UnixProcess, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IpcConnectError, match="nobody listens there") as error:
        process.connect(tmp_path, "zmqpub", where)
    assert error.value.errno in (errno.ENOENT, errno.ENOTDIR)
    assert error.value.address == f"unix:{tmp_path}/{where.removeprefix('unix:')}"


def test_many_that_bind_at_once_leave_one(process: UnixProcess, tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "a.sock"))
    stale.close()
    bound: list[socket.socket] = []
    refused: list[BindError] = []

    def bind() -> None:
        try:
            bound.append(process.bind(tmp_path, "zmqpub", "unix:a.sock")[0])
        except BindError as error:
            refused.append(error)

    threads = [threading.Thread(target=bind) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(bound), len(refused)) == (1, 7)
    process.connect(tmp_path, "zmqpub", "unix:a.sock")[0].close()
    bound[0].close()


# ---- spawn ----


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)
    return path


def test_a_spawned_process_has_its_socket_and_nothing_else(process: UnixProcess, tmp_path: Path) -> None:
    script(
        tmp_path / "child",
        """
import os, socket, sys
from zmqpub.ipc.process import UnixProcess
there = sorted(int(fd) for fd in os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
sock = UnixProcess().check_spawned(sys.argv)
assert sock is not None and not os.get_inheritable(sock.fileno())
sock.sendall(f"{sys.argv[1:]} {sock.fileno()} {[fd for fd in there if fd > 2]}\\n".encode())
assert sock.recv(1) == b""
sys.exit(3)
""",
    )
    with (tmp_path / "inheritable").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        pid, sock = process.spawn("child", tmp_path / "parent")
    with sock, sock.makefile() as lines:
        said = lines.readline()
        number = said.split()[2]
        assert said.startswith(f"['-ipcfd', '{number}'] {number} ")
        if Path("/proc/self/fd").is_dir():
            # Its own listing of the directory is one more.
            assert len(said.partition("[")[2].partition("[")[2].split(",")) <= 2
        assert not os.get_inheritable(sock.fileno())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait_spawned(pid, 0.05)
    assert process.wait_spawned(pid, 60.0) == 3
    with pytest.raises(ChildProcessError):
        process.wait_spawned(pid)


def test_a_signal_that_ended_it_is_its_status(process: UnixProcess, tmp_path: Path) -> None:
    script(tmp_path / "child", "import signal, os; os.kill(os.getpid(), signal.SIGKILL)")
    pid, sock = process.spawn(str(tmp_path / "child"))
    with sock:
        assert sock.recv(1) == b""
    assert process.wait_spawned(pid) == -signal.SIGKILL


def test_programs_that_cannot_be_started_are_named(process: UnixProcess, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for name, cause, number in (("none", "No such file", errno.ENOENT), ("text", "Permission denied", errno.EACCES)):
        with pytest.raises(IpcConnectError, match=cause) as error:
            process.spawn(name, tmp_path / "parent")
        assert (error.value.address, error.value.errno) == (str(tmp_path / name), number)
    with pytest.raises(IpcConnectError, match="there is no program 'zmqpub-no-such'"):
        process.spawn("zmqpub-no-such")
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_program_is_looked_for_beside_the_interpreter(tmp_path: Path) -> None:
    assert find_program(Path(sys.executable).name) == Path(sys.executable)
    assert find_program("sh").name == "sh"
    assert find_program("zmqpub", tmp_path / "bin" / "node") == tmp_path / "bin" / "zmqpub"


@pytest.mark.parametrize("argv", [["x"], ["x", "-ipcfd"], ["x", "-ipcfd", "3", "-more"], ["x", "-ipcfd=3"], ["x", "--ipcfd", "3"], []])
def test_other_arguments_are_the_programs_own(process: UnixProcess, argv: list[str]) -> None:
    assert process.check_spawned(argv) is None


@pytest.mark.parametrize("number", ["x", "", "-1", "3.0", " 3", "٣", "99999999999999999999", "9999"])
def test_numbers_that_are_none_are_refused(process: UnixProcess, number: str) -> None:
    with pytest.raises(IpcAddressError) as error:
        process.check_spawned(["x", "-ipcfd", number])
    assert error.value.address == f"fd:{number}"
