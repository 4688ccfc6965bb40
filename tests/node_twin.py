"""A regtest chain as the node that `zmqpub.sources.bitcoin_node` speaks with: Mining and Rpc, answered as Bitcoin Core answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from zmqpub.errors import DisconnectedError, IpcConnectError, RpcError
from zmqpub.interfaces import BlockRef
from zmqpub.testing import RegtestChain

__all__ = ["TwinNode"]


class TwinNode:
    """Mining, Rpc and the connection, all in one; ``chain`` is what it tells of. It can be stopped, and started as another process."""

    def __init__(self, chain: RegtestChain) -> None:
        self.chain = chain
        self.address = "unix:/twin"
        self.downloading = False
        self.loaded = True
        self.running = True
        self.connections = 0
        self.asked: list[str] = []
        self.hidden: set[str] = set()
        """Methods that it says it does not have."""
        self.before: dict[str, Callable[[], object]] = {}
        """What happens, once, just before a method is answered."""
        self._started = time.monotonic()
        self._invalid: set[bytes] = set()
        self._active_at: tuple[bytes, dict[bytes, int]] = (b"", {})

    # The connection

    def __call__(self) -> TwinNode:
        if not self.running:
            raise IpcConnectError(self.address, None, None, "nobody listens there")
        self.connections += 1
        return self

    def make_mining(self) -> TwinNode:
        return self

    def make_rpc(self) -> TwinNode:
        return self

    def close(self) -> None:
        pass

    def stop(self) -> None:
        self.running = False

    def restart(self) -> None:
        """As a new process, which began long after the one before."""
        self._started -= 1_000_000.0
        self.running = True

    def _check(self, method: str) -> None:
        if not self.running:
            raise DisconnectedError(self.address, "Rpc", method, "the peer went away")
        self.asked.append(method)
        if (happens := self.before.pop(method, None)) is not None:
            happens()

    # Mining

    def get_tip(self) -> BlockRef:
        self._check("get_tip")
        with self.chain._lock:
            return BlockRef(self.chain.tip.hash, self.chain.height)

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None = None) -> BlockRef:
        self._check("wait_tip_changed")
        end = time.monotonic() + (1e9 if timeout is None else timeout)
        while (tip := self.get_tip()).hash == current_tip and time.monotonic() < end:
            time.sleep(0.0005)
        return tip

    def is_initial_block_download(self) -> bool:
        self._check("is_initial_block_download")
        return self.downloading

    def get_transactions_by_txid(self, txids: Sequence[bytes]) -> list[bytes | None]:
        self._check("get_transactions_by_txid")
        found = [self.chain.get_transaction(txid) for txid in txids]
        return [None if transaction is None else bytes(transaction) for transaction in found]

    # Rpc

    def execute(self, method: str, *params: Any) -> Any:
        self._check(method)
        if method in self.hidden:
            raise RpcError(-32601, "Method not found", method)
        with self.chain._lock:
            return getattr(self, f"_{method}")(*params)

    def _active(self) -> dict[bytes, int]:
        chain, place, found = self.chain, self.chain.tip.hash, {}
        if self._active_at[0] != place:
            for height in range(self.chain.height, -1, -1):
                found[place] = height
                place = chain.get_block_header(place).previous
            self._active_at = chain.tip.hash, found
        return self._active_at[1]

    def _known(self, name: str) -> bytes:
        block_hash = bytes.fromhex(name)
        if block_hash not in self.chain._blocks:
            raise RpcError(-5, "Block not found")
        return block_hash

    def _getblockheader(self, name: str) -> dict[str, Any]:
        height, previous = self.chain.get_block_header(self._known(name))
        confirmations = self.chain.height - height + 1 if bytes.fromhex(name) in self._active() else -1
        return {
            "height": height,
            "previousblockhash": previous.hex(),
            "chainwork": f"{2 * (height + 1):064x}",
            "confirmations": confirmations,
        }

    def _getblockhash(self, height: int) -> str:
        if not 0 <= height <= self.chain.height:
            raise RpcError(-8, "Block height out of range")
        return list(self._active())[self.chain.height - height].hex()

    def _getbestblockhash(self) -> str:
        return self.chain.tip.hash.hex()

    def _getblock(self, name: str, verbosity: int) -> str:
        assert verbosity == 0
        return bytes(self.chain.get_block(self._known(name))).hex()

    def _getchaintips(self) -> list[dict[str, Any]]:
        return [{"hash": block_hash.hex(), "status": "invalid"} for block_hash in self._invalid]

    def _getmempoolinfo(self) -> dict[str, Any]:
        transactions = self.chain.mempool
        size = sum(transaction.size for transaction in transactions)
        names = hash(tuple(transaction.txid for transaction in transactions))
        return {"loaded": self.loaded, "size": len(transactions), "bytes": size, "usage": size, "total_fee": names}

    def _getrawmempool(self, verbose: bool, sequence: bool) -> dict[str, Any]:
        assert not verbose
        assert sequence
        return {"txids": [entry.txid.hex() for entry in self.chain.mempool], "mempool_sequence": self.chain.mempool_sequence}

    def _getrawtransaction(self, name: str) -> str:
        transaction = self.chain.get_transaction(bytes.fromhex(name))
        if transaction is None:
            raise RpcError(-5, "No such mempool transaction")
        return bytes(transaction).hex()

    def _uptime(self) -> int:
        return int(time.monotonic() - self._started)
