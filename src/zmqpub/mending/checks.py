"""Whether a replay endpoint's answer can be true. What is not is never handed out. Does no I/O.

An endpoint is another program, perhaps another publisher than the one subscribed to, perhaps of another version: its answers
are held against the question, against themselves, and against the messages that they carry.
"""

from __future__ import annotations

from zmqpub.mending.steps import Entries, Failure, Reply
from zmqpub.replay.protocol import EpochInfo, ErrorAnswer, HelloAnswer, RangeAnswer, RangeNotifier, RangeRequest, Status
from zmqpub.wire import COUNTER_MODULUS

__all__ = ["NotHeldError", "UntrueError", "check_hello", "check_range"]


class UntrueError(Exception):
    """An answer that cannot be true, or is none; says why."""


class NotHeldError(Exception):
    """The publisher does not hold that epoch or notifier, and says so."""


def check_hello(reply: Reply | Failure) -> HelloAnswer:
    """The answer to HELLO: at least one epoch, no epoch twice, the last and only the last of them current. UntrueError."""
    if isinstance(reply, Failure):
        raise UntrueError(reply.reason)
    answer = reply.answer
    if isinstance(answer, ErrorAnswer):
        raise UntrueError(_refusal(answer))
    if not isinstance(answer, HelloAnswer):
        raise UntrueError("the replay endpoint answered another question")
    if not answer.epochs or not answer.epochs[-1].current or any(epoch.current for epoch in answer.epochs[:-1]):
        raise UntrueError("the replay endpoint does not tell which life of the publisher is the present one")
    if len({epoch.epoch for epoch in answer.epochs}) != len(answer.epochs):
        raise UntrueError("the replay endpoint lists one life of the publisher twice")
    for epoch in answer.epochs:
        _check_epoch(epoch)
    return answer


def check_range(request: RangeRequest, reply: Reply | Failure, topics: dict[int, int]) -> RangeAnswer:
    """The answer to ``request``; ``topics``: by notifier id the topic's index. The batch in ``reply`` carries what it claims.

    UntrueError, and NotHeldError where the publisher says that it does not have it.
    """
    if isinstance(reply, Failure):
        raise UntrueError(reply.reason)
    answer = reply.answer
    if isinstance(answer, ErrorAnswer):
        if answer.status in (Status.UNKNOWN_EPOCH, Status.UNKNOWN_NOTIFIER):
            raise NotHeldError(_refusal(answer))
        raise UntrueError(_refusal(answer))
    if not isinstance(answer, RangeAnswer):
        raise UntrueError("the replay endpoint answered another question")
    if answer.epoch != request.epoch:
        raise UntrueError("the replay endpoint answered for another life of the publisher")
    if [one.notifier for one in answer.notifiers] != [start.notifier for start in request.starts]:
        raise UntrueError("the replay endpoint answered for other notifiers")
    for start, one in zip(request.starts, answer.notifiers, strict=True):
        _check_numbers(start.first, one, answer.gone)
    _check_until(request, answer)
    if answer.more and answer.messages == 0:
        raise UntrueError("the replay endpoint claims to have more, and gives nothing")
    _check_messages(answer, reply.batch, topics)
    return answer


def _check_epoch(epoch: EpochInfo) -> None:
    if len({notifier.id for notifier in epoch.notifiers}) != len(epoch.notifiers):
        raise UntrueError("the replay endpoint lists one notifier twice")


def _check_numbers(asked: int, one: RangeNotifier, gone: bool) -> None:
    if one.first != asked + one.gone:
        raise UntrueError(f"the replay endpoint was asked for messages from {asked} on, and answered from {one.first} on")
    if one.gone and not gone:
        raise UntrueError("the replay endpoint left messages out without saying so")


def _check_until(request: RangeRequest, answer: RangeAnswer) -> None:
    if request.until is None:
        return
    for one in answer.notifiers:
        if one.notifier == request.until.notifier and one.next > max(request.until.number, one.first):
            raise UntrueError(f"the replay endpoint was asked for messages before {request.until.number}, and gave more")


def _check_messages(answer: RangeAnswer, batch: Entries | None, topics: dict[int, int]) -> None:
    spans = {} if batch is None else batch.spans
    if batch is not None and batch.malformed is not None:
        raise UntrueError(f"the replay endpoint gave a malformed message: {batch.malformed}")
    if answer.messages != (0 if batch is None else batch.messages):
        raise UntrueError(f"the replay endpoint announced {answer.messages} messages, and gave {0 if batch is None else batch.messages}")
    for one in answer.notifiers:
        span = spans.get(topics[one.notifier])
        expected = (one.first % COUNTER_MODULUS, one.next % COUNTER_MODULUS, True)
        if span is None and one.first == one.next:
            continue
        if span != expected:
            raise UntrueError(f"the replay endpoint announced messages {one.first} to {one.next}, and gave others")


def _refusal(answer: ErrorAnswer) -> str:
    return f"the replay endpoint refused: {answer.status.name}: {answer.text}"
