"""The client for threads. Every method may be called from any thread; what it returns is plain Python.

Hashes are 32 bytes in display order, times are seconds, amounts are satoshis. A method waits at most for the connection's deadline,
or for ``timeout`` seconds where that is given (``math.inf``: for ever), and raises IpcTimeoutError then; other errors are those of
the IpcError tree in `zmqpub.errors`.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from zmqpub.errors import IpcProtocolError, IpcTimeoutError, UnimplementedError
from zmqpub.interfaces import MAX_MONEY, BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx
from zmqpub.ipc import codec
from zmqpub.ipc.backoff import Reconnect
from zmqpub.ipc.client_calls import Call, SyncCall
from zmqpub.ipc.codec import OPERATIONS, Operation
from zmqpub.ipc.connection import Link, begin, close_unwanted
from zmqpub.ipc.loop import KjLoop, LoopThread
from zmqpub.ipc.session import (
    DEADLINE,
    MAX_CALLS,
    MAX_MESSAGE_BYTES,
    Handle,
    Session,
    checked_deadline,
    close_link,
    opener,
    reconnect_settings,
)
from zmqpub.ipc.versions import NodeVersion
from zmqpub.ipc.wire import Facts
from zmqpub.rpc import calls as json_calls

if TYPE_CHECKING:
    from zmqpub.rpc.http_client import HttpRpc

__all__ = ["BlockTemplate", "Echo", "Init", "Mining", "Rpc", "connect", "connect_over"]

_Self = TypeVar("_Self", bound="_Object")
_FAREWELL: Final = 10.0
"""Seconds for what an object's end takes, without a deadline."""


def connect(
    address: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    deadline: float | None = DEADLINE,
    allow_other_owner: bool = False,
    reconnect: bool | Reconnect = False,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    http: HttpRpc | str | None = None,
) -> Init:
    """Connect to a node, or whatever serves Init, and see what version it is.

    address            ``unix:/path`` of the socket, ``unix:path`` relative to ``data_dir``, or ``unix`` for its ``node.sock``
    data_dir           the chain's own directory, such as ``~/.bitcoin/regtest``; by default that of mainnet
    deadline           seconds for connecting, and for each call that is not given a ``timeout``; None: for ever
    allow_other_owner  connect to a socket that belongs to another user than this one and root
    reconnect          connect again when the connection is lost: see `Reconnect`
    max_message_bytes  of an answer; a larger one ends the connection. A node sends at most 64 MiB.
    http               the node's JSON-RPC over HTTP, for what its IPC does not have: `make_rpc` of v30 and v31, and larger answers.
                       A `zmqpub.rpc.HttpRpc`, or a URL on this machine, ``http://127.0.0.1:8332``; then with the cookie in
                       ``data_dir``, or beside the socket

    Raises IpcAddressError, IpcConnectError (``errno`` ENOENT or ECONNREFUSED when nobody is there), IpcTimeoutError when the peer
    says nothing, IpcProtocolError when it is no Init, DisconnectedError when it hangs up.
    """
    limit = checked_deadline(deadline, max_message_bytes)
    canonical, connector = opener(address, data_dir, allow_other_owner)
    settings = reconnect_settings(reconnect)
    over_http = None
    if http is not None:
        from zmqpub.ipc.http_rpc import http_for

        over_http = http_for(http, canonical, data_dir, limit)
    sock = None if settings is not None and settings.first else connector(limit)
    init = _opened(canonical, sock, connector, limit, settings, max_message_bytes)
    init._session.use_http(over_http)
    return init


def connect_over(
    sock: socket.socket, address: str, *, deadline: float | None = DEADLINE, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> Init:
    """As connect(), over a connected socket, which is taken over; ``address`` is what errors call the peer."""
    return _opened(address, sock, None, checked_deadline(deadline, max_message_bytes), None, max_message_bytes)


def _opened(address: str, sock: socket.socket | None, connector: Any, deadline: float, reconnect: Reconnect | None, size: int) -> Init:
    thread = LoopThread.shared()
    facts = Facts(address)
    try:
        number = thread.call(_open, thread.kj, facts, sock, connector, deadline, reconnect, size)
    except BaseException:
        # By the loop, which may have the descriptor in use: closed here, its number would be another one's at once.
        if not thread.post(_discard, thread.kj, facts, sock) and sock is not None:
            sock.close()
        raise
    return Init(_ThreadSession(thread, number, facts, deadline), 0)


async def _open(kj: KjLoop, facts: Facts, sock: Any, connector: Any, deadline: float, reconnect: Reconnect | None, size: int) -> int:
    link = Link(kj, facts, connector, reconnect, size, MAX_CALLS)
    try:
        await link.open(sock, deadline)
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return link.number


def _discard(kj: KjLoop, facts: Facts, sock: socket.socket | None) -> None:
    """Nobody takes the connection. The task that makes it, if it is still at it, has been cancelled, and closes the socket."""
    if not close_unwanted(kj, facts) and sock is not None:
        sock.close()


class _ThreadSession(Session):
    def __init__(self, thread: LoopThread, number: int, facts: Facts, deadline: float) -> None:
        super().__init__(thread.kj, number, facts, deadline)
        self.thread = thread


class _Object(Handle):
    _session: _ThreadSession

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.destroy()

    def destroy(self) -> None:
        """End the calls that other threads are in on this object, and then the object. Later calls raise DestroyedError."""
        self._destroy(tell=False)

    def _destroy(self, *, tell: bool) -> None:
        session = self._session
        if self._destroyed:
            return
        self._destroyed = True
        try:
            if not session.closed:
                session.kj.check()
                self._await_in_loop("destroy", self._number, tell)
        finally:
            self._clean_up()

    def _call(self, operation: Operation, fields: dict[str, Any], limit: float | None) -> Any:
        """Make a call and wait for its answer."""
        session = self._session
        thread = session.thread
        if self._destroyed or session.closed or thread.kj.forked:
            self._check(operation)
        if thread.here:
            raise RuntimeError("the IPC thread cannot wait for itself; use the asyncio client, or another thread")
        call = SyncCall(operation, self._number, fields)
        thread.hand_over(begin, thread.kj, session.number, call, session.facts.address)
        try:
            answered = call.answer.acquire(True, -1 if limit is None else min(limit, threading.TIMEOUT_MAX))
        except BaseException:
            thread.post(_abandon, thread.kj, session.number, call)
            raise
        if not answered:
            thread.post(_abandon, thread.kj, session.number, call)
            raise IpcTimeoutError(session.facts.address, operation.interface, operation.method, session.gave_up(limit))
        if call.error is not None:
            try:
                raise call.error
            finally:
                call.error = None
        return call.value

    def _await_in_loop(self, what: str, *args: Any) -> None:
        session = self._session
        limit = session.deadline if session.deadline != math.inf else _FAREWELL
        try:
            session.thread.call(_on_link, session.kj, session.number, what, args, timeout=limit)
            return
        except TimeoutError as error:
            if isinstance(error, IpcTimeoutError):
                raise
        raise IpcTimeoutError(session.facts.address, self._interface, what, session.gave_up(limit))


class Init(_Object):
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

    def make_echo(self, *, timeout: float | None = None) -> Echo:
        return Echo(self._session, self._make("Init.makeEcho", timeout))

    def make_mining(self, *, timeout: float | None = None) -> Mining:
        """A node that has just been started answers only when its chain is loaded."""
        return Mining(self._session, self._make("Init.makeMining", timeout))

    def make_rpc(self, *, timeout: float | None = None) -> Rpc:
        """Over HTTP where the peer has none, as v31, and connect() was given ``http``; without, that raises UnimplementedError."""
        session = self._session
        if session.http is None:
            return Rpc(session, self._make("Init.makeRpc", timeout))
        from zmqpub.ipc.http_rpc import RpcOrHttp, RpcOverHttp

        try:
            return RpcOrHttp(session, self._make("Init.makeRpc", timeout), session.http.another())
        except UnimplementedError:
            return RpcOverHttp(session, session.http.another())

    def _make(self, name: str, timeout: float | None) -> int:
        number = self._call(OPERATIONS[name], {}, self._session.limit(timeout))
        if number is None:
            raise IpcProtocolError(self.address, "Init", OPERATIONS[name].method, "the peer made nothing: it shuts down")
        return int(number)

    def destroy(self) -> None:
        """close()."""
        self.close()

    def close(self) -> None:
        """End the connection. Calls that other threads are in fail with DisconnectedError. A second close() does nothing."""
        session = self._session
        if session.closed:
            return
        session.closed = True
        try:
            if not session.kj.forked and session.kj.alive:
                if session.thread.here:  # as in a finalizer
                    close_link(session.kj, session.number)
                else:
                    session.thread.call(_close_link, session.kj, session.number)
        finally:
            self._clean_up()
            session.clean_up()


class Echo(_Object):
    """interfaces::Echo."""

    _interface = "Echo"

    def echo(self, echo: str, /, *, timeout: float | None = None) -> str:
        """The same text. Raises UnicodeEncodeError for half of a surrogate pair."""
        answer: str = self._call(_ECHO, {"echo": codec.text(echo, "echo")}, self._session.limit(timeout))
        return answer

    def destroy(self) -> None:
        self._destroy(tell=True)


class Rpc(_Object):
    """interfaces::Rpc: JSON-RPC without HTTP."""

    _interface = "Rpc"

    def execute(self, method: str, *params: Any, wallet: str | None = None, timeout: float | None = None, **named: Any) -> Any:
        """The result of one call; RpcError where the node answers with an error. Parameters by position, by name, or both.

        A parameter of the node's that is called ``timeout`` or ``wallet`` is given by position.
        """
        answer = self.execute_rpc(json_calls.request(method, params, named), json_calls.wallet_uri(wallet), timeout=timeout)
        return json_calls.result(answer, method, self.address)

    def execute_rpc(self, request: str, uri: str = "", user: str = "", *, timeout: float | None = None) -> str:
        """A JSON-RPC request, or a batch, as text; the answer as text. Errors of the node's are in it, and not raised."""
        fields = {"request": codec.text(request, "request"), "uri": codec.text(uri, "uri"), "user": codec.text(user, "user")}
        answer: str = self._call(_EXECUTE, fields, self._session.limit(timeout))
        return answer

    def batch(self, calls: Sequence[json_calls.Request], *, wallet: str | None = None, timeout: float | None = None) -> list[Any]:
        """Results in the order of ``calls``, each a method or ``(method, *params)``; for those that failed the RpcError, not raised."""
        if not calls:
            return []
        request, asked = json_calls.batch_request(calls)
        answer = self.execute_rpc(request, json_calls.wallet_uri(wallet), timeout=timeout)
        return json_calls.batch_results(answer, asked, self.address)


class Mining(_Object):
    """interfaces::Mining. Several threads may wait at once, each in a thread of the node's own."""

    _interface = "Mining"

    def is_test_chain(self, *, timeout: float | None = None) -> bool:
        return bool(self._call(OPERATIONS["Mining.isTestChain"], {}, self._session.limit(timeout)))

    def is_initial_block_download(self, *, timeout: float | None = None) -> bool:
        return bool(self._call(OPERATIONS["Mining.isInitialBlockDownload"], {}, self._session.limit(timeout)))

    def get_tip(self, *, timeout: float | None = None) -> BlockRef | None:
        """None while there is none."""
        tip: BlockRef | None = self._call(OPERATIONS["Mining.getTip"], {}, self._session.limit(timeout))
        return tip

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef | None:
        """Wait until the tip is not ``current_tip`` (32 bytes); the tip, also after ``timeout`` seconds, by default never.

        None when it was interrupted, or the node is shutting down. IpcTimeoutError where the node answers not even the connection's
        deadline later.
        """
        fields = {"currentTip": codec.block_hash(current_tip, "current_tip"), "timeout": codec.milliseconds(timeout)}
        tip: BlockRef | None = self._call(OPERATIONS["Mining.waitTipChanged"], fields, self._session.limit_of_wait(timeout))
        return tip

    def create_new_block(
        self, options: BlockCreateOptions | None = None, *, cooldown: bool = True, timeout: float | None = None
    ) -> BlockTemplate | None:
        """A template on the tip; None when interrupted or shut down.

        ``cooldown``: wait while the node is catching up, which may be long: give a ``timeout``. v30 knows no cooldown.
        """
        fields = {"options": codec.create_options(options), "cooldown": bool(cooldown)}
        number = self._call(OPERATIONS["Mining.createNewBlock"], fields, self._session.limit(timeout))
        return None if number is None else BlockTemplate(self._session, number)

    def check_block(self, block: bytes, options: BlockCheckOptions | None = None, *, timeout: float | None = None) -> CheckResult:
        """Would this serialized block be valid on the tip?"""
        fields = {"block": codec.data(block, "block"), "options": codec.check_options(options)}
        verdict: CheckResult = self._call(OPERATIONS["Mining.checkBlock"], fields, self._session.limit(timeout))
        return verdict

    def interrupt(self) -> None:
        """End the waits that other threads are in on this object: each returns None. Waits that begin later are not affected."""
        self._check(OPERATIONS["Mining.interrupt"])
        self._await_in_loop("interrupt", self._number)

    def submit_block(self, block: bytes, *, timeout: float | None = None) -> CheckResult:
        """Hand in a serialized block. Raises UnimplementedError where the peer lacks it: v31 and before."""
        fields = {"block": codec.data(block, "block")}
        verdict: CheckResult = self._call(OPERATIONS["Mining.submitBlock"], fields, self._session.limit(timeout))
        return verdict

    def get_transactions_by_txid(self, txids: Sequence[bytes], *, timeout: float | None = None) -> tuple[bytes | None, ...]:
        """Of the mempool, serialized, in the order of ``txids``; None for those that are not there. Not in v31 and before."""
        return self._transactions("Mining.getTransactionsByTxID", {"txids": codec.hash_list(txids, "txids")}, timeout)

    def get_transactions_by_witness_id(self, wtxids: Sequence[bytes], *, timeout: float | None = None) -> tuple[bytes | None, ...]:
        return self._transactions("Mining.getTransactionsByWitnessID", {"wtxids": codec.hash_list(wtxids, "wtxids")}, timeout)

    def _transactions(self, name: str, fields: dict[str, Any], timeout: float | None) -> tuple[bytes | None, ...]:
        found: tuple[bytes | None, ...] = self._call(OPERATIONS[name], fields, self._session.limit(timeout))
        return found


class BlockTemplate(_Object):
    """interfaces::BlockTemplate. A context manager: the node keeps it until it is destroyed, or not used any more here."""

    _interface = "BlockTemplate"

    def get_block_header(self, *, timeout: float | None = None) -> bytes:
        """80 bytes."""
        return bytes(self._call(OPERATIONS["BlockTemplate.getBlockHeader"], {}, self._session.limit(timeout)))

    def get_block(self, *, timeout: float | None = None) -> bytes:
        """The serialized block, with a coinbase transaction that pays nobody in particular; after a solution, the solved one."""
        return bytes(self._call(OPERATIONS["BlockTemplate.getBlock"], {}, self._session.limit(timeout)))

    def get_tx_fees(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """Satoshis of each transaction but the coinbase."""
        return tuple(self._call(OPERATIONS["BlockTemplate.getTxFees"], {}, self._session.limit(timeout)))

    def get_tx_sigops(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """The cost of signature operations of each transaction but the coinbase."""
        return tuple(self._call(OPERATIONS["BlockTemplate.getTxSigops"], {}, self._session.limit(timeout)))

    def get_coinbase_tx(self, *, timeout: float | None = None) -> CoinbaseTx:
        """Raises UnimplementedError for v30, which has it in another form."""
        coinbase: CoinbaseTx = self._call(OPERATIONS["BlockTemplate.getCoinbaseTx"], {}, self._session.limit(timeout))
        return coinbase

    def get_coinbase_merkle_path(self, *, timeout: float | None = None) -> tuple[bytes, ...]:
        """The hashes with which the coinbase's txid becomes the merkle root: 32 bytes each, display order."""
        return tuple(self._call(OPERATIONS["BlockTemplate.getCoinbaseMerklePath"], {}, self._session.limit(timeout)))

    def submit_solution(self, version: int, timestamp: int, nonce: int, coinbase: bytes, *, timeout: float | None = None) -> CheckResult:
        """Hand in the solved header's fields and the serialized coinbase transaction. v31 and before give no reason."""
        fields = codec.solution(version, timestamp, nonce, coinbase)
        limit = self._session.limit(timeout)
        try:
            verdict: CheckResult = self._call(OPERATIONS["BlockTemplate.submitSolution"], dict(fields), limit)
        except UnimplementedError:
            # A peer between v31 and master. Nothing was done, so it can be asked in the older way.
            verdict = self._call(OPERATIONS["BlockTemplate.submitSolutionOld7"], fields, limit)
        return verdict

    def wait_next(self, timeout: float | None = None, fee_threshold: int = MAX_MONEY) -> BlockTemplate | None:
        """Wait for a new tip, or for a template whose fees are ``fee_threshold`` satoshis higher.

        None after ``timeout`` seconds (by default never), when interrupted, and when the node is shutting down.
        """
        fields = {"options": codec.wait_options(timeout, fee_threshold)}
        number = self._call(OPERATIONS["BlockTemplate.waitNext"], fields, self._session.limit_of_wait(timeout))
        return None if number is None else BlockTemplate(self._session, number)

    def interrupt_wait(self) -> None:
        """End the waits that other threads are in on this template: each returns None. Waits that begin later are not affected."""
        self._check(OPERATIONS["BlockTemplate.interruptWait"])
        self._await_in_loop("interrupt", self._number)

    def destroy(self) -> None:
        """End the waits that other threads are in, and have the node delete the template. Later calls raise DestroyedError."""
        self._destroy(tell=True)


_ECHO: Final = OPERATIONS["Echo.echo"]
_EXECUTE: Final = OPERATIONS["Rpc.executeRpc"]


# ---- in the loop ----


def _abandon(kj: KjLoop, number: int, call: Call) -> None:
    link = kj.connections.get(number)
    if link is not None:
        link.abandon(call)


async def _on_link(kj: KjLoop, number: int, what: str, args: tuple[Any, ...]) -> None:
    link = kj.connections.get(number)
    if link is None:
        return
    if what == "destroy":
        await link.destroy(args[0], tell=args[1])
    else:
        await link.interrupt(args[0])


async def _close_link(kj: KjLoop, number: int) -> None:
    close_link(kj, number)
