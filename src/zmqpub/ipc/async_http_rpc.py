"""As `zmqpub.ipc.http_rpc`, for asyncio: HTTP goes through the loop's executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from zmqpub.errors import RemoteError
from zmqpub.ipc.async_client import AsyncRpc
from zmqpub.ipc.http_rpc import EXECUTE, is_worth_http
from zmqpub.rpc import calls as json_calls
from zmqpub.rpc.http_client import text_of
from zmqpub.rpc.http_connection import Deadline
from zmqpub.rpc.http_transport import HttpTransport, Ticket

if TYPE_CHECKING:
    from zmqpub.ipc.async_client import _LoopSession

__all__ = ["AsyncRpcOrHttp", "AsyncRpcOverHttp"]

_Read = TypeVar("_Read")


class AsyncRpcOverHttp(AsyncRpc):
    """All over HTTP: the peer has no Rpc."""

    def __init__(self, session: _LoopSession, http: HttpTransport) -> None:
        super().__init__(session, 0)
        self._http = http
        self.add_cleanup(http.close)

    @property
    def address(self) -> str:
        """The URL."""
        return self._http.address

    async def execute(self, method: str, *params: Any, wallet: str | None = None, timeout: float | None = None, **named: Any) -> Any:
        request, uri = json_calls.request(method, params, named), json_calls.wallet_uri(wallet)
        return await self._post(request, uri, method, timeout, partial(json_calls.result, method=method, address=self.address))

    async def execute_rpc(self, request: str, uri: str = "", user: str = "", *, timeout: float | None = None) -> str:
        return await self._post(request, uri, "executeRpc", timeout, partial(text_of, address=self.address))

    async def batch(self, calls: Sequence[json_calls.Request], *, wallet: str | None = None, timeout: float | None = None) -> list[Any]:
        if not calls:
            return []
        request, asked = json_calls.batch_request(calls)
        read = partial(json_calls.batch_results, asked=asked, address=self.address)
        return await self._post(request, json_calls.wallet_uri(wallet), "batch", timeout, read)

    async def destroy(self) -> None:
        self._destroyed = True
        self._clean_up()

    async def _post(self, request: str, uri: str, method: str, timeout: float | None, read: Callable[[bytes], _Read]) -> _Read:
        self._check(EXECUTE)
        # Time passes from now on, also while the executor has no thread to spare.
        deadline, ticket = self._http.deadline(timeout), Ticket()
        task = partial(_ask, self._http, request, uri, method, deadline, ticket, read)
        try:
            return await asyncio.get_running_loop().run_in_executor(None, task)
        except asyncio.CancelledError:
            ticket.cancel()
            raise


class AsyncRpcOrHttp(AsyncRpc):
    """Over IPC, and what is too large for it over HTTP."""

    def __init__(self, session: _LoopSession, number: int, http: HttpTransport) -> None:
        super().__init__(session, number)
        self._over_http = AsyncRpcOverHttp(session, http)
        self.add_cleanup(http.close)

    async def execute(self, method: str, *params: Any, wallet: str | None = None, timeout: float | None = None, **named: Any) -> Any:
        try:
            return await super().execute(method, *params, wallet=wallet, timeout=timeout, **named)
        except RemoteError as error:
            if not is_worth_http(error, method):
                raise
        return await self._over_http.execute(method, *params, wallet=wallet, timeout=timeout, **named)

    async def batch(self, calls: Sequence[json_calls.Request], *, wallet: str | None = None, timeout: float | None = None) -> list[Any]:
        calls = list(calls)
        try:
            return await super().batch(calls, wallet=wallet, timeout=timeout)
        except RemoteError as error:
            if not is_worth_http(error, *(call if isinstance(call, str) else call[0] for call in calls)):
                raise
        return await self._over_http.batch(calls, wallet=wallet, timeout=timeout)


def _ask(
    http: HttpTransport, request: str, uri: str, method: str, deadline: Deadline, ticket: Ticket, read: Callable[[bytes], _Read]
) -> _Read:
    """In the executor, reading included: an answer may be large."""
    return read(http.post(request, uri, method, deadline, ticket))
