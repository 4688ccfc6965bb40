"""Every exception that zmqpub raises, in one tree.

::

    ZmqPubError
    ├── ConfigError (ValueError)       options that make no sense; all problems at once
    ├── BindError (OSError)            an address that could not be bound
    ├── ConnectError (OSError)         an address that libzmq cannot connect to, ever
    ├── DecodeError (ValueError)       bytes that are no block, transaction or notification
    ├── JournalError                   a journal file that cannot be used
    ├── ClosedError                    a call on a publisher or subscriber that was closed (also called SubscriberClosed)
    │   └── ForkedError                … that belongs to the parent of this process
    ├── SourceError                    a source of events that cannot go on
    │   ├── DamagedRecordError         a record of a block file that cannot be read
    │   └── RefusedTransactionError    a transaction that the simulated chain does not take
    ├── CursorError (ValueError)       a saved position that belongs to another publisher or chain
    ├── RepairError                    a node, asked for what was missed, that does not have it or does not answer
    ├── RpcError                       a JSON-RPC error object: code, message, method
    ├── IpcError                       a call of another process that failed, over IPC or HTTP: address, interface, method, cause
    │   ├── IpcAddressError (ValueError)          an address that makes no sense, or whose path is too long
    │   ├── IpcConnectError (ConnectionError)     nobody there, a stale socket, or one that is not ours
    │   │   └── RpcAccessError         a node's HTTP server that does not let us in
    │   ├── IpcProtocolError           a peer that does not speak Cap'n Proto (or HTTP), or answers what cannot be
    │   ├── DisconnectedError (ConnectionError)   the peer went away, or the connection was closed
    │   ├── RemoteError                the peer raised an exception: type, message
    │   ├── UnimplementedError         the peer lacks the method; since which version others have it
    │   ├── OverloadedError            the peer, or this end, has too much to do
    │   ├── IpcTimeoutError (TimeoutError)        no answer within the deadline
    │   └── DestroyedError             a call on an object that was destroyed; nothing was sent
    └── UnsupportedError               what this machine or this build does not have

Errors carry their data as attributes, so that a program need not parse the text: the option, value and address at
fault, or the offset, what was expected there and what was found.
"""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = [
    "BindError",
    "ClosedError",
    "ConfigError",
    "ConfigProblem",
    "ConnectError",
    "CursorError",
    "DamagedRecordError",
    "DecodeError",
    "DestroyedError",
    "DisconnectedError",
    "ForkedError",
    "IpcAddressError",
    "IpcConnectError",
    "IpcError",
    "IpcProtocolError",
    "IpcTimeoutError",
    "JournalError",
    "OverloadedError",
    "RefusedTransactionError",
    "RemoteError",
    "RepairError",
    "RpcAccessError",
    "RpcError",
    "SourceError",
    "SubscriberClosed",
    "UnimplementedError",
    "UnsupportedError",
    "ZmqPubError",
]


class ZmqPubError(Exception):
    """The root of all that zmqpub raises on purpose."""


class ConfigProblem(NamedTuple):
    """One thing wrong with a configuration."""

    option: str
    """The option's name as the user wrote it, without a leading dash."""
    value: str | None
    """Its value as the user wrote it, None where the option itself is the problem."""
    message: str
    """What is wrong and what would be right, a sentence without the option's name."""
    where: str | None = None
    """Where it was written (``file:line``), None for options given in Python."""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        setting = self.option if self.value is None else f"{self.option}={self.value}"
        return f"{place}{setting}: {self.message}"


class ConfigError(ZmqPubError, ValueError):
    """Options that make no sense. Nothing was bound; ``problems`` lists everything that is wrong, not the first only."""

    problems: tuple[ConfigProblem, ...]

    def __init__(self, *problems: ConfigProblem) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[ConfigProblem, ...]]:
        return type(self), self.problems


class BindError(ZmqPubError, OSError):
    """An address that could not be bound. Nothing was left bound; ``errno`` is the operating system's or libzmq's."""

    option: str
    address: str

    def __init__(self, option: str, address: str, errno: int, cause: str | None = None) -> None:
        self.option = option
        self.address = address
        self.cause = cause or os.strerror(errno)
        super().__init__(errno, f"{option}={address}: cannot bind: {self.cause}")

    def __reduce__(self) -> tuple[type[BindError], tuple[str, str, int, str]]:
        return type(self), (self.option, self.address, self.errno or 0, self.cause)

    def __str__(self) -> str:
        return str(self.strerror)


class ConnectError(ZmqPubError, OSError):
    """An address that libzmq cannot connect to, however long it tries; ``errno`` is libzmq's."""

    address: str

    def __init__(self, address: str, errno: int, cause: str | None = None) -> None:
        self.address = address
        self.cause = cause or os.strerror(errno)
        super().__init__(errno, f"{address}: cannot connect: {self.cause}")

    def __reduce__(self) -> tuple[type[ConnectError], tuple[str, int, str]]:
        return type(self), (self.address, self.errno or 0, self.cause)

    def __str__(self) -> str:
        return str(self.strerror)


class DecodeError(ZmqPubError, ValueError):
    """Bytes that are not what they should be.

    ``offset`` is where in the given bytes the trouble starts, ``expected`` what the format asks for there and ``got``
    what was found instead, both as short texts.
    """

    def __init__(self, what: str, offset: int, expected: str, got: str) -> None:
        self.what = what
        self.offset = offset
        self.expected = expected
        self.got = got
        super().__init__(f"{what}: at offset {offset}: expected {expected}, got {got}")

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, int, str, str]]:
        return type(self), (self.what, self.offset, self.expected, self.got)


class JournalError(ZmqPubError):
    """A journal file (``journal_path``) that cannot be used: damaged, of another version or size, in use, or without room.

    ``offset`` is where in the file the trouble is, ``expected`` what should be there and ``got`` what is, ``hint`` what can
    be done, all as short texts; ``errno`` is the operating system's, 0 where it has no part in it.
    """

    def __init__(self, path: str, offset: int, expected: str, got: str, hint: str = "", errno: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.expected = expected
        self.got = got
        self.hint = hint
        self.errno = errno
        advice = f"; {hint}" if hint else ""
        super().__init__(f"{path}: at offset {offset}: expected {expected}, got {got}{advice}")

    def __reduce__(self) -> tuple[type[JournalError], tuple[str, int, str, str, str, int]]:
        return type(self), (self.path, self.offset, self.expected, self.got, self.hint, self.errno)


class ClosedError(ZmqPubError):
    """A call on a publisher or subscriber that was closed, by its owner or by the end of its ZeroMQ context."""


SubscriberClosed = ClosedError
"""The name under which a subscriber's documentation knows it."""


class ForkedError(ClosedError):
    """A call, in a forked child, on the publisher of the parent: its threads and sockets stayed there."""


class SourceError(ZmqPubError):
    """A source of events that cannot go on."""


class DamagedRecordError(SourceError):
    """A record of a block file that cannot be read; ``path`` and ``offset`` say which."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        self.path = path
        self.offset = offset
        self.reason = reason
        super().__init__(f"{path}: at offset {offset}: {reason}")

    def __reduce__(self) -> tuple[type[DamagedRecordError], tuple[str, int, str]]:
        return type(self), (self.path, self.offset, self.reason)


class RefusedTransactionError(SourceError, ValueError):
    """A transaction that the simulated chain does not take; ``txid`` (32 bytes) says which, ``reason`` why."""

    def __init__(self, txid: bytes, reason: str) -> None:
        self.txid = txid
        self.reason = reason
        super().__init__(f"transaction {txid.hex()} refused: {reason}")

    def __reduce__(self) -> tuple[type[RefusedTransactionError], tuple[bytes, str]]:
        return type(self), (self.txid, self.reason)


class CursorError(ZmqPubError, ValueError):
    """A saved position that cannot be gone on from: damaged, or of another publisher, chain, address or topic.

    ``where`` is the part of the cursor at fault (an address, a field), ``reason`` a sentence that says what to do.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"cursor: {where}: {reason}")

    def __reduce__(self) -> tuple[type[CursorError], tuple[str, str]]:
        return type(self), (self.where, self.reason)


class RepairError(ZmqPubError):
    """What a `zmqpub.repair.Repair` raises when it cannot answer: the node does not know it, or does not answer."""


class RpcError(ZmqPubError):
    """A JSON-RPC error object: ``code`` and ``message`` are the node's own, ``method`` is what was called, where that is known."""

    def __init__(self, code: int, message: str, method: str | None = None) -> None:
        self.code = code
        self.message = message
        self.method = method
        super().__init__(f"{method + ': ' if method else ''}{message} (code {code})")

    def __reduce__(self) -> tuple[type[RpcError], tuple[int, str, str | None]]:
        return type(self), (self.code, self.message, self.method)


class IpcError(ZmqPubError):
    """Something that went wrong between two processes.

    ``address`` is the peer's (``unix:/path``, ``fd:5`` for a socket that was inherited, ``http://host:port`` for JSON-RPC over HTTP),
    ``interface`` and ``method`` what was called (None where it was not about a call), ``cause`` a sentence.
    """

    def __init__(self, address: str, interface: str | None, method: str | None, cause: str) -> None:
        self.address = address
        self.interface = interface
        self.method = method
        self.cause = cause
        call = ".".join(part for part in (interface, method) if part)
        super().__init__(": ".join(part for part in (address, call, cause) if part))

    def __reduce__(self) -> tuple[type[IpcError], tuple[object, ...]]:
        return type(self), (self.address, self.interface, self.method, self.cause)


class IpcAddressError(IpcError, ValueError):
    """An address that makes no sense, or whose path is too long for a unix socket."""


class IpcConnectError(IpcError, ConnectionError):
    """Nobody listens there, or who listens is not to be trusted. ``errno`` is the operating system's, where it has a part in it."""


class RpcAccessError(IpcConnectError):
    """A node's HTTP server that does not let us in: ``cause`` says which credentials were tried, and never what they are.

    ``status`` is HTTP's (401: they are wrong; 403: they are not enough), 0 where they could not be read.
    """

    def __init__(self, address: str, interface: str | None, method: str | None, cause: str, status: int = 0) -> None:
        self.status = status
        super().__init__(address, interface, method, cause)

    def __reduce__(self) -> tuple[type[RpcAccessError], tuple[object, ...]]:
        return type(self), (self.address, self.interface, self.method, self.cause, self.status)


class IpcProtocolError(IpcError):
    """The peer does not speak Cap'n Proto (or, at an http address, HTTP), is no Init of Bitcoin Core's, or answered what cannot be."""


class DisconnectedError(IpcError, ConnectionError):
    """The peer went away, or this end closed the connection, while or before the call was made."""


class RemoteError(IpcError):
    """The peer answered with an exception: ``type`` is what it calls it (``std::exception``), ``message`` what it says."""

    def __init__(self, address: str, interface: str | None, method: str | None, type: str, message: str) -> None:
        self.type = type
        self.message = message
        super().__init__(address, interface, method, f"{type}: {message}" if type else message)

    def __reduce__(self) -> tuple[type[RemoteError], tuple[object, ...]]:
        return type(self), (self.address, self.interface, self.method, self.type, self.message)


class UnimplementedError(IpcError):
    """The peer lacks this method; ``since`` is the version of Bitcoin Core that has it, ``instead`` another way, where these are known."""

    def __init__(
        self,
        address: str,
        interface: str | None,
        method: str | None,
        since: str | None = None,
        peer: str | None = None,
        instead: str | None = None,
    ) -> None:
        self.since = since
        self.peer = peer
        self.instead = instead
        who = f"the peer ({peer})" if peer else "the peer"
        known = [f"Bitcoin Core has it since {since}"] if since else []
        super().__init__(address, interface, method, "; ".join([f"{who} lacks it", *known, *([instead] if instead else [])]))

    def __reduce__(self) -> tuple[type[UnimplementedError], tuple[object, ...]]:
        return type(self), (self.address, self.interface, self.method, self.since, self.peer, self.instead)


class OverloadedError(IpcError):
    """The peer refuses for now, because it has too much to do; or this end does, because too many calls are under way."""


class IpcTimeoutError(IpcError, TimeoutError):
    """No answer within the deadline. The call was interrupted where the interface has a way to."""


class DestroyedError(IpcError):
    """A call on an object that this end has destroyed. Nothing was sent: a node would crash."""


class UnsupportedError(ZmqPubError):
    """Something that this machine, or this build, does not have."""
