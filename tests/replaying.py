"""Plain clients of the replay endpoint for tests: a DEALER or a REQ socket and the codec, nothing else of zmqpub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import zmq

from zmqpub import Publisher
from zmqpub.replay.protocol import (
    Answer,
    EpochInfo,
    ErrorAnswer,
    HelloAnswer,
    HelloRequest,
    NotifierInfo,
    RangeAnswer,
    RangeRequest,
    RangeStart,
    RangeUntil,
    Request,
    SnapshotAnswer,
    SnapshotRequest,
    pack_request,
    unpack_answer,
)

Message: TypeAlias = "tuple[bytes, ...]"
_Made = TypeVar("_Made")

REPLAY: dict[str, object] = {"zmqpubreplay": "tcp://127.0.0.1:*"}


class Client:
    """Asks one thing at a time."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._id = 0

    def exchange(self, *frames: bytes) -> list[bytes]:
        """Whatever is answered to whatever frames."""
        self.send(*frames)
        return self.receive()

    def send(self, *frames: bytes) -> None:
        empty = [b""] if self.socket.type == zmq.DEALER and self.delimited else []
        self.socket.send_multipart([*empty, *frames])

    delimited = False

    def receive(self) -> list[bytes]:
        frames = self.socket.recv_multipart()
        if self.socket.type == zmq.DEALER and self.delimited:
            assert frames.pop(0) == b""
        return frames

    def ask(self, request: Request) -> tuple[Answer, list[bytes]]:
        """The answer and the frames behind its header."""
        self._id += 1
        header, *rest = self.exchange(pack_request(_with_id(request, self._id)))
        answer = unpack_answer(header, rest)
        assert answer.request_id == self._id
        return answer, rest

    def hello(self) -> tuple[EpochInfo, ...]:
        return _as(HelloAnswer, self.ask(HelloRequest())[0]).epochs

    def current(self) -> EpochInfo:
        epochs = self.hello()
        assert [epoch.current for epoch in epochs] == [False] * (len(epochs) - 1) + [True]
        return epochs[-1]

    def notifiers(self) -> dict[str, NotifierInfo]:
        """Of the current epoch, by topic: of several the last one."""
        return {notifier.topic.value: notifier for notifier in self.current().notifiers}

    def range(
        self,
        epoch: bytes,
        starts: Sequence[tuple[int, int]],
        *,
        until: tuple[int, int] | None = None,
        max_messages: int = 0,
        max_bytes: int = 0,
    ) -> tuple[RangeAnswer, list[Message]]:
        end = None if until is None else RangeUntil(*until)
        request = RangeRequest(epoch, tuple(RangeStart(*start) for start in starts), end, max_messages, max_bytes)
        answer, rest = self.ask(request)
        messages: list[Message] = list(zip(rest[0::3], rest[1::3], rest[2::3], strict=True))
        found = _as(RangeAnswer, answer)
        assert found.epoch == epoch
        assert found.messages == len(messages)
        assert [one.notifier for one in found.notifiers] == [start[0] for start in starts]
        for one, (_, asked) in zip(found.notifiers, starts, strict=True):
            assert one.first == asked + one.gone
        assert found.gone == any(one.gone for one in found.notifiers) or until is not None
        return found, messages

    def everything(self, epoch: bytes, starts: Sequence[tuple[int, int]], **limits: Any) -> list[Message]:
        """All messages from ``starts`` on, in as many requests as it takes."""
        messages: list[Message] = []
        while True:
            answer, some = self.range(epoch, starts, **limits)
            messages += some
            starts = [(one.notifier, one.next) for one in answer.notifiers]
            if not answer.more:
                return messages

    def refused(self, request: Request) -> ErrorAnswer:
        return _as(ErrorAnswer, self.ask(request)[0])

    def snapshot(self) -> SnapshotAnswer:
        return _as(SnapshotAnswer, self.ask(SnapshotRequest())[0])


def _with_id(request: Request, number: int) -> Request:
    fields = {name: getattr(request, name) for name in request.__slots__}
    return type(request)(**fields | {"request_id": number})


def _as(kind: type[_Made], answer: object) -> _Made:
    assert isinstance(answer, kind), answer
    return answer


@contextlib.contextmanager
def client(address: str | Publisher, kind: int = zmq.DEALER, context: zmq.Context[Any] | None = None) -> Iterator[Client]:
    """A client of the replay endpoint at an address, or of a publisher's."""
    if isinstance(address, Publisher):
        assert address.replay_address is not None
        address = address.replay_address
    own = context or zmq.Context()
    socket = own.socket(kind)
    socket.linger = 0
    socket.rcvtimeo = 10_000
    socket.connect(address)
    try:
        yield Client(socket)
    finally:
        socket.close()
        if context is None:
            own.term()


def counter(message: Message) -> int:
    return int.from_bytes(message[2], "little")
