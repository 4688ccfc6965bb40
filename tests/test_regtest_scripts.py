"""Locks and what opens them, under the auditor's script interpreter and against known vectors."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from auditor import check_spend

from zmqpub.sources.regtest.ripemd160 import ripemd160
from zmqpub.sources.regtest.scripts import (
    ANYONE_CAN_SPEND,
    Kind,
    Lock,
    data_carrier,
    data_lock,
    input_weight,
    is_unspendable,
    key_lock,
    push,
)
from zmqpub.sources.regtest.taproot import INTERNAL_KEY, single_leaf

LOCKS = [
    *(key_lock(kind, bytes(range(20))) for kind in Kind),
    *(
        data_lock(kind, pairs, sizes)
        for kind in (Kind.P2WSH, Kind.NESTED, Kind.P2TR)
        for pairs, sizes in ((1, (20, 1_040)), (3, (20, 3_120)), (100, (20, 104_000)))
    ),
]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.kind.value}-{lock.pairs}")
def test_what_a_lock_gives_opens_it(lock: Lock) -> None:
    random = Random(1)
    opened = [lock.unlock(random) for _ in range(50)]
    for script_sig, witness, weight in opened:
        check_spend(lock.script_pubkey, script_sig, tuple(witness))
        assert weight == input_weight(script_sig, witness)
    assert len(set(opened)) == 50


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.kind.value}-{lock.pairs}")
def test_nothing_else_opens_it(lock: Lock) -> None:
    """That the interpreter above can say no."""
    script_sig, witness, _ = lock.unlock(Random(2))
    other = key_lock(lock.kind, bytes(20)).unlock(Random(2))
    more = (b"more", *witness) if witness else ()
    for bad in ((other.script_sig, other.witness), (push(b"more") + script_sig, more)):
        with pytest.raises(AssertionError):
            check_spend(lock.script_pubkey, bad[0], tuple(bad[1]))


def test_kinds_look_like_themselves() -> None:
    shapes = {kind: key_lock(kind, bytes(20)).script_pubkey for kind in Kind}
    assert (shapes[Kind.P2WSH][:2], len(shapes[Kind.P2WSH])) == (b"\x00\x20", 34)
    assert (shapes[Kind.P2TR][:2], len(shapes[Kind.P2TR])) == (b"\x51\x20", 34)
    for kind in (Kind.P2SH, Kind.NESTED):
        assert (shapes[kind][:2], shapes[kind][-1:], len(shapes[kind])) == (b"\xa9\x14", b"\x87", 23)
    assert key_lock(Kind.P2SH, bytes(20)).unlock(Random(0)).witness == ()


@pytest.mark.parametrize(
    ("kind", "pairs", "sizes"),
    [
        (Kind.P2SH, 1, (10, 20)),
        (Kind.P2WSH, 0, (10, 20)),
        (Kind.P2WSH, 101, (10, 20)),
        (Kind.P2TR, 1, (10, 1_041)),
        (Kind.P2TR, 1, (20, 10)),
    ],
)
def test_impossible_data_locks(kind: Kind, pairs: int, sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=kind.value):
        data_lock(kind, pairs, sizes)


@pytest.mark.parametrize(("size", "prefix"), [(2, "02"), (75, "4b"), (76, "4c4c"), (255, "4cff"), (256, "4d0001"), (520, "4d0802")])
def test_pushes_are_minimal(size: int, prefix: str) -> None:
    assert push(bytes(size)) == bytes.fromhex(prefix) + bytes(size)


@pytest.mark.parametrize("size", [0, 1, 521])
def test_pushes_out_of_range(size: int) -> None:
    with pytest.raises(ValueError, match=f"a push of {size} bytes"):
        push(bytes(size))


def test_what_nobody_can_spend() -> None:
    assert is_unspendable(data_carrier(b"some data"))
    assert is_unspendable(bytes(10_001))
    assert not is_unspendable(b"")
    assert not is_unspendable(ANYONE_CAN_SPEND)


def test_anyone_can_spend_is_what_bitcoin_cores_test_framework_pays() -> None:
    assert ANYONE_CAN_SPEND.hex() == "00204ae81572f06e1b88fd5ced7a1a000945432e83e1551e6f721ee9c00b8cc33260"


def test_taproot_as_recorded_from_bitcoin_core() -> None:
    """An OP_1 leaf under the internal key with x = 1, as Bitcoin Core's functional tests use."""
    output_key, control_block = single_leaf(b"\x51", (1).to_bytes(32, "big"))
    assert output_key.hex() == "2913b252fe537830f843bfdc5fa7d20ba48639a87c86ff837b92d083c55ad7c1"
    assert control_block.hex() == "c0" + "00" * 31 + "01"


def test_taproot_parities_both_occur() -> None:
    blocks = [single_leaf(bytes([0x51 + number]))[1] for number in range(16)]
    assert {block[0] for block in blocks} == {0xC0, 0xC1}
    assert {block[1:] for block in blocks} == {INTERNAL_KEY}


def test_taproot_leaves_of_one_length_byte_only() -> None:
    with pytest.raises(ValueError, match="253"):
        single_leaf(bytes(253))


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
        (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        (b"message digest", "5d0689ef49d2fae572b881b123a85ffa21595f36"),
        (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
    ],
)
def test_ripemd160_vectors(message: bytes, digest: str) -> None:
    assert ripemd160(message).hex() == digest


def test_ripemd160_against_openssl() -> None:
    if "ripemd160" not in hashlib.algorithms_available:
        pytest.skip("this OpenSSL has no RIPEMD-160")
    random = Random(3)
    for size in range(200):
        data = random.randbytes(size)
        assert ripemd160(data) == hashlib.new("ripemd160", data).digest()
