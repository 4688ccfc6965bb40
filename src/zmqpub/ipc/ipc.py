"""Ipc: connections to other processes, made, found and offered, as Bitcoin Core's interfaces::Ipc does it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final

from zmqpub.errors import ClosedError, IpcAddressError, IpcConnectError
from zmqpub.ipc.address import is_disabled
from zmqpub.ipc.process import Process, UnixProcess
from zmqpub.ipc.protocol import Protocol

__all__ = ["Ipc"]

_log = logging.getLogger("zmqpub")

_NODE = "bitcoin-node"
_CHILD_PATIENCE: Final = 30.0
"""Seconds that a child whose connection was closed is waited for; one that takes longer ends by itself."""
_NOBODY = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR)


class Ipc:
    """What a program named ``exe_name`` has to do with other processes; a context manager.

    ``init``: a plain object that is served (see zmqpub.interfaces.Init), to the parent that spawned this process and to whoever
    connects to the addresses of listen_address(); None serves an Init that makes nothing. ``data_dir``: the chain's own
    directory, where relative addresses begin; by default Bitcoin Core's for mainnet. ``argv0``: the path of this program, beside
    which those to be spawned are; by default they are looked for beside the Python interpreter and on PATH.
    Any thread may call any method.
    """

    def __init__(
        self,
        exe_name: str,
        init: object = None,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        argv0: str | os.PathLike[str] | None = None,
        protocol: Protocol | None = None,
        process: Process | None = None,
    ) -> None:
        self.exe_name = exe_name
        self.init = init if init is not None else _Nothing()
        self.data_dir = data_dir
        self.argv0 = argv0
        self._protocol = protocol if protocol is not None else _capnp_protocol(exe_name)
        self._process = process if process is not None else UnixProcess()
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: list[threading.Thread] = []

    def spawn_process(self, exe_name: str) -> Any:
        """Start a program as a child, and return its Init; when that is closed the child ends and is waited for.

        Raises IpcConnectError when there is no such program, and DisconnectedError when it ends at once.
        """
        self._check()
        pid, sock = self._process.spawn(exe_name, self.argv0)
        try:
            init = self._protocol.connect(sock, f"fd:{sock.fileno()}")
        except BaseException:
            sock.close()
            raise
        finally:
            # In a thread, as the Init may end in a finalizer, while objects that it made keep the connection.
            waiting = threading.Thread(target=self._wait, args=(exe_name, pid), name=f"zmqpub-wait-{pid}", daemon=True)
            waiting.start()
            with self._lock:
                self._waiting = [one for one in self._waiting if one.is_alive()] + [waiting]
        there = weakref.ref(init)

        def wait() -> None:
            if getattr(there(), "closed", False):
                waiting.join(_CHILD_PATIENCE)

        self._protocol.add_cleanup(init, wait)
        return init

    def start_spawned_process(self, argv: Sequence[str] | None = None) -> int | None:
        """Serve the parent until it has gone, if this process was spawned: its exit status then. Else None, at once.

        ``argv``: by default sys.argv; ``[program, "-ipcfd", "<number>"]`` is a spawned process. SIGINT is left to the parent.
        Raises IpcAddressError when the number is not that of a socket.
        """
        self._check()
        sock = self._process.check_spawned(sys.argv if argv is None else argv)
        if sock is None:
            return None
        with _deaf_to_interrupts(self.exe_name):
            self._protocol.serve(self.init, sock, f"fd:{sock.fileno()}")
        return 0

    def connect_address(self, address: str, *, exe_name: str = _NODE, allow_other_owner: bool = False, timeout: float | None = 30.0) -> Any:
        """The Init of who listens at ``address``, by default a node: see zmqpub.ipc.address.

        None for the addresses ``""`` and ``0``, and for ``auto`` when nobody is there. Raises what Process.connect raises.
        """
        self._check()
        if is_disabled(address):
            return None
        try:
            sock, address = self._process.connect(self.data_dir, exe_name, address, allow_other_owner=allow_other_owner, timeout=timeout)
        except (IpcConnectError, IpcAddressError) as error:
            if address == "auto" and (isinstance(error, IpcAddressError) or error.errno in _NOBODY):
                return None
            raise
        return self._protocol.connect(sock, address)

    def listen_address(self, address: str) -> str:
        """Serve ``init`` to whoever connects to ``address``; returns it in its canonical form. Raises what Process.bind raises."""
        self._check()
        sock, address = self._process.bind(self.data_dir, self.exe_name, address)
        try:
            self._protocol.listen(sock, self.init, address)
        except BaseException:
            sock.close()
            raise
        return address

    def disconnect_incoming(self) -> None:
        """End the connections of those who connected to addresses of listen_address(); the addresses stay."""
        self._protocol.disconnect_incoming()

    def add_cleanup(self, target: object, cleanup: Callable[[], None]) -> None:
        """Call ``cleanup`` once ``target``, an Init or what one has made, is closed or gone."""
        self._protocol.add_cleanup(target, cleanup)

    @property
    def context(self) -> Any:
        """See Protocol.context."""
        return self._protocol.context

    def close(self) -> None:
        """Stop listening and end all connections; spawned children end with theirs. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._protocol.close()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.join(_CHILD_PATIENCE)

    def __enter__(self) -> Ipc:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("the Ipc was closed")

    def _wait(self, exe_name: str, pid: int) -> None:
        status = self._process.wait_spawned(pid)
        level = logging.DEBUG if status == 0 else logging.WARNING
        _log.log(level, "process %s, pid %d, ended with status %d", exe_name, pid, status)


class _Nothing:
    """An Init that makes nothing."""


def _capnp_protocol(exe_name: str) -> Protocol:
    from zmqpub.ipc.capnp_protocol import CapnpProtocol

    return CapnpProtocol(exe_name)


@contextlib.contextmanager
def _deaf_to_interrupts(exe_name: str) -> Iterator[None]:
    """Ctrl-C reaches the whole process group; the parent, who gets it, too, ends this process when it is done with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def explain(number: int, frame: object) -> None:
        os.write(2, f"[{exe_name}] SIGINT: waiting for the parent to end this process\n".encode())

    before = signal.signal(signal.SIGINT, explain)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
