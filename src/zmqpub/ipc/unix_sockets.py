"""Unix sockets that can be trusted: ours, in a directory that is ours, live."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from zmqpub.errors import BindError, IpcConnectError, IpcTimeoutError
from zmqpub.ipc.address import canonical

__all__ = ["ListeningSocket", "bind_socket", "connect_socket", "peer_uid"]

_OPTION = "ipcbind"
_BACKLOG = 128
_LOCK_PATIENCE = 10.0
"""Seconds: others hold the lock for as long as a bind takes."""


class ListeningSocket(socket.socket):
    """A listening unix socket that removes its file when it is closed, if that is still the file that it made."""

    _path: Path | None = None
    _identity: tuple[int, int] = (0, 0)
    _owner = 0

    def take(self, path: Path) -> None:
        """This socket's file is ``path``."""
        status = os.lstat(path)
        self._path, self._identity, self._owner = path, (status.st_dev, status.st_ino), os.getpid()

    def close(self) -> None:
        path, self._path = self._path, None
        if path is not None and os.getpid() == self._owner:  # a forked child's copy is not the last
            with contextlib.suppress(OSError), _locked(path.parent):
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) == self._identity:
                    os.unlink(path)
        super().close()


def connect_socket(path: Path, *, allow_other_owner: bool = False, timeout: float | None = 30.0) -> socket.socket:
    """A blocking connection to the socket at ``path``; see UnixProcess.connect for the errors."""
    address = canonical(path)
    deadline = None if timeout is None else time.monotonic() + timeout
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not allow_other_owner:
            _check_owner(address, "the socket", os.lstat(path).st_uid)
        connection.setblocking(False)
        _connect(connection, path, address, deadline)
        if not allow_other_owner:
            _check_owner(address, "the process that listens there", peer_uid(connection))
        connection.setblocking(True)
    except OSError as error:
        connection.close()
        if isinstance(error, (IpcConnectError, IpcTimeoutError)):
            raise
        raise _not_connected(address, error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def bind_socket(path: Path) -> ListeningSocket:
    """A socket that listens at ``path``; see UnixProcess.bind for the errors."""
    address = canonical(path)
    try:
        _make_directory(path.parent)
        _check_directory(path.parent, address)
        with _locked(path.parent):
            _remove_stale(path, address)
            return _listen(path)
    except BindError:
        raise
    except OSError as error:
        raise BindError(_OPTION, address, error.errno or 0, error.strerror) from None


def peer_uid(connection: socket.socket) -> int:
    """The user whose process is at the other end."""
    if sys.platform.startswith("linux"):
        return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[1])
    # LOCAL_PEERCRED of the BSDs: struct xucred begins with version and uid, 32 bits each.
    return int(struct.unpack_from("2I", connection.getsockopt(0, 1, 128))[1])


def _connect(connection: socket.socket, path: Path, address: str, deadline: float | None) -> None:
    nap = 0.001
    while True:
        try:
            connection.connect(os.fsencode(path))
            return
        except BlockingIOError:  # its backlog is full, and there is nothing to wait for it with
            if deadline is not None and time.monotonic() + nap > deadline:
                raise IpcTimeoutError(address, None, None, "somebody listens there, but is too busy to accept a connection") from None
            time.sleep(nap)
            nap = min(nap * 2, 0.1)


def _check_owner(address: str, what: str, uid: int) -> None:
    if uid not in (os.geteuid(), 0):
        raise IpcConnectError(address, None, None, f"{what} belongs to user {uid}, not to user {os.geteuid()}; allow_other_owner allows it")


def _not_connected(address: str, error: OSError) -> IpcConnectError:
    causes = {
        errno.ENOENT: "nobody listens there: there is no such socket",
        errno.ENOTDIR: "nobody listens there: there is no such directory",
        errno.ECONNREFUSED: "nobody listens there: whoever made the socket has ended",
        errno.EACCES: "permission denied",
    }
    failure = IpcConnectError(address, None, None, causes.get(error.errno or 0, f"cannot connect: {error.strerror}"))
    failure.errno = error.errno
    return failure


def _make_directory(directory: Path) -> None:
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was quicker
            os.mkdir(one, 0o700)


def _check_directory(directory: Path, address: str) -> None:
    status = os.stat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise BindError(_OPTION, address, errno.ENOTDIR, f"{directory} is no directory")
    if status.st_uid != os.geteuid():
        cause = f"{directory} belongs to user {status.st_uid}, who could replace the socket; use a directory of your own"
        raise BindError(_OPTION, address, errno.EACCES, cause)
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        cause = f"{directory} has mode {mode:o}, so that others could replace the socket; use a directory that only you can write to"
        raise BindError(_OPTION, address, errno.EACCES, cause)


def _remove_stale(path: Path, address: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(_OPTION, address, errno.EEXIST, "what is there is no socket, and is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError:  # a full backlog, a socket that we may not write to: somebody's
            pass
    raise BindError(_OPTION, address, errno.EADDRINUSE, "somebody listens there")


def _listen(path: Path) -> ListeningSocket:
    listener = ListeningSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux makes the file with the socket's own mode; elsewhere the directory keeps others out until the chmod.
        with contextlib.suppress(OSError):
            os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fsencode(path))
        listener.take(path)
        os.chmod(path, 0o600)
        # Here already, under the lock: to others a socket that is bound and does not listen looks like one that was left behind.
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Nobody else of ours binds or removes a socket in ``directory`` meanwhile. Leaves no lock file behind."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, f"{directory} has been locked for {_LOCK_PATIENCE:.0f} s") from None
                time.sleep(0.005)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)
