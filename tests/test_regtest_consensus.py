"""Regtest's consensus facts, against what Bitcoin Core says of them."""

from __future__ import annotations

import pytest
import reference
from auditor import script_number

from zmqpub.primitives import TxOut
from zmqpub.sources.regtest.consensus import COIN, assemble, coinbase, genesis, height_script, subsidy
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND


def test_genesis() -> None:
    block = genesis()
    assert block.hash.hex() == "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
    assert block.header.merkle_root.hex() == "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert block.size == 285


@pytest.mark.parametrize(
    ("height", "script"),
    [
        (0, "00"),
        (1, "51"),
        (16, "60"),
        (17, "0111"),
        (127, "017f"),
        (128, "028000"),
        (201, "02c900"),
        (256, "020001"),
        (32_767, "02ff7f"),
        (32_768, "03008000"),
        (8_388_608, "0400008000"),
    ],
)
def test_heights_in_coinbases(height: int, script: str) -> None:
    assert height_script(height).hex() == script


def test_heights_by_the_book() -> None:
    assert all(height_script(height) == script_number(height) for height in range(70_000))


@pytest.mark.parametrize(("height", "value"), [(0, 50 * COIN), (149, 50 * COIN), (150, 25 * COIN), (4_949, 1), (4_950, 0), (150 * 70, 0)])
def test_subsidies(height: int, value: int) -> None:
    assert subsidy(height) == value


@pytest.mark.parametrize("tag", [b"", b"\x51" * 97])
def test_coinbase(tag: bytes) -> None:
    reward = coinbase(128, [TxOut(7, ANYONE_CAN_SPEND)], tag, [b"\x01" * 32])
    assert reward.inputs[0].script_sig == bytes.fromhex("028000") + tag
    assert reward.locktime == 127
    (commitment,) = [output for output in reward.outputs if output.value == 0]
    assert commitment.script_pubkey[6:] == reference.witness_commitment([bytes(32), b"\x01" * 32])


@pytest.mark.parametrize(("height", "tag"), [(5, b""), (128, bytes(98))])
def test_coinbase_scripts_have_2_to_100_bytes(height: int, tag: bytes) -> None:
    with pytest.raises(ValueError, match="2 to 100"):
        coinbase(height, [], tag, [])


def test_assembled_blocks_have_their_proof_of_work() -> None:
    reward = coinbase(1, [TxOut(50 * COIN, ANYONE_CAN_SPEND)], b"\x51", [])
    for time in range(1_600_000_000, 1_600_000_020):
        block = assemble(genesis().hash, time, [reward])
        twin = reference.Block(bytes(block))
        assert reference.meets_target(twin.header)
        assert twin.header.merkle_root == reward.txid
