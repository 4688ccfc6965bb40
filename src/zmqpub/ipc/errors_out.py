"""Exceptions on their way to a peer: a type, a clean sentence, nothing about this process.

pycapnp answers with a whole traceback, paths included, and always with the type "failed". So a method that fails raises `WireError`
with a text between two marks that nobody else can know, and what goes out is corrected on its way (`SocketTransport.rewrite`): the
answer carries the type and the text alone, as a C++ server's would.
"""

from __future__ import annotations

import logging
import secrets
import struct
import traceback
from struct import pack_into, unpack_from
from typing import Final, NamedTuple

from zmqpub.errors import DisconnectedError, OverloadedError, RemoteError, UnimplementedError

__all__ = ["DISCONNECTED", "FAILED", "OVERLOADED", "UNIMPLEMENTED", "Refusal", "WireError", "refusal_of", "rewrite_exception"]

log = logging.getLogger("zmqpub")

# Exception.Type of Cap'n Proto's rpc.capnp
FAILED: Final = 0
OVERLOADED: Final = 1
DISCONNECTED: Final = 2
UNIMPLEMENTED: Final = 3

_MARK: Final = secrets.token_hex(12)
_MARK_BYTES: Final = _MARK.encode()
_MAX_TEXT: Final = 4_000

# Message's and its members' discriminants, by rpc.capnp
_ABORT, _RETURN, _RESOLVE = 1, 3, 5
_EXCEPTION = 1


class Refusal(NamedTuple):
    """What a peer is told."""

    type: int
    text: str

    def error(self) -> WireError:
        return WireError(self)


class WireError(Exception):
    """Raised towards pycapnp; what its text becomes on the wire is this module's business."""

    def __init__(self, refusal: Refusal) -> None:
        text = refusal.text if len(refusal.text) <= _MAX_TEXT else refusal.text[:_MAX_TEXT] + "…"
        # What UTF-8 cannot hold must not make an error of the error.
        text = text.encode("utf-8", "replace").decode().replace("\0", "\\0")
        super().__init__(f"{_MARK}{refusal.type}{text}{_MARK}")

    # pycapnp formats the traceback: there is none.
    __traceback__ = property(lambda self: None, lambda self, value: None)


def refusal_of(error: BaseException, call: str) -> Refusal:
    """What the peer is told of an exception that a handler raised. A handler's own failure is logged here, with its traceback."""
    if isinstance(error, OverloadedError):
        return Refusal(OVERLOADED, error.cause)
    if isinstance(error, UnimplementedError):
        return Refusal(UNIMPLEMENTED, error.cause)
    if isinstance(error, DisconnectedError):
        return Refusal(DISCONNECTED, error.cause)
    if isinstance(error, RemoteError):
        return Refusal(FAILED, error.cause)
    # As text: a log record that kept the exception would keep its frames, and with them what only the loop's thread may free.
    log.warning("IPC: %s failed: %s", call, "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip())
    return Refusal(FAILED, f"std::exception: {_text_of(error) or type(error).__name__}")


def _text_of(error: BaseException) -> str:
    """What it says, without the names of files that Python itself puts there; empty where it cannot say it."""
    if isinstance(error, OSError):
        return error.strerror or ""
    try:
        text = str(error)
    except Exception:
        return ""
    return text.removesuffix(f" ({error.path})") if isinstance(error, ImportError) else text


def rewrite_exception(message: bytes) -> bytes:
    """A message that goes out; where it carries a `WireError`, with the type and the text that are meant."""
    begin = message.find(_MARK_BYTES)
    if begin < 0:
        return message
    end = message.find(_MARK_BYTES, begin + len(_MARK_BYTES))
    edited = bytearray(message)
    if end < 0 or not _edit(edited, message[begin + len(_MARK_BYTES) : end]):
        # Not laid out as expected: the text stays where it is, without the marks.
        log.error("IPC: an answer with an exception is not laid out as expected; its type is lost")
        return message.replace(_MARK_BYTES, b" " * len(_MARK_BYTES))
    return bytes(edited)


def _edit(message: bytearray, marked: bytes) -> bool:
    type, text = int(marked[:1]) if marked[:1].isdigit() else -1, marked[1:]
    if type < 0 or message[:4] != bytes(4):  # damaged, or more than one segment
        return False
    try:
        root = _follow(message, 8)
        (tag,) = unpack_from("<H", message, root.data)
        member = _follow(message, root.pointers)
        # Where the discriminant of Return is, and that of Resolve.
        at = {_RETURN: 6, _RESOLVE: 4}.get(tag)
        if at is not None and unpack_from("<H", message, member.data + at)[0] == _EXCEPTION:
            exception = _follow(message, member.pointers)
        elif tag == _ABORT:
            exception = member
        else:
            return False
        (low, high) = unpack_from("<II", message, exception.pointers)
        if low & 3 != 1 or high & 7 != 2:  # not a list of bytes
            return False
        start = exception.pointers + 8 + (low >> 2) * 8
        room = high >> 3
        if not 8 <= start <= len(message) - room or len(text) >= room:
            return False
    except (ValueError, IndexError, struct.error):
        return False
    message[start : start + room] = text + bytes(room - len(text))
    pack_into("<I", message, exception.pointers + 4, (len(text) + 1) << 3 | 2)
    pack_into("<H", message, exception.data + 4, type)
    return True


class _Struct(NamedTuple):
    data: int
    pointers: int


def _follow(message: bytearray, at: int) -> _Struct:
    """The struct that the pointer at this offset leads to; ValueError where it is none."""
    (offset, data_words) = unpack_from("<iH", message, at)
    if offset & 3 or data_words == 0:
        raise ValueError("not a pointer to a struct")
    data = at + 8 + (offset >> 2) * 8
    if data < 8:
        raise ValueError("before the message's beginning")
    return _Struct(data, data + data_words * 8)
