"""The client for asyncio: as `zmqpub.ipc.client`, in the caller's own loop, without another thread.

An object belongs to the loop that it was made in. Calls may be cancelled: what waits in the peer is then interrupted, and the next
call is none the worse for it.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zmqpub.errors import IpcProtocolError, IpcTimeoutError, UnimplementedError
from zmqpub.interfaces import MAX_MONEY, BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx
from zmqpub.ipc import codec
from zmqpub.ipc.backoff import Reconnect
from zmqpub.ipc.client_calls import AsyncCall
from zmqpub.ipc.codec import OPERATIONS, Operation
from zmqpub.ipc.connection import Link, Opener, begin, close_unwanted
from zmqpub.ipc.loop import KjLoop, kj_loop_here
from zmqpub.ipc.session import DEADLINE, MAX_CALLS, MAX_MESSAGE_BYTES, Handle, Session, checked_deadline, opener, reconnect_settings
from zmqpub.ipc.versions import NodeVersion
from zmqpub.ipc.wire import Facts
from zmqpub.rpc import calls as json_calls

if TYPE_CHECKING:
    from zmqpub.rpc.http_client import HttpRpc
    from zmqpub.rpc.http_transport import HttpTransport

__all__ = ["AsyncBlockTemplate", "AsyncEcho", "AsyncInit", "AsyncMining", "AsyncRpc", "connect_async"]

_Self = TypeVar("_Self", bound="_AsyncObject")
_FAREWELL: Final = 10.0
"""Seconds for what an object's end takes, without a deadline."""


def connect_async(
    address: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    deadline: float | None = DEADLINE,
    allow_other_owner: bool = False,
    reconnect: bool | Reconnect = False,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    http: HttpRpc | str | None = None,
) -> AsyncConnecting:
    """As `zmqpub.ipc.connect`: ``async with connect_async(…) as init`` or ``init = await connect_async(…)``.

    Cap'n Proto is started in the running loop where that does not run it already, and ends with the last connection; a loop
    that ends without close() is no harm. What goes over HTTP (``http``) goes through the loop's executor.
    """
    limit = checked_deadline(deadline, max_message_bytes)
    canonical, connector = opener(address, data_dir, allow_other_owner)
    over_http = None
    if http is not None:
        from zmqpub.ipc.http_rpc import http_for

        over_http = http_for(http, canonical, data_dir, limit)
    return AsyncConnecting(canonical, connector, limit, reconnect_settings(reconnect), max_message_bytes, over_http)


class AsyncConnecting:
    """What connect_async() returns: to be awaited, or entered with ``async with``."""

    def __init__(
        self, address: str, connector: Opener, deadline: float, reconnect: Reconnect | None, size: int, http: HttpTransport | None
    ) -> None:
        self._facts = Facts(address)
        self._connector = connector
        self._deadline = deadline
        self._reconnect = reconnect
        self._size = size
        self._http = http
        self._init: AsyncInit | None = None

    def __await__(self) -> Generator[Any, None, AsyncInit]:
        return self._connect().__await__()

    async def __aenter__(self) -> AsyncInit:
        self._init = await self._connect()
        return self._init

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._init is not None:
            await self._init.close()

    async def _connect(self) -> AsyncInit:
        entry = kj_loop_here()
        kj = await entry.__aenter__()
        try:
            number: int = await kj.outcome(_open(kj, self._facts, self._connector, self._deadline, self._reconnect, self._size))
        except BaseException:
            close_unwanted(kj, self._facts)
            await entry.__aexit__(None, None, None)
            raise
        session = _LoopSession(kj, number, self._facts, self._deadline, entry)
        session.use_http(self._http)
        return AsyncInit(session, 0)


async def _open(kj: KjLoop, facts: Facts, connector: Any, deadline: float, reconnect: Reconnect | None, size: int) -> int:
    link = Link(kj, facts, connector, reconnect, size, MAX_CALLS)
    await link.open(None, deadline)
    return link.number


class _LoopSession(Session):
    def __init__(self, kj: KjLoop, number: int, facts: Facts, deadline: float, entry: kj_loop_here) -> None:
        super().__init__(kj, number, facts, deadline)
        self.entry = entry

    def __del__(self) -> None:
        if not self.closed and not self.kj.forked:
            self.kj.post(_leave, self.kj, self.number, self.entry)
        super().__del__()


class _AsyncObject(Handle):
    _session: _LoopSession

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.destroy()

    async def destroy(self) -> None:
        """End the calls that other tasks are in on this object, and then the object. Later calls raise DestroyedError."""
        await self._destroy(tell=False)

    async def _destroy(self, *, tell: bool) -> None:
        session = self._session
        if self._destroyed:
            return
        if session.kj.alive and not session.closed:
            _checked_loop(session.kj)
        self._destroyed = True
        try:
            if not session.closed:
                session.kj.check()
                await self._in_loop("destroy", self._number, tell)
        finally:
            self._clean_up()

    async def _call(self, operation: Operation, fields: dict[str, Any], limit: float | None) -> Any:
        """Make a call and wait for its answer."""
        session = self._session
        kj = session.kj
        if self._destroyed or session.closed or not kj.alive:
            self._check(operation)
        loop = _checked_loop(kj)
        call = AsyncCall(operation, self._number, fields, loop)
        begin(kj, session.number, call, session.facts.address)
        timer = None if limit is None else loop.call_later(limit, _expire, kj, session.number, call, session.gave_up, limit)
        try:
            return await call.outcome
        except asyncio.CancelledError:
            _abandon(kj, session.number, call)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def _in_loop(self, what: str, *args: Any) -> None:
        session = self._session
        limit = session.deadline if session.deadline != math.inf else _FAREWELL
        _checked_loop(session.kj)
        outcome = session.kj.outcome(_on_link(session.kj, session.number, what, args))
        try:
            await asyncio.wait_for(outcome, limit)
            return
        except asyncio.TimeoutError as error:
            if isinstance(error, IpcTimeoutError):
                raise
        raise IpcTimeoutError(session.facts.address, self._interface, what, session.gave_up(limit))


class AsyncInit(_AsyncObject):
    """A connection: where everything begins. A context manager that closes it."""

    _interface = "Init"

    @property
    def version(self) -> NodeVersion:
        """What the peer has, as far as Bitcoin Core's versions differ; seen when the connection was made."""
        return self._session.facts.version

    @property
    def closed(self) -> bool:
        """Was close() called? (A connection that was lost says so when it is used.)"""
        return self._session.closed

    @property
    def reconnects(self) -> int:
        """How many times the connection was made again."""
        return self._session.facts.reconnects

    async def make_echo(self, *, timeout: float | None = None) -> AsyncEcho:
        return AsyncEcho(self._session, await self._make("Init.makeEcho", timeout))

    async def make_mining(self, *, timeout: float | None = None) -> AsyncMining:
        """A node that has just been started answers only when its chain is loaded."""
        return AsyncMining(self._session, await self._make("Init.makeMining", timeout))

    async def make_rpc(self, *, timeout: float | None = None) -> AsyncRpc:
        """Over HTTP where the peer has none, as v31, and connect_async() was given ``http``; without, that raises UnimplementedError."""
        session = self._session
        if session.http is None:
            return AsyncRpc(session, await self._make("Init.makeRpc", timeout))
        from zmqpub.ipc.async_http_rpc import AsyncRpcOrHttp, AsyncRpcOverHttp

        try:
            return AsyncRpcOrHttp(session, await self._make("Init.makeRpc", timeout), session.http.another())
        except UnimplementedError:
            return AsyncRpcOverHttp(session, session.http.another())

    async def _make(self, name: str, timeout: float | None) -> int:
        number = await self._call(OPERATIONS[name], {}, self._session.limit(timeout))
        if number is None:
            raise IpcProtocolError(self.address, "Init", OPERATIONS[name].method, "the peer made nothing: it shuts down")
        return int(number)

    async def destroy(self) -> None:
        """close()."""
        await self.close()

    async def close(self) -> None:
        """End the connection. Calls that other tasks are in fail with DisconnectedError. A second close() does nothing."""
        session = self._session
        if session.closed:
            return
        if session.kj.alive:
            _checked_loop(session.kj)
        session.closed = True
        try:
            if not session.kj.forked:
                link = session.kj.connections.get(session.number)
                if link is not None:
                    link.close()
                await session.entry.__aexit__(None, None, None)
        finally:
            self._clean_up()
            session.clean_up()


class AsyncEcho(_AsyncObject):
    """interfaces::Echo."""

    _interface = "Echo"

    async def echo(self, echo: str, /, *, timeout: float | None = None) -> str:
        """The same text. Raises UnicodeEncodeError for half of a surrogate pair."""
        answer: str = await self._call(_ECHO, {"echo": codec.text(echo, "echo")}, self._session.limit(timeout))
        return answer

    async def destroy(self) -> None:
        await self._destroy(tell=True)


class AsyncRpc(_AsyncObject):
    """interfaces::Rpc: JSON-RPC without HTTP."""

    _interface = "Rpc"

    async def execute(self, method: str, *params: Any, wallet: str | None = None, timeout: float | None = None, **named: Any) -> Any:
        """The result of one call; RpcError where the node answers with an error. Parameters by position, by name, or both.

        A parameter of the node's that is called ``timeout`` or ``wallet`` is given by position.
        """
        answer = await self.execute_rpc(json_calls.request(method, params, named), json_calls.wallet_uri(wallet), timeout=timeout)
        return json_calls.result(answer, method, self.address)

    async def execute_rpc(self, request: str, uri: str = "", user: str = "", *, timeout: float | None = None) -> str:
        """A JSON-RPC request, or a batch, as text; the answer as text. Errors of the node's are in it, and not raised."""
        fields = {"request": codec.text(request, "request"), "uri": codec.text(uri, "uri"), "user": codec.text(user, "user")}
        answer: str = await self._call(_EXECUTE, fields, self._session.limit(timeout))
        return answer

    async def batch(self, calls: Sequence[json_calls.Request], *, wallet: str | None = None, timeout: float | None = None) -> list[Any]:
        """Results in the order of ``calls``, each a method or ``(method, *params)``; for those that failed the RpcError, not raised."""
        if not calls:
            return []
        request, asked = json_calls.batch_request(calls)
        answer = await self.execute_rpc(request, json_calls.wallet_uri(wallet), timeout=timeout)
        return json_calls.batch_results(answer, asked, self.address)


class AsyncMining(_AsyncObject):
    """interfaces::Mining. Several tasks may wait at once, each in a thread of the node's own."""

    _interface = "Mining"

    async def is_test_chain(self, *, timeout: float | None = None) -> bool:
        return bool(await self._call(OPERATIONS["Mining.isTestChain"], {}, self._session.limit(timeout)))

    async def is_initial_block_download(self, *, timeout: float | None = None) -> bool:
        return bool(await self._call(OPERATIONS["Mining.isInitialBlockDownload"], {}, self._session.limit(timeout)))

    async def get_tip(self, *, timeout: float | None = None) -> BlockRef | None:
        """None while there is none."""
        tip: BlockRef | None = await self._call(OPERATIONS["Mining.getTip"], {}, self._session.limit(timeout))
        return tip

    async def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef | None:
        """Wait until the tip is not ``current_tip`` (32 bytes); the tip, also after ``timeout`` seconds, by default never.

        None when it was interrupted, or the node is shutting down. IpcTimeoutError where the node answers not even the connection's
        deadline later.
        """
        fields = {"currentTip": codec.block_hash(current_tip, "current_tip"), "timeout": codec.milliseconds(timeout)}
        tip: BlockRef | None = await self._call(OPERATIONS["Mining.waitTipChanged"], fields, self._session.limit_of_wait(timeout))
        return tip

    async def create_new_block(
        self, options: BlockCreateOptions | None = None, *, cooldown: bool = True, timeout: float | None = None
    ) -> AsyncBlockTemplate | None:
        """A template on the tip; None when interrupted or shut down.

        ``cooldown``: wait while the node is catching up, which may be long: give a ``timeout``. v30 knows no cooldown.
        """
        fields = {"options": codec.create_options(options), "cooldown": bool(cooldown)}
        number = await self._call(OPERATIONS["Mining.createNewBlock"], fields, self._session.limit(timeout))
        return None if number is None else AsyncBlockTemplate(self._session, number)

    async def check_block(self, block: bytes, options: BlockCheckOptions | None = None, *, timeout: float | None = None) -> CheckResult:
        """Would this serialized block be valid on the tip?"""
        fields = {"block": codec.data(block, "block"), "options": codec.check_options(options)}
        verdict: CheckResult = await self._call(OPERATIONS["Mining.checkBlock"], fields, self._session.limit(timeout))
        return verdict

    async def interrupt(self) -> None:
        """End the waits that other tasks are in on this object: each returns None. Waits that begin later are not affected."""
        self._check(OPERATIONS["Mining.interrupt"])
        await self._in_loop("interrupt", self._number)

    async def submit_block(self, block: bytes, *, timeout: float | None = None) -> CheckResult:
        """Hand in a serialized block. Raises UnimplementedError where the peer lacks it: v31 and before."""
        fields = {"block": codec.data(block, "block")}
        verdict: CheckResult = await self._call(OPERATIONS["Mining.submitBlock"], fields, self._session.limit(timeout))
        return verdict

    async def get_transactions_by_txid(self, txids: Sequence[bytes], *, timeout: float | None = None) -> tuple[bytes | None, ...]:
        """Of the mempool, serialized, in the order of ``txids``; None for those that are not there. Not in v31 and before."""
        return await self._transactions("Mining.getTransactionsByTxID", {"txids": codec.hash_list(txids, "txids")}, timeout)

    async def get_transactions_by_witness_id(self, wtxids: Sequence[bytes], *, timeout: float | None = None) -> tuple[bytes | None, ...]:
        return await self._transactions("Mining.getTransactionsByWitnessID", {"wtxids": codec.hash_list(wtxids, "wtxids")}, timeout)

    async def _transactions(self, name: str, fields: dict[str, Any], timeout: float | None) -> tuple[bytes | None, ...]:
        found: tuple[bytes | None, ...] = await self._call(OPERATIONS[name], fields, self._session.limit(timeout))
        return found


class AsyncBlockTemplate(_AsyncObject):
    """interfaces::BlockTemplate. A context manager: the node keeps it until it is destroyed, or not used any more here."""

    _interface = "BlockTemplate"

    async def get_block_header(self, *, timeout: float | None = None) -> bytes:
        """80 bytes."""
        return bytes(await self._call(OPERATIONS["BlockTemplate.getBlockHeader"], {}, self._session.limit(timeout)))

    async def get_block(self, *, timeout: float | None = None) -> bytes:
        """The serialized block, with a coinbase transaction that pays nobody in particular; after a solution, the solved one."""
        return bytes(await self._call(OPERATIONS["BlockTemplate.getBlock"], {}, self._session.limit(timeout)))

    async def get_tx_fees(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """Satoshis of each transaction but the coinbase."""
        return tuple(await self._call(OPERATIONS["BlockTemplate.getTxFees"], {}, self._session.limit(timeout)))

    async def get_tx_sigops(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """The cost of signature operations of each transaction but the coinbase."""
        return tuple(await self._call(OPERATIONS["BlockTemplate.getTxSigops"], {}, self._session.limit(timeout)))

    async def get_coinbase_tx(self, *, timeout: float | None = None) -> CoinbaseTx:
        """Raises UnimplementedError for v30, which has it in another form."""
        coinbase: CoinbaseTx = await self._call(OPERATIONS["BlockTemplate.getCoinbaseTx"], {}, self._session.limit(timeout))
        return coinbase

    async def get_coinbase_merkle_path(self, *, timeout: float | None = None) -> tuple[bytes, ...]:
        """The hashes with which the coinbase's txid becomes the merkle root: 32 bytes each, display order."""
        return tuple(await self._call(OPERATIONS["BlockTemplate.getCoinbaseMerklePath"], {}, self._session.limit(timeout)))

    async def submit_solution(
        self, version: int, timestamp: int, nonce: int, coinbase: bytes, *, timeout: float | None = None
    ) -> CheckResult:
        """Hand in the solved header's fields and the serialized coinbase transaction. v31 and before give no reason."""
        fields = codec.solution(version, timestamp, nonce, coinbase)
        limit = self._session.limit(timeout)
        try:
            verdict: CheckResult = await self._call(OPERATIONS["BlockTemplate.submitSolution"], dict(fields), limit)
        except UnimplementedError:
            # A peer between v31 and master. Nothing was done, so it can be asked in the older way.
            verdict = await self._call(OPERATIONS["BlockTemplate.submitSolutionOld7"], fields, limit)
        return verdict

    async def wait_next(self, timeout: float | None = None, fee_threshold: int = MAX_MONEY) -> AsyncBlockTemplate | None:
        """Wait for a new tip, or for a template whose fees are ``fee_threshold`` satoshis higher.

        None after ``timeout`` seconds (by default never), when interrupted, and when the node is shutting down.
        """
        fields = {"options": codec.wait_options(timeout, fee_threshold)}
        number = await self._call(OPERATIONS["BlockTemplate.waitNext"], fields, self._session.limit_of_wait(timeout))
        return None if number is None else AsyncBlockTemplate(self._session, number)

    async def interrupt_wait(self) -> None:
        """End the waits that other tasks are in on this template: each returns None. Waits that begin later are not affected."""
        self._check(OPERATIONS["BlockTemplate.interruptWait"])
        await self._in_loop("interrupt", self._number)

    async def destroy(self) -> None:
        """End the waits that other tasks are in, and have the node delete the template. Later calls raise DestroyedError."""
        await self._destroy(tell=True)


_ECHO: Final = OPERATIONS["Echo.echo"]
_EXECUTE: Final = OPERATIONS["Rpc.executeRpc"]


def _checked_loop(kj: KjLoop) -> asyncio.AbstractEventLoop:
    """The running loop, if it is the connection's: in another one, and its thread, the process would end."""
    loop = asyncio.get_running_loop()
    if loop is not kj.loop:
        raise RuntimeError("this connection belongs to another event loop")
    return loop


# ---- in the loop ----


def _abandon(kj: KjLoop, number: int, call: AsyncCall) -> None:
    link = kj.connections.get(number)
    if link is not None:
        link.abandon(call)


def _expire(kj: KjLoop, number: int, call: AsyncCall, reason: Callable[[float], str], limit: float) -> None:
    if call.outcome.done():
        return
    link = kj.connections.get(number)
    address = "" if link is None else link.facts.address
    call.outcome.set_exception(IpcTimeoutError(address, call.operation.interface, call.operation.method, reason(limit)))
    _abandon(kj, number, call)


async def _on_link(kj: KjLoop, number: int, what: str, args: tuple[Any, ...]) -> None:
    link = kj.connections.get(number)
    if link is None:
        return
    if what == "destroy":
        await link.destroy(args[0], tell=args[1])
    else:
        await link.interrupt(args[0])


def _leave(kj: KjLoop, number: int, entry: kj_loop_here) -> None:
    link = kj.connections.get(number)
    if link is not None:
        link.close()
    kj.start(entry.__aexit__(None, None, None))
