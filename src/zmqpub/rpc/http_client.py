"""JSON-RPC over HTTP: what a node of any version, and any publisher's neighbor, can be asked without an extra being installed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from zmqpub.errors import ConfigError, ConfigProblem, IpcProtocolError
from zmqpub.rpc import calls as json_calls
from zmqpub.rpc.credentials import Anonymous, CookieFile, Credentials, Login
from zmqpub.rpc.http_transport import HttpTransport
from zmqpub.rpc.http_url import parse_url

__all__ = ["MAX_ANSWER_BYTES", "HttpRpc"]

MAX_ANSWER_BYTES = 1 << 30


class HttpRpc:
    """A node's JSON-RPC over HTTP, with the methods that `zmqpub.ipc.Rpc` has. Every method may be called from any thread.

    ::

        with HttpRpc("http://127.0.0.1:8332", cookie_file="~/.bitcoin/.cookie") as rpc:
            print(rpc.execute("getblockcount"))

    url               ``http://host:port``; port 8332 where it names none. User and password may be in it
    cookie_file       the node's ``.cookie``, in the chain's directory; read again when it changes, as with a node's restart
    user, password    instead of the cookie. Without either, requests go without credentials
    timeout           seconds for each call that is not given its own, None or math.inf for never
    max_answer_bytes  of an answer; a larger one raises IpcProtocolError

    Nothing is connected until the first call. Connections are kept, one for each thread that is in a call; redirects are not followed,
    and proxies of the environment not asked. Unlike over IPC, all of it goes in clear, the password too: that is for loopback, and for
    networks that one trusts.

    Errors are RpcError for what the node answers, and of the IpcError tree else, with the URL as their address: IpcConnectError (nobody
    there), RpcAccessError (who does not let us in), DisconnectedError (the connection was lost, and the call may have been made),
    IpcTimeoutError, OverloadedError (the node has too much to do until the deadline), IpcProtocolError (no HTTP, or no JSON).
    A node that is starting (-28) is asked again until the deadline; then its RpcError is raised.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8332",
        *,
        cookie_file: str | os.PathLike[str] | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout: float | None = 30.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        place, pair = parse_url(url)
        problems = []
        told = user if user is None or ":" not in user else None  # else the password may be in it
        if (user is None) != (password is None):
            problems.append(ConfigProblem("user", told, "user and password belong together: give both, or none"))
        elif user is not None and ":" in user:
            problems.append(ConfigProblem("user", told, "a user's name cannot have a colon"))
        if (cookie_file is not None) + (user is not None) + (pair is not None) > 1:
            problems.append(ConfigProblem("url", place.url, "one of these: cookie_file, user and password, or a URL that has them"))
        if timeout is not None and not timeout > 0:
            problems.append(ConfigProblem("timeout", str(timeout), "expected more than 0 seconds"))
        if not max_answer_bytes > 0:
            problems.append(ConfigProblem("max_answer_bytes", str(max_answer_bytes), "expected more than 0 bytes"))
        if problems:
            raise ConfigError(*problems)
        if user is not None and password is not None:
            pair = user, password
        credentials: Credentials = Anonymous()
        if cookie_file is not None:
            credentials = CookieFile(cookie_file)
        elif pair is not None:
            credentials = Login(*pair)
        self.transport = HttpTransport(place, credentials, math.inf if timeout is None else timeout, max_answer_bytes)

    @property
    def address(self) -> str:
        """The URL, without user and password."""
        return self.transport.address

    @property
    def closed(self) -> bool:
        """Was close() called?"""
        return self.transport.closed

    def execute(self, method: str, *params: Any, wallet: str | None = None, timeout: float | None = None, **named: Any) -> Any:
        """The result of one call; RpcError where the node answers with an error. Parameters by position, by name, or both.

        A parameter of the node's that is called ``timeout`` or ``wallet`` is given by position.
        """
        deadline = self.transport.deadline(timeout)
        answer = self.transport.post(json_calls.request(method, params, named), json_calls.wallet_uri(wallet), method, deadline)
        return json_calls.result(answer, method, self.address)

    def execute_rpc(self, request: str, uri: str = "", user: str = "", *, timeout: float | None = None) -> str:
        """A JSON-RPC request, or a batch, as text; the answer as text. Errors of the node's are in it, and not raised.

        ``user`` says nothing here: the node knows it from the credentials.
        """
        answer = self.transport.post(request, uri, "executeRpc", self.transport.deadline(timeout))
        return text_of(answer, self.address)

    def batch(self, calls: Sequence[json_calls.Request], *, wallet: str | None = None, timeout: float | None = None) -> list[Any]:
        """Results in the order of ``calls``, each a method or ``(method, *params)``; for those that failed the RpcError, not raised."""
        if not calls:
            return []
        request, asked = json_calls.batch_request(calls)
        answer = self.transport.post(request, json_calls.wallet_uri(wallet), "batch", self.transport.deadline(timeout))
        return json_calls.batch_results(answer, asked, self.address)

    def close(self) -> None:
        """Close its connections. Calls that other threads are in, and later ones, raise DisconnectedError."""
        self.transport.close()

    destroy = close
    """As an Rpc of IPC has it."""

    def __enter__(self) -> HttpRpc:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HttpRpc of {self.transport}{', closed' if self.closed else ''}>"


def text_of(answer: bytes, address: str) -> str:
    """IpcProtocolError where it is no text."""
    try:
        return answer.decode()
    except UnicodeDecodeError as error:
        cause = f"the answer is no UTF-8: {error}"
    raise IpcProtocolError(address, "Rpc", "executeRpc", cause)
