"""Bitcoin Core's interfaces between processes, as plain Python: values, and what an object has to offer to be served.

The names are those of Bitcoin Core's src/interfaces and src/ipc/capnp, in Python's spelling. Hashes are 32 bytes in display order,
times are seconds, amounts are satoshis. Nothing here does I/O or needs an extra: `zmqpub.ipc` carries these over a socket,
`zmqpub.sources` uses and implements them.
"""

from zmqpub.interfaces.protocols import BlockTemplate, Echo, Init, Mining, Rpc
from zmqpub.interfaces.values import (
    MAX_MONEY,
    BlockCheckOptions,
    BlockCreateOptions,
    BlockRef,
    CheckResult,
    CoinbaseTx,
)

__all__ = [
    "MAX_MONEY",
    "BlockCheckOptions",
    "BlockCreateOptions",
    "BlockRef",
    "BlockTemplate",
    "CheckResult",
    "CoinbaseTx",
    "Echo",
    "Init",
    "Mining",
    "Rpc",
]
