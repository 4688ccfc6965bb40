"""A fuzz target for atheris: the compiled core and its readable twin, given the same bytes, say the same.

    make fuzz                              one minute, from the corpus beside this file
    make fuzz ARGS=-max_total_time=3600    an hour

The fuzzer is guided by the twin, whose branches are those of the format. What it finds is printed, and written to a file
crash-… that goes to the corpus once it is mended: the test suite runs the whole corpus.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Meaning = tuple[Any, ...]

KINDS = ("Transaction", "Block")


def meaning(thing: Any) -> Meaning:
    """All that a Transaction or a Block says of itself."""
    if hasattr(thing, "header"):
        return thing.hash, thing.header, thing.txids, thing.wtxids, thing.size, bytes(thing), [meaning(tx) for tx in thing]
    numbers = thing.version, thing.locktime, thing.has_witness, thing.size
    return thing.txid, thing.wtxid, thing.inputs, thing.outputs, numbers, bytes(thing)


def outcome(kind: Callable[[Any], Any], raw: Any) -> Meaning | None:
    """What ``raw`` means, None where it is refused. No other exception is allowed, nor an error that points elsewhere."""
    from zmqpub.errors import DecodeError

    try:
        return meaning(kind(raw))
    except DecodeError as error:
        if not (0 <= error.offset <= len(raw) and error.expected and error.got):
            raise AssertionError(f"a DecodeError without its data: {error}") from error
        return None


def check(data: bytes) -> None:
    """The first byte chooses what the rest is: even a transaction, odd a block."""
    import reference

    import zmqpub

    if not data:
        return
    kind, raw = KINDS[data[0] % 2], data[1:]
    expected = outcome(getattr(reference, kind), raw)
    # bytes are referred to; a bytearray is copied to memory of exactly its size, which AddressSanitizer watches.
    for given in (raw, bytearray(raw)):
        found = outcome(getattr(zmqpub, kind), given)
        if found != expected:
            raise AssertionError(f"{kind}({raw.hex()}): compiled {found}, twin {expected}")
    if expected is not None and kind == "Transaction":
        tx = reference.Transaction(raw)
        if tx.inputs or not tx.outputs:
            built = zmqpub.build_transaction(tx.inputs, tx.outputs, version=tx.version, locktime=tx.locktime)
            if bytes(built) != raw:
                raise AssertionError(f"{raw.hex()} was built again as {bytes(built).hex()}")


def main() -> None:
    import atheris

    sys.path.insert(0, str(Path(__file__).parents[1]))

    with atheris.instrument_imports(include=["reference"]):
        import reference  # noqa: F401
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
