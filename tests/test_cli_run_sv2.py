"""A Stratum v2 template provider mines on the simulated chain: sv2-tp between `zmqpub run -ipcbind` and a pool's client.

Needs sv2-tp: the path in the environment variable ZMQPUB_SV2_TP, or on PATH.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import ANY_PORT, PATIENCE, Program, free_port
from stratum import NewTemplate, PrevHash, TemplateClient

from zmqpub import HashBlock, Subscriber, Transaction, build_transaction, merkle_root, mine, serialize_header, sha256d
from zmqpub.primitives import BlockHeader, TxIn, TxOut

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("capnp")
ipc = importlib.import_module("zmqpub.ipc")

SV2_TP = os.environ.get("ZMQPUB_SV2_TP") or shutil.which("sv2-tp")
pytestmark = [
    pytest.mark.skipif(SV2_TP is None, reason="no sv2-tp: set ZMQPUB_SV2_TP to the path of one, or put it on PATH"),
    pytest.mark.unsanitized,
    pytest.mark.slow,
]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as made:
        yield Path(made)


class Provider(Program):
    """sv2-tp, connected to a node's socket."""

    def __init__(self, directory: Path, address: str) -> None:
        assert SV2_TP is not None
        self.port = free_port()
        (directory / "sv2" / "regtest").mkdir(parents=True)
        command = [
            SV2_TP,
            "-regtest",
            f"-datadir={directory}/sv2",
            "-conf=0",
            f"-ipcconnect={address}",
            f"-sv2bind=127.0.0.1:{self.port}",
            "-templateinterval=1",
            "-sv2feedelta=1",
            "-debug=sv2",
            "-printtoconsole=1",
        ]
        super().__init__(command=command)

    def __enter__(self) -> Provider:
        return self


def solve(template: NewTemplate, prev_hash: PrevHash, tag: bytes) -> tuple[int, int, int, Transaction, bytes]:
    """Version, timestamp, nonce, coinbase and the block's hash, of what was sent alone."""
    length = template.outputs[8]
    commitment = TxOut(int.from_bytes(template.outputs[:8], "little"), template.outputs[9 : 9 + length])
    assert len(template.outputs) == 9 + length
    assert template.output_count == 1
    reward = build_transaction(
        [TxIn(bytes(32), 0xFFFFFFFF, template.coinbase_prefix + tag, template.coinbase_sequence, (bytes(32),))],
        [TxOut(template.value_remaining, b"\x00\x14" + bytes(20)), commitment],
        version=template.coinbase_version,
        locktime=template.locktime,
    )
    root = reward.txid
    for other in template.merkle_path:
        root = merkle_root([root, other[::-1]])
    version = struct.unpack("<i", struct.pack("<I", template.version))[0]
    header = mine(BlockHeader(version, prev_hash.prev_hash[::-1], root, prev_hash.timestamp + 1, prev_hash.bits, 0))
    return template.version, header.time, header.nonce, reward, sha256d(serialize_header(header))[::-1]


def test_blocks_found_by_a_pool_are_published(directory: Path) -> None:
    arguments = (f"-ipcbind=unix:{directory}/node.sock", f"-zmqpubhashblock={ANY_PORT}", "--block-interval=1000000", "--rate=30")
    with Program("run", *arguments) as publisher:
        zmq_address = publisher.address()
        address = str(publisher.line(r"^bound ipc (\S+)$")[1])
        with ipc.connect(address) as init, Provider(directory, address) as provider, Subscriber(zmq_address, topics=["hashblock"]) as heard:
            rpc, mining = init.make_rpc(), init.make_mining()
            provider.line("listening on|Bound to|bound to")
            with TemplateClient(provider.port) as client:
                found = []
                for place in range(4):
                    template, prev_hash = client.work()
                    assert prev_hash.prev_hash[::-1].hex() == rpc.execute("getbestblockhash")
                    waiting = client.transactions(template.template_id)
                    version, timestamp, nonce, reward, block_hash = solve(template, prev_hash, b"pool%d" % place)
                    client.submit(template.template_id, version, timestamp, nonce, bytes(reward))
                    found.append(block_hash)
                    changed = mining.wait_tip_changed(prev_hash.prev_hash[::-1], timeout=PATIENCE)
                    assert changed.hash == block_hash
                    block = rpc.execute("getblock", block_hash.hex())
                    assert block["tx"] == [reward.txid.hex(), *(Transaction(raw).txid.hex() for raw in waiting)]
                told: list[bytes] = []
                while found[-1] not in told:
                    message = heard.recv(PATIENCE)
                    if isinstance(message, HashBlock):
                        told.append(message.hash)
                assert told == found[-len(told) :]
            assert provider.end(signal.SIGTERM) == 0
        assert publisher.end(signal.SIGTERM) == 0
        assert publisher.errors == []
