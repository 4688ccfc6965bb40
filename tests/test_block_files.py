"""Block directories, the XOR of their files, and the scan for records: what is found, and how damage is named."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import block_samples as samples
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqpub.errors import DamagedRecordError, SourceError
from zmqpub.sources.block_files import BlockDirectory, Obfuscation, map_file
from zmqpub.sources.block_networks import LEAST_LIMIT, NETWORKS, Network, target_of_bits, work_of_bits
from zmqpub.sources.block_scan import RecordScanner, detect_network, scan_raw_file

KEY = bytes.fromhex("00c1ff37a5115e80")
KEYS = [pytest.param(b"", id="clear"), pytest.param(KEY, id="xor")]
REGTEST = NETWORKS["regtest"]
BLOCKS = samples.chain(6)


def scan(path: Path, data: bytes, key: bytes = b"", network: Network = REGTEST) -> tuple[list[bytes], list[DamagedRecordError]]:
    """The hashes and the damage that a scan of ``data`` reports; ``data`` is obfuscated by the caller."""
    path.write_bytes(data)
    hashes: list[bytes] = []
    damage: list[DamagedRecordError] = []

    def on_record(offset: int, size: int, digest: bytes, header: bytes) -> None:
        clear = samples.obfuscate(data, key)[offset : offset + size]
        assert clear[:80] == header
        assert len(clear) == size
        hashes.append(digest[::-1])

    RecordScanner(network, Obfuscation(key), on_record, damage.append).scan(str(path))
    return hashes, damage


def hashes_of(blocks: list[bytes]) -> list[bytes]:
    return [samples.hash_of(block) for block in blocks]


# Obfuscation


@given(
    data=st.binary(min_size=1, max_size=200),
    key=st.binary(min_size=8, max_size=8),
    cuts=st.lists(st.integers(0, 200), min_size=2, max_size=2),
)
@settings(max_examples=200)
def test_obfuscation_reads_any_slice(data: bytes, key: bytes, cuts: list[int]) -> None:
    start, end = sorted(min(place, len(data)) for place in cuts)
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = samples.obfuscate(data, key)
        assert bytes(Obfuscation(key).read(mapped, start, end)) == data[start:end]


def test_obfuscation_of_the_longest_block() -> None:
    data = os.urandom(4_000_000 + 7)
    stored = bytearray(data)
    for residue in range(8):
        stored[residue::8] = bytes(byte ^ KEY[residue] for byte in data[residue::8])
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = bytes(stored)
        for lead in (0, 7):
            assert Obfuscation(KEY).read(mapped, lead, lead + 4_000_000) == data[lead : lead + 4_000_000]


def test_obfuscation_finds_across_its_steps() -> None:
    needle = b"\xfa\xbf\xb5\xda"
    place = (1 << 20) - 2
    data = bytes(place) + needle + bytes(100)
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = samples.obfuscate(data, KEY)
        obfuscation = Obfuscation(KEY)
        assert obfuscation.find(mapped, needle, 0, len(data)) == place
        assert obfuscation.find(mapped, needle, place, place + 4) == place
        assert obfuscation.find(mapped, needle, place, place + 3) == -1
        assert obfuscation.find(mapped, needle, place + 1, len(data)) == -1


def test_a_zero_key_is_no_key(tmp_path: Path) -> None:
    directory = BlockDirectory(str(samples.write_core(tmp_path, [samples.records(BLOCKS)], key=bytes(8))))
    view = directory.read(0, 8, 88)
    assert isinstance(view.obj, mmap.mmap)  # no copy
    assert view.readonly
    assert view == BLOCKS[0][:80]


# Directories


def test_core_files_in_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("blk100000.dat", "blk99999.dat", "blk00002.dat", "rev00002.dat", "blk1.dat", "blk00003.dat.bak"):
        (tmp_path / name).write_bytes(b"x")
    directory = BlockDirectory(str(tmp_path))
    assert directory.kind == "core"
    assert [os.path.basename(path) for path in directory.paths] == ["blk00002.dat", "blk99999.dat", "blk100000.dat"]


def test_raw_files_of_any_name_but_hidden(tmp_path: Path) -> None:
    for name in ("b", "a.raw", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    directory = BlockDirectory(str(tmp_path))
    assert directory.kind == "raw"
    assert [os.path.basename(path) for path in directory.paths] == ["a.raw", "b"]


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: cannot be read: No such file"):
        BlockDirectory(str(tmp_path / "nowhere"))
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"file: not a directory"):
        BlockDirectory(str(tmp_path / "file"))


def test_empty_directory_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no block files: neither blk\*\.dat nor files of one raw block each$"):
        BlockDirectory(str(tmp_path))


def test_the_data_directory_is_not_the_blocks_directory(tmp_path: Path) -> None:
    samples.write_core(tmp_path / "regtest" / "blocks", [samples.records(BLOCKS)])
    with pytest.raises(SourceError, match=r"those of Bitcoin Core are in .*regtest.blocks$"):
        BlockDirectory(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "blk00000.dat"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(SourceError, match=r"blk00000\.dat: cannot be read: Permission denied"):
        map_file(str(path))


def test_a_file_that_vanished(tmp_path: Path) -> None:
    directory = BlockDirectory(str(samples.write_core(tmp_path, [b"x"])))
    (tmp_path / "blk00000.dat").unlink()
    with pytest.raises(SourceError, match=r"blk00000\.dat: cannot be read: No such file"):
        directory.read(0, 0, 1)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_key_of_the_wrong_size(tmp_path: Path, size: int) -> None:
    samples.write_core(tmp_path, [samples.records(BLOCKS)])
    (tmp_path / "xor.dat").write_bytes(bytes(size))
    with pytest.raises(SourceError, match=rf"xor\.dat: the key of the block files has 8 bytes, this file has {size}"):
        BlockDirectory(str(tmp_path))


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="counts mappings in Linux's /proc")
def test_few_files_stay_mapped_and_views_outlive_them(tmp_path: Path) -> None:
    directory = BlockDirectory(str(samples.write_core(tmp_path, [bytes([number]) for number in range(60)])))
    kept = directory.read(0, 0, 1)
    for number in range(60):
        assert directory.read(number, 0, 1) == bytes([number])

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path))

    assert 2 <= mapped() <= 17
    directory.close()
    assert mapped() == 1
    assert bytes(kept) == b"\0"
    del kept
    assert mapped() == 0


# Proof of work


def test_targets() -> None:
    assert target_of_bits(0x1D00FFFF) == 0xFFFF << 208
    assert target_of_bits(0x207FFFFF) == 0x7FFFFF << 232
    assert target_of_bits(0x02008000) == 0x80
    assert target_of_bits(0x1D00FFFF, NETWORKS["main"].limit) == 0xFFFF << 208
    for bits, limit in (
        (0x1D800001, LEAST_LIMIT),  # negative
        (0x1D000000, LEAST_LIMIT),  # zero
        (0x01000001, LEAST_LIMIT),  # zero after the shift
        (0x21008000, LEAST_LIMIT),  # 2**255
        (0xFF7FFFFF, LEAST_LIMIT),
        (0x1D010000, NETWORKS["main"].limit),
    ):
        assert target_of_bits(bits, limit) == -1
    assert work_of_bits(0x1D00FFFF) == 0x100010001
    assert work_of_bits(0x207FFFFF) == 2


# The scan


@pytest.mark.parametrize("key", KEYS)
def test_scan_finds_all(tmp_path: Path, key: bytes) -> None:
    data = samples.obfuscate(samples.records(BLOCKS), key) + bytes(5000)
    hashes, damage = scan(tmp_path / "file", data[:-5000], key)
    assert hashes == hashes_of(BLOCKS)
    assert damage == []


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("tail", [1, 7, 87, 88, 5000, 3 << 20])
def test_preallocated_zeros_end_a_file(tmp_path: Path, key: bytes, tail: int) -> None:
    (tmp_path / "file").write_bytes(samples.obfuscate(samples.records(BLOCKS), key) + bytes(tail))
    hashes: list[bytes] = []
    damage: list[DamagedRecordError] = []
    scanner = RecordScanner(REGTEST, Obfuscation(key), lambda _o, _s, d, _h: hashes.append(d[::-1]), damage.append)
    scanner.scan(str(tmp_path / "file"))
    assert hashes == hashes_of(BLOCKS)
    assert damage == []


def test_empty_and_zero_files_have_no_records(tmp_path: Path) -> None:
    assert scan(tmp_path / "file", b"") == ([], [])
    assert scan(tmp_path / "file", bytes(10_000)) == ([], [])


@pytest.mark.parametrize("key", KEYS)
def test_bad_magic(tmp_path: Path, key: bytes) -> None:
    data = bytearray(samples.records(BLOCKS))
    third, fourth = list(samples.offsets(BLOCKS))[2:4]
    data[third] ^= 1
    hashes, damage = scan(tmp_path / "file", samples.obfuscate(bytes(data), key), key)
    assert hashes == hashes_of(BLOCKS[:2] + BLOCKS[3:])
    assert [(error.path, error.offset) for error in damage] == [(str(tmp_path / "file"), third)]
    assert damage[0].reason == (f"expected fabfb5da, the magic of regtest, got fbbfb5da; went on at offset {fourth}")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("size", [0, 80, 4_000_001, 0xFFFFFFFF])
def test_absurd_size(tmp_path: Path, key: bytes, size: int) -> None:
    data = bytearray(samples.records(BLOCKS))
    third, fourth = list(samples.offsets(BLOCKS))[2:4]
    data[third + 4 : third + 8] = size.to_bytes(4, "little")
    hashes, damage = scan(tmp_path / "file", samples.obfuscate(bytes(data), key), key)
    assert hashes == hashes_of(BLOCKS[:2] + BLOCKS[3:])
    assert [str(error) for error in damage] == [
        f"{tmp_path / 'file'}: at offset {third}: a size of {size} bytes: a block has 81 to 4000000; went on at offset {fourth}"
    ]


@pytest.mark.parametrize("key", KEYS)
def test_size_beyond_the_end(tmp_path: Path, key: bytes) -> None:
    data = bytearray(samples.records(BLOCKS))
    third, fourth = list(samples.offsets(BLOCKS))[2:4]
    data[third + 4 : third + 8] = (100_000).to_bytes(4, "little")
    hashes, damage = scan(tmp_path / "file", samples.obfuscate(bytes(data), key), key)
    assert hashes == hashes_of(BLOCKS[:2] + BLOCKS[3:])
    assert [error.offset for error in damage] == [third]
    assert damage[0].reason.startswith(f"truncated: a block of 100000 bytes, {len(data) - third - 8} before the end")
    assert damage[0].reason.endswith(f"went on at offset {fourth}")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("change", [-40, 40])
def test_a_size_that_is_wrong_costs_one_block_only(tmp_path: Path, key: bytes, change: int) -> None:
    """Its own record is reported (only parsing tells), and whatever follows it is found."""
    data = bytearray(samples.records(BLOCKS))
    third = list(samples.offsets(BLOCKS))[2]
    data[third + 4 : third + 8] = (len(BLOCKS[2]) + change).to_bytes(4, "little")
    hashes, damage = scan(tmp_path / "file", samples.obfuscate(bytes(data), key), key)
    assert hashes == hashes_of(BLOCKS)
    assert [error.offset for error in damage] == [third + 8 + len(BLOCKS[2]) + change]


@pytest.mark.parametrize("key", KEYS)
def test_truncated_at_every_byte(tmp_path: Path, key: bytes) -> None:
    data = samples.obfuscate(samples.records(BLOCKS), key)
    ends = [*samples.offsets(BLOCKS), len(data)]
    for length in range(len(data)):
        hashes, damage = scan(tmp_path / "file", data[:length], key)
        whole = sum(end <= length for end in ends[1:])
        assert hashes == hashes_of(BLOCKS[:whole])
        assert [error.offset for error in damage] == ([] if length in ends else [ends[whole]])


@pytest.mark.parametrize("key", KEYS)
def test_header_without_proof_of_work(tmp_path: Path, key: bytes) -> None:
    third = list(samples.offsets(BLOCKS))[2]
    bad = samples.without_proof(BLOCKS[2])
    data = samples.records([*BLOCKS[:2], bad, *BLOCKS[3:]])
    hashes, damage = scan(tmp_path / "file", samples.obfuscate(data, key), key)
    assert hashes == hashes_of(BLOCKS[:2] + BLOCKS[3:])
    assert [error.offset for error in damage] == [third]
    assert f"hash {samples.hash_of(bad).hex()} does not meet its bits 0x207fffff" in damage[0].reason


def test_proof_of_work_below_the_network_s_limit(tmp_path: Path) -> None:
    """A regtest block is no block of the main network, whatever magic it has."""
    data = samples.records(BLOCKS, samples.MAGIC["main"])
    hashes, damage = scan(tmp_path / "file", data, network=NETWORKS["main"])
    assert hashes == []
    assert [error.offset for error in damage] == list(samples.offsets(BLOCKS))


@pytest.mark.parametrize("key", KEYS)
def test_zeros_between_records(tmp_path: Path, key: bytes) -> None:
    first = samples.obfuscate(samples.records(BLOCKS[:2]), key)
    gap = 8 * 40 - len(first) % 8  # keep the rest's phase of the key
    data = first + bytes(gap) + samples.obfuscate(samples.records(BLOCKS[2:]), key)
    (tmp_path / "file").write_bytes(data)
    hashes: list[bytes] = []
    damage: list[DamagedRecordError] = []
    scanner = RecordScanner(REGTEST, Obfuscation(key), lambda _o, _s, d, _h: hashes.append(d[::-1]), damage.append)
    scanner.scan(str(tmp_path / "file"))
    assert hashes == hashes_of(BLOCKS)
    assert [error.offset for error in damage] == [len(first)]
    assert damage[0].reason == f"{gap} zero bytes between records; went on at offset {len(first) + gap}"


def test_garbage_at_the_start_and_at_the_end(tmp_path: Path) -> None:
    hashes, damage = scan(tmp_path / "file", b"garbage" * 20 + samples.records(BLOCKS) + b"more garbage")
    assert hashes == hashes_of(BLOCKS)
    assert [error.offset for error in damage] == [0, 140 + len(samples.records(BLOCKS))]


def test_a_magic_within_a_block_is_no_record(tmp_path: Path) -> None:
    """What a transaction carries is found only by a search after damage, and then refused."""
    decoy = samples.MAGIC["regtest"] + (300).to_bytes(4, "little") + samples.without_proof(BLOCKS[1])[:80]
    carrier = samples.child(BLOCKS[-1], 6, branch=decoy)
    after = samples.child(carrier, 7)
    data = bytearray(samples.records([carrier, after, *BLOCKS]))
    data[8 + len(carrier)] ^= 0xFF  # the magic after the carrier
    hashes, damage = scan(tmp_path / "file", bytes(data))
    assert hashes == hashes_of([carrier, *BLOCKS])
    assert len(damage) == 1


def test_a_whole_record_within_a_block_is_no_record(tmp_path: Path) -> None:
    decoy = samples.record(BLOCKS[1])
    carrier = samples.child(BLOCKS[-1], 6, branch=decoy)
    assert decoy in carrier
    after = samples.child(carrier, 7)
    data = bytearray(samples.records([carrier, after, *BLOCKS[2:]]))
    data[8 + len(carrier)] ^= 0xFF
    hashes, _ = scan(tmp_path / "file", bytes(data))
    assert hashes == hashes_of([carrier, *BLOCKS[2:]])


def test_records_of_two_networks(tmp_path: Path) -> None:
    data = samples.records(BLOCKS) + samples.record(samples.genesis("main"), samples.MAGIC["main"])
    where = len(samples.records(BLOCKS))
    with pytest.raises(SourceError, match=rf"at offset {where}: a record of main among those of regtest"):
        scan(tmp_path / "file", data)


@given(data=st.binary(max_size=400), prefix=st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_garbage_is_damage_and_nothing_worse(data: bytes, prefix: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("garbage") / "file"
    hashes, damage = scan(path, samples.records(BLOCKS[:prefix]) + samples.MAGIC["regtest"] + data)
    assert hashes == hashes_of(BLOCKS[:prefix])
    assert len(damage) >= 1


# Networks


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", list(NETWORKS))
def test_each_network_by_its_magic(tmp_path: Path, name: str, key: bytes) -> None:
    block = samples.genesis(name)
    assert samples.hash_of(block) == NETWORKS[name].genesis
    directory = samples.write_core(tmp_path, [samples.record(block, samples.MAGIC[name])], key, tail=100)
    network = detect_network(BlockDirectory(str(directory)))
    assert network is NETWORKS[name]
    hashes, damage = scan(tmp_path / "file", samples.obfuscate(samples.record(block, network.magic), key), key, network)
    assert hashes == [network.genesis]
    assert damage == []


def test_a_private_network(tmp_path: Path) -> None:
    magic = b"\x11\x22\x33\x44"
    directory = samples.write_core(tmp_path, [b"", samples.records(BLOCKS, magic)])
    network = detect_network(BlockDirectory(str(directory)))
    assert (network.name, network.magic) == ("private", magic)


@pytest.mark.parametrize("key", KEYS)
def test_the_network_of_a_damaged_start(tmp_path: Path, key: bytes) -> None:
    directory = samples.write_core(tmp_path, [b"garbage" * 30 + samples.records(BLOCKS)], key)
    assert detect_network(BlockDirectory(str(directory))) is REGTEST


def test_no_network_with_the_wrong_key(tmp_path: Path) -> None:
    directory = samples.write_core(tmp_path, [samples.records(BLOCKS)], KEY)
    (directory / "xor.dat").write_bytes(bytes(range(8)))
    with pytest.raises(SourceError, match=r"no record of any network.*\(regtest\); with the key 0001020304050607 of"):
        detect_network(BlockDirectory(str(directory)))
    (directory / "xor.dat").unlink()
    with pytest.raises(SourceError, match=r"no record of any network.*there is no key in xor\.dat"):
        detect_network(BlockDirectory(str(directory)))


# Raw files


def test_raw_files(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    found: list[tuple[int, int, bytes]] = []
    damage: list[DamagedRecordError] = []

    def scan_raw(data: bytes) -> None:
        path.write_bytes(data)
        scan_raw_file(str(path), LEAST_LIMIT, lambda o, s, d, _h: found.append((o, s, d[::-1])), damage.append)

    scan_raw(BLOCKS[1])
    assert found == [(0, len(BLOCKS[1]), samples.hash_of(BLOCKS[1]))]
    for data in (b"", BLOCKS[1][:80], bytes(4_000_001), b"# a text file, which is no block\n" * 5):
        scan_raw(data)
    assert len(found) == 1
    assert [error.reason.split(":")[0] for error in damage] == ["0 bytes", "80 bytes", "4000001 bytes", "no block"]
    assert {error.path for error in damage} == {str(path)}
