"""Who a client of a node's HTTP server says it is. What it knows is in the header of a request, and in no text that anybody reads."""

from __future__ import annotations

import base64
import contextlib
import os
from typing import Final, Protocol

__all__ = ["Anonymous", "CookieError", "CookieFile", "Credentials", "Login"]

_LONGEST: Final = 4096
"""Bytes; a node's cookie has 75."""


class CookieError(Exception):
    """A cookie that cannot be had; the text says why."""


class Credentials(Protocol):
    """``str()`` says which they are, as in "the node does not accept …"."""

    def authorization(self) -> str | None:
        """The value of the header, None for none; CookieError."""
        ...

    def changed(self, tried: str | None) -> bool:
        """Are they other ones than ``tried``, which authorization() gave? They may be when a node was restarted."""
        ...


class Anonymous:
    """No credentials."""

    def __str__(self) -> str:
        return "a request without credentials: give cookie_file, or user and password"

    def authorization(self) -> str | None:
        return None

    def changed(self, tried: str | None) -> bool:
        return False


class Login:
    """A user and a password, as -rpcauth or -rpcuser has them in the node."""

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._header = _basic(f"{user}:{password}".encode())

    def __str__(self) -> str:
        return f"the password of user {self._user!r}"

    def authorization(self) -> str | None:
        return self._header

    def changed(self, tried: str | None) -> bool:
        return False


class CookieFile:
    """A node's cookie: a user and a password that it writes when it starts, other ones each time, and removes when it ends."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(os.path.expanduser(path))
        # In one tuple, so that threads see them together.
        self._known: tuple[tuple[int, ...], str] | None = None

    def __str__(self) -> str:
        return f"the cookie of {self._path}"

    def authorization(self) -> str | None:
        """Reads the file again where it is another one than before."""
        known = self._known
        try:
            state = self._state()
            if known is None or known[0] != state:
                known = self._known = state, self._read()
        except OSError as error:
            raise CookieError(
                f"cannot read the node's cookie {self._path}: {os.strerror(error.errno or 0)}; is the node running?"
            ) from None
        return known[1]

    def changed(self, tried: str | None) -> bool:
        with contextlib.suppress(CookieError, OSError):
            # Not by the file's times alone: those of two within a clock's tick are the same.
            state, header = self._state(), self._read()
            self._known = state, header
            return header != tried
        return False

    def _state(self) -> tuple[int, ...]:
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size

    def _read(self) -> str:
        with open(self._path, "rb") as file:
            cookie = file.read(_LONGEST + 1).partition(b"\n")[0].rstrip(b"\r")
        if b":" not in cookie or len(cookie) > _LONGEST:
            raise CookieError(f"{self._path} is no cookie of a node's: expected one line, user:password")
        return _basic(cookie)


def _basic(pair: bytes) -> str:
    return f"Basic {base64.b64encode(pair).decode()}"
