"""How blocks that were missed are had from a node, where there is no replay endpoint: by walking parents. Does no I/O.

A ``hashblock`` or ``rawblock`` names a tip. From each the parents are walked back to a block that was handed out before, and those
on the way are handed out first: they were announced by messages that got lost, or by none at all, as Bitcoin Core announces
only the last of several blocks that it connects at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from zmqpub._fast import HashBlock, RawBlock, repaired_block, repaired_block_hash
from zmqpub.mending.patience import Patience
from zmqpub.mending.positions import Place
from zmqpub.mending.steps import Call, Failure, Pause, Step, Steps, Tell
from zmqpub.repair import Repair
from zmqpub.stream_events import CounterGap, GapCause, Lost, Repaired
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import COUNTER_MODULUS, Topic

__all__ = ["BlockWalk"]

_NO_PARENT: Final = bytes(32)


class _FailedError(Exception):
    """The way back was not found; says why."""


class BlockWalk:
    """The blocks of one place, as far as one has to remember them."""

    def __init__(self, place: Place, rpc: Repair, settings: SubscriberSettings, clock: Callable[[], float]) -> None:
        self._place = place
        self._rpc = rpc
        self._settings = settings
        self._clock = clock
        self.error: str | None = None
        self.busy = 0
        self._known: dict[Topic, dict[bytes, None]] = {Topic.HASHBLOCK: {}, Topic.RAWBLOCK: {}}
        """The last blocks handed out, the oldest first."""
        self._gaps: dict[Topic, tuple[int, int]] = {}
        """Gaps that the next block of the topic will show the way across."""

    def gap(self, topic: Topic, expected: int, got: int, cause: GapCause) -> Steps:
        """Messages of a topic of blocks are missing; the next one is mended()."""
        first = self._gaps.get(topic, (expected, got))[0]
        self._gaps[topic] = (first, got)
        yield Tell(CounterGap(self._place.text, topic, expected, got, cause))

    def restart(self) -> Steps:
        """The publisher's counters began anew: what was still missing has no successor."""
        for topic, (first, until) in self._gaps.items():
            yield Tell(Lost(self._place.text, topic, first, until, "the publisher began anew before a block showed the way to them"))
        self._gaps.clear()

    def first_missing(self, topic: Topic, position: int) -> int:
        """``position``, or where a gap before it begins: what a cursor that is saved during mend() goes on from."""
        return self._gaps.get(topic, (position, position))[0]

    def mend(self, item: HashBlock | RawBlock) -> Steps:
        """Hand out what comes before ``item``, the next block."""
        topic, block_hash = item.topic, item.hash
        gap = self._gaps.pop(topic, None)
        known = self._known[topic]
        if known or gap is not None:
            self.busy += 1
            try:
                yield from self._walk(item, gap)
            finally:
                self.busy -= 1
        self._remember(topic, block_hash)

    def _walk(self, item: HashBlock | RawBlock, gap: tuple[int, int] | None) -> Steps:
        began = self._clock()
        missed = 0 if gap is None else (gap[1] - gap[0]) % COUNTER_MODULUS
        # Without a gap there may well be nothing to find: not worth to make the stream wait for a node that is away.
        patience = Patience(self._clock, self._settings.repair_timeout, 0 if gap is None else self._settings.repair_retries)
        try:
            way = yield from self._way_back(item, missed, patience)
            bodies = yield from self._bodies(item.topic, way, patience)
        except _FailedError as failure:
            self.error = str(failure)
            if gap is not None:
                yield Tell(Lost(self._place.text, item.topic, *gap, str(failure)))
            return
        self.error = None
        for place, body in enumerate(bodies):
            # The last of them take the counters that were missed.
            counter = (item.counter - min(len(bodies) - place, missed)) % COUNTER_MODULUS
            make = repaired_block_hash if isinstance(body, bytes) else repaired_block
            yield Tell(make(self._place.text, body, counter))
        if bodies:
            yield Tell(Repaired(self._place.text, len(bodies), "rpc", self._clock() - began))
        if gap is not None and len(bodies) < missed:
            until = (gap[1] - len(bodies)) % COUNTER_MODULUS
            yield Tell(Lost(self._place.text, item.topic, gap[0], until, "not on the way to the next block: of a branch that was left"))

    def _way_back(self, item: HashBlock | RawBlock, missed: int, patience: Patience) -> Generator[Step, Any, list[bytes]]:
        """The hashes between the last block known and ``item``, the oldest first."""
        known = self._known[item.topic]
        way: list[bytes] = []
        parent = yield from self._parent(item, patience)
        while parent not in known and parent != _NO_PARENT and (known or len(way) < missed):
            if len(way) >= self._settings.repair_blocks:
                raise _FailedError(f"no block known among the {len(way)} before {item.hash.hex()}")
            way.append(parent)
            parent = yield from self._asked(self._header_of(parent), patience)
        return way[::-1]

    def _parent(self, item: HashBlock | RawBlock, patience: Patience) -> Generator[Step, Any, bytes]:
        if isinstance(item, RawBlock):
            return item.block.header.prev_hash
        parent: bytes = yield from self._asked(self._header_of(item.hash), patience)
        return parent

    def _header_of(self, block_hash: bytes) -> Callable[[], bytes]:
        return lambda: self._rpc.get_block_header(block_hash)[1]

    def _bodies(self, topic: Topic, way: list[bytes], patience: Patience) -> Generator[Step, Any, list[Any]]:
        if topic is Topic.HASHBLOCK:
            return list(way)
        bodies = []
        for block_hash in way:
            block = yield from self._asked(lambda wanted=block_hash: self._rpc.get_block(wanted), patience)  # type: ignore[misc]
            if block.hash != block_hash:
                raise _FailedError(f"the node was asked for block {block_hash.hex()} and gave {block.hash.hex()}")
            bodies.append(block)
        return bodies

    def _asked(self, question: Callable[[], Any], patience: Patience) -> Generator[Step, Any, Any]:
        while True:
            answer = yield Call(question)
            if not isinstance(answer, Failure):
                patience.renew()
                return answer
            self.error = answer.reason
            again = patience.pause()
            if again is None:
                raise _FailedError(answer.reason)
            yield Pause(again)

    def _remember(self, topic: Topic, block_hash: bytes) -> None:
        known = self._known[topic]
        known.pop(block_hash, None)
        known[block_hash] = None
        while len(known) > 2 * self._settings.repair_blocks:
            del known[next(iter(known))]
