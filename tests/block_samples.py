"""Real blocks and block files for tests: small regtest chains, genesis blocks, records as Bitcoin Core writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import reference

from zmqpub.primitives import BlockHeader, TxIn, TxOut

MAGIC = {
    name: bytes.fromhex(magic)
    for name, magic in (
        ("main", "f9beb4d9"),
        ("testnet3", "0b110907"),
        ("testnet4", "1c163f28"),
        ("signet", "0a03cf40"),
        ("regtest", "fabfb5da"),
    )
}
EASY = 0x207FFFFF
"""regtest's bits: every other nonce will do."""
EIGHT_TIMES = 0x200FFFFF
"""Bits that stand for eight times the work."""
START_TIME = 1_700_000_000

MAINNET_BLOCKS = Path(__file__).parents[2] / "shared" / "blocks"
"""Real blocks of the main chain, where the machine has them."""


def genesis_transaction(message: str, public_key: str) -> reference.Transaction:
    text = message.encode()
    length = bytes([len(text)]) if len(text) < 0x4C else b"\x4c" + bytes([len(text)])
    script = bytes.fromhex("04ffff001d0104") + length + text
    key = bytes.fromhex(public_key)
    output = TxOut(50 * 10**8, bytes([len(key)]) + key + b"\xac")
    return reference.build_transaction([TxIn(bytes(32), 0xFFFFFFFF, script)], [output], version=1)


def genesis(network: str) -> bytes:
    """The genesis block, from the parameters in Bitcoin Core's chainparams."""
    message = "The Times 03/Jan/2009 Chancellor on brink of second bailout for banks"
    key = (
        "04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"
    )
    if network == "testnet4":
        message = "03/May/2024 000000000000000000001ebd58c244970b3aa9d783bb001011fbe8ea8e98e00e"
        key = "00" * 33
    time, bits, nonce = {
        "main": (1231006505, 0x1D00FFFF, 2083236893),
        "testnet3": (1296688602, 0x1D00FFFF, 414098458),
        "testnet4": (1714777860, 0x1D00FFFF, 393743547),
        "signet": (1598918400, 0x1E0377AE, 52613770),
        "regtest": (1296688602, EASY, 2),
    }[network]
    transaction = genesis_transaction(message, key)
    header = BlockHeader(1, bytes(32), transaction.txid, time, bits, nonce)
    return bytes(reference.build_block(header, [transaction]))


def height_script(height: int) -> bytes:
    """BIP 34: what a coinbase begins with; one byte more, as a script has at least two."""
    if height <= 16:
        return bytes([0x50 + height, 0])
    number = height.to_bytes(height.bit_length() // 8 + 1, "little")
    return bytes([len(number)]) + number


def child(parent: bytes, height: int, *, bits: int = EASY, branch: bytes = b"", version: int = 4, script: bytes | None = None) -> bytes:
    """A mined block upon the block ``parent``; ``branch`` tells children of one parent apart."""
    coinbase = TxIn(bytes(32), 0xFFFFFFFF, (height_script(height) if script is None else script) + branch)
    transaction = reference.build_transaction([coinbase], [TxOut(50 * 10**8, b"\x51")])
    header = BlockHeader(version, hash_of(parent), transaction.txid, START_TIME + height, bits, 0)
    return bytes(reference.build_block(reference.mine(header), [transaction]))


def hash_of(block: bytes) -> bytes:
    return reference.sha256d(block[:80])[::-1]


def grow(parent: bytes, height: int, length: int, **settings: object) -> list[bytes]:
    """``length`` blocks upon ``parent``, which has ``height``."""
    blocks: list[bytes] = []
    for number in range(length):
        parent = child(parent, height + 1 + number, **settings)  # type: ignore[arg-type]
        blocks.append(parent)
    return blocks


def chain(length: int, **settings: object) -> list[bytes]:
    """A regtest chain of ``length`` blocks, the genesis block among them."""
    first = genesis("regtest")
    return [first, *grow(first, 0, length - 1, **settings)]


def record(block: bytes, magic: bytes = MAGIC["regtest"]) -> bytes:
    return magic + len(block).to_bytes(4, "little") + block


def records(blocks: Iterable[bytes], magic: bytes = MAGIC["regtest"]) -> bytes:
    return b"".join(record(block, magic) for block in blocks)


def obfuscate(data: bytes, key: bytes) -> bytes:
    """Byte by byte, as the definition says."""
    return bytes(byte ^ key[place % len(key)] for place, byte in enumerate(data)) if key else data


def write_core(directory: Path, files: Sequence[bytes], key: bytes = b"", tail: int = 0) -> Path:
    """A blocks directory of Bitcoin Core: clear ``files``, the last with ``tail`` preallocated zeros."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        zeros = bytes(tail) if number == len(files) - 1 else b""
        (directory / f"blk{number:05}.dat").write_bytes(obfuscate(data, key) + zeros)
        (directory / f"rev{number:05}.dat").write_bytes(b"undo data is none of our business")
    if key:
        (directory / "xor.dat").write_bytes(key)
    (directory / "index").mkdir(exist_ok=True)
    return directory


def write_raw(directory: Path, blocks: Iterable[bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        (directory / f"{hash_of(block).hex()}.raw").write_bytes(block)
    return directory


def offsets(blocks: Iterable[bytes]) -> Iterator[int]:
    """Where each record begins in the file of ``records(blocks)``."""
    place = 0
    for block in blocks:
        yield place
        place += 8 + len(block)


def without_proof(block: bytes) -> bytes:
    """``block`` with a nonce that does not meet its bits."""
    for nonce in count():
        header = block[:76] + nonce.to_bytes(4, "little")
        if reference.sha256d(header)[31] >= 0x80:
            return header + block[80:]
    raise AssertionError
