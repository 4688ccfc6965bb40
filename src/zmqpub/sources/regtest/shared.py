"""A regtest chain that several threads look at and change: its own source, and miners who hand in blocks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time

from zmqpub._fast import Block
from zmqpub.interfaces.values import BlockCheckOptions, CheckResult
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event
from zmqpub.sources.regtest.block_checks import RefusedBlockError, check_alone, check_on, connect_to
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.coins import Resolved
from zmqpub.sources.regtest.consensus import genesis
from zmqpub.sources.regtest.state import ChainState

__all__ = ["SharedChain"]

_SIDE_BLOCKS = 64
_INVALID_BLOCKS = 1_024
_GOOD = CheckResult(True)


class SharedChain:
    """A lock around a chain, the blocks that are known beside it, and a way to wait for what happens.

    Whoever changes ``chain`` does so within `changing()`; whoever only looks, within ``condition``. ``on_event`` is called, within it,
    with every event from now on. ``now`` tells the chain's own time (RegtestChain.clock); by default that stands still between the
    changes. ``has_room`` says whether a miner may hand in a block now; until then submit() waits.
    """

    def __init__(
        self,
        chain: RegtestChain,
        on_event: Callable[[Event], None] | None = None,
        *,
        now: Callable[[], float] = lambda: 0.0,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.condition = threading.Condition(threading.RLock())
        self.chain = chain
        self.closed = False
        self._on_event = on_event
        self._now = now
        self._has_room = has_room
        first = genesis()
        self._known = {first.hash: 0, **{record.block.hash: record.height for record in chain.state.records}}
        self._side: OrderedDict[bytes, Block] = OrderedDict()  # valid as far as could be seen, on no tip
        self._invalid: OrderedDict[bytes, None] = OrderedDict()
        chain.on_event = self._tell

    @contextmanager
    def changing(self) -> Iterator[RegtestChain]:
        """The chain, to be changed, as of now; whoever waits looks again afterwards."""
        with self.condition:
            self.move_clock()
            try:
                yield self.chain
            finally:
                self.condition.notify_all()

    def move_clock(self) -> None:
        """Within ``condition``: let the chain's time be now, without a change that anybody waits for."""
        self.chain.clock = max(self.chain.clock, self._now())

    def wake(self) -> None:
        """Let all that wait look again. Never blocks, so that an event loop may call it."""
        if self.condition.acquire(blocking=False):
            self.condition.notify_all()
            self.condition.release()
        else:  # a template is being made, or a block checked: that takes a while
            threading.Thread(target=self._wake, name="zmqpub-wake", daemon=True).start()

    def _wake(self) -> None:
        with self.condition:
            self.condition.notify_all()

    def close(self) -> None:
        """End all that wait, now and later."""
        with self.condition:
            self.closed = True
            self.condition.notify_all()

    def _tell(self, event: Event) -> None:
        if isinstance(event, BlockConnected):
            self._known[event.block.hash] = event.height
            self._side.pop(event.block.hash, None)
        elif isinstance(event, BlockDisconnected):
            _remember(self._side, event.block.hash, event.block, _SIDE_BLOCKS)
        if self._on_event is not None:
            self._on_event(event)

    # What miners hand in

    def check(self, block: Block, options: BlockCheckOptions | None = None) -> CheckResult:
        """Would ``block`` be valid on the tip? Bitcoin Core's TestBlockValidity, scripts apart."""
        options = options or BlockCheckOptions()
        with self.condition:
            try:
                if block.header.prev_hash != self.chain.tip.hash:
                    raise RefusedBlockError("inconclusive-not-best-prevblk")
                check_alone(block, check_pow=options.check_pow, check_merkle_root=options.check_merkle_root)
                self._resolve(block, self.chain.state)
            except RefusedBlockError as error:
                return error.result
            return _GOOD

    def submit(self, block: Block) -> CheckResult:
        """Take a block, on the tip or, if that makes a longer branch, in the tip's stead: Bitcoin Core's SubmitBlock, scripts apart.

        A valid block that does not become the tip is kept for a while and answered with ``inconclusive``. So it is in a branch that
        leaves the active chain below the blocks that can be undone.
        """
        with self.changing():
            self.condition.wait_for(lambda: self.closed or self._has_room())
            self.move_clock()
            if self.closed:
                return CheckResult(False, "inconclusive", "the chain was closed")
            try:
                return self._accept(block)
            except RefusedBlockError as error:
                if error.final:
                    _remember(self._invalid, block.hash, None, _INVALID_BLOCKS)
                return error.result

    def _accept(self, block: Block) -> CheckResult:
        check_alone(block)
        if block.hash in self._invalid:
            raise RefusedBlockError("duplicate-invalid", f"block {block.hash.hex()} was previously marked invalid")
        if block.hash in self._known or block.hash in self._side:  # the first remembers more, the second others
            return CheckResult(False, "duplicate")
        parent = block.header.prev_hash
        if parent in self._invalid:
            raise RefusedBlockError("bad-prevblk")
        if parent == self.chain.tip.hash:
            self.chain.adopt([(block, self._resolve(block, self.chain.state))])
            return _GOOD
        return self._accept_aside(block)

    def _accept_aside(self, block: Block) -> CheckResult:
        branch = [block]
        while (before := self._side.get(branch[0].header.prev_hash)) is not None:
            branch.insert(0, before)
        fork = self._known.get(branch[0].header.prev_hash)
        if fork is None:
            raise RefusedBlockError("prev-blk-not-found", final=False)
        height = fork + len(branch)
        check_on(block, height, None, self._wall_time())
        depth = next((place for place, one in enumerate(reversed(self.chain.blocks)) if one.hash == branch[0].header.prev_hash), None)
        if height > self.chain.height and depth is not None:
            self._switch(branch, depth)
            return _GOOD
        _remember(self._side, block.hash, block, _SIDE_BLOCKS)
        return CheckResult(False, "inconclusive")

    def _switch(self, branch: list[Block], depth: int) -> None:
        """Let ``branch`` take the place of ``depth`` blocks, if all of it is valid."""
        state = self.chain.state.copy()
        for _ in range(depth):
            state.disconnect()
        entries = []
        for block in branch:
            try:
                entries.append(self._resolve(block, state))
            except RefusedBlockError:
                self._side.pop(block.hash, None)
                _remember(self._invalid, block.hash, None, _INVALID_BLOCKS)
                raise
            state.connect(block, entries[-1])
        self.chain.adopt(list(zip(branch, entries, strict=True)), depth)

    def _resolve(self, block: Block, state: ChainState) -> list[Resolved]:
        check_on(block, state.height + 1, state.median_time, self._wall_time())
        return connect_to(block, state.coins, state.height + 1, self.chain.mempool.get)

    def _wall_time(self) -> float:
        return max(time(), self.chain.next_time)


def _remember(memory: OrderedDict[bytes, Block] | OrderedDict[bytes, None], block_hash: bytes, what: Block | None, limit: int) -> None:
    memory[block_hash] = what  # type: ignore[assignment]
    if len(memory) > limit:
        memory.popitem(last=False)
