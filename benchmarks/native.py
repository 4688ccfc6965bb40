"""C programs, compiled when they are needed into benchmarks/.cache; without a compiler or headers their benchmarks are skipped."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent
YARDSTICK = ROOT.parent / "shared" / "yardstick"
CORE = ROOT / "src" / "zmqpub" / "_c"
_CACHE = HERE / ".cache"


def build(name: str, sources: Sequence[Path], *flags: str) -> Path:
    """The program made of ``sources``; skips the test, saying why, where that is impossible."""
    absent = [source for source in sources if not source.exists()]
    if absent:
        pytest.skip(f"{absent[0]} is not here")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    command = [compiler, *flags[: _libraries(flags)], *map(str, sources), *flags[_libraries(flags) :]]
    key = hashlib.sha256(" ".join(command).encode())
    for source in sources:
        key.update(source.read_bytes())
    program = _CACHE / f"{name}-{key.hexdigest()[:12]}"
    if not program.exists():
        _CACHE.mkdir(exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run([*command, "-o", str(fresh)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{sources[0].name} does not compile here: {done.stderr.strip().splitlines()[0]}")
        fresh.rename(program)
    return program


def _libraries(flags: Sequence[str]) -> int:
    """Where the flags that have to follow the sources begin."""
    return next((i for i, flag in enumerate(flags) if flag.startswith("-l")), len(flags))


def drain() -> Path:
    """The subscribers: see drain.c."""
    return build("drain", [HERE / "drain.c"], "-O2", "-lzmq", "-lpthread")


def asker() -> Path:
    """Clients of a replay endpoint: see asker.c."""
    return build("asker", [HERE / "asker.c"], "-O2", "-Wall", "-Wextra", "-Werror", "-lzmq", "-lpthread")


def limit() -> Path:
    """The yardstick of a block burst, compiled as its first comment says."""
    return build("limit", [YARDSTICK / "limit.c"], "-O2", "-march=native", "-lzmq", "-lcrypto", "-lpthread")


def latency() -> Path:
    """The yardstick of publish-to-receive latency, compiled as its first comment says."""
    return build("latency", [YARDSTICK / "latency.c"], "-O2", "-lzmq", "-lpthread")


def openssl_sha() -> Path:
    """OpenSSL's double SHA-256 and the core's own, both called from C."""
    core = [CORE / f"{name}.c" for name in ("sha256", "sha256_arm", "sha256_portable", "sha256_x86")]
    return build("openssl_sha", [HERE / "openssl_sha.c", *core], "-O3", "-std=gnu11", f"-I{CORE}", "-lcrypto")
