"""Bitcoin Core's interfaces and zmqpub's own, as pycapnp reads them.

Each file has a parser of its own: a parser that reads the same ID twice ends the process, and programs may load Bitcoin Core's
files into pycapnp's global one.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import capnp

__all__ = ["load", "load_file", "load_v30"]

_lock = threading.Lock()


def load() -> Any:
    """The interfaces of v31 and later: a module with ``Init``, ``Mining`` …"""
    with _lock:
        return _load("zmqpub.capnp")


def load_v30() -> Any:
    """Mining and BlockTemplate as v30 has them."""
    with _lock:
        return _load("zmqpub_v30.capnp")


def load_file(path: str | Path) -> Any:
    """A file by a parser of its own. It has to be good: what is wrong in it ends the process, without an exception."""
    return capnp.SchemaParser().load(str(path))


def _in_forked_child() -> None:
    """Another thread may have been loading."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_forked_child)


@cache
def _load(name: str) -> Any:
    return load_file(Path(__file__).with_name(name))
