"""Where a node of Bitcoin Core listens, as options say it; and a connection to it, for commands and as a source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmqpub.conf_file import CHAINS
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.sources.bitcoin_node import BitcoinNode

if TYPE_CHECKING:
    from zmqpub.ipc import Init

__all__ = ["NODE_SOURCE", "chain_dir", "connect", "node_source"]

NODE_SOURCE = "bitcoin-node"
_DIRECTORIES = {"main": "", "test": "testnet3"}  # the others are called as their chains


def chain_dir(datadir: str | None, chain: str | None) -> Path | None:
    """The directory of the chain's files, where Bitcoin Core puts its socket; None for that of mainnet where it is by default.

    ConfigError for a chain that is not known.
    """
    if chain is not None and chain not in CHAINS:
        raise ConfigError(ConfigProblem("-chain", chain, f"no known chain, these are {', '.join(CHAINS)}"))
    below = _DIRECTORIES.get(chain or "main", chain or "")
    if datadir is None and not below:
        return None
    if datadir is None:
        from zmqpub.ipc.address import default_data_dir

        return default_data_dir() / below
    return Path(datadir).expanduser() / below


def connect(address: str, datadir: str | None, chain: str | None, **settings: Any) -> Init:
    """A connection; UnsupportedError without pycapnp, IpcError where there is no such peer."""
    from zmqpub import ipc

    return ipc.connect(address, data_dir=chain_dir(datadir, chain), **settings)


def node_source(address: str, datadir: str | None, chain: str | None, http: str | None = None, **settings: Any) -> BitcoinNode:
    """A source; errors as of connect(), but only when it is iterated, except those of address and options."""
    from zmqpub import ipc
    from zmqpub.ipc.address import canonical, parse_address

    directory = chain_dir(datadir, chain)
    path = canonical(parse_address(address, directory))
    if http is not None:
        from zmqpub.ipc.http_rpc import http_for

        http_for(http, path, directory, 1.0)  # ConfigError for a URL that makes no sense
    return BitcoinNode(lambda: ipc.connect(path, data_dir=directory, http=http), **settings, name=f"the node at {path}")
