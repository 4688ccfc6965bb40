"""Whatever the bytes are, the compiled core and its readable twin agree; and whose bytes a Block or Transaction refers to."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import reference
import zmq
from conftest import Recorded
from fuzz_decode import Meaning, check, meaning, outcome
from hypothesis import given
from hypothesis import strategies as st
from synthetic import block as made_up_block

import zmqpub
from zmqpub import BlockHeader, DecodeError, TxIn, TxOut

# ---- the same meaning, or refused by both ----


class Guarded:
    """Bytes that end where the readable memory ends: whoever reads one too many is killed.

    A file of one page, mapped read-only (so that it is referred to and not copied), and after it a page of nothing.
    """

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the fixture
        self.page = mmap.PAGESIZE
        self.file.truncate(2 * self.page)
        self.map = mmap.mmap(self.file.fileno(), 2 * self.page, access=mmap.ACCESS_READ)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(address_of(self.map) + self.page), ctypes.c_size_t(self.page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, raw: bytes) -> memoryview:
        assert len(raw) <= self.page
        os.pwrite(self.file.fileno(), raw, self.page - len(raw))
        return memoryview(self.map)[self.page - len(raw) : self.page]


class _Buffer(ctypes.Structure):
    """Py_buffer of CPython."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "internal")),
    )


def address_of(data: Any) -> int:
    """Where the bytes of a buffer are."""
    view = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(view), 0)
    address: int = view.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    return address


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    memory = Guarded()
    yield memory
    memory.file.close()


def agree(ours: Callable[[Any], Any], twin: Callable[[Any], Any], raw: bytes, guarded: Guarded | None = None) -> Meaning | None:
    """What both make of ``raw``; the compiled one from memory that ends with it, where AddressSanitizer or a page looks."""
    expected = outcome(twin, raw)
    assert outcome(ours, raw) == expected, raw.hex()
    # Mutable input is copied to memory of exactly its size: there AddressSanitizer sees a read past the end.
    assert outcome(ours, bytearray(raw)) == expected, raw.hex()
    if guarded is not None:
        view = guarded.place(raw)
        assert outcome(ours, view) == expected, raw.hex()
    return expected


def transactions(recorded: Recorded) -> dict[str, bytes]:
    """Small ones of every form."""
    build = zmqpub.build_transaction
    made = {
        "legacy": build([TxIn(bytes(range(32)), 1, b"\x51")], [TxOut(1, b"\x52"), TxOut(2, b"")]),
        "witness": build([TxIn(b"\x11" * 32, 0, b"", 5, [b"", b"ab"]), TxIn(b"\x22" * 32, 0)], [TxOut(3, b"\x53")]),
        "nothing": build([], [], locktime=7),
        "no outputs": build([TxIn(bytes(32), 0)], []),
        "long script": build([TxIn(bytes(32), 0, bytes(253))], [TxOut(1, b"")]),
    }
    smallest = min(recorded.transactions.values(), key=len)
    return {**{name: bytes(tx) for name, tx in made.items()}, "recorded": smallest}


FORMS = ("legacy", "witness", "nothing", "no outputs", "long script", "recorded")


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_of_a_transaction(form: str, recorded: Recorded, guarded: Guarded) -> None:
    raw = transactions(recorded)[form]
    assert agree(zmqpub.Transaction, reference.Transaction, raw, guarded) is not None
    for length in range(len(raw)):
        # A truncation that is a whole transaction of its own would be one more thing to agree upon; none here is.
        assert agree(zmqpub.Transaction, reference.Transaction, raw[:length], guarded) is None


@pytest.mark.parametrize("form", FORMS)
def test_every_corruption_of_a_transaction(form: str, recorded: Recorded, guarded: Guarded) -> None:
    raw = transactions(recorded)[form]
    refused = 0
    for place, original in enumerate(raw):
        damaged = bytearray(raw)
        for value in range(256):
            if value != original:
                damaged[place] = value
                refused += agree(zmqpub.Transaction, reference.Transaction, bytes(damaged), guarded) is None
    assert 0 < refused < 255 * len(raw)


def small_block() -> bytes:
    raw = bytes(made_up_block(3, 3))
    assert len(raw) < 1000
    return raw


def test_every_truncation_of_a_block(guarded: Guarded) -> None:
    raw = small_block()
    assert agree(zmqpub.Block, reference.Block, raw, guarded) is not None
    for length in range(len(raw)):
        assert agree(zmqpub.Block, reference.Block, raw[:length], guarded) is None


def test_every_byte_of_a_block_corrupted(guarded: Guarded) -> None:
    raw = small_block()
    refused = 0
    for place, original in enumerate(raw):
        damaged = bytearray(raw)
        for value in {0, 1, 2, 0x7F, 0xFC, 0xFD, 0xFE, 0xFF, original ^ 1, original ^ 0x80, (original + 1) % 256, (original - 1) % 256}:
            if value != original:
                damaged[place] = value
                refused += agree(zmqpub.Block, reference.Block, bytes(damaged), guarded) is None
    assert refused > 0


# ---- anything that hypothesis thinks of ----

hashes = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**32 - 1)
scripts = st.one_of(st.binary(max_size=40), st.integers(250, 260).map(lambda length: b"\xac" * length))
inputs = st.builds(TxIn, hashes, numbers, scripts, numbers, st.lists(scripts, max_size=4).map(tuple))
outputs = st.builds(TxOut, st.integers(-(2**63), 2**63 - 1), scripts)
headers = st.builds(BlockHeader, st.integers(-(2**31), 2**31 - 1), hashes, hashes, numbers, numbers, numbers)
parts = st.tuples(st.lists(inputs, min_size=1, max_size=6), st.lists(outputs, max_size=6), numbers, numbers)


@given(parts)
def test_transactions_round_trip(given_parts: tuple[list[TxIn], list[TxOut], int, int]) -> None:
    ins, outs, version, locktime = given_parts
    built = [core.build_transaction(ins, outs, version=version, locktime=locktime) for core in (zmqpub, reference)]
    assert meaning(built[0]) == meaning(built[1])
    again = zmqpub.Transaction(bytes(built[0]))
    assert again.inputs == tuple(ins)
    assert again.outputs == tuple(outs)
    assert (again.version, again.locktime) == (version, locktime)
    assert again.has_witness == any(entry.witness for entry in ins)


@given(headers, st.lists(parts, max_size=5))
def test_blocks_round_trip(header: BlockHeader, contents: list[tuple[list[TxIn], list[TxOut], int, int]]) -> None:
    ours, twin = (
        core.build_block(header, [core.build_transaction(ins, outs, version=v, locktime=t) for ins, outs, v, t in contents])
        for core in (zmqpub, reference)
    )
    assert meaning(ours) == meaning(twin)
    assert meaning(zmqpub.Block(bytes(twin))) == meaning(twin)
    assert ours.header == header
    assert zmqpub.serialize_header(header) == reference.serialize_header(header) == bytes(ours)[:80]


@given(st.lists(hashes, max_size=40), hashes)
def test_merkle_roots(tree: list[bytes], reserved: bytes) -> None:
    assert zmqpub.merkle_root(tree) == reference.merkle_root(tree)
    assert zmqpub.witness_commitment(tree, reserved) == reference.witness_commitment(tree, reserved)


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    agree(zmqpub.Transaction, reference.Transaction, raw)
    agree(zmqpub.Block, reference.Block, raw)


@given(parts, st.data())
def test_bytes_put_in_and_taken_out(given_parts: tuple[list[TxIn], list[TxOut], int, int], data: st.DataObject) -> None:
    ins, outs, version, locktime = given_parts
    raw = bytes(reference.build_transaction(ins, outs, version=version, locktime=locktime))
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(raw)), st.integers(0, len(raw)))))
    changed = raw[:start] + data.draw(st.binary(max_size=12)) + raw[end:]
    agree(zmqpub.Transaction, reference.Transaction, changed)
    agree(zmqpub.Block, reference.Block, bytes(80) + b"\x02" + raw + changed)


CORPUS = Path(__file__).parent / "fuzz" / "corpus"


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_the_fuzzer_begins_with(path: Path) -> None:
    data = path.read_bytes()
    kind = (zmqpub.Transaction, zmqpub.Block)[data[0] % 2]
    if "-" in path.name:  # not one that the fuzzer found
        assert kind(data[1:])
    check(data)


def test_the_fuzz_target_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmqpub, "Transaction", lambda raw: reference.Transaction(raw + b"!"))
    with pytest.raises(AssertionError, match="twin"):
        check(b"\0" + RAW)


# ---- whose bytes ----

RAW = bytes(zmqpub.build_transaction([TxIn(b"\x07" * 32, 1, b"\x51" * 30, 2, [b"w" * 40])], [TxOut(5, b"\x53" * 20)]))


def read_only_map(raw: bytes) -> mmap.mmap:
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        return mmap.mmap(file.fileno(), len(raw), access=mmap.ACCESS_READ)


def writable_map(raw: bytes) -> mmap.mmap:
    data = mmap.mmap(-1, len(raw))
    data[:] = raw
    return data


class BytesOfOurOwn(bytes):
    pass


IMMUTABLE: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda raw: bytes(bytearray(raw)),
    "a subclass of bytes": BytesOfOurOwn,
    "a view of bytes": memoryview,
    "a part of a view of bytes": lambda raw: memoryview(b"before" + raw + b"after")[6:-5],
    "a read-only map": read_only_map,
    "a view of a read-only map": lambda raw: memoryview(read_only_map(b"before" + raw))[6:],
    "a Transaction": zmqpub.Transaction,
    "a view of a Transaction": lambda raw: zmqpub.Transaction(raw).raw,
    "a part of a Block": lambda raw: zmqpub.Block(bytes(80) + b"\x01" + raw).raw[81:],
}

MUTABLE: dict[str, Callable[[bytes], Any]] = {
    "bytearray": bytearray,
    "array": lambda raw: array.array("B", raw),
    "a view of a bytearray": lambda raw: memoryview(bytearray(raw)),
    "a read-only view of a bytearray": lambda raw: memoryview(bytearray(raw)).toreadonly(),
    "a ctypes array": lambda raw: (ctypes.c_uint8 * len(raw)).from_buffer_copy(raw),
    "a writable map": writable_map,
    "a read-only view of a writable map": lambda raw: memoryview(writable_map(raw)).toreadonly(),
}


def underlying(data: Any) -> Any:
    while isinstance(data, memoryview):
        data = data.obj
    return data


@pytest.mark.parametrize("kind", IMMUTABLE)
def test_immutable_input_is_not_copied(kind: str) -> None:
    data = IMMUTABLE[kind](RAW)
    tx = zmqpub.Transaction(data)
    assert tx.raw == RAW
    assert address_of(tx.raw) == address_of(data)
    assert tx.raw.readonly


@pytest.mark.parametrize("kind", MUTABLE)
def test_mutable_input_is_copied(kind: str) -> None:
    data = MUTABLE[kind](RAW)
    tx = zmqpub.Transaction(data)
    assert address_of(tx.raw) != address_of(data)
    owner = underlying(data)
    owner[0] ^= 1
    owner[50] ^= 0xFF
    assert tx.raw == RAW
    assert meaning(tx) == meaning(reference.Transaction(RAW))
    if isinstance(owner, bytearray) and owner is data:
        owner.clear()  # nothing holds on to it


@pytest.mark.parametrize("kind", [*IMMUTABLE, *MUTABLE])
def test_input_may_go_away(kind: str) -> None:
    tx = zmqpub.Transaction((IMMUTABLE | MUTABLE)[kind](RAW))
    gc.collect()
    noise = [bytes([i]) * len(RAW) for i in range(200)]
    assert meaning(tx) == meaning(reference.Transaction(RAW))
    del noise


def test_views_keep_what_they_show() -> None:
    block = zmqpub.Block(bytes(bytearray(small_block())))
    raw, last = block.raw, block[len(block) - 1]
    expected, expected_last = bytes(raw), bytes(last)
    del block
    gc.collect()
    assert raw == expected
    view = last.raw
    del last
    gc.collect()
    assert view == expected_last


def test_transactions_of_a_block_are_slices_of_it() -> None:
    block = zmqpub.Block(small_block())
    start = address_of(block.raw)
    places = [address_of(tx.raw) - start for tx in block]
    assert places[0] == 81
    assert [one + tx.size for one, tx in zip(places, block, strict=True)] == [*places[1:], block.size]


def test_bytes_are_released_with_the_last_reference() -> None:
    raw = bytes(bytearray(RAW))
    before = sys.getrefcount(raw)
    tx = zmqpub.Transaction(raw)
    assert sys.getrefcount(raw) == before + 1
    view = tx.raw
    del tx
    assert sys.getrefcount(raw) == before + 1
    del view
    assert sys.getrefcount(raw) == before


def test_a_map_can_be_closed_afterwards() -> None:
    data = read_only_map(RAW)
    tx = zmqpub.Transaction(data)
    with pytest.raises(BufferError):
        data.close()
    del tx
    data.close()


def test_refused_input_is_not_held() -> None:
    cut, part = bytearray(RAW[:-1]), bytes(bytearray(RAW[:-1]))
    before = sys.getrefcount(part)
    for data in (cut, part, memoryview(part)):
        with pytest.raises(DecodeError):
            zmqpub.Transaction(data)
    del data
    assert sys.getrefcount(part) == before
    cut.append(0)  # would be a BufferError


MISUSE = {
    "a Transaction that was never initialized": "zmqpub.Transaction.__new__(zmqpub.Transaction).txid",
    "a Block that was never initialized": "len(zmqpub.Block.__new__(zmqpub.Block))",
    "a view of bytes that __init__ replaces": """
tx = zmqpub.Transaction(bytearray(zmqpub.build_transaction([zmqpub.TxIn(bytes(32), 0, bytes(1_000_000))], []).raw))
view = tx.raw
expected = bytes(view)
try:
    tx.__init__(zmqpub.build_transaction([], []))
finally:
    assert view == expected
""",
    "a subclass that does not initialize": """
class Mine(zmqpub.Block):
    def __init__(self):
        pass

with zmqpub.Publisher({"zmqpubrawblock": "inproc://misuse"}) as publisher:
    publisher.block_connected(Mine())
    publisher.flush(5)
""",
}


@pytest.mark.parametrize("kind", MISUSE)
def test_misuse_ends_in_an_exception_at_worst(kind: str) -> None:
    program = f"import zmqpub\ntry:\n{textwrap.indent(MISUSE[kind], '    ')}\nexcept (TypeError, ValueError) as error:\n    print(error)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def pair() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.bind("inproc://pair")
        other.connect("inproc://pair")
        other.rcvtimeo = 10_000
        yield one, other


@pytest.mark.parametrize("size", [0, 100_000], ids=["small", "large"])
def test_received_frames(pair: tuple[zmq.Socket[bytes], zmq.Socket[bytes]], size: int) -> None:
    raw = bytes(zmqpub.build_transaction([TxIn(b"\x07" * 32, 1, bytes(size))], [TxOut(5, b"")]))
    pair[0].send(raw)
    frame = pair[1].recv(copy=False)
    assert isinstance(frame, zmq.Frame)
    things = [zmqpub.Transaction(cast(Any, frame)), zmqpub.Transaction(frame.buffer)]
    del frame
    gc.collect()
    for tx in things:
        assert meaning(tx) == meaning(reference.Transaction(raw))


def test_every_other_byte_is_no_contiguous_buffer() -> None:
    spread = bytes(byte for pair in zip(RAW, RAW, strict=True) for byte in pair)
    with pytest.raises(BufferError):
        zmqpub.Transaction(memoryview(spread)[::2])


def test_a_view_of_a_transaction_is_read_only() -> None:
    tx = zmqpub.Transaction(bytearray(RAW))
    for view in (tx.raw, memoryview(tx)):
        with pytest.raises(TypeError):
            view[0] = 0
    with pytest.raises((BufferError, TypeError)):
        (ctypes.c_char * tx.size).from_buffer(tx)


def test_hashes_are_made_once_whoever_asks_first() -> None:
    raw = small_block()
    for first in range(len(zmqpub.Block(raw))):
        block = zmqpub.Block(raw)
        assert block[first].txid == reference.Block(raw)[first].txid
        assert block.txids == reference.Block(raw).txids
        assert block[first].wtxid == reference.Block(raw)[first].wtxid
        assert block.wtxids == reference.Block(raw).wtxids


def test_offsets_of_truncations_never_go_back() -> None:
    """The more of the bytes there is, the further the trouble begins."""
    offsets = []
    for length in range(len(RAW)):
        with pytest.raises(DecodeError) as caught:
            zmqpub.Transaction(RAW[:length])
        offsets.append(caught.value.offset)
    assert all(one <= other for one, other in pairwise(offsets))
    assert all(offset <= length for length, offset in enumerate(offsets))
    assert offsets[-1] == len(RAW) - 4
