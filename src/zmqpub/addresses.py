"""Addresses of endpoints: what they mean, and what is wrong with them before a socket says so. Opens no sockets.

Accepted are ``tcp://host:port``, ``unix:path`` (Bitcoin Core's spelling), ``unix://path``, ``ipc://path`` (libzmq's)
and ``inproc://name``. This is stricter than libzmq, which takes ``tcp://127.0.0.1:28332x`` for port 28332 and port
65537 for port 1, and than Bitcoin Core, which goes on without notifications after an address that it cannot bind.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import stat
import sys
from dataclasses import dataclass
from typing import Final

__all__ = ["IPC_PATH_LIMIT", "Address", "conflict", "obstacle", "parse_address"]

IPC_PATH_LIMIT: Final = 107 if sys.platform.startswith("linux") else 103
"""The longest path of a Unix domain socket in bytes: sun_path less its NUL."""

_SCHEMES: Final = ("tcp", "ipc", "unix", "inproc")
_SCHEME_LIST: Final = "tcp://host:port, unix:path, ipc://path or inproc://name"
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?\Z")
_BARE: Final = re.compile(r"(?:[^/:]+|\[[^\]]+\]):(?:\d+|\*)\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """An address, taken apart."""

    text: str
    """As it was given."""
    endpoint: str
    """As libzmq wants it: ``unix:`` is ``ipc://``, ports and IP literals are in their canonical form."""
    scheme: str
    """``tcp``, ``ipc`` or ``inproc``."""
    host: str | None = None
    """For tcp: a host, an interface, an IP literal without brackets, or ``*``."""
    port: int | None = None
    """For tcp, 0 where libzmq is to choose one."""
    path: str | None = None
    """For ipc, beginning with ``@`` for Linux's abstract sockets; for inproc the name."""
    ipv6: bool = False
    """Whether the socket needs ZMQ_IPV6: the host is an IPv6 literal."""
    wildcard: bool = False
    """Whether every bind of it gives another address: the port, or the whole ipc path, is left to libzmq."""


def parse_address(text: str) -> Address:
    """``text`` taken apart; ValueError with a sentence that says what is wrong and what would be right."""
    if not text:
        raise ValueError(f"an address is missing: {_SCHEME_LIST}")
    if text != text.strip():
        raise ValueError("spaces before or after the address; leave them out")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError("control characters in the address")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("characters in the address that no file name or host name can have") from None
    if text[0] in "\"'":
        raise ValueError("quotes are taken literally here; leave them out")
    if text.startswith("unix:"):
        rest = text[len("unix:") :]
        return _ipc(text, rest[2:] if rest.startswith("//") else rest)
    match = _SCHEME.match(text)
    if match is None:
        raise ValueError(_without_scheme(text))
    scheme, rest = match.group(1), text[match.end() :]
    if scheme == "tcp":
        return _tcp(text, rest)
    if scheme == "ipc":
        return _ipc(text, rest)
    if scheme == "inproc":
        if not rest:
            raise ValueError("an inproc address needs a name: inproc://name")
        return Address(text, text, "inproc", path=rest)
    raise ValueError(f"{scheme}:// is not supported{_nearest_scheme(scheme)}; use {_SCHEME_LIST}")


def conflict(one: Address, other: Address) -> str | None:
    """Why the two cannot be bound side by side, or None.

    Known without a socket: libzmq deletes a socket file that is in the way, so that of two spellings of one path the
    first would go deaf in silence; and two listeners on one port, one of them on every interface, exclude each other.
    """
    if one.endpoint == other.endpoint or one.scheme != other.scheme or one.wildcard or other.wildcard:
        return None
    if one.scheme == "ipc":
        if _real_path(one) == _real_path(other):
            return "both are the same socket file; spell them the same way and they share one socket"
        return None
    if one.scheme == "tcp" and one.port == other.port:
        if one.host == "::" or other.host == "::":
            everywhere = True  # libzmq makes [::] take IPv4 too
        else:
            everywhere = one.ipv6 == other.ipv6 and ({one.host, other.host} & {"*", "0.0.0.0"}) != set()
        if everywhere:
            return f"one of them takes port {one.port} on every interface; give both the same address, or other ports"
    return None


def obstacle(address: Address) -> str | None:
    """What in the file system forbids to bind ``address``, or None: libzmq would delete a file that stands there."""
    if address.scheme != "ipc" or address.wildcard or address.path is None or address.path.startswith("@"):
        return None
    try:
        mode = os.lstat(address.path).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return f"{address.path} is a directory, not a place for a socket"
    if stat.S_ISREG(mode):
        return f"{address.path} is a file that exists and no socket; binding would delete it"
    return None


def _tcp(text: str, rest: str) -> Address:
    if "/" in rest:
        raise ValueError("a tcp address ends with its port; leave out the / and what follows")
    host, colon, port_text = rest.rpartition(":")
    # The last colon may stand within an IPv6 literal: [::1] or ::1 without a port.
    if not colon or port_text.endswith("]"):
        raise ValueError(f"a port is missing: tcp://{rest or 'host'}:port, or * as the port to have one chosen")
    if isinstance(_ip(rest), ipaddress.IPv6Address) and _ip(host) is None:
        raise ValueError(f"an IPv6 address stands in brackets, and a port follows: tcp://[{rest}]:port")
    if port_text == "*":
        port = 0
    elif not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 9 or int(port_text) > 65535:
        raise ValueError(f"{port_text or 'nothing'} is no port: a number from 0 to 65535, or * to have one chosen")
    else:
        port = int(port_text)
    host, ipv6 = _host(host, port_text)
    shown = f"[{host}]" if ipv6 else host
    endpoint = f"tcp://{shown}:{port_text if port_text == '*' else port}"
    return Address(text, endpoint, "tcp", host=host, port=port, ipv6=ipv6, wildcard=port == 0)


def _host(text: str, port: str) -> tuple[str, bool]:
    """The host without brackets in canonical form, and whether it is an IPv6 literal."""
    if not text:
        raise ValueError(f"a host is missing: tcp://127.0.0.1:{port}, or * as the host for every interface")
    if text == "*":
        return text, False
    bracketed = text.startswith("[") and text.endswith("]")
    inner = text[1:-1] if bracketed else text
    literal = _ip(inner)
    if bracketed:
        if not isinstance(literal, ipaddress.IPv6Address):
            raise ValueError(f"{inner or 'nothing'} is no IPv6 address, and only these stand in brackets")
        return str(literal), True
    if isinstance(literal, ipaddress.IPv6Address):
        raise ValueError(f"an IPv6 address stands in brackets: tcp://[{inner}]:{port}")
    if literal is not None:
        return str(literal), False
    if re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{text} is no IPv4 address")
    if not _HOST.match(text):
        raise ValueError(f"{text} is no host name, interface name, IP address or *")
    return text, False


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _ipc(text: str, path: str) -> Address:
    if not path:
        raise ValueError("a path is missing: unix:/path/of/the/socket")
    if path[0] == "*":
        if path != "*":
            raise ValueError("libzmq takes any path that begins with * for * alone, a path of its own choice")
        return Address(text, "ipc://*", "ipc", path=path, wildcard=True)
    if path[0] == "@":
        if not sys.platform.startswith("linux"):
            raise ValueError("abstract sockets (a name after @) exist on Linux only")
        if path == "@":
            raise ValueError("an abstract socket needs a name after the @")
    elif path.endswith("/"):
        raise ValueError("a path of a socket does not end with a /")
    size = len(os.fsencode(path))
    if size > IPC_PATH_LIMIT:
        raise ValueError(f"the path has {size} bytes, but the path of a socket has at most {IPC_PATH_LIMIT}")
    return Address(text, f"ipc://{path}", "ipc", path=path)


def _real_path(address: Address) -> str:
    path = address.path or ""
    return path if path.startswith("@") else os.path.realpath(path)


def _without_scheme(text: str) -> str:
    single = re.match(r"(tcp|ipc|inproc):/?(?!/)(.+)", text)
    if single is not None:
        scheme, rest = single.groups()
        # ipc:/tmp/x lacks two slashes, not the path's own.
        path = f"/{rest}" if scheme == "ipc" and text.startswith("ipc:/") else rest
        return f"two slashes are missing: did you mean {scheme}://{path}?"
    if _BARE.match(text):
        return f"the scheme is missing: did you mean tcp://{text}?"
    if text.isascii() and text.isdigit() and len(text) > 1:
        return f"this is no address: did you mean tcp://127.0.0.1:{text}?"
    if text.startswith(("/", "./", "../")):
        return f"the scheme is missing: did you mean unix:{text}?"
    return f"this is no address: it is one of {_SCHEME_LIST}"


def _nearest_scheme(scheme: str) -> str:
    near = difflib.get_close_matches(scheme.lower(), _SCHEMES, 1)
    return f" (did you mean {near[0]}?)" if near else ""
