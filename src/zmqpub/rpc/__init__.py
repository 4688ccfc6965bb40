"""JSON-RPC as Bitcoin Core speaks it: both ends, and what zmqpub answers itself.

`HttpRpc` asks a node over HTTP; it is the only part that does I/O. `RpcTable` answers: `zmqpub.ipc` carries it over a unix socket.
Names are looked up when they are first used, so that a client does not load what answers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from zmqpub.rpc.codes import RpcCode
    from zmqpub.rpc.http_client import HttpRpc
    from zmqpub.rpc.parameters import Kind, Parameter
    from zmqpub.rpc.repair import NodeRepair
    from zmqpub.rpc.table import Command, RpcTable

_HOMES: Final = {
    "Command": "table",
    "HttpRpc": "http_client",
    "Kind": "parameters",
    "NodeRepair": "repair",
    "Parameter": "parameters",
    "RpcCode": "codes",
    "RpcTable": "table",
}
"""Where each public name is defined."""

__all__ = ["Command", "HttpRpc", "Kind", "NodeRepair", "Parameter", "RpcCode", "RpcTable"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
