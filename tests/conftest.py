"""What all tests share: the two cores, real data, and how hard hypothesis tries."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reference
import zmq
from hypothesis import settings

import zmqpub

# The machine's speed is no property of the code: no deadlines. CI repeats itself; a developer's machine explores.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=200)
settings.register_profile("thorough", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("ZMQPUB_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "default"))

TRACE = Path(__file__).parent / "core-31.99-regtest.jsonl"


def pytest_report_header() -> str:
    return f"zmqpub {zmqpub.__version__}: SHA-256 by {zmqpub.sha256_backend()}, pyzmq {zmq.pyzmq_version()}, libzmq {zmq.zmq_version()}"


@pytest.fixture(params=["compiled", "reference"])
def core(request: pytest.FixtureRequest) -> ModuleType:
    """The compiled core, or its slow readable twin."""
    return zmqpub if request.param == "compiled" else reference


@dataclass(frozen=True)
class Recorded:
    """What a Bitcoin Core node, and nobody here, said of blocks and transactions."""

    transactions: dict[bytes, bytes]
    """Serialization by txid in display order."""
    blocks: dict[bytes, bytes]
    """Serialization by hash in display order."""


@pytest.fixture(scope="session")
def recorded() -> Recorded:
    """The transactions and blocks of the recorded notifications."""
    transactions: dict[bytes, bytes] = {}
    blocks: dict[bytes, bytes] = {}
    for line in TRACE.read_text().splitlines()[1:]:
        entry: dict[str, Any] = json.loads(line)
        frames = [(topic, bytes.fromhex(body)) for topic, body, _counter in entry["frames"]]
        for (topic, body), (following, raw) in pairwise(frames):
            if (topic, following) == ("hashtx", "rawtx"):
                transactions[body] = raw
            elif (topic, following) == ("hashblock", "rawblock"):
                blocks[body] = raw
    assert transactions
    assert blocks
    return Recorded(transactions, blocks)
