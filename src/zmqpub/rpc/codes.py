"""The error codes of JSON-RPC, and Bitcoin Core's own (src/rpc/protocol.h)."""

from __future__ import annotations

import enum

__all__ = ["RpcCode"]


class RpcCode(enum.IntEnum):
    """Those that this package answers with."""

    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INTERNAL_ERROR = -32603
    PARSE_ERROR = -32700
    MISC_ERROR = -1
    """Also: a wrong number of arguments, answered with the command's help."""
    TYPE_ERROR = -3
    INVALID_ADDRESS_OR_KEY = -5
    """Also: no such block or transaction."""
    INVALID_PARAMETER = -8
    IN_WARMUP = -28
