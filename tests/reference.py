"""The slow, readable twin of the compiled core: blocks and transactions in plain Python over hashlib.

It follows Bitcoin Core's deserialization (primitives/transaction.h, serialize.h) step by step, copies freely, hashes
as soon as it parses, and offers the names and the behavior of the compiled ``Transaction``, ``Block`` and builders, so
that one suite can run over both. Hashes are 32 bytes in display order (reversed with respect to the digest).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import NoReturn

from zmqpub.errors import DecodeError
from zmqpub.primitives import BlockHeader, TxIn, TxOut

MAX_SIZE = 0x02000000
"""The largest count or length that Bitcoin Core reads: serialize.h, MAX_SIZE."""


def sha256d(data: bytes | bytearray | memoryview) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def sha256_backend() -> str:
    return "hashlib"


class Cursor:
    """A position in a buffer. Only ``take`` moves it, and it checks the bounds as it does."""

    def __init__(self, what: str, data: memoryview, position: int = 0) -> None:
        self.what = what
        self.data = data
        self.position = position

    def fail(self, offset: int, expected: str, got: str) -> NoReturn:
        raise DecodeError(self.what, offset, expected, got)

    def take(self, count: int, meaning: str) -> bytes:
        left = len(self.data) - self.position
        if left < count:
            self.fail(self.position, f"{count} bytes of {meaning}", f"{left} bytes before the end")
        start = self.position
        self.position += count
        return bytes(self.data[start : self.position])

    def int32(self, meaning: str) -> int:
        return int.from_bytes(self.take(4, meaning), "little", signed=True)

    def uint32(self, meaning: str) -> int:
        return int.from_bytes(self.take(4, meaning), "little")

    def int64(self, meaning: str) -> int:
        return int.from_bytes(self.take(8, meaning), "little", signed=True)

    def hash(self, meaning: str) -> bytes:
        return self.take(32, meaning)[::-1]

    def compact_size(self, meaning: str) -> int:
        """A count or length: shortest form only, at most MAX_SIZE."""
        start = self.position
        first = self.take(1, meaning)[0]
        if first < 0xFD:
            return first
        width, least = {0xFD: (2, 0xFD), 0xFE: (4, 0x10000), 0xFF: (8, 0x100000000)}[first]
        number = int.from_bytes(self.take(width, meaning), "little")
        if number < least:
            self.fail(start, f"{meaning} in its shortest form", f"{number} in {width + 1} bytes")
        if number > MAX_SIZE:
            self.fail(start, f"{meaning} of at most {MAX_SIZE}", str(number))
        return number

    def var_bytes(self, meaning: str) -> bytes:
        return self.take(self.compact_size(f"length of {meaning}"), meaning)

    def end(self) -> None:
        left = len(self.data) - self.position
        if left:
            self.fail(self.position, "the end", f"{left} bytes more")


def read_inputs(cursor: Cursor) -> list[TxIn]:
    inputs = []
    for _ in range(cursor.compact_size("number of inputs")):
        prev_txid = cursor.hash("previous txid")
        prev_index = cursor.uint32("previous output index")
        script_sig = cursor.var_bytes("input script")
        inputs.append(TxIn(prev_txid, prev_index, script_sig, cursor.uint32("sequence")))
    return inputs


def read_outputs(cursor: Cursor) -> list[TxOut]:
    outputs = []
    for _ in range(cursor.compact_size("number of outputs")):
        value = cursor.int64("value")
        outputs.append(TxOut(value, cursor.var_bytes("output script")))
    return outputs


def compact_size(number: int) -> bytes:
    if number < 0xFD:
        return bytes([number])
    if number < 0x10000:
        return b"\xfd" + struct.pack("<H", number)
    if number < 0x100000000:
        return b"\xfe" + struct.pack("<I", number)
    return b"\xff" + struct.pack("<Q", number)


def var_bytes(data: bytes) -> bytes:
    return compact_size(len(data)) + data


def check_hash(value: bytes) -> bytes:
    if len(value) != 32:
        raise ValueError(f"a hash has 32 bytes, not {len(value)}")
    return value


def serialize_transaction(inputs: Sequence[TxIn], outputs: Sequence[TxOut], version: int, locktime: int, *, with_witness: bool) -> bytes:
    with_witness = with_witness and any(entry.witness for entry in inputs)
    parts = [struct.pack("<I", version)]
    if with_witness:
        parts.append(b"\x00\x01")
    parts.append(compact_size(len(inputs)))
    for entry in inputs:
        parts.append(check_hash(entry.prev_txid)[::-1] + struct.pack("<I", entry.prev_index))
        parts.append(var_bytes(entry.script_sig) + struct.pack("<I", entry.sequence))
    parts.append(compact_size(len(outputs)))
    for output in outputs:
        parts.append(struct.pack("<q", output.value) + var_bytes(output.script_pubkey))
    if with_witness:
        for entry in inputs:
            parts.append(compact_size(len(entry.witness)))
            parts.extend(var_bytes(item) for item in entry.witness)
    parts.append(struct.pack("<I", locktime))
    return b"".join(parts)


class Transaction:
    """One transaction, from exactly its bytes; DecodeError for anything that Bitcoin Core would not read."""

    def __init__(self, raw: bytes | bytearray | memoryview) -> None:
        data = memoryview(raw).cast("B")
        if not data.readonly:
            data = memoryview(bytes(data))
        cursor = Cursor("transaction", data)
        self._read(cursor)
        cursor.end()

    def _read(self, cursor: Cursor) -> None:
        start = cursor.position
        self.version = cursor.uint32("version")
        marker = cursor.position
        inputs = read_inputs(cursor)
        outputs: list[TxOut] = []
        flags = 0
        if inputs:
            outputs = read_outputs(cursor)
        else:
            # BIP 144: no inputs is the marker, and a flag follows. A flag of zero is a transaction without inputs, and
            # then Bitcoin Core reads no outputs either.
            flags = cursor.take(1, "witness flag")[0]
            if flags:
                inputs = read_inputs(cursor)
                outputs = read_outputs(cursor)
        if flags & 1:
            flags ^= 1
            for number, entry in enumerate(inputs):
                count = cursor.compact_size("number of witness items")
                items = tuple(cursor.var_bytes("witness item") for _ in range(count))
                inputs[number] = entry._replace(witness=items)
            if not any(entry.witness for entry in inputs):
                cursor.fail(marker, "a witness, as the flag says", "empty stacks only")
        if flags:
            cursor.fail(marker + 1, "a witness flag of 0 or 1", hex(flags))
        self.locktime = cursor.uint32("lock time")
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.raw = cursor.data[start : cursor.position]
        self.size = cursor.position - start
        self.has_witness = any(entry.witness for entry in inputs)
        self.wtxid = sha256d(self.raw)[::-1]
        self.txid = sha256d(self._serialize(with_witness=False))[::-1]

    def _serialize(self, *, with_witness: bool) -> bytes:
        return serialize_transaction(self.inputs, self.outputs, self.version, self.locktime, with_witness=with_witness)

    @classmethod
    def _from_cursor(cls, cursor: Cursor) -> Transaction:
        transaction = cls.__new__(cls)
        transaction._read(cursor)
        return transaction

    def __bytes__(self) -> bytes:
        return bytes(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transaction) and self.wtxid == other.wtxid

    def __hash__(self) -> int:
        return hash(self.wtxid)

    def __repr__(self) -> str:
        return f"<Transaction {self.txid.hex()}>"


class Block:
    """One block, from exactly its bytes."""

    def __init__(self, raw: bytes | bytearray | memoryview) -> None:
        data = memoryview(raw).cast("B")
        if not data.readonly:
            data = memoryview(bytes(data))
        cursor = Cursor("block", data)
        self.header = BlockHeader(
            version=cursor.int32("version"),
            prev_hash=cursor.hash("previous block's hash"),
            merkle_root=cursor.hash("merkle root"),
            time=cursor.uint32("time"),
            bits=cursor.uint32("bits"),
            nonce=cursor.uint32("nonce"),
        )
        count = cursor.compact_size("number of transactions")
        self._transactions = [Transaction._from_cursor(cursor) for _ in range(count)]
        cursor.end()
        self.raw = data
        self.size = len(data)
        self.hash = sha256d(data[:80])[::-1]

    @property
    def txids(self) -> list[bytes]:
        return [transaction.txid for transaction in self._transactions]

    @property
    def wtxids(self) -> list[bytes]:
        return [transaction.wtxid for transaction in self._transactions]

    def __len__(self) -> int:
        return len(self._transactions)

    def __getitem__(self, index: int) -> Transaction:
        return self._transactions[index]

    def __iter__(self) -> Iterator[Transaction]:
        return iter(self._transactions)

    def __bytes__(self) -> bytes:
        return bytes(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"<Block {self.hash.hex()}>"


def build_transaction(inputs: Sequence[TxIn], outputs: Sequence[TxOut], *, version: int = 2, locktime: int = 0) -> Transaction:
    return Transaction(serialize_transaction(inputs, outputs, version, locktime, with_witness=True))


def build_block(header: BlockHeader, transactions: Sequence[Transaction]) -> Block:
    """The bytes of ``header`` and ``transactions`` as a block; the header is taken as it is."""
    return Block(serialize_header(header) + compact_size(len(transactions)) + b"".join(map(bytes, transactions)))


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """The root over hashes in display order, itself in display order; zeros over none."""
    level = [check_hash(value)[::-1] for value in hashes]
    if not level:
        return bytes(32)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [sha256d(level[place] + level[place + 1]) for place in range(0, len(level), 2)]
    return level[0][::-1]


def witness_commitment(wtxids: Sequence[bytes], reserved: bytes = bytes(32)) -> bytes:
    """BIP 141: the 32 bytes that stand in the coinbase's output; the coinbase's own entry counts as zeros."""
    root = merkle_root([bytes(32), *wtxids[1:]])
    return sha256d(root[::-1] + check_hash(reserved))


def serialize_header(header: BlockHeader) -> bytes:
    return (
        struct.pack("<i", header.version)
        + check_hash(header.prev_hash)[::-1]
        + check_hash(header.merkle_root)[::-1]
        + struct.pack("<III", header.time, header.bits, header.nonce)
    )


def target(bits: int) -> int:
    """The largest hash, as a number, that ``bits`` allows; 0 where Bitcoin Core takes them for invalid."""
    exponent, mantissa = bits >> 24, bits & 0x007FFFFF
    if bits & 0x00800000:
        return 0
    number = mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)
    return number if number < 1 << 256 else 0


def meets_target(header: BlockHeader) -> bool:
    return int.from_bytes(sha256d(serialize_header(header)), "little") <= target(header.bits)


def mine(header: BlockHeader, max_tries: int = 2**32) -> BlockHeader:
    """``header`` with the first nonce, from its own on, that meets its bits; ValueError when there is none."""
    for nonce in range(header.nonce, min(header.nonce + max_tries, 2**32)):
        candidate = header._replace(nonce=nonce)
        if meets_target(candidate):
            return candidate
    raise ValueError(f"no nonce in {max_tries} tries meets bits {header.bits:#010x}")
