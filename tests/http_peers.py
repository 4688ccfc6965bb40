"""A node's HTTP server as a client meets it: raw bytes over real loopback sockets, each connection in a thread of its own.

It does what a node does, until ``behave`` says otherwise: a function of the request and the socket, which says whether the connection
stays open.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

__all__ = ["Behavior", "HttpNode", "Seen", "reply"]


class Seen(NamedTuple):
    """A request."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Which one it came over, from 1."""

    @property
    def call(self) -> Any:
        return json.loads(self.body)


Behavior = Callable[[Seen, socket.socket], bool]


def reply(body: bytes | str, status: str = "200 OK", *, headers: str = "") -> bytes:
    """A whole answer."""
    body = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class HttpNode:
    def __init__(self, port: int = 0) -> None:
        self.cookie: bytes | None = None
        """``user:password`` that is asked for."""
        self.behave: Behavior | None = None
        self.requests: list[Seen] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._start(self._accept)

    def __enter__(self) -> HttpNode:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def hang_up(self) -> None:
        """End every connection."""
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _start(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._sockets.append(connection)
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            reader = connection.makefile("rb")
            with reader:
                while line := reader.readline():
                    headers = {}
                    while header := reader.readline().strip():
                        name, _, value = header.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    body = reader.read(int(headers.get("content-length", 0)))
                    seen = Seen(line.decode().strip(), headers, body, number)
                    self.requests.append(seen)
                    if not (self.behave or self.answer)(seen, connection):
                        return

    def answer(self, seen: Seen, connection: socket.socket) -> bool:
        """As a node."""
        if self.cookie is not None and seen.headers.get("authorization") != f"Basic {base64.b64encode(self.cookie).decode()}":
            connection.sendall(reply("", "401 Unauthorized", headers='WWW-Authenticate: Basic realm="jsonrpc"\r\n'))
            return True
        call = seen.call
        target = seen.line.split()[1]
        answers = [self._one(one, target) for one in (call if isinstance(call, list) else [call])]
        connection.sendall(reply(json.dumps(answers if isinstance(call, list) else answers[0]) + "\n"))
        return True

    def _one(self, call: dict[str, Any], target: str) -> dict[str, Any]:
        if call["method"] == "unknown":
            return {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": call["id"]}
        return {"jsonrpc": "2.0", "result": [call["method"], call["params"], target], "id": call["id"]}
