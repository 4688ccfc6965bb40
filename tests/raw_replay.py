"""A bare ROUTER socket that answers as it is told to, and the header frame of an answer."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import zmq
from raw_publisher import TOPICS, counted

RANGE_OK = b"ZPR1\x82\x00" + bytes(4)


class RawReplay:
    """Use as a context manager."""

    def __init__(self, address: str = "tcp://127.0.0.1:*", context: zmq.Context[Any] | None = None) -> None:
        self._own = context is None
        self.context = context or zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.sndhwm = 0
        self.socket.bind(address)
        self.address = self.socket.get_string(zmq.LAST_ENDPOINT)
        self.peer = b""

    def __enter__(self) -> RawReplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close(0)
        if self._own:
            self.context.term()

    def request(self, timeout: float = 10.0) -> bytes:
        """The next request; answers go to whoever sent it."""
        if not self.socket.poll(int(timeout * 1000)):
            raise AssertionError(f"no request within {timeout} s")
        self.peer, request = self.socket.recv_multipart()
        return request

    def answer(self, *frames: bytes) -> None:
        self.socket.send_multipart([self.peer, *frames])

    def answer_messages(self, *messages: tuple[int, bytes, int]) -> None:
        """Messages as (topic, body, counter)."""
        triples = ((TOPICS[topic].frame, body, counted(counter)) for topic, body, counter in messages)
        self.answer(RANGE_OK, *[frame for triple in triples for frame in triple])
