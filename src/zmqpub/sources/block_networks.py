"""What tells Bitcoin's networks apart in block files, and the arithmetic of proof of work."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["LEAST_LIMIT", "NETWORKS", "Network", "check_name", "network_of_magic", "target_of_bits", "work_of_bits"]


class Network(NamedTuple):
    """One network, as its block files show it."""

    name: str
    magic: bytes
    """The four bytes before each record; empty where they are unknown (raw blocks have none)."""
    genesis: bytes
    """The first block's hash, 32 bytes, display order; empty for a private network."""
    limit: int
    """The largest target, which is the least work, that a header may claim."""


NETWORKS: dict[str, Network] = {
    name: Network(name, bytes.fromhex(magic), bytes.fromhex(genesis), limit)
    for name, magic, limit, genesis in (
        ("main", "f9beb4d9", 2**224 - 1, "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
        ("testnet3", "0b110907", 2**224 - 1, "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"),
        ("testnet4", "1c163f28", 2**224 - 1, "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
        ("signet", "0a03cf40", 0x377AE << 216, "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
        ("regtest", "fabfb5da", 2**255 - 1, "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"),
    )
}
"""By name. The magic of signet is that of the public one: a private signet has its own."""

_ALIASES = {"mainnet": "main", "test": "testnet3"}
"""What others, Bitcoin Core's -chain among them, call a network."""

LEAST_LIMIT = NETWORKS["regtest"].limit
"""What any network allows."""


def check_name(name: str) -> Network:
    """The network called ``name``; ConfigError with the known names when there is none."""
    network = NETWORKS.get(_ALIASES.get(name, name))
    if network is None:
        raise ConfigError(ConfigProblem("network", name, f"unknown; known are {', '.join(NETWORKS)}"))
    return network


def network_of_magic(magic: bytes) -> Network | None:
    """The well-known network whose records begin with ``magic``."""
    return next((network for network in NETWORKS.values() if network.magic == magic), None)


def target_of_bits(bits: int, limit: int = LEAST_LIMIT) -> int:
    """The largest hash (as a number) that the compact ``bits`` allow; -1, which no hash meets, where they are invalid.

    Invalid is what Bitcoin Core's DeriveTarget refuses: negative, zero, or more than ``limit``.
    """
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    target = mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)
    return target if not bits & 0x800000 and 0 < target <= limit else -1


@lru_cache(maxsize=4096)
def work_of_bits(bits: int) -> int:
    """The expected number of hashes for a block with these (valid) ``bits``."""
    return 2**256 // (target_of_bits(bits) + 1)
