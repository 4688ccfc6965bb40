"""What `zmqpub run -ipcbind` serves: Bitcoin Core's interfaces, from what is published and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zmqpub.node import NodeView, node_commands
from zmqpub.node.mempool_json import Cost
from zmqpub.publisher import ActiveNotifier, Publisher
from zmqpub.rpc import RpcTable
from zmqpub.sources.bitcoin_node import BitcoinNode
from zmqpub.sources.blocks import BlockFiles
from zmqpub.sources.events import Event, Source
from zmqpub.sources.live import LiveSimulated
from zmqpub.sources.regtest.mining import RegtestMining
from zmqpub.sources.regtest.sigops import sigops_cost
from zmqpub.sources.simulated import Simulated

__all__ = ["Serving"]

_CORE_NAMES = {"testnet3": "test"}


class _Echo:
    def echo(self, echo: str, /) -> str:
        return echo


class _Init:
    """A node without a chain of its own: what it lacks is answered as unimplemented."""

    def __init__(self, rpc: RpcTable) -> None:
        self._rpc = rpc

    def make_echo(self) -> _Echo:
        return _Echo()

    def make_rpc(self) -> RpcTable:
        return self._rpc


class _MiningInit(_Init):
    def __init__(self, rpc: RpcTable, live: LiveSimulated, on_cancel: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(rpc)
        self._live = live
        self._on_cancel = on_cancel

    def make_mining(self) -> RegtestMining:
        return RegtestMining(self._live.shared, on_cancel=self._on_cancel)


class Serving:
    """Serves ``source`` at ``addresses``, once listen() was called. UnsupportedError without the extra ``ipc``.

    A Simulated is replaced by one that miners can mine on: ``source`` has it, and does its own waiting. Any other source tells, through
    ``on_event``, what was published.
    """

    source: Source
    on_event: Callable[[Event], None] | None

    def __init__(self, addresses: Sequence[str], source: Source, speed: float) -> None:
        from zmqpub import ipc

        self._addresses = addresses
        self._notifiers: Callable[[], Sequence[ActiveNotifier]] = tuple
        self.source = source
        self.on_event = None
        view = self._view(source)
        if isinstance(source, Simulated):
            live = LiveSimulated(source, speed=speed, on_event=view.note)
            self.source = live
            rpc = self._table(view, live)
            init: Any = _MiningInit(rpc, live, ipc.on_cancel)
        else:
            self.on_event = view.note
            if isinstance(source, BitcoinNode):
                source.on_beginning = lambda beginning: view.begin(*beginning)
            init = _Init(self._table(view, None))
        self._init = init
        self._ipc: Any = None

    def _view(self, source: Source) -> NodeView:
        if isinstance(source, BlockFiles):
            return NodeView(read_block=source.block, mempool=False)
        return NodeView()

    def _table(self, view: NodeView, live: LiveSimulated | None) -> RpcTable:
        def cost_of(txid: bytes) -> Cost | None:
            if live is None:
                return None
            with live.shared.condition:
                entry = live.shared.chain.mempool.get(txid)
            if entry is None:
                return None
            return Cost(entry.fee, sigops_cost(entry.transaction.inputs, entry.transaction.outputs, entry.spent))

        def chain() -> str | None:
            if live is not None:
                return "regtest"
            network = getattr(self.source, "network", None)
            return network and _CORE_NAMES.get(network, network)

        return RpcTable(node_commands(view, lambda: self._notifiers(), cost_of=cost_of, chain=chain))

    def listen(self, publisher: Publisher) -> list[str]:
        """Let others connect; the addresses, in their canonical spelling. IpcError where one cannot be bound."""
        from zmqpub import ipc

        self._notifiers = publisher.active_notifiers
        self._ipc = ipc.Ipc("zmqpub", self._init, data_dir=".")
        return [self._ipc.listen_address(address) for address in self._addresses]

    def close(self) -> None:
        """Disconnect everybody. Calls under way end, those that wait for the chain at once."""
        if isinstance(self.source, LiveSimulated):
            self.source.shared.close()
        if self._ipc is not None:
            self._ipc.close()
