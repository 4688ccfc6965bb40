"""The IPC client leaves nothing behind: benchmarks/ipc_soak.py with smaller numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "benchmarks" / "ipc_soak.py"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts by /proc")
@pytest.mark.skipif(not SOAK.exists(), reason="needs the source tree")
@pytest.mark.parametrize("section", ["connections", "asyncio", "killed", "calls"])
def test_nothing_is_left_behind(section: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), section, "--scale", "0.05"],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done
