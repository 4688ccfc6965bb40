"""Questions to a replay endpoint, over the compiled channel: one at a time, each with an id that its answer must repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zmqpub._fast import Channel
from zmqpub.addresses import Address
from zmqpub.errors import ConnectError, DecodeError
from zmqpub.mending.steps import Failure, Reply
from zmqpub.replay.protocol import Request, pack_request, unpack_answer

if TYPE_CHECKING:
    import zmq

    from zmqpub._fast import Receiver

__all__ = ["ReplayClient"]


class ReplayClient:
    """Asks for one source. One thread at a time; close() from any.

    An answer that does not come in time is given up with its connection, so that nothing late is taken for the answer to a later
    question, and so that names are resolved anew.
    """

    def __init__(self, address: Address, source: int, topics: int, context: zmq.Context[Any], clock: Callable[[], float]) -> None:
        self._address = address
        self._channel = Channel(address.endpoint, address.ipv6, context)
        self._source = source
        self._topics = topics
        self._clock = clock
        self._last_id = 0
        self._asked: Request | None = None
        self._end = 0.0

    def ask(self, request: Request, timeout: float) -> Failure | None:
        """Send a question; its answer is to come within ``timeout`` seconds."""
        self._last_id = (self._last_id + 1) % 2**32
        self._asked = dataclasses.replace(request, request_id=self._last_id)
        self._end = self._clock() + timeout
        try:
            self._channel.send(pack_request(self._asked))
        except ConnectError as error:
            return Failure(str(error))
        except ValueError as error:  # a number that no publisher has: where a foreign endpoint gave it
            return Failure(f"cannot ask the replay endpoint {self._address.text}: {error}")
        return None

    def receive(self, timeout: float, receiver: Receiver | None) -> Reply | Failure | None:
        """The answer; None where there was none within ``timeout`` seconds, and there is still time."""
        left = self._end - self._clock()
        if left <= 0:
            self._channel.reset()
            return Failure(f"the replay endpoint {self._address.text} does not answer")
        try:
            message = self._channel.receive(min(timeout, left), receiver, self._source, self._topics)
        except ConnectError as error:
            return Failure(str(error))
        if message is None:
            return None
        header, frames, batch = message
        try:
            answer = unpack_answer(header, frames)
        except DecodeError as error:
            self._channel.reset()
            return Failure(f"the replay endpoint {self._address.text} gave no answer that makes sense: {error}")
        if answer.request_id != self._last_id:
            return None  # to an earlier question
        return Reply(answer, batch)

    def close(self) -> None:
        """Whoever waits for an answer gets ClosedError."""
        self._channel.close()
