"""Blocks, transactions and their builders: one suite over the compiled core and over its slow readable twin."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reference
from block_samples import MAINNET_BLOCKS, genesis
from conftest import Recorded

import zmqpub
from zmqpub import BlockHeader, DecodeError, TxIn, TxOut

REAL_BLOCKS = sorted(MAINNET_BLOCKS.glob("*.raw"))
GENESIS = genesis("main")
GENESIS_HASH = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
GENESIS_TXID = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"

IN = TxIn(bytes(range(32)), 7, b"\x51\x52", 0xFFFFFFFE)
OUT = TxOut(5_000_000_000, b"\x00\x14" + bytes(20))
WITNESS = (b"", b"\x30" * 72, bytes(300))


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


# ---- against what others say ----


def test_genesis_block(core: ModuleType) -> None:
    block = core.Block(GENESIS)
    assert block.hash.hex() == GENESIS_HASH
    assert [txid.hex() for txid in block.txids] == [GENESIS_TXID]
    assert block.wtxids == block.txids
    assert block.header == BlockHeader(1, bytes(32), bytes.fromhex(GENESIS_TXID), 1231006505, 0x1D00FFFF, 2083236893)
    assert len(block) == 1
    assert block.size == 285
    coinbase = block[0]
    assert coinbase.inputs[0].prev_txid == bytes(32)
    assert coinbase.inputs[0].prev_index == 0xFFFFFFFF
    assert b"Chancellor on brink of second bailout" in coinbase.inputs[0].script_sig
    assert coinbase.inputs[0].witness == ()
    assert [output.value for output in coinbase.outputs] == [50 * 10**8]


def test_recorded_transactions(core: ModuleType, recorded: Recorded) -> None:
    for txid, raw in recorded.transactions.items():
        assert core.Transaction(raw).txid == txid


def test_recorded_blocks(core: ModuleType, recorded: Recorded) -> None:
    for block_hash, raw in recorded.blocks.items():
        block = core.Block(raw)
        assert block.hash == block_hash
        assert core.merkle_root(block.txids) == block.header.merkle_root
        assert commitment_of(block) == core.witness_commitment(block.wtxids, block[0].inputs[0].witness[0])


def commitment_of(block: Any) -> bytes | None:
    """What the coinbase commits to: the last output that begins so (BIP 141)."""
    entries = [out.script_pubkey for out in block[0].outputs if out.script_pubkey.startswith(bytes.fromhex("6a24aa21a9ed"))]
    return entries[-1][6:38] if entries else None


@pytest.mark.skipif(not REAL_BLOCKS, reason=f"no blocks of the main chain in {MAINNET_BLOCKS}")
@pytest.mark.parametrize("path", REAL_BLOCKS, ids=lambda path: path.stem.lstrip("0")[:8])
def test_mainnet_blocks(core: ModuleType, path: Path) -> None:
    raw = path.read_bytes()
    block = core.Block(raw)
    assert block.hash.hex() == path.stem, "the file is named by the block's hash"
    assert core.merkle_root(block.txids) == block.header.merkle_root
    if any(tx.has_witness for tx in block):
        assert commitment_of(block) == core.witness_commitment(block.wtxids, block[0].inputs[0].witness[0])
    else:
        assert block.wtxids == block.txids
    assert sum(tx.size for tx in block) + 80 + len(reference.compact_size(len(block))) == len(raw)
    assert core.serialize_header(block.header) == raw[:80]
    transactions = list(block)
    assert bytes(core.build_block(block.header, transactions)) == raw
    for tx in transactions:
        built = core.build_transaction(tx.inputs, tx.outputs, version=tx.version, locktime=tx.locktime)
        assert bytes(built) == bytes(tx)
        assert built.txid == tx.txid


@pytest.mark.skipif(not REAL_BLOCKS, reason=f"no blocks of the main chain in {MAINNET_BLOCKS}")
@pytest.mark.parametrize("path", REAL_BLOCKS, ids=lambda path: path.stem.lstrip("0")[:8])
def test_mainnet_blocks_mean_the_same_to_both(path: Path) -> None:
    raw = path.read_bytes()
    ours, twin = zmqpub.Block(raw), reference.Block(raw)
    assert ours.txids == twin.txids
    assert ours.wtxids == twin.wtxids
    assert ours.header == twin.header
    for one, other in zip(ours, twin, strict=True):
        assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
        assert (one.version, one.locktime, one.has_witness, one.size) == (other.version, other.locktime, other.has_witness, other.size)
        assert one.raw == other.raw


# ---- transactions ----


def test_transaction_without_witness(core: ModuleType) -> None:
    raw = u32(1) + b"\x01" + IN.prev_txid[::-1] + u32(7) + b"\x02\x51\x52" + u32(0xFFFFFFFE)
    raw += b"\x01" + (5_000_000_000).to_bytes(8, "little") + b"\x16" + OUT.script_pubkey + u32(500_000)
    tx = core.Transaction(raw)
    assert tx.inputs == (IN,)
    assert tx.outputs == (OUT,)
    assert (tx.version, tx.locktime, tx.has_witness, tx.size) == (1, 500_000, False, len(raw))
    assert tx.txid == tx.wtxid == reference.sha256d(raw)[::-1]
    assert bytes(tx) == bytes(tx.raw) == raw
    assert bytes(core.build_transaction([IN], [OUT], version=1, locktime=500_000)) == raw


def test_transaction_with_witness(core: ModuleType) -> None:
    body = b"\x01" + IN.prev_txid[::-1] + u32(7) + b"\x02\x51\x52" + u32(0xFFFFFFFE)
    body += b"\x01" + (5_000_000_000).to_bytes(8, "little") + b"\x16" + OUT.script_pubkey
    stack = b"\x03" + b"\x00" + b"\x48" + b"\x30" * 72 + b"\xfd\x2c\x01" + bytes(300)
    raw = u32(2) + b"\x00\x01" + body + stack + u32(0)
    tx = core.Transaction(raw)
    assert tx.inputs == (IN._replace(witness=WITNESS),)
    assert tx.outputs == (OUT,)
    assert tx.has_witness
    assert tx.wtxid == reference.sha256d(raw)[::-1]
    assert tx.txid == reference.sha256d(u32(2) + body + u32(0))[::-1]
    assert bytes(core.build_transaction([IN._replace(witness=WITNESS)], [OUT])) == raw


def test_some_inputs_without_witness(core: ModuleType) -> None:
    tx = core.build_transaction([IN, IN._replace(witness=[b"x"]), IN], [OUT, OUT])
    assert [tuple(entry.witness) for entry in tx.inputs] == [(), (b"x",), ()]
    assert core.Transaction(bytes(tx)) == tx


def test_transaction_of_nothing(core: ModuleType) -> None:
    """No inputs, and a flag of zero where the outputs would be: Bitcoin Core reads it."""
    tx = core.Transaction(u32(2) + b"\x00\x00" + u32(9))
    assert (tx.inputs, tx.outputs, tx.has_witness, tx.locktime) == ((), (), False, 9)
    assert tx.txid == tx.wtxid == reference.sha256d(tx.raw)[::-1]
    assert core.build_transaction([], [], locktime=9) == tx


def test_no_outputs(core: ModuleType) -> None:
    tx = core.Transaction(bytes(core.build_transaction([IN], [])))
    assert (tx.inputs, tx.outputs) == ((IN,), ())


@pytest.mark.parametrize("length", [0, 1, 252, 253, 254, 0xFFFF, 0x10000, 0x10001])
def test_lengths_around_each_form(core: ModuleType, length: int) -> None:
    entry = TxIn(bytes(32), 0, b"\x01" * length, 0, (b"\x02" * length,))
    tx = core.build_transaction([entry], [TxOut(0, b"\x03" * length)])
    assert tx.inputs == (entry,)
    assert tx.outputs == (TxOut(0, b"\x03" * length),)


@pytest.mark.parametrize("count", [1, 2, 252, 253, 254, 1000])
def test_many_of_each(core: ModuleType, count: int) -> None:
    inputs = [TxIn(bytes([i % 256]) * 32, i, b"", i, [bytes([i % 256])] * (i % 3)) for i in range(count)]
    outputs = [TxOut(i, bytes([i % 256])) for i in range(count)]
    if count == 1:
        inputs[0] = inputs[0]._replace(witness=[b"\x01"] * 253)
    tx = core.Transaction(bytes(core.build_transaction(inputs, outputs)))
    assert [entry._replace(witness=list(entry.witness)) for entry in tx.inputs] == inputs
    assert list(tx.outputs) == outputs


@pytest.mark.parametrize("value", [0, 1, 21 * 10**14, 2**63 - 1, -1, -(2**63)])
def test_values_are_signed(core: ModuleType, value: int) -> None:
    assert core.build_transaction([IN], [TxOut(value, b"")]).outputs == (TxOut(value, b""),)


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1])
def test_numbers_of_32_bits(core: ModuleType, number: int) -> None:
    entry = TxIn(bytes(32), number, b"", number)
    tx = core.build_transaction([entry], [], version=number, locktime=number)
    assert (tx.version, tx.locktime, tx.inputs) == (number, number, (entry,))


def test_transactions_are_equal_by_wtxid(core: ModuleType) -> None:
    plain, again = (core.build_transaction([IN], [OUT]) for _ in range(2))
    with_witness = core.build_transaction([IN._replace(witness=[b"1"])], [OUT])
    other_witness = core.build_transaction([IN._replace(witness=[b"2"])], [OUT])
    assert plain == again
    assert hash(plain) == hash(again)
    assert with_witness.txid == other_witness.txid == plain.txid
    assert len({plain, again, with_witness, other_witness}) == 3
    assert plain != bytes(plain)
    assert plain.txid.hex() in repr(plain)


def test_transaction_within_a_block(core: ModuleType, recorded: Recorded) -> None:
    raw = max(recorded.blocks.values(), key=len)
    block = core.Block(raw)
    assert [bytes(tx) for tx in block] == [bytes(tx.raw) for tx in block]
    for place, tx in enumerate(block):
        alone = core.Transaction(bytes(tx))
        assert alone == tx
        assert (alone.txid, alone.wtxid) == (block.txids[place], block.wtxids[place])
        assert (alone.inputs, alone.outputs, alone.locktime) == (tx.inputs, tx.outputs, tx.locktime)


# ---- blocks ----


def test_block_is_a_sequence(core: ModuleType, recorded: Recorded) -> None:
    block = core.Block(max(recorded.blocks.values(), key=len))
    count = len(block)
    assert count > 3
    every = list(block)
    assert [tx.txid for tx in every] == block.txids
    assert block[0] == every[0]
    assert block[-1] == block[count - 1] == every[-1]
    assert block[1:-1] == every[1:-1]
    assert block[::-2] == every[::-2]
    for index in (count, -count - 1, 2**40):
        with pytest.raises(IndexError):
            block[index]


def test_block_without_transactions(core: ModuleType) -> None:
    block = core.Block(GENESIS[:80] + b"\x00")
    assert (len(block), list(block), block.txids, block.wtxids) == (0, [], [], [])
    assert block.hash.hex() == GENESIS_HASH


@pytest.mark.parametrize("version", [1, 0x20000000, 0x7FFFFFFF, -1, -(2**31)])
def test_header_round_trip(core: ModuleType, version: int) -> None:
    header = BlockHeader(version, bytes(range(32)), bytes(range(32, 64)), 2**32 - 1, 0x1D00FFFF, 2**32 - 2)
    raw = core.serialize_header(header)
    assert len(raw) == 80
    assert raw[4:36] == header.prev_hash[::-1]
    assert core.Block(raw + b"\x00").header == header


def test_blocks_are_equal_by_hash(core: ModuleType) -> None:
    one, same = core.Block(GENESIS), core.Block(bytearray(GENESIS))
    other = core.build_block(one.header._replace(nonce=0), list(one))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != GENESIS
    assert GENESIS_HASH in repr(one)


@pytest.mark.parametrize("count", [252, 253, 70_000])
def test_many_transactions(core: ModuleType, count: int) -> None:
    if core is reference and count > 1000:
        pytest.skip("too slow")
    tx = core.Transaction(u32(2) + b"\x00\x00" + u32(9))
    block = core.build_block(BlockHeader(1, bytes(32), bytes(32), 0, 0, 0), [tx] * count)
    assert len(block) == count
    assert block.txids == [tx.txid] * count
    assert block[count - 1] == tx


# ---- merkle roots, commitments, proof of work ----


def merkle_by_definition(hashes: list[bytes]) -> bytes:
    """From the top: the root of n is the hash of the roots of its halves, the second padded with its own last."""
    if len(hashes) == 1:
        return hashes[0][::-1]
    size = 1
    while size * 2 < len(hashes):
        size *= 2
    left, right = hashes[:size], hashes[size:]
    depth_left, depth_right = size.bit_length(), (len(right) - 1).bit_length() + 1
    joined = merkle_by_definition(right)
    for _ in range(depth_left - depth_right):
        joined = reference.sha256d(joined + joined)
    return reference.sha256d(merkle_by_definition(left) + joined)


@pytest.mark.parametrize("count", [*range(1, 35), 63, 64, 65, 1000, 1025])
def test_merkle_root(core: ModuleType, count: int) -> None:
    hashes = [reference.sha256d(bytes([i % 256, i // 256])) for i in range(count)]
    given = list(hashes)
    assert core.merkle_root(given) == merkle_by_definition(hashes)[::-1]
    assert given == hashes, "the argument is left alone"


def test_merkle_root_of_none_and_of_repeated(core: ModuleType) -> None:
    one, two, three = (bytes([i]) * 32 for i in range(3))
    assert core.merkle_root([]) == bytes(32)
    assert core.merkle_root((one,)) == one
    assert core.merkle_root([one, two, three]) == core.merkle_root([one, two, three, three])


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33)])
def test_hashes_have_32_bytes(core: ModuleType, wrong: bytes) -> None:
    with pytest.raises(ValueError, match="32"):
        core.merkle_root([bytes(32), wrong])
    with pytest.raises(ValueError, match="32"):
        core.build_transaction([IN._replace(prev_txid=wrong)], [OUT])
    with pytest.raises(ValueError, match="32"):
        core.serialize_header(BlockHeader(1, bytes(32), wrong, 0, 0, 0))
    with pytest.raises(ValueError, match="32"):
        core.witness_commitment([bytes(32)], wrong)


def test_witness_commitment_ignores_the_coinbase(core: ModuleType) -> None:
    wtxids = [bytes([i]) * 32 for i in range(1, 6)]
    root = core.merkle_root([bytes(32), *wtxids[1:]])[::-1]
    assert core.witness_commitment(wtxids) == reference.sha256d(root + bytes(32))
    assert core.witness_commitment([bytes(32), *wtxids[1:]], b"\x07" * 32) == reference.sha256d(root + b"\x07" * 32)


def test_mine_finds_the_first_nonce(core: ModuleType) -> None:
    header = BlockHeader(4, bytes(32), b"\x05" * 32, 1_700_000_000, 0x2000FFFF, 3)
    mined = core.mine(header)
    assert mined._replace(nonce=3) == header
    assert mined.nonce > 3
    for nonce in range(3, mined.nonce):
        assert not reference.meets_target(header._replace(nonce=nonce))
    assert reference.meets_target(mined)
    assert core.mine(mined) == mined
    with pytest.raises(ValueError, match="0x2000ffff"):
        core.mine(header, mined.nonce - 3)
    assert core.mine(header, mined.nonce - 3 + 1) == mined


def test_mine_knows_the_first_block(core: ModuleType) -> None:
    header = core.Block(GENESIS).header
    assert core.mine(header._replace(nonce=header.nonce - 1000)) == header


def test_mine_ends_with_the_nonces(core: ModuleType) -> None:
    hard = BlockHeader(1, bytes(32), bytes(32), 0, 0x03000001, 2**32 - 5)
    with pytest.raises(ValueError, match="0x03000001"):
        core.mine(hard)


# ---- what is refused ----


def valid(core: ModuleType) -> bytes:
    return bytes(core.build_transaction([IN._replace(witness=[b"\x01\x02"])], [OUT]))


REFUSED = {
    "nothing": (b"", 0),
    "version only": (u32(2), 4),
    "no flag": (u32(2) + b"\x00", 5),
    "flag 2": (u32(2) + b"\x00\x02\x01", 5),
    "count in a longer form": (u32(2) + b"\xfd\x01\x00", 4),
    "count in a longer form, 5 bytes": (u32(2) + b"\xfe\xff\xff\x00\x00", 4),
    "count in a longer form, 9 bytes": (u32(2) + b"\xff" + b"\xff" * 4 + bytes(4), 4),
    "count too large": (u32(2) + b"\xfe\x01\x00\x00\x02" + bytes(100), 4),
    "count cut": (u32(2) + b"\xfd\x01", 4),
    "only empty stacks": (u32(2) + b"\x00\x01\x01" + bytes(36) + b"\x00" + u32(0) + b"\x00" + b"\x00" + u32(0), 49),
    "a witness for no inputs": (u32(2) + b"\x00\x01\x00\x00" + u32(0), 8),
    "script too long": (u32(2) + b"\x01" + bytes(36) + b"\xfe\x01\x00\x00\x02" + bytes(100), 41),
    "bytes after the end": (u32(2) + b"\x00\x00" + u32(0) + b"!", 10),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_transactions(core: ModuleType, name: str) -> None:
    raw, offset = REFUSED[name]
    with pytest.raises(DecodeError) as caught:
        core.Transaction(raw)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.what == "transaction"
    assert error.expected
    assert error.got
    assert 0 <= error.offset <= len(raw)
    if core is zmqpub:  # the twin checks field by field, and may point a little further on, or back to the marker
        assert error.offset == offset
    for part in (f"offset {error.offset}", error.expected, error.got):
        assert part in str(error)


def test_what_a_decode_error_says() -> None:
    cut = valid(zmqpub)[:-3]
    with pytest.raises(DecodeError) as caught:
        zmqpub.Transaction(cut)
    error = caught.value
    assert (error.what, error.offset) == ("transaction", len(cut) - 1)
    assert "4 bytes of lock time" in error.expected
    assert error.got.startswith("1 of 4 bytes")
    again = pickle.loads(pickle.dumps(error))
    assert (again.what, again.offset, again.expected, again.got) == (error.what, error.offset, error.expected, error.got)


def test_error_in_a_block_names_the_transaction() -> None:
    tx = valid(zmqpub)
    raw = GENESIS[:80] + b"\x03" + tx + tx + tx[:-1]
    with pytest.raises(DecodeError) as caught:
        zmqpub.Block(raw)
    assert caught.value.what == "block, transaction 2"
    assert caught.value.offset == len(raw) - 3


@pytest.mark.parametrize("count", [b"\x02", b"\xfe\x00\x00\x00\x02", b"\xfd\xff\xff"])
def test_block_that_announces_too_many(core: ModuleType, count: bytes) -> None:
    with pytest.raises(DecodeError):
        core.Block(GENESIS[:80] + count + GENESIS[81:])


@pytest.mark.parametrize("value", ["text", None, 3, [1, 2]])
def test_no_buffer(core: ModuleType, value: object) -> None:
    for kind in (core.Block, core.Transaction):
        with pytest.raises(TypeError):
            kind(value)


def test_outputs_without_inputs_cannot_be_written(core: ModuleType) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - a DecodeError of the twin, which reads what it wrote
        core.build_transaction([], [OUT])


@pytest.mark.parametrize("number", [-1, 2**32])
def test_numbers_that_do_not_fit(number: int) -> None:
    with pytest.raises(OverflowError):
        zmqpub.build_transaction([IN], [OUT], version=number)
    with pytest.raises(OverflowError):
        zmqpub.build_transaction([IN._replace(prev_index=number)], [OUT])
    with pytest.raises(OverflowError):
        zmqpub.build_transaction([IN], [OUT], locktime=number)


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**63])
def test_values_that_do_not_fit(value: int) -> None:
    with pytest.raises(OverflowError):
        zmqpub.build_transaction([IN], [TxOut(value, b"")])


@pytest.mark.parametrize("field", ["time", "bits", "nonce"])
@pytest.mark.parametrize("number", [-1, 2**32])
def test_header_fields_that_do_not_fit(field: str, number: int) -> None:
    changed: dict[str, Any] = {field: number}
    header = BlockHeader(1, bytes(32), bytes(32), 0, 0, 0)._replace(**changed)
    with pytest.raises(OverflowError):
        zmqpub.serialize_header(header)


def test_pickles() -> None:
    block = zmqpub.Block(GENESIS)
    for thing in (block, block[0], zmqpub.Transaction(bytes(block[0]))):
        again = pickle.loads(pickle.dumps(thing))
        assert type(again) is type(thing)
        assert again == thing
        assert bytes(again) == bytes(thing)
