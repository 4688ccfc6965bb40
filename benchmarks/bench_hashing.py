"""How fast is the double SHA-256 of a small message (250 bytes, a small transaction)?

From Python: zmqpub.sha256d beside hashlib called twice. From C: the core's own function, one message at a time and in batches as
it hashes a block, beside OpenSSL's low-level calls.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from time import perf_counter

import native
import pytest
from contest import Outcome, Turn, interleave, record
from pytest_benchmark.fixture import BenchmarkFixture

from zmqpub import sha256_backend, sha256d

SIZE = 250
CALLS = 50_000
PYTHON = ["zmqpub.sha256d", "hashlib twice"]
C = {"OpenSSL": "openssl", "zmqpub's core": "single", "zmqpub's core, batches": "batch"}


def core_turn(message: bytes) -> Turn:
    function, calls = sha256d, range(CALLS)
    began = perf_counter()
    for _ in calls:
        function(message)
    return Turn([(perf_counter() - began) / CALLS], {"backend": sha256_backend()})


def hashlib_turn(message: bytes) -> Turn:
    function, calls = sha256, range(CALLS)
    began = perf_counter()
    for _ in calls:
        function(function(message).digest()).digest()
    return Turn([(perf_counter() - began) / CALLS])


@cache
def told() -> dict[str, list[float]]:
    """Nanoseconds a message, of each contender and round: the program itself lets them take turns."""
    command = [str(native.openssl_sha()), str(SIZE)]
    result: dict[str, list[float]] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return result


@cache
def measure_python() -> dict[str, Outcome]:
    message = bytes(range(SIZE))
    turns: list[Callable[[], Turn]] = [partial(core_turn, message), partial(hashlib_turn, message)]
    return interleave(dict(zip(PYTHON, turns, strict=True)), rounds=10)


@pytest.mark.parametrize("contender", PYTHON)
def test_from_python(benchmark: BenchmarkFixture, contender: str) -> None:
    record(benchmark, "hashing", "from Python", contender, measure_python()[contender], size=SIZE)


@pytest.mark.parametrize("contender", C)
def test_from_c(benchmark: BenchmarkFixture, contender: str) -> None:
    outcome = Outcome([Turn([ns / 1e9]) for ns in told()[C[contender]]])
    record(benchmark, "hashing", "from C", contender, outcome, size=SIZE, backend=sha256_backend())
