"""A second opinion on a source of events: consensus and mempool rules written down once more, over tests/reference.py.

It shares no code with zmqpub.sources: it parses bytes with the reference parser, keeps its own coins, runs the scripts
in a small interpreter of its own and follows Bitcoin Core's mempool in its own way.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import reference

from zmqpub.sources.events import (
    BlockConnected,
    BlockDisconnected,
    Event,
    TransactionAdded,
    TransactionRemoved,
    UpdatedBlockTip,
)

GENESIS_HASH = bytes.fromhex("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206")
GENESIS_TIME = 1296688602
BITS = 0x207FFFFF

Outpoint = tuple[bytes, int]
MempoolEvent = TransactionAdded | TransactionRemoved


class Output(NamedTuple):
    value: int
    script_pubkey: bytes
    height: int
    coinbase: bool


class Connected(NamedTuple):
    block: reference.Block
    spent: dict[Outpoint, Output]


def script_number(height: int) -> bytes:
    """``CScript() << height`` by the book: sign and magnitude, little-endian."""
    if height == 0:
        return b"\x00"
    if height <= 16:
        return bytes([0x50 + height])
    digits = bytearray()
    while height:
        digits.append(height & 0xFF)
        height >>= 8
    if digits[-1] & 0x80:
        digits.append(0)
    return bytes([len(digits), *digits])


def run_script(script: bytes, stack: list[bytes]) -> None:
    """Pushes, OP_2DROP and OP_1: all that the simulated locks use; anything else fails."""
    place = operations = 0
    while place < len(script):
        opcode = script[place]
        place += 1
        if 0 < opcode <= 0x4E:
            width = {0x4C: 1, 0x4D: 2}.get(opcode, 0)
            assert opcode <= 0x4D
            size = int.from_bytes(script[place : place + width], "little") if width else opcode
            place += width
            assert size <= 520
            assert width == (0 if size < 0x4C else 1 if size < 0x100 else 2), "not the shortest push"
            assert place + size <= len(script)
            stack.append(script[place : place + size])
            place += size
        elif opcode == 0x6D:
            operations += 1
            assert operations <= 201
            assert len(stack) >= 2
            del stack[-2:]
        elif opcode == 0x51:
            stack.append(b"\x01")
        else:
            raise AssertionError(f"unexpected opcode {opcode:#x}")


def run_witness_program(version: int, program: bytes, witness: tuple[bytes, ...]) -> None:
    assert len(program) == 32
    items = list(witness)
    if version == 1:
        control = items.pop()
        script = items.pop()
        check_taproot(program, script, control)
    else:
        script = items.pop()
        assert hashlib.sha256(script).digest() == program
        assert len(script) <= 10_000
    assert all(len(item) <= 520 for item in items)
    assert len(items) <= 1_000
    run_script(script, items)
    assert items == [b"\x01"], "a witness script leaves exactly one true element"


def check_spend(script_pubkey: bytes, script_sig: bytes, witness: tuple[bytes, ...]) -> None:
    if script_pubkey[:2] in (b"\x00\x20", b"\x51\x20") and len(script_pubkey) == 34:
        assert script_sig == b""
        run_witness_program(script_pubkey[0] and 1, script_pubkey[2:], witness)
        return
    assert script_pubkey[:2] == b"\xa9\x14"
    assert script_pubkey[22:] == b"\x87"
    stack: list[bytes] = []
    run_script(script_sig, stack)
    script = stack.pop()
    assert hash160(script) == script_pubkey[2:22]
    if script[:2] == b"\x00\x20" and len(script) == 34:
        assert stack == []
        run_witness_program(0, script[2:], witness)
        return
    assert witness == ()
    run_script(script, stack)
    assert stack == [b"\x01"]


def hash160(data: bytes) -> bytes:
    """Over hashlib's RIPEMD-160 where OpenSSL has it; zmqpub's own, which has its vectors, where it has not."""
    digest = hashlib.sha256(data).digest()
    try:
        return hashlib.new("ripemd160", digest).digest()
    except ValueError:
        from zmqpub.sources.regtest.ripemd160 import ripemd160

        return ripemd160(digest)


P = 2**256 - 2**32 - 977
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
_checked_taproot: set[tuple[bytes, bytes, bytes]] = set()


def add_points(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def tagged(tag: bytes, data: bytes) -> bytes:
    prefix = hashlib.sha256(tag).digest()
    return hashlib.sha256(prefix + prefix + data).digest()


def check_taproot(program: bytes, script: bytes, control: bytes) -> None:
    """BIP 341's commitment to the only leaf, with affine coordinates."""
    if (program, script, control) in _checked_taproot:
        return
    assert len(control) == 33
    assert control[0] & 0xFE == 0xC0
    x = int.from_bytes(control[1:], "big")
    y = pow(x**3 + 7, (P + 1) // 4, P)
    assert y * y % P == (x**3 + 7) % P, "the internal key is no point"
    leaf = tagged(b"TapLeaf", bytes([0xC0]) + reference.var_bytes(script))
    tweak = int.from_bytes(tagged(b"TapTweak", control[1:] + leaf), "big")
    total: tuple[int, int] | None = (x, y if y % 2 == 0 else P - y)
    power: tuple[int, int] | None = G
    for bit in range(256):
        if tweak >> bit & 1:
            total = add_points(total, power)
        power = add_points(power, power)
    assert total is not None
    assert total[0] == int.from_bytes(program, "big")
    assert total[1] & 1 == control[0] & 1
    _checked_taproot.add((program, script, control))


def weight(transaction: reference.Transaction) -> int:
    stripped = reference.serialize_transaction(
        transaction.inputs, transaction.outputs, transaction.version, transaction.locktime, with_witness=False
    )
    return 3 * len(stripped) + transaction.size


def by_moment(events: Iterable[Event]) -> Iterator[list[Event]]:
    """The events of each thing that happened: what has one time, up to a new tip."""
    group: list[Event] = []
    for event in events:
        if group and (event.due != group[0].due or isinstance(group[-1], UpdatedBlockTip)):
            yield group
            group = []
        group.append(event)
    if group:
        yield group


class Auditor:
    """Follows events from the genesis block on and fails at the first that cannot be."""

    def __init__(self) -> None:
        self.coins: dict[Outpoint, Output] = {}
        self.chain: list[Connected] = []
        self.times = [GENESIS_TIME]
        self.mempool: dict[bytes, reference.Transaction] = {}
        self.spends: dict[Outpoint, bytes] = {}
        self.sequence = 1
        self.due = 0.0
        self.seen: Counter[str] = Counter()

    @property
    def tip(self) -> bytes:
        return self.chain[-1].block.hash if self.chain else GENESIS_HASH

    def follow(self, events: Iterable[Event]) -> None:
        for group in by_moment(events):
            assert group[0].due >= self.due
            self.due = group[0].due
            for event in group:
                self.seen[event.reason if isinstance(event, TransactionRemoved) else type(event).__name__] += 1
            if isinstance(group[-1], UpdatedBlockTip):
                self.follow_blocks(group)
            else:
                for event in group:
                    self.follow_transaction(event, {"replaced", "sizelimit", "expiry"})
                self.check_mempool()

    # Blocks

    def follow_blocks(self, group: list[Event]) -> None:
        """BlockDisconnected, tip first; then the mempool's events; then BlockConnected; then the tip."""
        tip = group[-1]
        kinds = [type(event) for event in group]
        order = [BlockDisconnected, TransactionAdded, BlockConnected, UpdatedBlockTip]
        places = [order.index(TransactionAdded if kind is TransactionRemoved else kind) for kind in kinds]
        assert places == sorted(places)
        disconnected = [event for event in group if isinstance(event, BlockDisconnected)]
        connected = [event for event in group if isinstance(event, BlockConnected)]
        pending: list[MempoolEvent] = [event for event in group if isinstance(event, (TransactionAdded, TransactionRemoved))]
        assert len(connected) == len(disconnected) + 1
        self.seen[f"depth {len(disconnected)}"] += 1
        returning: list[reference.Transaction] = []
        for old in disconnected:
            returning[:0] = self.disconnect(old)
        for new in connected:
            self.connect(new, pending)
        confirmed = {txid for event in connected for txid in reference.Block(bytes(event.block)).txids}
        self.readmit([transaction for transaction in returning if transaction.txid not in confirmed], pending)
        assert pending == []
        assert isinstance(tip, UpdatedBlockTip)
        assert tip.block is connected[-1].block
        assert tip.height == connected[-1].height == len(self.chain)
        self.check_mempool()

    def disconnect(self, event: BlockDisconnected) -> list[reference.Transaction]:
        assert event.block.hash == self.tip
        assert event.height == len(self.chain)
        block, spent = self.chain.pop()
        self.times.pop()
        assert bytes(event.block) == bytes(block)
        for txid in block.txids:
            for outpoint in [outpoint for outpoint in self.coins if outpoint[0] == txid]:
                del self.coins[outpoint]
        self.coins.update(spent)
        for txid in block.txids:  # what the block itself had made and spent
            for outpoint in [outpoint for outpoint in spent if outpoint[0] == txid]:
                del self.coins[outpoint]
        return list(block)[1:]

    def connect(self, event: BlockConnected, pending: list[MempoolEvent]) -> None:
        block = reference.Block(bytes(event.block))
        height = len(self.chain) + 1
        header = block.header
        assert event.height == height
        assert header.prev_hash == self.tip
        assert header.bits == BITS
        assert header.version >= 4
        assert reference.meets_target(header)
        assert header.merkle_root == reference.merkle_root(block.txids)
        assert header.time > sorted(self.times[-11:])[len(self.times[-11:]) // 2]
        assert len(set(block.txids)) == len(block)
        assert sum(map(weight, block)) + 4 * (80 + len(reference.compact_size(len(block)))) <= 4_000_000
        spent: dict[Outpoint, Output] = {}
        fees = 0
        for transaction in list(block)[1:]:
            fees += self.spend(transaction, height, spent)
        self.check_coinbase(block, height, fees)
        self.create(block[0], height, coinbase=True)
        self.chain.append(Connected(block, spent))
        self.times.append(header.time)
        for transaction in list(block)[1:]:
            self.confirm(transaction, pending)

    def check_coinbase(self, block: reference.Block, height: int, fees: int) -> None:
        (entry,) = block[0].inputs
        assert (entry.prev_txid, entry.prev_index) == (bytes(32), 0xFFFFFFFF)
        assert entry.script_sig.startswith(script_number(height))
        assert 2 <= len(entry.script_sig) <= 100
        assert block[0].locktime < height
        subsidy = 5_000_000_000 >> height // 150 if height // 150 < 64 else 0
        assert sum(output.value for output in block[0].outputs) == subsidy + fees
        scripts = [output.script_pubkey for output in block[0].outputs]
        commitment = [script for script in scripts if script.startswith(b"\x6a\x24\xaa\x21\xa9\xed")][-1]
        assert commitment[6:38] == reference.witness_commitment(block.wtxids, *entry.witness)

    def spend(self, transaction: reference.Transaction, height: int, spent: dict[Outpoint, Output]) -> int:
        total = 0
        for entry in transaction.inputs:
            outpoint = (entry.prev_txid, entry.prev_index)
            coin = self.coins.pop(outpoint)  # KeyError: spent twice, or never there
            spent[outpoint] = coin
            total += coin.value
            assert not coin.coinbase or height - coin.height >= 100
            assert entry.sequence & 0x80000000  # no relative lock
            check_spend(coin.script_pubkey, entry.script_sig, tuple(entry.witness))
        if any(entry.sequence != 0xFFFFFFFF for entry in transaction.inputs):
            assert transaction.locktime < height
        fee = total - sum(output.value for output in transaction.outputs)
        assert fee > 0
        self.create(transaction, height, coinbase=False)
        return fee

    def create(self, transaction: reference.Transaction, height: int, *, coinbase: bool) -> None:
        for index, output in enumerate(transaction.outputs):
            assert output.value >= 0
            if output.script_pubkey[:1] != b"\x6a":
                self.coins[transaction.txid, index] = Output(output.value, output.script_pubkey, height, coinbase)

    # The mempool

    def take(self, event: Event, kind: type, txid: bytes) -> None:
        assert isinstance(event, kind)
        assert isinstance(event, (TransactionAdded, TransactionRemoved))
        assert event.transaction.txid == txid
        assert event.mempool_sequence == self.sequence
        self.sequence += 1

    def enter(self, event: Event) -> None:
        assert isinstance(event, TransactionAdded)
        transaction = reference.Transaction(bytes(event.transaction))
        self.take(event, TransactionAdded, transaction.txid)
        assert transaction.txid not in self.mempool
        self.mempool[transaction.txid] = transaction
        for entry in transaction.inputs:
            outpoint = (entry.prev_txid, entry.prev_index)
            assert outpoint not in self.spends
            assert self.exists(outpoint)
            self.spends[outpoint] = transaction.txid

    def exists(self, outpoint: Outpoint) -> bool:
        parent = self.mempool.get(outpoint[0])
        return outpoint in self.coins or (parent is not None and outpoint[1] < len(parent.outputs))

    def leave(self, txid: bytes) -> None:
        for entry in self.mempool.pop(txid).inputs:
            assert self.spends.pop((entry.prev_txid, entry.prev_index)) == txid

    def follow_transaction(self, event: Event, reasons: set[str]) -> None:
        if isinstance(event, TransactionAdded):
            self.enter(event)
            return
        assert isinstance(event, TransactionRemoved)
        assert event.reason in reasons
        self.take(event, TransactionRemoved, event.transaction.txid)
        self.leave(event.transaction.txid)

    def check_mempool(self) -> None:
        """Every input is there to be spent: no orphans are left behind."""
        for transaction in self.mempool.values():
            assert all(self.exists((entry.prev_txid, entry.prev_index)) for entry in transaction.inputs)

    def descendants(self, txid: bytes) -> set[bytes]:
        found = {txid}
        waiting = [txid]
        while waiting:
            current = waiting.pop()
            for (parent, _), child in self.spends.items():
                if parent == current and child not in found:
                    found.add(child)
                    waiting.append(child)
        return found

    def confirm(self, transaction: reference.Transaction, pending: list[MempoolEvent]) -> None:
        if transaction.txid in self.mempool:
            self.leave(transaction.txid)
            self.sequence += 1
            return
        for entry in transaction.inputs:
            rival = self.spends.get((entry.prev_txid, entry.prev_index))
            if rival is not None:
                self.expect_removal(self.descendants(rival), "conflict", pending)

    def expect_removal(self, txids: set[bytes], reason: str, pending: list[MempoolEvent]) -> None:
        """All of ``txids`` next, in any order."""
        while txids:
            event = pending.pop(0)
            assert isinstance(event, TransactionRemoved)
            assert event.reason == reason
            assert event.transaction.txid in txids
            self.follow_transaction(event, {reason})
            txids.remove(event.transaction.txid)

    def readmit(self, transactions: list[reference.Transaction], pending: list[MempoolEvent]) -> None:
        for transaction in transactions:
            if all(self.exists((entry.prev_txid, entry.prev_index)) for entry in transaction.inputs):
                assert isinstance(pending[0], TransactionAdded)
                assert pending[0].transaction.txid == transaction.txid
                self.enter(pending.pop(0))
            else:
                children = {child for (parent, _), child in self.spends.items() if parent == transaction.txid}
                self.expect_removal({txid for child in children for txid in self.descendants(child)}, "reorg", pending)
