"""Bitcoin Core's IPC, both ends: Cap'n Proto over unix sockets and socket pairs. Needs the extra ``zmqpub[ipc]``.

::

    with zmqpub.ipc.connect("unix:/home/me/.bitcoin/node.sock") as init:
        mining = init.make_mining()
        tip = mining.get_tip()
        tip = mining.wait_tip_changed(tip.hash, timeout=60)
        print(init.make_rpc().execute("getblockcount"))

Names are looked up when they are first used, so that a client does not load the server.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Final

from zmqpub.errors import UnsupportedError

if importlib.util.find_spec("capnp") is None:
    raise UnsupportedError("zmqpub.ipc needs pycapnp: pip install 'zmqpub[ipc]'")

if TYPE_CHECKING:
    from zmqpub.ipc.async_client import AsyncBlockTemplate, AsyncEcho, AsyncInit, AsyncMining, AsyncRpc, connect_async
    from zmqpub.ipc.backoff import Reconnect
    from zmqpub.ipc.capnp_protocol import CapnpProtocol
    from zmqpub.ipc.client import BlockTemplate, Echo, Init, Mining, Rpc, connect
    from zmqpub.ipc.echo import EchoServer
    from zmqpub.ipc.handling import Call, current_call, inline, on_cancel
    from zmqpub.ipc.ipc import Ipc
    from zmqpub.ipc.limits import Limits
    from zmqpub.ipc.notifications import SpawnedPublisher
    from zmqpub.ipc.serving import Listener, serve_connection
    from zmqpub.ipc.versions import NodeVersion
    from zmqpub.rpc.repair import NodeRepair

_HOMES: Final = {
    "AsyncBlockTemplate": "async_client",
    "AsyncEcho": "async_client",
    "AsyncInit": "async_client",
    "AsyncMining": "async_client",
    "AsyncRpc": "async_client",
    "BlockTemplate": "client",
    "Call": "handling",
    "CapnpProtocol": "capnp_protocol",
    "Echo": "client",
    "EchoServer": "echo",
    "Init": "client",
    "Ipc": "ipc",
    "Limits": "limits",
    "Listener": "serving",
    "Mining": "client",
    "NodeRepair": ".rpc.repair",
    "NodeVersion": "versions",
    "Reconnect": "backoff",
    "Rpc": "client",
    "SpawnedPublisher": "notifications",
    "connect": "client",
    "connect_async": "async_client",
    "current_call": "handling",
    "inline": "handling",
    "on_cancel": "handling",
    "serve_connection": "serving",
}
"""Where each public name is defined, seen from this package."""

__all__ = [
    "AsyncBlockTemplate",
    "AsyncEcho",
    "AsyncInit",
    "AsyncMining",
    "AsyncRpc",
    "BlockTemplate",
    "Call",
    "CapnpProtocol",
    "Echo",
    "EchoServer",
    "Init",
    "Ipc",
    "Limits",
    "Listener",
    "Mining",
    "NodeRepair",
    "NodeVersion",
    "Reconnect",
    "Rpc",
    "SpawnedPublisher",
    "connect",
    "connect_async",
    "current_call",
    "inline",
    "on_cancel",
    "serve_connection",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
