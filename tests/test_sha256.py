"""Double SHA-256 against hashlib, for every implementation that this machine can run."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys

import pytest

from zmqpub import sha256_backend, sha256d
from zmqpub._fast import sha256_backends

VARIABLE = "ZMQPUB_SHA256"
KNOWN = {"sha-ni", "armv8", "portable"}

# Single SHA-256 of the messages in NIST's examples: an anchor that shares nothing with hashlib.
NIST = {
    "empty": (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "abc": (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    "448 bits": (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    "896 bits": (
        b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
        "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
    ),
    "a million a": (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
}

# The first block's header and its hash, as every explorer shows it.
FIRST_HEADER = bytes.fromhex(f"01000000{'00' * 32}3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c")
FIRST_HASH = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"

NOISE = random.Random(256).randbytes(4096)


def reference(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


@pytest.mark.parametrize("name", NIST)
def test_nist_examples(name: str) -> None:
    message, single = NIST[name]
    assert sha256d(message) == hashlib.sha256(bytes.fromhex(single)).digest()


def test_first_block() -> None:
    assert sha256d(FIRST_HEADER)[::-1].hex() == FIRST_HASH


def test_every_length() -> None:
    wrong = [n for n in range(1001) if sha256d(NOISE[:n]) != reference(NOISE[:n])]
    assert wrong == []


def test_every_alignment() -> None:
    view = memoryview(NOISE)
    slices = [slice(start, start + n) for start in range(16) for n in (*range(130), 255, 256, 257, 1000)]
    wrong = [where for where in slices if sha256d(view[where]) != reference(NOISE[where])]
    assert wrong == []


@pytest.mark.parametrize("length", [100_000, 4_000_000 - 9, 4_000_000])
def test_long_messages(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert sha256d(data) == reference(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type[bytes | bytearray | memoryview]) -> None:
    digest = sha256d(kind(NOISE[:300]))
    assert type(digest) is bytes
    assert digest == reference(NOISE[:300])


@pytest.mark.parametrize("value", ["text", 3, None])
def test_no_buffer(value: object) -> None:
    with pytest.raises(TypeError):
        sha256d(value)  # type: ignore[arg-type]


def test_backend_is_one_of_those_available() -> None:
    available = sha256_backends()
    assert sha256_backend() in available
    assert set(available) <= KNOWN
    assert available[-1] == "portable"
    if not os.environ.get(VARIABLE):
        assert sha256_backend() == available[0]


# Everything above in another process, where another implementation was forced; the digests are compared out here, with
# hashlib's. merkle_root() is how Python reaches the code that hashes two messages side by side.
PROBE = """
import random, sys
from zmqpub import sha256_backend, sha256d
from zmqpub._build import merkle_root

noise = random.Random(256).randbytes(4096)
view = memoryview(noise)
print(sha256_backend())
for n in range(1001):
    print(sha256d(noise[:n]).hex())
for start in range(16):
    for n in (63, 64, 65, 200):
        print(sha256d(view[start : start + n]).hex())
print(sha256d(b"a" * 1_000_000).hex())
for count in range(1, 12):
    print(merkle_root([noise[32 * i : 32 * i + 32] for i in range(count)]).hex())
"""


def merkle_reference(hashes: list[bytes]) -> bytes:
    level = [item[::-1] for item in hashes]
    while len(level) > 1:
        level += level[-1:] * (len(level) % 2)
        level = [reference(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0][::-1]


def expected_digests() -> list[bytes]:
    digests = [reference(NOISE[:n]) for n in range(1001)]
    digests += [reference(NOISE[start : start + n]) for start in range(16) for n in (63, 64, 65, 200)]
    digests.append(reference(b"a" * 1_000_000))
    digests += [merkle_reference([NOISE[32 * i : 32 * i + 32] for i in range(count)]) for count in range(1, 12)]
    return digests


def run_with(value: str, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, VARIABLE: value, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("backend", sha256_backends())
def test_forced_backend(backend: str) -> None:
    result = run_with(backend, PROBE)
    assert result.returncode == 0, result.stderr
    name, *digests = result.stdout.split()
    assert name == backend
    assert digests == [digest.hex() for digest in expected_digests()]


def test_empty_variable_means_the_best() -> None:
    result = run_with("", "import zmqpub; print(zmqpub.sha256_backend())")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == sha256_backends()[0]


@pytest.mark.parametrize("value", ["md5", *sorted(KNOWN - set(sha256_backends()))])
def test_backend_that_is_not_there(value: str) -> None:
    # By name, since zmqpub.errors cannot be imported either before zmqpub itself.
    program = """
import sys
try:
    import zmqpub
except Exception as error:
    print(f"{type(error).__module__}.{type(error).__name__}: {error}")
else:
    sys.exit("imported all the same")
"""
    result = run_with(value, program)
    assert result.returncode == 0, result.stderr
    for part in ("zmqpub.errors.UnsupportedError: ", VARIABLE, value, *sha256_backends()):
        assert part in result.stdout
