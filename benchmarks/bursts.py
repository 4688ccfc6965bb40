"""One turn of a block burst: a contender with its subscribers, and the yardstick in C beside it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import native
from contenders import Contender
from contest import Turn
from samples import file_of, messages
from subscribers import Subscribers

PAUSE = 0.03
"""Seconds between two runs, for everything to become quiet."""
_PATIENCE = 0.4
"""Seconds after which what did not arrive is lost, as in limit.c."""


def burst_turn(make: Callable[[], Contender], raw: bytes, subscribers: int, runs: int, until: str = "delivered") -> Turn:
    """``until`` says what the turn's seconds are: "total" (all is with libzmq) or "delivered" (the last subscriber has the last
    message; a run that lost some counts as total, and its loss is in the info)."""
    contender = make()
    try:
        if not subscribers:
            totals = [_run(contender, raw)[0] for _ in range(runs)]
            return Turn(totals, {"total": min(totals), "delivered": None, "share": None})
        with Subscribers(contender.address, subscribers) as drains:
            return _with(drains, contender, raw, runs, until)
    finally:
        contender.close()


def _with(drains: Subscribers, contender: Contender, raw: bytes, runs: int, until: str) -> Turn:
    expected = messages(raw)
    totals, delivered = [], []
    for _ in range(runs):
        drains.begin(expected)
        total, began = _run(contender, raw)
        end = drains.finished(_PATIENCE)
        totals.append(total)
        if end is not None:
            delivered.append((end - began) / 1e9)
    report = drains.report()
    info: dict[str, Any] = {
        "total": min(totals),
        "delivered": min(delivered) if delivered else None,
        "share": min(report["total"]) / (expected * runs),
        "missing": max(report["missing"]),
        "disorder": max(report["disorder"]),
    }
    return Turn(totals if until == "total" or not delivered else delivered, info)


def _run(contender: Contender, raw: bytes) -> tuple[float, int]:
    """(seconds until all is with libzmq, when it began by time.monotonic_ns())"""
    time.sleep(PAUSE)
    began = time.monotonic_ns()
    contender.burst(raw)
    return (time.monotonic_ns() - began) / 1e9, began


def limit_turn(raw: bytes, subscribers: int, runs: int, until: str = "delivered") -> Turn:
    """limit.c with a mark of 0; it tells the best of its runs."""
    command = [str(native.limit()), file_of(raw), "0", str(subscribers), f"tcp://127.0.0.1:{free_port()}", str(runs)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    total, delivered = told["total_ms"] / 1e3, told["delivered_ms"]
    info = {
        "total": total,
        "walk": told["walk_ms"] / 1e3,
        "delivered": delivered and delivered / 1e3,
        "share": told["received"] / told["sent"] if subscribers else None,
    }
    return Turn([total if until == "total" or not delivered else delivered / 1e3], info)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
