"""Where a peer listens, as Bitcoin Core writes it: ``unix``, ``unix:path``, ``auto``; and ``""`` or ``0`` for nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from zmqpub.errors import IpcAddressError

__all__ = ["MAX_PATH", "canonical", "default_data_dir", "is_disabled", "parse_address"]

MAX_PATH: Final = 107 if sys.platform.startswith("linux") else 103
"""Bytes of the longest path that a unix socket can have."""

_SCHEME: Final = "unix:"


def is_disabled(address: str) -> bool:
    """Does the address say that no connection is wanted?"""
    return address in ("", "0")


def default_data_dir() -> Path:
    """Bitcoin Core's data directory for mainnet, where none is given."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Bitcoin"
    return Path.home() / ".bitcoin"


def canonical(path: str | os.PathLike[str]) -> str:
    """The address of a socket's path, as errors name it and as it can be given again: ``unix:/absolute/path``."""
    return _SCHEME + os.path.abspath(path)


def parse_address(address: str, data_dir: str | os.PathLike[str] | None = None, exe_name: str = "bitcoin-node") -> Path:
    """The path of the socket that ``address`` names, absolute.

    ``unix`` and ``auto``, as ``unix:`` without a path, are ``<data_dir>/<exe_name>.sock``, the name without ``bitcoin-``: a node's is
    ``node.sock``. ``unix:path`` is relative to ``data_dir``, the chain's own directory. Raises IpcAddressError for anything else,
    the disabled addresses included, and for a path of more than 107 bytes.
    """
    directory = Path(data_dir) if data_dir is not None else default_data_dir()
    if address in ("auto", "unix", _SCHEME):
        path = directory / f"{exe_name.removeprefix('bitcoin-')}.sock"
    elif address.startswith(_SCHEME):
        path = directory / address.removeprefix(_SCHEME)
    elif is_disabled(address):
        raise IpcAddressError(address or "''", None, None, "the address says that no connection is wanted")
    else:
        raise IpcAddressError(address, None, None, "no known address: expected 'auto', 'unix' or 'unix:<path>'")
    path = Path(os.path.abspath(path))
    try:
        written = os.fsencode(path)
    except UnicodeEncodeError:
        raise IpcAddressError(ascii(address), None, None, "a path cannot contain half of a surrogate pair") from None
    if b"\0" in written:
        raise IpcAddressError(canonical(path), None, None, "a path cannot contain a zero byte")
    if len(written) > MAX_PATH:
        cause = f"its path has {len(written)} bytes, and that of a unix socket has at most {MAX_PATH}; use a shorter one"
        raise IpcAddressError(canonical(path), None, None, cause)
    return path
