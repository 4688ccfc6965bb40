"""What Bitcoin Core's interfaces take and return (src/interfaces/types.h, src/node/types.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_MONEY", "BlockCheckOptions", "BlockCreateOptions", "BlockRef", "CheckResult", "CoinbaseTx"]

MAX_MONEY: Final = 2_100_000_000_000_000
"""Satoshis that there will ever be; as a fee threshold: none."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block's place in the active chain."""

    hash: bytes
    """32 bytes, display order."""
    height: int


@dataclass(frozen=True, slots=True)
class BlockCreateOptions:
    """What a block template is made of."""

    use_mempool: bool = True
    block_reserved_weight: int = 8_000
    """Weight units kept free for the header, the transaction count and the coinbase."""
    coinbase_output_max_additional_sigops: int = 400
    """Signature operations that the coinbase's outputs may have."""


@dataclass(frozen=True, slots=True)
class BlockCheckOptions:
    """What of a block is checked."""

    check_merkle_root: bool = True
    check_pow: bool = True


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a block was found good; true or false itself."""

    result: bool
    reason: str = ""
    """Why not, in Bitcoin Core's words (``high-hash``); empty where it is good, or the peer's version does not say."""
    debug: str = ""

    def __bool__(self) -> bool:
        return self.result


@dataclass(frozen=True, slots=True)
class CoinbaseTx:
    """What a miner's coinbase transaction has to contain."""

    version: int
    sequence: int
    """Of its input."""
    script_sig_prefix: bytes
    """What its scriptSig begins with: the height (BIP 34)."""
    witness: bytes | None
    """The only element of its input's witness stack; None without one."""
    block_reward_remaining: int
    """Satoshis that the miner may pay out: subsidy and fees."""
    required_outputs: tuple[bytes, ...]
    """Outputs that must be in it, serialized, such as the witness commitment."""
    lock_time: int
