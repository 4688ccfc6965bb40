"""Blocks from files, in chain order: Bitcoin Core's blocks directory, or a directory of raw blocks.

Two passes. The index pass reads headers only and finds the chain; the publishing pass maps the files and makes a Block
of each record in its turn, without a copy unless the files are obfuscated. What is read is a snapshot: records that a
running node adds later are not seen, and files must not be made shorter while they are read.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from zmqpub._build import merkle_root
from zmqpub._fast import Block
from zmqpub.errors import ConfigError, ConfigProblem, DamagedRecordError, DecodeError, SourceError
from zmqpub.sources.block_files import BlockDirectory
from zmqpub.sources.block_index import START_OF_BLOCK, Chain, Records, connect
from zmqpub.sources.block_networks import LEAST_LIMIT, NETWORKS, check_name
from zmqpub.sources.block_scan import RecordScanner, detect_network, scan_raw_file
from zmqpub.sources.events import BlockConnected, Event, UpdatedBlockTip

__all__ = ["BlockFiles", "Hole", "OnProgress"]

logger = logging.getLogger("zmqpub")

MOST_LOGGED = 20
"""Holes; the attribute has all."""

OnProgress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and the unit: ``"files"`` in the index pass, then ``"blocks"``."""


class Hole(NamedTuple):
    """A block whose parent is not in the files, though blocks before it are."""

    height: int
    hash: bytes
    """Of the block, display order."""
    parent: bytes
    """Of its missing parent, display order."""
    path: str
    offset: int
    """Where the block begins in its file."""

    def __str__(self) -> str:
        return (
            f"{self.path}: at offset {self.offset}: the parent {self.parent.hex()} of block {self.hash.hex()} "
            f"(height {self.height}) is missing"
        )


class BlockFiles:
    """The blocks of a directory as events: for each BlockConnected, then UpdatedBlockTip.

    ``directory`` is Bitcoin Core's (``blk*.dat``, with the key of ``xor.dat`` where there is one) or one of files of
    any name that hold a serialized block each; names that begin with a dot, and subdirectories, are passed over.

    Order. Blocks are connected by previous hash; the branch with the most work is published, stale ones and second
    copies are not. Where blocks are missing, what lies on both sides is published in order of height, each hole is
    logged and stands in ``holes``; unconnected raw blocks are the extreme of this. Subscribers see a parent mismatch
    there.

    Heights. Counted from the genesis block where it is there; else from the height that coinbases name (BIP 34). Where
    these do not either (blocks of 2012 and before), such blocks stand in order of time, and are numbered on from what
    comes before them as if one block were missing there, or from 0.

    ``network``: main, testnet3, testnet4, signet, regtest; None takes that of the first record (or, among raw blocks,
    of the genesis block); records of two networks are an error.
    ``start``, ``stop``: the first and the last block to publish, as a height or a hash (32 bytes in display order, or
    its 64 hex digits). A height in a hole means the nearest block inside the range, a ``stop`` above the last height
    the last block. A hash that is not on the chain, a ``start`` height outside of it: SourceError.
    ``rate``: blocks a second, which sets ``due``; None is flat out, ``due`` 0.0.
    ``on_damage``: a damaged record is logged, listed in ``damaged`` and passed over ("skip"), or raised ("fail").
    Records are checked for magic, size, proof of work and, in the publishing pass, structure; with ``verify`` also for
    their merkle root, which costs all the hashing of a block.
    ``initial_download``: mark all tips but the last as those of a node that catches up, which announces no hashblock
    and rawblock for them.
    ``on_progress``: see OnProgress; called in the iterating thread.

    SourceError where there is no directory, nothing in it, or a file cannot be read; ConfigError for senseless
    arguments.
    """

    damaged: list[DamagedRecordError]
    """What was passed over so far, one entry a stretch of damage."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        network: str | None = None,
        start: int | bytes | str | None = None,
        stop: int | bytes | str | None = None,
        rate: float | None = None,
        on_damage: Literal["skip", "fail"] = "skip",
        verify: bool = False,
        initial_download: bool = False,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._network = None if network is None else check_name(network)
        self._start = _checked_bound("start", start)
        self._stop = _checked_bound("stop", stop)
        if rate is not None and not (rate > 0 and math.isfinite(rate)):
            raise ConfigError(ConfigProblem("rate", str(rate), "blocks a second, more than 0"))
        if on_damage not in ("skip", "fail"):
            raise ConfigError(ConfigProblem("on_damage", str(on_damage), '"skip" or "fail"'))
        self._rate = rate
        self._fail = on_damage == "fail"
        self._verify = verify
        self._initial_download = initial_download
        self._on_progress = on_progress
        self._files = BlockDirectory(os.fspath(directory))
        self._records = Records()
        self._chain: Chain | None = None
        self._range = range(0)
        self._closed = False
        self.damaged = []

    @property
    def network(self) -> str | None:
        """The network's name; "private" for an unknown magic, None where nothing tells (yet)."""
        return self._network.name if self._network else None

    @property
    def holes(self) -> list[Hole]:
        """Where blocks are missing between the first and the last, in order of height. Runs the index pass."""
        chain = self._index()
        return [
            Hole(
                island.first_height,
                self._records.hash(island.root),
                island.parent,
                self._files.paths[self._records.files[island.root]],
                self._records.offsets[island.root],
            )
            for island in chain.islands[1:]
        ]

    @property
    def stale(self) -> int:
        """How many blocks are not on the chain. Runs the index pass."""
        return self._index().stale

    @property
    def duplicates(self) -> int:
        """How many records repeat a block. Runs the index pass."""
        return sum(map(len, self._index().duplicates.values()))

    @property
    def heights(self) -> tuple[int, int]:
        """The first and the last height to publish. Runs the index pass."""
        heights = self._index().heights
        return heights[self._range[0]], heights[self._range[-1]]

    @property
    def total(self) -> int:
        """How many blocks there are to publish, damaged ones included. Runs the index pass."""
        self._index()
        return len(self._range)

    def describe(self) -> str:
        text = f"{'blk*.dat' if self._files.kind == 'core' else 'raw'} blocks of {self._files.path}"
        if self._network:
            text += f" ({self._network.name})"
        if self._chain is None:
            return f"{text}: {len(self._files.paths)} files"
        first, last = self.heights
        text += f": {len(self._range)} blocks, heights {first} to {last}"
        holes = len(self._chain.islands) - 1
        counts = {"hole" if holes == 1 else "holes": holes, "stale": self._chain.stale, "damaged": len(self.damaged)}
        notes = [f"{count} {what}" for what, count in counts.items() if count]
        return f"{text} ({', '.join(notes)})" if notes else text

    def close(self) -> None:
        """End the iteration after the current event and let go of the files; blocks handed out stay good."""
        self._closed = True
        self._files.close()

    def index(self) -> None:
        """Run the index pass, unless it was run; iterating does so, too.

        SourceError where no block is found, or ``start`` or ``stop`` is not among the blocks.
        """
        self._index()

    def block(self, block_hash: bytes) -> Block | None:
        """The block with this hash (32 bytes, display order), stale ones included; None where it is not in the files.

        DamagedRecordError where it cannot be read (any more). From any thread; runs the index pass.
        """
        self._index()
        record = self._record(block_hash)
        return None if record is None else self._read(record)

    def __iter__(self) -> Iterator[Event]:
        try:
            chain = self._index()
        except SourceError:
            if self._closed:
                return
            raise
        published, total = 0, len(self._range)
        self._progress(0, total, "blocks")
        for done, position in enumerate(self._range, start=1):
            if self._closed:
                return
            block = self._block(chain, chain.records[position])
            if block is not None:
                due = published / self._rate if self._rate else 0.0
                height = chain.heights[position]
                yield BlockConnected(due, block, height)
                if self._closed:
                    return
                yield UpdatedBlockTip(due, block, height, self._initial_download and done < total)
                published += 1
            self._progress(done, total, "blocks")

    # The index pass

    def _index(self) -> Chain:
        if self._chain is None:
            self._records = Records()
            self._scan()
            if not len(self._records):
                note = f"; {len(self.damaged)} damaged, the first: {self.damaged[0]}" if self.damaged else ""
                raise SourceError(f"{self._files.path}: no block in {len(self._files.paths)} files{note}")
            self._check_genesis()
            chain = connect(self._records, self._start_of)
            self._range = self._bounds(chain)
            self._chain = chain
            self._log_chain(chain)
        return self._chain

    def _scan(self) -> None:
        files, records = self._files, self._records
        if files.kind == "core":
            self._network = self._network or detect_network(files)
            scan = RecordScanner(self._network, files.obfuscation, records.add, self._damage).scan
        else:
            limit = self._network.limit if self._network else LEAST_LIMIT

            def scan(path: str) -> None:
                scan_raw_file(path, limit, records.add, self._damage)

        self._progress(0, len(files.paths), "files")
        for number, path in enumerate(files.paths):
            if self._closed:
                raise SourceError(f"{files.path}: closed before it was indexed")
            records.file = number
            scan(path)
            self._progress(number + 1, len(files.paths), "files")

    def _start_of(self, record: int) -> bytes:
        offset = self._records.offsets[record]
        end = offset + min(START_OF_BLOCK, self._records.sizes[record])
        return bytes(self._files.read(self._records.files[record], offset, end))

    def _check_genesis(self) -> None:
        """Genesis blocks say which network raw blocks belong to, and must not contradict each other or the magic."""
        owners = [network for network in NETWORKS.values() if self._record(network.genesis) is not None]
        names = [network.name for network in owners]
        if self._network is None and len(owners) == 1:
            self._network = owners[0]
        # A private network may well begin with the genesis block of a public one: every signet does.
        elif len(owners) > 1 or (self._network and self._network.genesis and owners not in ([], [self._network])):
            others = f", in files of {self._network.name}" if self._network else ""
            raise SourceError(f"{self._files.path}: the genesis block of {' and of '.join(names)}{others}: two networks are mixed")

    def _bounds(self, chain: Chain) -> range:
        first = 0 if self._start is None else self._position(chain, "start", self._start)
        last = len(chain.records) - 1 if self._stop is None else self._position(chain, "stop", self._stop)
        if first > last:
            raise SourceError(
                f"{self._files.path}: nothing to publish: start, height {chain.heights[first]}, comes after stop, "
                f"height {chain.heights[last]}"
            )
        return range(first, last + 1)

    def _position(self, chain: Chain, option: str, bound: int | bytes) -> int:
        if isinstance(bound, bytes):
            record = self._record(bound)
            if record is not None and record in chain.records:
                return chain.records.index(record)
            problem = f"{option}: block {bound.hex()} is {'not here' if record is None else 'not on the best chain'}"
        elif option == "start":
            if chain.heights[0] <= bound <= chain.heights[-1]:
                return chain.position(bound)
            problem = f"{option}: there is no block of height {bound}"
        else:
            position = chain.position(bound + 1) - 1
            if position >= 0:
                return position
            problem = f"{option}: there is no block of height {bound} or below"
        raise SourceError(
            f"{self._files.path}: {problem}; there are {len(chain.records)}, heights {chain.heights[0]} to {chain.heights[-1]}"
        )

    def _record(self, block_hash: bytes) -> int | None:
        """The first record of a block."""
        digests, place = self._records.digests, -1
        while (place := digests.find(block_hash[::-1], place + 1)) >= 0:
            if place % 32 == 0:
                return place // 32
        return None

    def _log_chain(self, chain: Chain) -> None:
        holes = self.holes
        for hole in holes[:MOST_LOGGED]:
            logger.warning("%s", hole)
        if len(holes) > MOST_LOGGED:
            logger.warning("%s: %d more holes", self._files.path, len(holes) - MOST_LOGGED)
        first = chain.islands[0]
        if any(first.parent):
            logger.info(
                "%s: the chain begins at height %d, with %s, not with a genesis block",
                self._files.path,
                first.first_height,
                self._records.hash(first.root).hex(),
            )
        logger.info("%s", self.describe())

    # The publishing pass

    def _block(self, chain: Chain, record: int) -> Block | None:
        """The block of a record, or of another copy of it where the first is damaged; None where all are."""
        first: DamagedRecordError | None = None
        for candidate in (record, *chain.duplicates.get(record, ())):
            try:
                return self._read(candidate)
            except DamagedRecordError as error:
                first = first or error
        assert first is not None
        self._damage(first)
        return None

    def _read(self, record: int) -> Block:
        records = self._records
        offset, size = records.offsets[record], records.sizes[record]
        path = self._files.paths[records.files[record]]
        raw = self._files.read(records.files[record], offset, offset + size)
        if len(raw) != size:
            raise DamagedRecordError(path, offset, f"the file was cut short: {len(raw)} of {size} bytes are left")
        try:
            block = Block(raw)
        except DecodeError as error:
            name = f"block {records.hash(record).hex()}, {size} bytes from offset {offset}"
            reason = f"{name}: {error.what}: at its offset {error.offset}: expected {error.expected}, got {error.got}"
            raise DamagedRecordError(path, offset + error.offset, reason) from error
        if self._verify and (root := merkle_root(block.txids)) != block.header.merkle_root:
            reason = f"block {block.hash.hex()}: its transactions give the merkle root {root.hex()}, not"
            raise DamagedRecordError(path, offset, f"{reason} {block.header.merkle_root.hex()}")
        return block

    # Both

    def _damage(self, error: DamagedRecordError) -> None:
        if self._fail:
            raise error
        logger.warning("damaged record passed over: %s", error)
        # Iterating again meets the same damage again.
        if all((error.path, error.offset) != (known.path, known.offset) for known in self.damaged):
            self.damaged.append(error)

    def _progress(self, done: int, total: int, unit: str) -> None:
        if self._on_progress is not None:
            self._on_progress(done, total, unit)


def _checked_bound(option: str, bound: int | bytes | str | None) -> int | bytes | None:
    """A height as int, a hash as 32 bytes; ConfigError for anything else."""
    if isinstance(bound, str):
        text = bound.strip()
        if len(text) == 64:
            try:
                return bytes.fromhex(text)
            except ValueError:
                pass
        elif text.isdecimal():
            return int(text)
    elif bound is None or (len(bound) == 32 if isinstance(bound, bytes) else bound >= 0):
        return bound
    shown = bound.hex() if isinstance(bound, bytes) else str(bound)
    raise ConfigError(ConfigProblem(option, shown, "neither a height nor a block hash of 64 hex digits"))
