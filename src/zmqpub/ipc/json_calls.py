"""JSON-RPC as it goes through Rpc.executeRpc: requests as text, results out of answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from zmqpub.errors import IpcProtocolError, RpcError

__all__ = ["batch_request", "batch_results", "request", "result", "wallet_uri"]

_ids: Final = itertools.count(1)
_MISSING: Final = -32603
"""RPC_INTERNAL_ERROR: for a call of a batch that the answer does not mention."""

Request = str | tuple[Any, ...] | Sequence[Any]
"""One of a batch: a method, or a method and its parameters, ``("getblockhash", 0)``; a mapping last is named parameters."""


def wallet_uri(wallet: str | None) -> str:
    return "" if wallet is None else f"/wallet/{quote(wallet, safe='')}"


def request(method: str, params: Sequence[Any], named: Mapping[str, Any]) -> str:
    return json.dumps(_envelope(method, params, named), allow_nan=False)


def result(answer: str, method: str, address: str) -> Any:
    """The result; raises RpcError for an error, IpcProtocolError for what is neither."""
    envelope = _loaded(answer, address)
    if isinstance(envelope, dict):
        error = envelope.get("error")
        if error is not None:
            raise _error(error, method)
        if "result" in envelope:
            return envelope["result"]
    raise IpcProtocolError(address, "Rpc", "executeRpc", f"{method}: the answer is no JSON-RPC response: {answer[:80]!r}")


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


def batch_results(answer: str, asked: Sequence[tuple[Any, str]], address: str) -> list[Any]:
    """The result of each call, or the RpcError of those that failed."""
    envelopes = _loaded(answer, address)
    if isinstance(envelopes, dict) and envelopes.get("error") is not None:
        raise _error(envelopes["error"], "batch")
    if not isinstance(envelopes, list) or not all(isinstance(one, dict) for one in envelopes):
        raise IpcProtocolError(address, "Rpc", "executeRpc", f"the answer to a batch is none: {answer[:80]!r}")
    by_id = {one.get("id"): one for one in envelopes}
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


def _loaded(answer: str, address: str) -> Any:
    try:
        return json.loads(answer)
    except ValueError as error:
        cause = f"the answer is no JSON: {error}"
    raise IpcProtocolError(address, "Rpc", "executeRpc", cause)


def _error(error: Any, method: str) -> RpcError:
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        return RpcError(error["code"], str(error.get("message", "")), method)
    return RpcError(_MISSING, str(error), method)
