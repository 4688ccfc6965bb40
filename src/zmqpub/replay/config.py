"""The option ``zmqpubreplay=address``: where a publisher lets subscribers ask for what they missed. Knows no sockets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from zmqpub.addresses import Address, conflict, parse_address
from zmqpub.conf_file import ConfFile, Entry, live_entries
from zmqpub.errors import ConfigProblem

__all__ = ["REPLAY_OPTION", "ReplayConfig", "choose_replay", "replay_clashes", "replay_entries"]

REPLAY_OPTION: Final = "zmqpubreplay"


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """The replay endpoint."""

    address: str
    """As it was given."""
    endpoint: str
    """What to bind: ``unix:path`` is ``ipc://path`` here."""
    where: str | None = None
    """Where it was configured (``file:line``), None for what was given in Python."""
    ipv6: bool = False
    """Whether the socket needs ZMQ_IPV6."""

    @property
    def option(self) -> str:
        """The option's name."""
        return REPLAY_OPTION

    def __str__(self) -> str:
        setting = f"{REPLAY_OPTION}={self.address}"
        return f"{setting} ({self.where})" if self.where else setting


class _Bound(Protocol):
    """A notifier's configuration, as far as its address goes."""

    @property
    def address(self) -> str: ...
    @property
    def endpoint(self) -> str: ...


def replay_entries(conf: ConfFile) -> list[Entry]:
    """What a bitcoin.conf says of it. It counts once: what the chain's section says overrules what stands outside sections."""
    return live_entries(conf.section(conf.chain, REPLAY_OPTION) or conf.outside(REPLAY_OPTION))


def choose_replay(given: Sequence[tuple[Entry, Address]], problems: list[ConfigProblem]) -> ReplayConfig | None:
    """The one endpoint that was asked for; a publisher has no second."""
    configs = [ReplayConfig(address.text, address.endpoint, entry.where, address.ipv6) for entry, address in given]
    for other in configs[1:]:
        if other.endpoint != configs[0].endpoint:
            message = f"a publisher has one replay endpoint; conflicts with {configs[0]}"
            problems.append(ConfigProblem(REPLAY_OPTION, other.address, message, other.where))
    return configs[0] if configs else None


def replay_clashes(replay: ReplayConfig, notifiers: Iterable[_Bound]) -> Iterable[tuple[_Bound, str]]:
    """The notifiers whose addresses exclude it, and why. Its socket speaks another protocol, so that it can't be shared."""
    own = parse_address(replay.address)
    for notifier in notifiers:
        other = parse_address(notifier.address)
        if own.endpoint == other.endpoint and not own.wildcard:
            yield notifier, "the replay endpoint needs an address of its own"
        elif reason := conflict(own, other):
            yield notifier, reason
