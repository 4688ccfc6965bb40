"""Blocks from files as events: order, heights, ranges, holes, damage."""

from __future__ import annotations

import gc
import logging
import os
import random
import threading
from pathlib import Path

import block_samples as samples
import pytest

from zmqpub.errors import ConfigError, DamagedRecordError, SourceError
from zmqpub.sources.block_index import coinbase_height
from zmqpub.sources.blocks import BlockFiles
from zmqpub.sources.events import BlockConnected, Source, UpdatedBlockTip, hand_over

KEY = bytes.fromhex("00c1ff37a5115e80")
KEYS = [pytest.param(b"", id="clear"), pytest.param(KEY, id="xor")]
CHAIN = samples.chain(20)
NAMES = {samples.hash_of(block): number for number, block in enumerate(CHAIN)}


def published(source: BlockFiles) -> list[tuple[int, bytes]]:
    """Height and bytes of each block, after checking that its two events stand together."""
    found = []
    events = iter(source)
    for connected in events:
        assert isinstance(connected, BlockConnected)
        tip = next(events)
        assert isinstance(tip, UpdatedBlockTip)
        assert (tip.block, tip.height, tip.due) == (connected.block, connected.height, connected.due)
        found.append((connected.height, bytes(connected.block)))
    return found


def numbered(blocks: list[bytes], first: int = 0) -> list[tuple[int, bytes]]:
    return list(enumerate(blocks, start=first))


def shuffled(blocks: list[bytes], seed: int = 1) -> list[bytes]:
    mixed = list(blocks)
    random.Random(seed).shuffle(mixed)
    return mixed


# The order of a chain


@pytest.mark.parametrize("key", KEYS)
def test_in_chain_order_whatever_the_order_in_the_files(tmp_path: Path, key: bytes) -> None:
    mixed = shuffled(CHAIN)
    files = [samples.records(mixed[start : start + 7]) for start in range(0, 20, 7)]
    source = BlockFiles(samples.write_core(tmp_path, files, key, tail=4096), on_damage="fail")
    assert isinstance(source, Source)
    assert published(source) == numbered(CHAIN)
    assert (source.network, source.heights, source.total, source.stale, source.holes) == ("regtest", (0, 19), 20, 0, [])
    assert source.damaged == []
    assert source.describe() == f"blk*.dat blocks of {tmp_path} (regtest): 20 blocks, heights 0 to 19"
    assert published(source) == numbered(CHAIN), "again"


def test_backwards(tmp_path: Path) -> None:
    assert published(BlockFiles(samples.write_core(tmp_path, [samples.records(CHAIN[::-1])]))) == numbered(CHAIN)


def test_raw_files_that_are_connected(tmp_path: Path) -> None:
    source = BlockFiles(samples.write_raw(tmp_path, CHAIN), on_damage="fail")
    assert published(source) == numbered(CHAIN)
    assert source.network == "regtest"


@pytest.mark.parametrize("seed", range(4))
def test_the_branch_with_the_most_work(tmp_path: Path, seed: int) -> None:
    """Two blocks of eight times the work beat ten: 5 + 2 in place of 5 + 10, whatever came first."""
    trunk = CHAIN[:5]
    strong = samples.grow(trunk[-1], 4, 2, bits=samples.EIGHT_TIMES, branch=b"strong")
    weak = samples.grow(CHAIN[9], 9, 3, branch=b"weak")
    mixed = shuffled([*CHAIN[:15], *strong, *weak], seed)
    source = BlockFiles(samples.write_core(tmp_path, [samples.records(mixed)]))
    assert published(source) == numbered(trunk + strong)
    assert source.stale == 10 + 3


@pytest.mark.parametrize("first", [0, 1])
def test_of_equal_branches_the_one_written_first(tmp_path: Path, first: int) -> None:
    tips = [samples.child(CHAIN[4], 5, branch=branch) for branch in (b"a", b"b")]
    if first:
        tips.reverse()
    source = BlockFiles(samples.write_core(tmp_path, [samples.records([*tips, *CHAIN[:5]])]))
    assert published(source) == numbered([*CHAIN[:5], tips[0]])
    assert source.stale == 1


@pytest.mark.parametrize("key", KEYS)
def test_second_copies(tmp_path: Path, key: bytes) -> None:
    data = samples.records([*CHAIN[:5], CHAIN[2], CHAIN[2], *CHAIN[5:], CHAIN[0]])
    source = BlockFiles(samples.write_core(tmp_path, [data], key), on_damage="fail")
    assert published(source) == numbered(CHAIN)
    assert (source.duplicates, source.stale) == (3, 0)


# Heights


def test_a_pruned_chain_has_the_heights_of_its_coinbases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zmqpub")
    source = BlockFiles(samples.write_core(tmp_path, [samples.records(shuffled(CHAIN[7:]))]))
    assert published(source) == numbered(CHAIN[7:], first=7)
    assert source.holes == []
    assert f"begins at height 7, with {samples.hash_of(CHAIN[7]).hex()}" in caplog.text


@pytest.mark.parametrize("height", [1, 16, 17, 127, 128, 255, 256, 32767, 32768, 65536, 500_000, 8_388_608])
def test_coinbase_height(height: int) -> None:
    assert coinbase_height(samples.child(CHAIN[0], height)) == height
    assert coinbase_height(samples.child(CHAIN[0], height, version=0x20000000)) == height
    assert coinbase_height(samples.child(CHAIN[0], height, version=1)) is None


@pytest.mark.parametrize("script", ["", "04", "0301ff", "03ffffff", "4c", "00", "050000000001"])
def test_coinbases_without_height(script: str) -> None:
    assert coinbase_height(samples.child(CHAIN[0], 1, script=bytes.fromhex(script))) is None


def test_coinbase_height_of_every_truncation() -> None:
    block = samples.child(CHAIN[0], 500_000)
    found = [coinbase_height(block[:length]) for length in range(len(block))]
    cut = found.index(500_000)
    assert set(found[:cut]) == {None}
    assert set(found[cut:]) == {500_000}


def test_the_last_block_is_asked_before_the_first(tmp_path: Path) -> None:
    """The era of BIP 34 begins within the files: the first block names no height, or a false one."""
    first = samples.child(CHAIN[9], 10, version=1, script=samples.height_script(99))
    blocks = [first, *samples.grow(first, 10, 3)]
    assert published(BlockFiles(samples.write_core(tmp_path, [samples.records(blocks)]))) == numbered(blocks, first=10)


def test_islands_without_heights_stand_in_order_of_time(tmp_path: Path) -> None:
    old = samples.chain(12, version=1)
    source = BlockFiles(samples.write_raw(tmp_path, [old[8], old[3], old[2], old[6]]))
    assert published(source) == [(0, old[2]), (1, old[3]), (3, old[6]), (5, old[8])]
    assert [hole.height for hole in source.holes] == [3, 5]


# Holes


@pytest.mark.parametrize("key", KEYS)
def test_a_hole_is_named(tmp_path: Path, key: bytes, caplog: pytest.LogCaptureFixture) -> None:
    left = CHAIN[:8] + CHAIN[10:]
    source = BlockFiles(samples.write_core(tmp_path, [samples.records(left)], key), on_damage="fail")
    assert published(source) == numbered(CHAIN[:8]) + numbered(CHAIN[10:], first=10)
    (hole,) = source.holes
    assert hole.height == 10
    assert (hole.hash, hole.parent) == (samples.hash_of(CHAIN[10]), samples.hash_of(CHAIN[9]))
    assert hole.path == str(tmp_path / "blk00000.dat")
    assert hole.offset == len(samples.records(CHAIN[:8])) + 8
    assert str(hole) in caplog.text
    assert source.describe().endswith("18 blocks, heights 0 to 19 (1 hole)")


def test_a_stale_branch_whose_parent_is_missing(tmp_path: Path) -> None:
    """Pruning may leave a part of a branch: it overlaps with the chain and has less work."""
    branch = samples.grow(CHAIN[8], 8, 4, branch=b"stale")
    source = BlockFiles(samples.write_core(tmp_path, [samples.records([*branch[1:], *CHAIN[10:]])]))
    assert published(source) == numbered(CHAIN[10:], first=10)
    assert source.stale == 3


def test_many_holes_are_logged_in_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocks = samples.chain(101)[::2]
    source = BlockFiles(samples.write_raw(tmp_path, blocks))
    assert published(source) == [(2 * number, block) for number, block in enumerate(blocks)]
    assert len(source.holes) == 50
    assert len(caplog.records) == 21
    assert caplog.messages[-1].endswith("30 more holes")


# Start and stop


@pytest.mark.parametrize("start", [5, "5", samples.hash_of(CHAIN[5]), samples.hash_of(CHAIN[5]).hex()])
@pytest.mark.parametrize("stop", [11, samples.hash_of(CHAIN[11])])
def test_from_start_to_stop(tmp_path: Path, start: int | bytes | str, stop: int | bytes) -> None:
    samples.write_core(tmp_path, [samples.records(CHAIN)])
    source = BlockFiles(tmp_path, start=start, stop=stop)
    assert published(source) == numbered(CHAIN[5:12], first=5)
    assert (source.total, source.heights) == (7, (5, 11))


def test_bounds_in_a_hole_and_beyond_the_end(tmp_path: Path) -> None:
    samples.write_core(tmp_path, [samples.records(CHAIN[:8] + CHAIN[12:])])
    assert BlockFiles(tmp_path, start=9).heights == (12, 19)
    assert BlockFiles(tmp_path, stop=9).heights == (0, 7)
    assert BlockFiles(tmp_path, stop=1000).heights == (0, 19)
    assert BlockFiles(tmp_path, start=19, stop=19).heights == (19, 19)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"start": 4}, "start: there is no block of height 4; there are 15, heights 5 to 19"),
        ({"start": 20}, "start: there is no block of height 20; there are 15, heights 5 to 19"),
        ({"stop": 4}, "stop: there is no block of height 4 or below"),
        ({"start": samples.hash_of(CHAIN[4])}, f"start: block {samples.hash_of(CHAIN[4]).hex()} is not here"),
        ({"stop": "ab" * 32}, f"stop: block {'ab' * 32} is not here"),
        ({"start": 9, "stop": 8}, "nothing to publish: start, height 9, comes after stop, height 8"),
    ],
)
def test_bounds_that_are_not_there(tmp_path: Path, bounds: dict[str, int | bytes | str], message: str) -> None:
    source = BlockFiles(samples.write_core(tmp_path, [samples.records(CHAIN[5:])]), **bounds)  # type: ignore[arg-type]
    with pytest.raises(SourceError) as caught:
        next(iter(source))
    assert message in str(caught.value)


def test_a_stale_block_is_no_start(tmp_path: Path) -> None:
    stale = samples.child(CHAIN[3], 4, branch=b"stale")
    source = BlockFiles(samples.write_core(tmp_path, [samples.records([stale, *CHAIN])]), start=samples.hash_of(stale))
    with pytest.raises(SourceError, match="is not on the best chain"):
        source.index()


@pytest.mark.parametrize(
    "arguments",
    [
        {"network": "bitcoin"},
        {"start": -1},
        {"start": "-1"},
        {"start": "ab"},
        {"stop": "zz" * 32},
        {"stop": b"short"},
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"on_damage": "ignore"},
    ],
)
def test_senseless_arguments(tmp_path: Path, arguments: dict[str, object]) -> None:
    samples.write_core(tmp_path, [samples.records(CHAIN)])
    with pytest.raises(ConfigError) as caught:
        BlockFiles(tmp_path, **arguments)  # type: ignore[arg-type]
    assert [problem.option for problem in caught.value.problems] == list(arguments)


# Time, progress, the end


def test_rate_sets_due(tmp_path: Path) -> None:
    samples.write_core(tmp_path, [samples.records(CHAIN)])
    assert [event.due for event in BlockFiles(tmp_path, rate=4.0, start=15)] == [
        0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0,
    ]  # fmt: skip
    assert {event.due for event in BlockFiles(tmp_path)} == {0.0}


def test_initial_download(tmp_path: Path) -> None:
    samples.write_core(tmp_path, [samples.records(CHAIN[:4])])
    for initial_download, flags in ((True, [True, True, True, False]), (False, [False] * 4)):
        events = list(BlockFiles(tmp_path, initial_download=initial_download))
        assert [event.initial_download for event in events if isinstance(event, UpdatedBlockTip)] == flags


def test_progress(tmp_path: Path) -> None:
    samples.write_core(tmp_path, [samples.records(CHAIN[:2]), samples.records(CHAIN[2:4])])
    seen: list[tuple[int, int, str]] = []
    events = iter(BlockFiles(tmp_path, start=1, on_progress=lambda *step: seen.append(step)))
    assert seen == []
    next(events)
    assert seen == [(0, 2, "files"), (1, 2, "files"), (2, 2, "files"), (0, 3, "blocks")]
    for _ in events:
        pass
    assert seen[4:] == [(1, 3, "blocks"), (2, 3, "blocks"), (3, 3, "blocks")]


@pytest.mark.parametrize("key", KEYS)
def test_close_ends_the_iteration_and_blocks_stay_good(tmp_path: Path, key: bytes) -> None:
    source = BlockFiles(samples.write_core(tmp_path, [samples.records(CHAIN)], key))
    events = iter(source)
    kept = [next(events).block for _ in range(6)]  # type: ignore[union-attr]
    source.close()
    assert list(events) == []
    assert list(source) == []
    del source, events
    gc.collect()
    assert [bytes(block) for block in kept] == [CHAIN[number // 2] for number in range(6)]


def test_close_from_another_thread_while_it_is_indexed(tmp_path: Path) -> None:
    samples.write_core(tmp_path, [samples.record(block) for block in CHAIN])

    def close(done: int, _total: int, _unit: str) -> None:
        if done == 3:
            closer = threading.Thread(target=source.close)
            closer.start()
            closer.join()

    source = BlockFiles(tmp_path, on_progress=close)
    assert list(source) == []


def test_describe_before_the_index(tmp_path: Path) -> None:
    samples.write_core(tmp_path, [samples.record(block) for block in CHAIN])
    assert BlockFiles(tmp_path, network="test").describe() == f"blk*.dat blocks of {tmp_path} (testnet3): 20 files"


def test_events_fit_a_sink(tmp_path: Path) -> None:
    calls: list[tuple[str, bytes, bool | None]] = []

    class Recorder:
        def block_connected(self, block: object) -> None:
            calls.append(("connected", bytes(block), None))  # type: ignore[call-overload]

        def updated_block_tip(self, block: object, initial_download: bool = False) -> None:
            calls.append(("tip", bytes(block), initial_download))  # type: ignore[call-overload]

    for event in BlockFiles(samples.write_core(tmp_path, [samples.records(CHAIN[:2])])):
        hand_over(event, Recorder())  # type: ignore[arg-type]
    assert calls == [call for raw in CHAIN[:2] for call in (("connected", raw, None), ("tip", raw, False))]


# Damage


def damage_body(blocks: list[bytes], number: int, inner: int) -> bytearray:
    """A file in which one byte of a block's transactions is 0xFF."""
    data = bytearray(samples.records(blocks))
    data[list(samples.offsets(blocks))[number] + 8 + inner] = 0xFF
    return data


@pytest.mark.parametrize("key", KEYS)
def test_a_block_that_does_not_parse(tmp_path: Path, key: bytes, caplog: pytest.LogCaptureFixture) -> None:
    samples.write_core(tmp_path, [bytes(damage_body(CHAIN, 6, 80))], key)
    source = BlockFiles(tmp_path)
    assert published(source) == [entry for entry in numbered(CHAIN) if entry[0] != 6]
    (error,) = source.damaged
    start = list(samples.offsets(CHAIN))[6] + 8
    assert error.path == str(tmp_path / "blk00000.dat")
    assert start + 80 <= error.offset <= start + len(CHAIN[6])
    name = f"block {samples.hash_of(CHAIN[6]).hex()}, {len(CHAIN[6])} bytes from offset {start}: "
    assert error.reason.startswith(name)
    assert f"at its offset {error.offset - start}: expected" in error.reason
    assert f"damaged record passed over: {error}" in caplog.text
    assert source.describe().endswith("(1 damaged)")
    published(source)
    assert len(source.damaged) == 1, "known already"

    events = iter(BlockFiles(tmp_path, on_damage="fail"))
    assert [bytes(next(events).block) for _ in range(12)] == [CHAIN[number // 2] for number in range(12)]  # type: ignore[union-attr]
    with pytest.raises(DamagedRecordError) as caught:
        next(events)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize("key", KEYS)
def test_another_copy_of_a_damaged_block_serves(tmp_path: Path, key: bytes) -> None:
    """A node that crashed while it wrote a block fetches and writes it again."""
    data = bytes(damage_body(CHAIN, 6, 80)) + samples.record(CHAIN[6])
    source = BlockFiles(samples.write_core(tmp_path, [data], key), on_damage="fail")
    assert published(source) == numbered(CHAIN)
    assert source.damaged == []


def test_damage_in_the_index_pass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(samples.records(CHAIN))
    place = list(samples.offsets(CHAIN))[6]
    data[place] ^= 0xFF
    samples.write_core(tmp_path, [bytes(data)])
    source = BlockFiles(tmp_path)
    assert published(source) == numbered(CHAIN[:6]) + numbered(CHAIN[7:], first=7)
    assert [error.offset for error in source.damaged] == [place]
    assert [hole.height for hole in source.holes] == [7]
    assert f"blk00000.dat: at offset {place}: expected fabfb5da" in caplog.text
    with pytest.raises(DamagedRecordError, match=f"at offset {place}: expected fabfb5da"):
        BlockFiles(tmp_path, on_damage="fail").index()


def test_transactions_that_are_not_those_of_the_header(tmp_path: Path) -> None:
    """A block that parses, but whose merkle root is another, is noticed by those who ask."""
    swapped = CHAIN[6][:-4] + b"\x01\0\0\0"  # the coinbase's lock time
    samples.write_core(tmp_path, [samples.records([*CHAIN[:6], swapped, *CHAIN[7:]])])
    assert len(published(BlockFiles(tmp_path))) == 20
    source = BlockFiles(tmp_path, verify=True)
    assert published(source) == [entry for entry in numbered(CHAIN) if entry[0] != 6]
    (error,) = source.damaged
    assert error.offset == list(samples.offsets(CHAIN))[6] + 8
    assert f"not {CHAIN[6][36:68][::-1].hex()}" in error.reason


def test_a_file_cut_short_after_the_index(tmp_path: Path) -> None:
    source = BlockFiles(samples.write_raw(tmp_path, CHAIN[:3]))
    source.index()
    path = tmp_path / f"{samples.hash_of(CHAIN[1]).hex()}.raw"
    path.write_bytes(CHAIN[1][:100])
    assert published(source) == [(0, CHAIN[0]), (2, CHAIN[2])]
    assert source.damaged[0].reason == f"the file was cut short: 100 of {len(CHAIN[1])} bytes are left"


def test_raw_files_that_are_no_blocks(tmp_path: Path) -> None:
    samples.write_raw(tmp_path, CHAIN)
    (tmp_path / "README.md").write_text("Blocks of the regtest chain, for tests. " * 10)
    source = BlockFiles(tmp_path)
    assert published(source) == numbered(CHAIN)
    assert [os.path.basename(error.path) for error in source.damaged] == ["README.md"]
    with pytest.raises(DamagedRecordError, match=r"README\.md: at offset 0: no block"):
        list(BlockFiles(tmp_path, on_damage="fail"))


@pytest.mark.parametrize("key", KEYS)
def test_each_byte_damaged_costs_its_own_block_at_most(tmp_path: Path, key: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "zmqpub")
    blocks = samples.chain(5)
    data = samples.records(blocks)
    starts = list(samples.offsets(blocks))
    samples.write_core(tmp_path, [data], key)
    stored = (tmp_path / "blk00000.dat").read_bytes()
    for place in range(len(stored)):
        damaged = bytearray(stored)
        damaged[place] ^= 0xFF
        (tmp_path / "blk00000.dat").write_bytes(damaged)
        hit = sum(start <= place for start in starts) - 1
        source = BlockFiles(tmp_path, verify=True)
        found = published(source)
        assert [block for _, block in found if block in blocks] == blocks[:hit] + blocks[hit + 1 :], place
        if place not in range(starts[hit] + 8, starts[hit] + 88):
            # Half of all changed headers meet regtest's target: such a block is another one, on no chain or a tip.
            assert len(found) == 4, place
            assert source.damaged, place


def test_nothing_but_damage(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no block")
    (tmp_path / "b").write_bytes(b"no block either")
    with pytest.raises(SourceError, match=r"no block in 2 files; 2 damaged, the first: .*a: at offset 0: 8 bytes"):
        list(BlockFiles(tmp_path))


# Networks


@pytest.mark.parametrize("name", ["main", "testnet3", "testnet4", "signet", "regtest"])
@pytest.mark.parametrize("key", KEYS)
def test_each_network(tmp_path: Path, name: str, key: bytes) -> None:
    block = samples.genesis(name)
    samples.write_core(tmp_path / "core", [samples.record(block, samples.MAGIC[name])], key)
    for network in (None, name):
        source = BlockFiles(tmp_path / "core", network=network, on_damage="fail")
        assert published(source) == [(0, block)]
        assert source.network == name
    samples.write_raw(tmp_path / "raw", [block])
    source = BlockFiles(tmp_path / "raw", on_damage="fail")
    assert published(source) == [(0, block)]
    assert source.network == name


def test_a_private_network(tmp_path: Path) -> None:
    source = BlockFiles(samples.write_core(tmp_path, [samples.records(CHAIN, b"\x01\x02\x03\x04")]), on_damage="fail")
    assert published(source) == numbered(CHAIN)
    assert source.network == "private"


def test_another_network_than_asked_for(tmp_path: Path) -> None:
    samples.write_core(tmp_path / "core", [samples.records(CHAIN)])
    with pytest.raises(SourceError, match="a record of regtest among those of main"):
        list(BlockFiles(tmp_path / "core", network="main"))
    samples.write_raw(tmp_path / "raw", [samples.genesis("main")])
    with pytest.raises(SourceError, match="the genesis block of main, in files of testnet3: two networks are mixed"):
        list(BlockFiles(tmp_path / "raw", network="testnet3"))


def test_mixed_networks(tmp_path: Path) -> None:
    other = samples.record(samples.genesis("signet"), samples.MAGIC["signet"])
    samples.write_core(tmp_path / "core", [samples.records(CHAIN), other])
    with pytest.raises(SourceError, match=r"blk00001\.dat: at offset 0: a record of signet among those of regtest"):
        list(BlockFiles(tmp_path / "core"))
    samples.write_raw(tmp_path / "raw", [samples.genesis("signet"), *CHAIN])
    with pytest.raises(SourceError, match="the genesis block of signet and of regtest: two networks are mixed"):
        list(BlockFiles(tmp_path / "raw"))


# Real blocks


@pytest.mark.skipif(not samples.MAINNET_BLOCKS.is_dir(), reason="the real blocks are not on this machine")
@pytest.mark.parametrize("key", KEYS)
def test_real_blocks(tmp_path: Path, key: bytes) -> None:
    """Three blocks of the main chain, far from each other, as raw files and as records."""
    blocks = [path.read_bytes() for path in sorted(samples.MAINNET_BLOCKS.iterdir(), reverse=True)]
    samples.write_core(tmp_path, [samples.records(blocks, samples.MAGIC["main"])])
    if key:
        fast = int.from_bytes((tmp_path / "blk00000.dat").read_bytes(), "little")
        size = (tmp_path / "blk00000.dat").stat().st_size
        pad = int.from_bytes((key * (size // 8 + 1))[:size], "little")
        (tmp_path / "blk00000.dat").write_bytes((fast ^ pad).to_bytes(size, "little"))
        (tmp_path / "xor.dat").write_bytes(key)
    core = BlockFiles(tmp_path, on_damage="fail", verify=True)
    raw = BlockFiles(samples.MAINNET_BLOCKS, network="main", on_damage="fail", verify=True)
    expected = [(413567, 1557, 999_887), (540107, 230, 2_259_447), (702861, 2500, 1_381_836)]
    for source in (core, raw):
        events = [event for event in source if isinstance(event, BlockConnected)]
        assert [(event.height, len(event.block), len(bytes(event.block))) for event in events] == expected
        assert [hole.height for hole in source.holes] == [540107, 702861]
        assert source.network == "main"
    assert [block for _, block in published(core)] == [block for _, block in published(raw)]
