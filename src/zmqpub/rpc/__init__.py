"""JSON-RPC as Bitcoin Core speaks it. Does no I/O: `zmqpub.ipc` carries it over a unix socket."""
