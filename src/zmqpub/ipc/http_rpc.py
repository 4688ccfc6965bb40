"""JSON-RPC of a node over HTTP where its IPC does not have it: peers without makeRpc (v30, v31), and answers that are too large.

To its user, what make_rpc() returns then is an Rpc like any other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zmqpub.errors import ConfigError, ConfigProblem, RemoteError
from zmqpub.ipc.client import Rpc
from zmqpub.ipc.codec import OPERATIONS
from zmqpub.rpc import calls as json_calls
from zmqpub.rpc.http_client import HttpRpc, text_of
from zmqpub.rpc.http_transport import HttpTransport
from zmqpub.rpc.http_url import parse_url

if TYPE_CHECKING:
    from zmqpub.ipc.client import _ThreadSession

__all__ = ["EXECUTE", "RpcOrHttp", "RpcOverHttp", "http_for", "is_worth_http"]

EXECUTE: Final = OPERATIONS["Rpc.executeRpc"]
_TOO_LARGE: Final = "single-message size limit"


def http_for(http: HttpRpc | str, address: str, data_dir: str | os.PathLike[str] | None, deadline: float) -> HttpTransport:
    """What ``connect(…, http=)`` was given, with connections of its own.

    A URL without user and password goes with the cookie in ``data_dir``, or beside the socket of ``address`` (canonical); but not to
    another machine, which has no business with it. ConfigError.
    """
    if isinstance(http, HttpRpc):
        return http.transport.another()
    place, pair = parse_url(http, "http")
    if pair is not None:
        return HttpRpc(http, timeout=deadline).transport
    if not place.is_loopback:
        message = "another machine does not get this one's cookie: give an HttpRpc with user and password, or with cookie_file"
        raise ConfigError(ConfigProblem("http", place.url, message))
    directory = Path(address.removeprefix("unix:")).parent if data_dir is None else Path(data_dir)
    return HttpRpc(http, cookie_file=directory / ".cookie", timeout=deadline).transport


def is_worth_http(error: RemoteError, *methods: str) -> bool:
    """Has the peer made an answer that it cannot send over IPC, and would asking again change nothing?"""
    return _TOO_LARGE in error.message and all(map(json_calls.is_harmless, methods))


class RpcOverHttp(Rpc):
    """All over HTTP: the peer has no Rpc."""

    def __init__(self, session: _ThreadSession, http: HttpTransport) -> None:
        super().__init__(session, 0)
        self._http = http
        self.add_cleanup(http.close)

    @property
    def address(self) -> str:
        """The URL."""
        return self._http.address

    def execute(self, method: str, *params: Any, wallet: str | None = None, timeout: float | None = None, **named: Any) -> Any:
        answer = self._post(json_calls.request(method, params, named), json_calls.wallet_uri(wallet), method, timeout)
        return json_calls.result(answer, method, self.address)

    def execute_rpc(self, request: str, uri: str = "", user: str = "", *, timeout: float | None = None) -> str:
        return text_of(self._post(request, uri, "executeRpc", timeout), self.address)

    def batch(self, calls: Sequence[json_calls.Request], *, wallet: str | None = None, timeout: float | None = None) -> list[Any]:
        if not calls:
            return []
        request, asked = json_calls.batch_request(calls)
        return json_calls.batch_results(self._post(request, json_calls.wallet_uri(wallet), "batch", timeout), asked, self.address)

    def destroy(self) -> None:
        self._destroyed = True
        self._clean_up()

    def _post(self, request: str, uri: str, method: str, timeout: float | None) -> bytes:
        self._check(EXECUTE)
        return self._http.post(request, uri, method, self._http.deadline(timeout))


class RpcOrHttp(Rpc):
    """Over IPC, and what is too large for it over HTTP."""

    def __init__(self, session: _ThreadSession, number: int, http: HttpTransport) -> None:
        super().__init__(session, number)
        self._over_http = RpcOverHttp(session, http)
        self.add_cleanup(self._over_http.destroy)

    def execute(self, method: str, *params: Any, wallet: str | None = None, timeout: float | None = None, **named: Any) -> Any:
        try:
            return super().execute(method, *params, wallet=wallet, timeout=timeout, **named)
        except RemoteError as error:
            if not is_worth_http(error, method):
                raise
        return self._over_http.execute(method, *params, wallet=wallet, timeout=timeout, **named)

    def batch(self, calls: Sequence[json_calls.Request], *, wallet: str | None = None, timeout: float | None = None) -> list[Any]:
        calls = list(calls)
        try:
            return super().batch(calls, wallet=wallet, timeout=timeout)
        except RemoteError as error:
            if not is_worth_http(error, *(call if isinstance(call, str) else call[0] for call in calls)):
                raise
        return self._over_http.batch(calls, wallet=wallet, timeout=timeout)
