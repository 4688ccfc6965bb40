"""The replay endpoint of a publisher: its configuration, its server, and who makes snapshots for it."""

from __future__ import annotations

from zmqpub._fast import Engine, ReplayEndpoint
from zmqpub.addresses import parse_address
from zmqpub.replay.config import ReplayConfig
from zmqpub.replay.snapshot import Snapshots, SnapshotSource
from zmqpub.settings import Settings
from zmqpub.stats import ReplayStats

__all__ = ["Replay"]


class Replay:
    """Bound when it was made, BindError where it cannot be. Requests wait until it is started."""

    def __init__(self, config: ReplayConfig, engine: Engine, settings: Settings) -> None:
        self._config = config
        self._endpoint = ReplayEndpoint(
            engine,
            config.option,
            config.address,
            config.endpoint,
            ipv6=config.ipv6,
            stall_timeout=settings.stall_timeout,
            keepalive_idle=-1 if settings.tcp_keepalive_idle is None else settings.tcp_keepalive_idle,
            keepalive_interval=-1 if settings.tcp_keepalive_interval is None else settings.tcp_keepalive_interval,
        )
        self._snapshots = Snapshots(self._endpoint, engine.epoch)

    @property
    def config(self) -> ReplayConfig:
        """As configured."""
        return self._config

    @property
    def address(self) -> str:
        """What a client connects to, with the real port."""
        return self._endpoint.bound if parse_address(self._config.address).wildcard else self._config.endpoint

    def start(self) -> None:
        """Begin to serve."""
        self._endpoint.start()

    def set_snapshot(self, source: SnapshotSource | None) -> None:
        """Who makes snapshots."""
        self._snapshots.offer(source)

    def stats(self) -> ReplayStats:
        """What was asked and answered so far."""
        return ReplayStats(self.address, self._endpoint.state, self._endpoint.clients(), *self._endpoint.counts())

    def stop(self, linger: float | None) -> None:
        """Ask it to end; answers under way may take ``linger`` seconds, None: as long as it takes."""
        self._endpoint.stop(linger)

    def join(self) -> None:
        """Wait until it has ended."""
        self._endpoint.join()
        self._snapshots.close()
