"""JSON-RPC 1.0, 1.1 and 2.0 requests and their answers, single and in batches, as Bitcoin Core's executeRpc has them.

The rules are those of src/rpc/request.cpp and src/httprpc.cpp: a request is of 2.0 where its ``jsonrpc`` says "2.0", else of the
legacy version; in 2.0 one without ``id`` is a notification, which is executed and not answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zmqpub.errors import RpcError
from zmqpub.rpc.codes import RpcCode
from zmqpub.rpc.json_text import JsonError, Members, read, write

__all__ = ["NOTHING", "Execute", "answer"]

NOTHING: Final = "null"
"""The answer where nothing is to be answered: to a notification, or to a batch of them."""

Execute = Callable[[str, "list[Any] | Members"], Any]
"""Runs a method with its params, as they were read; returns what json_text.write() takes, or raises RpcError."""

_ABSENT: Final = object()


def answer(text: str, execute: Execute) -> str:
    """Answer the request, or batch of requests, in ``text``.

    A text that is no JSON is answered as Bitcoin Core's HTTP server answers it (-32700, Parse error). Over IPC, Bitcoin Core itself
    executes what it could read of such a text; that is not done here.
    """
    try:
        requests = read(text)
    except JsonError:
        return _reply(error=RpcError(RpcCode.PARSE_ERROR, "Parse error"))
    if isinstance(requests, list):
        return _answer_batch(requests, execute)
    if not isinstance(requests, Members):
        return _reply(error=RpcError(RpcCode.PARSE_ERROR, "Top-level object parse error"))
    request = _Request()
    reply = request.answer(requests, execute)
    # What is no request is answered even where it looks like a notification; not so in a batch.
    return NOTHING if request.is_notification and request.is_sound else reply


def _answer_batch(requests: list[Any], execute: Execute) -> str:
    # One object for all, as in Bitcoin Core: what is no request at all is answered with the id and version of the one before it.
    request = _Request()
    replies = []
    for one in requests:
        reply = request.answer(one, execute)
        if not request.is_notification:
            replies.append(reply)
    if requests and not replies:
        return NOTHING
    return f"[{','.join(replies)}]"


class _Request:
    """What is known of a request while it is answered."""

    def __init__(self) -> None:
        self._id: Any = None
        self._is_v2 = False
        self.is_sound = False

    @property
    def is_notification(self) -> bool:
        return self._is_v2 and self._id is _ABSENT

    def answer(self, request: Any, execute: Execute) -> str:
        try:
            method, params = self._parse(request)
            self.is_sound = True
            result = execute(method, params)
        except RpcError as error:
            return _reply(None, error, self._id, self._is_v2)
        return _reply(result, None, self._id, self._is_v2)

    def _parse(self, request: Any) -> tuple[str, list[Any] | Members]:
        if not isinstance(request, Members):
            raise _invalid("Invalid Request object")
        self._id = request.get("id") if "id" in request else _ABSENT
        self._is_v2 = False
        version = request.get("jsonrpc")
        if version is not None:
            if not _is_text(version):
                raise _invalid("jsonrpc field must be a string")
            if version not in ("1.0", "2.0"):
                raise _invalid("JSON-RPC version not supported")
            self._is_v2 = version == "2.0"
        method = request.get("method")
        if method is None:
            raise _invalid("Missing method")
        if not _is_text(method):
            raise _invalid("Method must be a string")
        params = request.get("params")
        if params is None:
            params = []
        if not isinstance(params, list | Members):
            raise _invalid("Params must be an array or object")
        return method, params


def _is_text(value: Any) -> bool:
    return type(value) is str  # a Number is a str, too


def _invalid(message: str) -> RpcError:
    return RpcError(RpcCode.INVALID_REQUEST, message)


def _reply(result: Any = None, error: RpcError | None = None, request_id: Any = None, is_v2: bool = False) -> str:
    reply: dict[str, Any] = {"jsonrpc": "2.0"} if is_v2 else {}
    fault = None if error is None else {"code": int(error.code), "message": error.message}
    if not is_v2 or error is None:
        reply["result"] = result
    if not is_v2 or error is not None:
        reply["error"] = fault
    if request_id is not _ABSENT:
        reply["id"] = request_id
    return write(reply)
