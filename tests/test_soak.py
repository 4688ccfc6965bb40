"""A minute of benchmarks/soak.py: real processes killed, stopped and cut off, and nothing lost, told twice or out of order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zmqpub

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"
SEED = int(os.environ.get("ZMQPUB_SOAK_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of processes from /proc")
@pytest.mark.skipif(not SOAK.exists(), reason="the benchmarks are not part of the sdist")
def test_a_minute_of_kills(tmp_path: Path) -> None:
    paths = (str(Path(zmqpub.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    done = subprocess.run(
        [sys.executable, str(SOAK), "--seed", str(SEED), "--messages", "500000", "--kills", "40", "--folder", str(tmp_path / "soak")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["faults"] == []
    assert result["messages"] >= 500_000
    # It is no soak unless things went wrong and were mended.
    assert sum(result["blows"].values()) == 40
    assert result["starts"]["publisher"] > 3
    assert result["told"]["Repaired"] > 3
