"""Processes and the sockets between them, as Bitcoin Core's ipc::Process has them. Knows nothing of what is said over the sockets."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from zmqpub.errors import IpcAddressError, IpcConnectError
from zmqpub.ipc.address import canonical, parse_address
from zmqpub.ipc.unix_sockets import bind_socket, connect_socket

__all__ = ["Process", "UnixProcess", "find_program"]

_OPTION = "-ipcfd"


class Process(ABC):
    """How processes are started and found on one kind of system."""

    @abstractmethod
    def spawn(self, exe_name: str, argv0: str | os.PathLike[str] | None = None) -> tuple[int, socket.socket]:
        """Start a program and return its process id and this end of the socket between both."""

    @abstractmethod
    def wait_spawned(self, pid: int, timeout: float | None = None) -> int:
        """Wait for the end of a program that spawn() started; its exit status, negative for a signal's number."""

    @abstractmethod
    def check_spawned(self, argv: Sequence[str]) -> socket.socket | None:
        """The socket to the parent, if ``argv`` (with the program's name) is that of a spawned process, else None."""

    @abstractmethod
    def connect(
        self,
        data_dir: str | os.PathLike[str] | None,
        exe_name: str,
        address: str,
        *,
        allow_other_owner: bool = False,
        timeout: float | None = 30.0,
    ) -> tuple[socket.socket, str]:
        """A connection to who listens at ``address``, and the address in its canonical form."""

    @abstractmethod
    def bind(self, data_dir: str | os.PathLike[str] | None, exe_name: str, address: str) -> tuple[socket.socket, str]:
        """A socket that listens at ``address``, and the address in its canonical form."""


class UnixProcess(Process):
    """Unix sockets and socket pairs. Any thread may call any method."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def spawn(self, exe_name: str, argv0: str | os.PathLike[str] | None = None) -> tuple[int, socket.socket]:
        """Start ``[program, "-ipcfd", "<number>"]``: exactly these, as the child takes everything else over the socket.

        ``exe_name`` is looked for beside ``argv0``, the path of this program, as Bitcoin Core does; without one beside the Python
        interpreter and then on PATH. A path is taken as it is. The child inherits the environment and, of the descriptors
        from 3 on, only its end of the socket pair. Raises IpcConnectError when there is no such program.
        """
        program = find_program(exe_name, argv0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                child = subprocess.Popen([str(program), _OPTION, str(theirs.fileno())], pass_fds=[theirs.fileno()])
            except OSError as error:
                ours.close()
                raise _cannot_start(program, error) from None
        with self._lock:
            self._children[child.pid] = child
        return child.pid, ours

    def wait_spawned(self, pid: int, timeout: float | None = None) -> int:
        """As Process.wait_spawned. Raises subprocess.TimeoutExpired after ``timeout`` seconds, ChildProcessError for a pid that
        is not a child of this object's, or was waited for before."""
        with self._lock:
            child = self._children.get(pid)
        if child is None:
            raise ChildProcessError(f"process {pid} was not spawned here, or has been waited for")
        status = child.wait(timeout)
        with self._lock:
            self._children.pop(pid, None)
        return status

    def check_spawned(self, argv: Sequence[str]) -> socket.socket | None:
        """As Process.check_spawned. Raises IpcAddressError when the number is not that of a socket.

        ``-ipcfd`` together with other arguments is not what a parent says, and left to the program's own parser.
        """
        if len(argv) != 3 or argv[1] != _OPTION:
            return None
        number = argv[2]
        where = f"fd:{number}"
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise IpcAddressError(where, None, None, f"{_OPTION} takes the number of a descriptor, not {number!r}")
        descriptor = int(number)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                raise IpcAddressError(where, None, None, f"{_OPTION} {number}: the descriptor is no socket")
            os.set_inheritable(descriptor, False)
            return socket.socket(fileno=descriptor)
        except OSError as error:
            raise IpcAddressError(where, None, None, f"{_OPTION} {number}: {error.strerror}") from None

    def connect(
        self,
        data_dir: str | os.PathLike[str] | None,
        exe_name: str,
        address: str,
        *,
        allow_other_owner: bool = False,
        timeout: float | None = 30.0,
    ) -> tuple[socket.socket, str]:
        """As Process.connect, blocking for at most ``timeout`` seconds; the socket blocks, too.

        Raises IpcAddressError for an address that makes no sense, IpcConnectError when nobody listens there (``errno``: ENOENT,
        or ECONNREFUSED for what a process left behind), or when who does is another user than this one and root, which
        ``allow_other_owner`` allows; IpcTimeoutError when it is too busy to accept.
        """
        path = parse_address(address, data_dir, exe_name)
        return connect_socket(path, allow_other_owner=allow_other_owner, timeout=timeout), canonical(path)

    def bind(self, data_dir: str | os.PathLike[str] | None, exe_name: str, address: str) -> tuple[socket.socket, str]:
        """As Process.bind: a socket file of mode 0600, which close() of the socket removes.

        Missing directories are made with mode 0700; an existing one must be this user's and writable by nobody else. A socket that
        a process left behind is replaced. Raises IpcAddressError for an address that makes no sense, BindError when somebody
        listens there, when what is there is no socket, or when the directory is not to be trusted.
        """
        path = parse_address(address, data_dir, exe_name)
        return bind_socket(path), canonical(path)


def find_program(exe_name: str, argv0: str | os.PathLike[str] | None = None) -> Path:
    """The path of a program to spawn: see UnixProcess.spawn. Raises IpcConnectError when it cannot be found."""
    if os.sep in exe_name or argv0 is not None:
        return Path(argv0 or "").parent / exe_name
    beside = Path(sys.executable).parent / exe_name
    if os.access(beside, os.X_OK) and beside.is_file():
        return beside
    found = shutil.which(exe_name)
    if found is None:
        cause = f"there is no program {exe_name!r} beside {sys.executable} nor on PATH"
        raise IpcConnectError(exe_name, None, None, cause)
    return Path(found)


def _cannot_start(program: Path, error: OSError) -> IpcConnectError:
    failure = IpcConnectError(str(program), None, None, f"cannot start it: {error.strerror}")
    failure.errno = error.errno
    return failure
