"""A ZMTP peer by hand, over plain TCP, of any version of the protocol: what it says and hears are bytes on the wire."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

MORE, LONG, COMMAND = 1, 2, 4
SUB = 2
"""The socket type as ZMTP 2.0 numbers it."""


class Frame(NamedTuple):
    flags: int
    """MORE, LONG and COMMAND; of ZMTP 1.0 only MORE."""
    body: bytes


def encode(body: bytes, flags: int = 0) -> bytes:
    """A frame of ZMTP 2.0 and later."""
    return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body if len(body) > 255 else bytes([flags, len(body)]) + body


def encode_command(name: str, data: bytes = b"") -> bytes:
    return encode(bytes([len(name)]) + name.encode() + data, COMMAND)


def greeting(version: tuple[int, int] = (3, 1), mechanism: bytes = b"NULL") -> bytes:
    """The 64 bytes with which ZMTP 3 begins."""
    return b"\xff" + bytes(8) + b"\x7f" + bytes(version) + mechanism.ljust(20, b"\0") + bytes(32)


def ready(socket_type: str = "SUB", **properties: bytes) -> bytes:
    named = {"Socket-Type": socket_type.encode(), **properties}
    pairs = (bytes([len(name)]) + name.encode() + struct.pack(">I", len(value)) + value for name, value in named.items())
    return encode_command("READY", b"".join(pairs))


class RawPeer:
    """A connection to a publisher on this machine. Use as a context manager.

    ``version``: (3, 1), (3, 0), (2, 0), (1, 0), or None to connect and say nothing. After the handshake ``greeted`` is what
    the publisher greeted with, ``metadata`` (ZMTP 3) the properties of its READY.
    """

    def __init__(self, port: int, version: tuple[int, int] | None = (3, 1), *, timeout: float = 10.0, socket_type: str = "SUB") -> None:
        self.version = version or (0, 0)
        self.socket_type = socket_type
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.greeted = b""
        self.metadata: dict[str, bytes] = {}
        try:
            if self.version[0] == 3:
                self._shake_hands()
            elif self.version[0] == 2:
                self._greet_version_2()
            elif self.version[0] == 1:
                self._greet_version_1()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """As the publisher shows it."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def close(self) -> None:
        self.socket.close()

    def abort(self) -> None:
        """Close with a reset instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def subscribe(self, prefix: bytes, *, as_message: bool = False) -> None:
        """As a SUBSCRIBE command in ZMTP 3.1, as a message before and where wanted."""
        self._subscription("SUBSCRIBE", b"\x01", prefix, as_message)

    def cancel(self, prefix: bytes, *, as_message: bool = False) -> None:
        self._subscription("CANCEL", b"\x00", prefix, as_message)

    def _subscription(self, command: str, byte: bytes, prefix: bytes, as_message: bool) -> None:
        self.send(encode_command(command, prefix) if self.version == (3, 1) and not as_message else encode(byte + prefix))

    def take(self, size: int) -> bytes:
        """So many bytes; ConnectionError at the end."""
        while len(self.buffer) < size:
            data = self.socket.recv(262_144)
            if not data:
                raise ConnectionError("the publisher closed the connection")
            self.buffer += data
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def frame(self) -> Frame:
        if self.version == (1, 0):
            size = self.take(1)[0]
            if size == 0xFF:
                (size,) = struct.unpack(">Q", self.take(8))
            return Frame(self.take(1)[0], self.take(size - 1))
        flags = self.take(1)[0]
        size = struct.unpack(">Q", self.take(8))[0] if flags & LONG else self.take(1)[0]
        return Frame(flags, self.take(size))

    def message(self) -> tuple[bytes, ...]:
        """The bodies of the next frames up to the last of a message; ValueError for a command."""
        bodies = []
        while True:
            flags, body = self.frame()
            if flags & COMMAND:
                raise ValueError(f"a command: {body!r}")
            bodies.append(body)
            if not flags & MORE:
                return tuple(bodies)

    def is_quiet(self, seconds: float) -> bool:
        """Nothing came, and the connection stands."""
        if self.buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10)
        return False

    def was_closed(self, seconds: float = 5.0) -> bool:
        """Did the publisher close the connection, whatever it sent before?"""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def _shake_hands(self) -> None:
        self.send(greeting(self.version))
        self.greeted = self.take(64)
        self.send(ready(self.socket_type))
        flags, body = self.frame()
        assert (flags & ~LONG, body[:6]) == (COMMAND, b"\x05READY")
        at = 6
        while at < len(body):
            name = body[at + 1 : at + 1 + body[at]].decode()
            at += 1 + body[at]
            (size,) = struct.unpack_from(">I", body, at)
            self.metadata[name] = body[at + 4 : at + 4 + size]
            at += 4 + size

    def _greet_version_2(self) -> None:
        """Signature, revision, socket type, identity."""
        self.send(b"\xff" + bytes(8) + b"\x7f" + b"\x01" + bytes([SUB]) + encode(b""))
        self.greeted = self.take(12)
        assert self.frame() == (0, b"")

    def _greet_version_1(self) -> None:
        """An identity; the publisher's is disguised as the signature of later versions."""
        self.send(b"\x01\x00")
        self.greeted = self.take(10)
