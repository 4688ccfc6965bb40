"""A TCP relay between publisher and consumers that can be cut, and can hang."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

__all__ = ["Relay"]

_CHUNK = 256 * 1024
_SLICE = 0.1


class Relay:
    """Listens at a port of the system's choice and passes on to ``port``; one thread for each connection."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Pass nothing on until flow()."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._closed = True
        self.flow()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5.0)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads = [other for other in self._threads if other.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                readable, _, _ = select.select([self._listener], [], [], _SLICE)
                if readable:
                    near, _ = self._listener.accept()
                    self._start(self._pass_on, near)
            except (OSError, ValueError):
                if not self._closed:
                    raise
                return

    def _pass_on(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            with socket.create_connection(self._target) as far:
                with self._lock:
                    self._open |= {near, far}
                try:
                    self._pump(near, far)
                finally:
                    with self._lock:
                        self._open -= {near, far}

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        while not self._closed:
            readable, _, _ = select.select([near, far], [], [], _SLICE)
            if not self._flowing.is_set():
                self._flowing.wait()
            for end in readable:
                data = end.recv(_CHUNK)
                if not data:
                    return
                other[end].sendall(data)
