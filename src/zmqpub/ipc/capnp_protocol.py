"""The one Protocol that there is: Cap'n Proto, with Bitcoin Core's interfaces and libmultiprocess's conventions."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

from zmqpub.errors import ClosedError
from zmqpub.ipc.limits import Limits
from zmqpub.ipc.protocol import Protocol
from zmqpub.ipc.serving import Listener, serve_connection

__all__ = ["CapnpProtocol"]


class CapnpProtocol(Protocol):
    """See `zmqpub.ipc.protocol.Protocol`. ``limits`` are each listening socket's own."""

    def __init__(self, exe_name: str = "zmqpub", *, limits: Limits | None = None) -> None:
        self.exe_name = exe_name
        self.limits = limits or Limits()
        self._context = Context()
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._connected: weakref.WeakSet[Any] = weakref.WeakSet()
        self._closed = False

    def connect(self, sock: socket.socket, address: str) -> Any:
        from zmqpub.ipc.client import connect_over

        self._check()
        init = connect_over(sock, address)
        with self._lock:
            closed = self._closed
            if not closed:
                self._connected.add(init)
        if closed:  # meanwhile
            init.close()
            self._check()
        return init

    def listen(self, sock: socket.socket, init: object, address: str) -> None:
        with self._lock:
            self._check()
            self._listeners.append(Listener(sock, init, address=address, limits=self.limits))

    def serve(self, init: object, sock: socket.socket, address: str) -> None:
        self._check()
        serve_connection(sock, init, address=address, limits=self.limits)

    def disconnect_incoming(self) -> None:
        for listener in self._listening():
            listener.disconnect_incoming()

    def add_cleanup(self, target: object, cleanup: Callable[[], None]) -> None:
        add = getattr(target, "add_cleanup", None)
        if add is not None:
            add(cleanup)
        else:
            weakref.finalize(target, cleanup)

    @property
    def context(self) -> Any:
        return self._context

    def close(self) -> None:
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, []
            connected = list(self._connected)
        for listener in listeners:
            listener.close()
        for init in connected:
            init.close()

    def _listening(self) -> list[Listener]:
        with self._lock:
            return list(self._listeners)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("the protocol was closed")


class Context:
    """Takes whatever attributes the embedding program gives it, as ipc::Context does."""
