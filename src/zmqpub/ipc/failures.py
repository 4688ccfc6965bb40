"""Cap'n Proto's exceptions as zmqpub's: built anew from their texts, as the originals hold what must not leave the loop."""

from __future__ import annotations

import re
from typing import Any, Final

from zmqpub.errors import DisconnectedError, IpcError, IpcProtocolError, OverloadedError, RemoteError, UnimplementedError
from zmqpub.ipc.versions import INSTEAD, SINCE

__all__ = ["failure", "text_of"]

_REMOTE: Final = "remote exception: "
# std::exception, kj.Exception, ValueError: what stands before a colon and looks like a type.
_TYPED: Final = re.compile(r"(?P<type>[A-Za-z_][\w.]*(?:::[A-Za-z_]\w*)+|[A-Z]\w*(?:Error|Exception)): ?(?P<message>.*)", re.DOTALL)
_LONGEST: Final = 4096


def text_of(error: BaseException) -> tuple[str, str]:
    """Type and description of a KjException; of anything else its class and text."""
    kind = getattr(error, "type", None)
    if isinstance(kind, str):
        return kind, str(getattr(error, "description", ""))[:_LONGEST]
    return "LOCAL", f"{type(error).__name__}: {error}"[:_LONGEST]


def failure(kind: str, text: str, address: str, interface: str | None, method: str | None, peer: Any = None) -> IpcError:
    """The error for an exception of type ``kind`` (FAILED, DISCONNECTED …) that a call ended with."""
    remote = text.startswith(_REMOTE)
    text = text.removeprefix(_REMOTE).removeprefix("message = ").rstrip()
    if kind == "DISCONNECTED":
        return DisconnectedError(address, interface, method, "the peer went away, or the connection was closed")
    if kind == "UNIMPLEMENTED":
        name = f"{interface}.{method}"
        return UnimplementedError(address, interface, method, SINCE.get(name), None if peer is None else str(peer), INSTEAD.get(name))
    if kind == "OVERLOADED":
        return OverloadedError(address, interface, method, _first_line(text) or "the peer has too much to do")
    if kind == "FAILED" and remote:
        match = _TYPED.match(text)
        if match is None:
            return RemoteError(address, interface, method, "", text)
        if match["type"].endswith("OverloadedError"):
            return OverloadedError(address, interface, method, _first_line(match["message"]))
        return RemoteError(address, interface, method, match["type"], match["message"])
    return IpcProtocolError(address, interface, method, _first_line(text) or "the connection failed")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
