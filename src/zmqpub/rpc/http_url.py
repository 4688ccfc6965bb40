"""Where a node's HTTP server is, as a user writes it: ``http://127.0.0.1:8332``."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["DEFAULT_PORT", "Place", "parse_url"]

DEFAULT_PORT: Final = 8332
"""A node's on mainnet."""


class Place(NamedTuple):
    """A URL, taken apart."""

    host: str
    port: int
    path: str
    """For requests that name none; ``/`` by default."""
    url: str
    """As errors name it: without user and password."""

    @property
    def is_loopback(self) -> bool:
        """Is it this machine, with certainty?"""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def target(self, uri: str) -> str:
        """What a request names. ValueError for what would be something else in HTTP."""
        if not uri:
            return self.path
        if not re.fullmatch(r"/[!-~]*", uri):
            raise ValueError(f"uri: expected a path such as /wallet/name, quoted, got {uri!r}")
        return uri


def parse_url(url: str, option: str = "url") -> tuple[Place, tuple[str, str] | None]:
    """The place, and user and password where the URL has them. ConfigError, which does not tell them, names ``option``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        problem = _problem(url, parts, host, port)
    except (ValueError, TypeError, AttributeError):
        problem = "it makes no sense"
    if problem:
        raise ConfigError(ConfigProblem(option, _without_password(str(url)), f"expected http://[user:password@]host[:port]: {problem}"))
    port = DEFAULT_PORT if port is None else port
    path = parts.path or "/"
    bracketed = f"[{host}]" if ":" in host else host
    place = Place(host, port, path, f"http://{bracketed}:{port}{'' if path == '/' else path}")
    if parts.username is None or parts.password is None:
        return place, None
    return place, (unquote(parts.username), unquote(parts.password))


def _problem(url: str, parts: SplitResult, host: str, port: int | None) -> str:
    if not re.fullmatch(r"[!-~]+", url):  # urlsplit takes line breaks out, and leaves the rest to others
        return "it has characters that no URL has"
    if parts.scheme != "http" or not host:
        return "http is spoken, and nothing else"
    if port == 0:
        return "port 0 is none"
    if parts.query or parts.fragment:
        return "nothing follows the path"
    if (parts.username is None) != (parts.password is None):
        return "the password is missing"
    return ""


def _without_password(url: str) -> str:
    """Without what stands before the last @, wherever the URL is wrong: the scheme may be missing, too."""
    before, at, behind = url.rpartition("@")
    scheme = re.match(r"([a-z]+:)?//", before, re.IGNORECASE)
    return f"{scheme[0] if scheme else ''}…@{behind}" if at else url
