"""The bytes of a connection, between a socket and pycapnp.

Over an asyncio transport pycapnp has the socket polled anew for each message, writes it piece by piece, each a system call, and crashes
where a peer's end comes before the first read. This transport polls all the time, hands messages over to the system whole, and several
at once where they are written at once. It is also where messages can be seen: a server's answers that carry an exception are
rewritten here (`zmqpub.ipc.errors_out`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

__all__ = ["SocketTransport", "open_stream"]

_HIGH_WATER: Final = 1 << 18
"""Unsent bytes from which on pycapnp is asked to wait."""
_JOIN_LIMIT: Final = 1 << 16
"""Pieces of messages up to this many bytes are copied together; larger ones go to the system as they are."""
_REWRITE_LIMIT: Final = 1 << 15
"""Bytes of the largest message that is given to `SocketTransport.rewrite`: what carries an exception is smaller."""
_LINGER: Final = 10.0
"""Seconds that the peer has to take what was written before close()."""
_PEER_GONE: Final = "Peer disconnected."
_SOCKET_BUFFER: Final = 1 << 20

Rewrite = Callable[[bytes], bytes]


class SocketTransport(asyncio.Transport):
    """Carries pycapnp's stream protocol over a connected socket, which it owns from here on. For the loop's thread only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        on_lost: Callable[[], None] | None = None,
        stop_reading_when_full: bool = False,
    ) -> None:
        """``stop_reading_when_full``: a peer that does not take its answers is not read from, either. For one end of a connection
        only: two that wait like this for each other would wait forever."""
        super().__init__({"socket": sock})
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self._protocol: Any = None
        self._on_lost = on_lost
        self._stop_reading_when_full = stop_reading_when_full
        self.rewrite: Rewrite | None = None
        """Given each whole message that goes out, but for large ones, while set; returns what is sent instead."""
        self.bytes_in = 0
        self.bytes_out = 0
        # Reading
        self._wanted = False
        self._polled = False
        self._idle_size = 0
        # Writing: the pieces of a message that is not complete, and what the system has not taken yet
        self._pieces: list[bytes] = []
        self._missing = 0
        self._unsent: list[bytes | memoryview] = []
        self._unsent_bytes = 0
        self._writer_polled = False
        self._sent_this_turn = False
        self._full = False
        self._lingering: asyncio.TimerHandle | None = None
        self._closing = False
        self._gone = False

    def start(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.connection_made(self)
        self._poll()

    # ---- reading ----

    def pause_reading(self) -> None:
        self._wanted = False

    def resume_reading(self) -> None:
        self._wanted = True
        if not self._polled:
            self._poll()
        if not self._idle_size:
            self._idle_size = len(self._protocol.get_buffer(-1))

    def is_reading(self) -> bool:
        return self._wanted

    @property
    def within_message(self) -> bool:
        """Whether a message has begun to arrive and is not complete: between messages pycapnp asks for as much as it did at first."""
        return self._wanted and len(self._protocol.get_buffer(-1)) != self._idle_size

    def _poll(self) -> None:
        if not self._polled and not self._closing and not (self._full and self._stop_reading_when_full):
            self._polled = True
            self._loop.add_reader(self._fd, self._readable)

    def _unpoll(self) -> None:
        if self._polled:
            self._polled = False
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        if not self._wanted:
            self._unpoll()  # until pycapnp asks for it
            return
        try:
            count = self._socket.recv_into(self._protocol.get_buffer(-1))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error.strerror or _PEER_GONE)
            return
        if count == 0:
            # Never eof_received(): a read after it would crash pycapnp.
            self._lose(_PEER_GONE)
            return
        self.bytes_in += count
        self._protocol.buffer_updated(count)

    # ---- writing ----

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        if not self._missing:
            # The first piece of a message is its table: how many segments, and how many words each.
            count = int.from_bytes(data[:4], "little") + 1
            words = sum(int.from_bytes(data[4 * index : 4 * index + 4], "little") for index in range(1, count + 1))
            self._missing = (count // 2 + 1 + words) * 8
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        self._missing = 0
        pieces, self._pieces = self._pieces, []
        if self.rewrite is not None and sum(map(len, pieces)) <= _REWRITE_LIMIT:
            pieces = [self.rewrite(b"".join(pieces))]
        self._send(pieces)

    def _send(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        self.bytes_out += size
        if self._unsent or self._sent_this_turn:
            # One message goes out at once; those that follow in the same turn of the loop go out together at its end.
            self._unsent.extend(pieces)
            self._unsent_bytes += size
        else:
            data: list[bytes | memoryview] = [b"".join(pieces)] if size <= _JOIN_LIMIT and len(pieces) > 1 else [*pieces]
            self._unsent = data
            self._unsent_bytes = size
            self._sent_this_turn = True
            self._loop.call_soon(self._turn_ended)
            self._flush()
        if self._unsent_bytes > _HIGH_WATER and not self._full:
            self._full = True
            self._protocol.pause_writing()
            if self._stop_reading_when_full:
                self._unpoll()

    def _turn_ended(self) -> None:
        self._sent_this_turn = False
        if self._unsent and not self._writer_polled:
            self._writable()  # which also lets pycapnp go on, if it was asked to wait

    def _flush(self) -> None:
        while self._unsent and not self._gone:
            unsent = self._unsent
            if len(unsent) > 1 and self._unsent_bytes <= _JOIN_LIMIT:
                unsent = self._unsent = [b"".join(unsent)]
            try:
                sent = self._socket.send(unsent[0]) if len(unsent) == 1 else self._socket.sendmsg(unsent[:64])
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # Not at once: pycapnp may be in the middle of its write.
                self._unsent, self._unsent_bytes = [], 0
                self._loop.call_soon(self._lose, error.strerror or _PEER_GONE)
                return
            self._unsent_bytes -= sent
            done = 0
            for piece in unsent:
                if sent < len(piece):
                    break
                sent -= len(piece)
                done += 1
            del unsent[:done]
            if sent:
                unsent[0] = memoryview(unsent[0])[sent:]
        if self._unsent:
            if not self._writer_polled and not self._gone:
                self._writer_polled = True
                self._loop.add_writer(self._fd, self._writable)
        else:
            if self._writer_polled:
                self._writer_polled = False
                self._loop.remove_writer(self._fd)
            if self._closing:
                self._finish(None)

    def _writable(self) -> None:
        self._flush()
        if self._full and self._unsent_bytes <= _HIGH_WATER // 2 and not self._gone:
            self._full = False
            self._poll()
            self._protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    # ---- the end ----

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Nothing more is read; what was written is still sent."""
        if self._closing:
            return
        self._closing = True
        self._wanted = False
        self._unpoll()
        if not self._unsent:
            self._finish(None)
        else:
            self._lingering = self._loop.call_later(_LINGER, self.abort)
            if not self._writer_polled:
                self._flush()

    def abort(self) -> None:
        """What was not sent yet is dropped."""
        self._lose("Connection aborted.")

    def forget(self) -> None:
        """In a forked child, where the loop does not run: close its copy of the socket. Its number, if the socket was closed already, is
        another's."""
        self._socket.close()

    def _lose(self, reason: str) -> None:
        self._closing = True
        self._unsent, self._unsent_bytes = [], 0
        self._finish(reason)

    def _finish(self, reason: str | None) -> None:
        if self._gone:
            return
        self._gone = True
        self._wanted = False
        if self._lingering is not None:
            self._lingering.cancel()
        self._unpoll()
        if self._writer_polled:
            self._writer_polled = False
            self._loop.remove_writer(self._fd)
        self._socket.close()
        if not self._loop.is_closed():
            self._loop.call_soon(self._tell, reason)

    def _tell(self, reason: str | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(reason or "Stream is closing")
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()


def open_stream(transport: SocketTransport) -> Any:
    """The `capnp.AsyncIoStream` over it, for a TwoPartyClient or TwoPartyServer. A kj loop runs on this thread."""
    import capnp

    streams: list[Any] = []
    transport.start(capnp.AsyncIoStream._connect(streams.append))
    return streams[0]
