"""JSON-RPC as Bitcoin Core speaks it. Does no I/O: `zmqpub.ipc` carries it over a unix socket."""

from zmqpub.rpc.codes import RpcCode
from zmqpub.rpc.parameters import Kind, Parameter
from zmqpub.rpc.table import Command, RpcTable

__all__ = ["Command", "Kind", "Parameter", "RpcCode", "RpcTable"]
