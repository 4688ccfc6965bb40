"""JSON-RPC from a client's side, without I/O: requests as text, results out of answers. Over IPC and over HTTP it is the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote

from zmqpub.errors import IpcProtocolError, RpcError
from zmqpub.rpc.codes import RpcCode

__all__ = ["Executes", "Request", "batch_request", "batch_results", "is_harmless", "request", "result", "says_warmup", "wallet_uri"]

_ids: Final = itertools.count(1)
_MISSING: Final = int(RpcCode.INTERNAL_ERROR)
"""For a call of a batch that the answer does not mention."""

_WARMUP: Final = (b'"code":-28', b'"code": -28')
_READ: Final = ("decode", "get", "help", "list", "scan", "test", "uptime", "validate", "verify")
_WRITE: Final = ("getblockfrompeer", "getnewaddress", "getrawchangeaddress")

Request = str | tuple[Any, ...] | Sequence[Any]
"""One of a batch: a method, or a method and its parameters, ``("getblockhash", 0)``; a mapping last is named parameters."""


class Executes(Protocol):
    """A client of JSON-RPC, by what nearly all need of it: `HttpRpc`, ``zmqpub.ipc.connect(…).make_rpc()``, or whatever has it."""

    def execute(self, method: str, *params: Any) -> Any:
        """The result; RpcError where the node answers with an error, IpcError where it does not answer."""
        ...


def wallet_uri(wallet: str | None) -> str:
    return "" if wallet is None else f"/wallet/{quote(wallet, safe='')}"


def request(method: str, params: Sequence[Any], named: Mapping[str, Any]) -> str:
    return json.dumps(_envelope(method, params, named), allow_nan=False)


def result(answer: str | bytes, method: str, address: str) -> Any:
    """The result; raises RpcError for an error, IpcProtocolError for what is neither."""
    envelope = _loaded(answer, method, address)
    if isinstance(envelope, dict):
        error = envelope.get("error")
        if error is not None:
            raise _error(error, method)
        if "result" in envelope:
            return envelope["result"]
    raise IpcProtocolError(address, "Rpc", method, f"the answer is no JSON-RPC response: {answer[:80]!r}")


def batch_request(calls: Sequence[Request]) -> tuple[str, list[tuple[Any, str]]]:
    """The text, and the id and method of each call in it."""
    envelopes = []
    for call in calls:
        parts: list[Any] = [call] if isinstance(call, str) else list(call)
        method, *params = parts
        named: Mapping[str, Any] = {}
        if params and isinstance(params[-1], Mapping):
            named = params.pop()
        envelopes.append(_envelope(method, params, named))
    return json.dumps(envelopes, allow_nan=False), [(envelope["id"], envelope["method"]) for envelope in envelopes]


def batch_results(answer: str | bytes, asked: Sequence[tuple[Any, str]], address: str) -> list[Any]:
    """The result of each call, or the RpcError of those that failed."""
    envelopes = _loaded(answer, "batch", address)
    if isinstance(envelopes, dict) and envelopes.get("error") is not None:
        raise _error(envelopes["error"], "batch")
    if not isinstance(envelopes, list) or not all(isinstance(one, dict) for one in envelopes):
        raise IpcProtocolError(address, "Rpc", "batch", f"the answer to a batch is none: {answer[:80]!r}")
    by_id = {one["id"]: one for one in envelopes if isinstance(one.get("id"), int | str)}
    results: list[Any] = []
    for number, method in asked:
        one = by_id.get(number)
        if one is None:
            results.append(RpcError(_MISSING, "the answer does not mention it", method))
        else:
            results.append(_error(one["error"], method) if one.get("error") is not None else one.get("result"))
    return results


def _envelope(method: str, params: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(method, str):
        raise TypeError(f"method: expected a str, got {type(method).__name__}")
    # Both at once: Bitcoin Core takes what comes by position as the parameter "args".
    both: Any = {**named, **({"args": list(params)} if params else {})} if named else list(params)
    return {"jsonrpc": "2.0", "id": next(_ids), "method": method, "params": both}


def _loaded(answer: str | bytes, method: str, address: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        cause = f"the answer is no JSON: {error or type(error).__name__}"
    raise IpcProtocolError(address, "Rpc", method, cause)


def _error(error: Any, method: str) -> RpcError:
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        return RpcError(error["code"], str(error.get("message", "")), method)
    return RpcError(_MISSING, str(error), method)


def says_warmup(answer: bytes) -> bool:
    """Does the answer say that the node is starting, and that none of what was asked was done?"""
    if not any(code in answer[:400] for code in _WARMUP):  # the rule, also for an answer of 100 MB
        return False
    try:
        replies = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    errors = [reply.get("error") if isinstance(reply, dict) else None for reply in (replies if isinstance(replies, list) else [replies])]
    return all(isinstance(error, dict) and error.get("code") == RpcCode.IN_WARMUP for error in errors)


def is_harmless(method: str) -> bool:
    """Is it known to change nothing, so that it may be asked a second time? By Bitcoin Core's names."""
    return method.startswith(_READ) and not method.startswith(_WRITE)
