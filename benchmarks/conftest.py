"""Every benchmark is timed by what was measured (see contest.py); what it ran on and with is kept beside the results."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import native
import pytest
import zmq
from contest import measured_time

import zmqpub


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=measured_time))


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["cores"] = len(os.sched_getaffinity(0))
    machine_info["versions"] = {
        "zmqpub": zmqpub.__version__,
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "libzmq of the C programs": _libzmq_of_c(),
        "python-bitcoinlib": _version("python-bitcoinlib"),
    }
    machine_info["sha256_backend"] = zmqpub.sha256_backend()


def _libzmq_of_c() -> str | None:
    try:
        return subprocess.run([native.drain(), "-V"], capture_output=True, text=True, check=True).stdout.strip()
    except pytest.skip.Exception:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
