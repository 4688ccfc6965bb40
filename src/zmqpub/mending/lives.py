"""The lives (epochs) of a publisher, as its replay endpoint tells of them."""

from __future__ import annotations

from typing import TypeAlias

from zmqpub.mending.positions import Numbers
from zmqpub.replay.protocol import EpochInfo, HelloAnswer, NotifierInfo

__all__ = ["Table", "ids_of", "later_lives", "nexts_of"]

Table: TypeAlias = "dict[int, NotifierInfo]"
"""By topic index, the notifiers of one address in one life."""


def nexts_of(table: Table) -> Numbers:
    """By topic index, the number of the next message to be made."""
    return {topic: info.next for topic, info in table.items()}


def ids_of(table: Table) -> Numbers:
    """By topic index, the notifier's id."""
    return {topic: info.id for topic, info in table.items()}


def later_lives(hello: HelloAnswer, epoch: bytes | None, started_ms: int) -> list[EpochInfo]:
    """Those that came after ``epoch``, the oldest first, the present one last.

    Where ``epoch`` is not held any more, the publisher's clock tells which came later; where it is not known when ``epoch`` began
    (0), only the present one counts.
    """
    names = [life.epoch for life in hello.epochs]
    if epoch in names:
        return list(hello.epochs[names.index(epoch) + 1 :])
    return [*(life for life in hello.epochs[:-1] if started_ms and life.started_ms > started_ms), hello.epochs[-1]]
