"""A regtest chain that lives by itself: transactions arrive and are replaced, blocks are found, chains reorganize."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random

from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.sources.events import Event
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.consensus import MAX_BLOCK_WEIGHT
from zmqpub.sources.regtest.template import RESERVED_WEIGHT, Template, fill
from zmqpub.sources.regtest.traffic import Traffic

__all__ = ["Run", "Simulated"]

_DEEPER = 0.25  # how many reorganizations go one block deeper than the last depth
_RECONFIRMED = 0.85  # how many disconnected transactions each block of the new branch takes back
_CONTRADICTED = 0.3  # how many reorganizations confirm a double spend of a disconnected transaction


class Simulated:
    """A source of events that needs nothing: no node, no files, no network.

    The same arguments give the same events, byte for byte, every time it is iterated; each iteration begins anew.
    Blocks are valid in every byte under Bitcoin Core's regtest consensus; transactions arrive, and blocks are found, as
    Poisson processes of virtual time (``due``), so nothing depends on the clock or on who reads how fast.

    seed                     0 or more
    blocks                   ends after the chain has moved on so many times (a block, or a reorganization that ends one
                             block higher); None: never
    block_interval           mean seconds between two blocks
    transactions_per_second  mean rate of arrivals; 0 for none
    replacement_rate         which part of the arrivals replaces a waiting transaction: that is removed ("replaced"),
                             then the new one added
    eviction_rate            which part of the arrivals pushes one out: "sizelimit" or "expiry"
    conflict_rate            which part of the blocks confirms a double spend of a waiting transaction: "conflict"
    reorg_rate               which part of the blocks comes with a reorganization: one block deep in three cases of
                             four, two blocks deep in three of four of the others, and so on
    max_reorg_depth          the deepest, in blocks; never deeper than what was published
    block_weight             the most that a block's transactions weigh, coinbase excluded
    transactions_per_block   the most that a block holds, coinbase excluded; None: as many as fit
    mempool_limit            transactions that may wait; beyond, those that pay least go ("sizelimit")
    coins                    about how many unspent outputs the chain keeps; None: enough for the rates
    start_time               the earliest time of a block, seconds since the Unix epoch; the default is 1 January 2025
    publish_bootstrap        whether the blocks that prepare the chain (it needs mature coinbases) are events too, at
                             0 s and marked as initial download; otherwise the first event finds them there

    ConfigError for arguments that make no sense, all problems at once.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        blocks: int | None = None,
        block_interval: float = 10.0,
        transactions_per_second: float = 25.0,
        replacement_rate: float = 0.03,
        eviction_rate: float = 0.005,
        conflict_rate: float = 0.05,
        reorg_rate: float = 0.05,
        max_reorg_depth: int = 3,
        block_weight: int = MAX_BLOCK_WEIGHT - RESERVED_WEIGHT,
        transactions_per_block: int | None = None,
        mempool_limit: int = 50_000,
        coins: int | None = None,
        start_time: int = 1_735_689_600,
        publish_bootstrap: bool = False,
    ) -> None:
        most_weight = MAX_BLOCK_WEIGHT - RESERVED_WEIGHT
        _check(
            ("seed", seed, seed >= 0, "expected 0 or more"),
            ("blocks", blocks, blocks is None or blocks >= 0, "expected 0 or more, or None"),
            ("block_interval", block_interval, 0 < block_interval < math.inf, "expected more than 0 seconds"),
            (
                "transactions_per_second",
                transactions_per_second,
                0 <= transactions_per_second < math.inf,
                "expected 0 or more",
            ),
            ("replacement_rate", replacement_rate, 0 <= replacement_rate <= 1, "expected 0 to 1"),
            ("eviction_rate", eviction_rate, 0 <= eviction_rate <= 1, "expected 0 to 1"),
            ("conflict_rate", conflict_rate, 0 <= conflict_rate <= 1, "expected 0 to 1"),
            ("reorg_rate", reorg_rate, 0 <= reorg_rate <= 1, "expected 0 to 1"),
            ("max_reorg_depth", max_reorg_depth, 1 <= max_reorg_depth <= 100, "expected 1 to 100"),
            ("block_weight", block_weight, 0 <= block_weight <= most_weight, f"expected 0 to {most_weight}"),
            (
                "transactions_per_block",
                transactions_per_block,
                transactions_per_block is None or transactions_per_block >= 0,
                "expected 0 or more, or None",
            ),
            ("mempool_limit", mempool_limit, mempool_limit >= 1, "expected 1 or more"),
            ("coins", coins, coins is None or 100 <= coins <= 1_000_000, "expected 100 to 1000000, or None"),
            ("start_time", start_time, 0 <= start_time < 2**32, "expected 0 to 4294967295"),
        )
        if coins is None:
            coins = min(max(int(8 * block_interval * transactions_per_second), 4_000), 80_000)
        self.seed = seed
        self.blocks = math.inf if blocks is None else blocks
        """After so many the source ends."""
        self._block_interval = block_interval
        self._transactions_per_second = transactions_per_second
        self._replacement_rate = replacement_rate
        self._eviction_rate = eviction_rate
        self._conflict_rate = conflict_rate
        self._reorg_rate = reorg_rate
        self._max_reorg_depth = max_reorg_depth
        self._block_weight = block_weight
        self._transactions_per_block = transactions_per_block
        self._mempool_limit = mempool_limit
        self._coins = coins
        self._start_time = start_time
        self._publish_bootstrap = publish_bootstrap
        self._closed = False

    def close(self) -> None:
        """End every iteration at its next event."""
        self._closed = True

    def describe(self) -> str:
        return (
            f"a simulated regtest chain (seed {self.seed}, a block every {self._block_interval:g} s, "
            f"{self._transactions_per_second:g} transactions/s)"
        )

    def __iter__(self) -> Iterator[Event]:
        if self._closed:
            return
        events: list[Event] = []
        run = self.begin(events.append)
        if not self._publish_bootstrap:
            events.clear()
        moves = 0
        while True:
            for event in events:
                if self._closed:
                    return
                yield event
            events.clear()
            if self._closed or moves >= self.blocks:
                return
            moves += run.step()

    def begin(self, on_event: Callable[[Event], None], *, undo_depth: int = 0) -> Run:
        """A chain with coins to spend, and what is to happen to it; ``on_event`` hears of everything, the preparation included.

        ``undo_depth``: how many blocks can be taken back, if that is more than ``max_reorg_depth``.
        """
        random = Random(self.seed)
        chain = RegtestChain(
            on_event,
            start_time=self._start_time,
            undo_depth=max(undo_depth, self._max_reorg_depth),
            mempool_limit=self._mempool_limit,
        )
        traffic = Traffic(chain, Random(random.getrandbits(64)), coins=self._coins)
        chain.initial_download = True
        traffic.fund()
        chain.initial_download = False
        return Run(self, chain, traffic, random)


class Run:
    """One iteration's schedule."""

    def __init__(self, settings: Simulated, chain: RegtestChain, traffic: Traffic, random: Random) -> None:
        self._settings = settings
        self.chain = self._chain = chain
        self._traffic = traffic
        self._random = random
        self._first_height = chain.height
        self._next_arrival = self._after(0.0, settings._transactions_per_second)
        self._next_block = self._after(0.0, 1 / settings._block_interval)

    def _after(self, time: float, rate: float) -> float:
        """When the next of events at ``rate`` a second comes."""
        # In whole microseconds: logarithms differ in their last bit from machine to machine.
        return time + round(-math.log(1.0 - self._random.random()) / rate, 6) if rate else math.inf

    @property
    def due(self) -> float:
        """When the next thing happens."""
        return min(self._next_arrival, self._next_block)

    def step(self) -> bool:
        """Let the next thing happen; whether it was a block."""
        settings, chain = self._settings, self._chain
        chain.clock = max(chain.clock, self.due)  # who shares the chain may have moved it on
        if self._next_arrival < self._next_block:
            self._next_arrival = self._after(self._next_arrival, settings._transactions_per_second)
            self._arrival()
            return False
        self._next_block = self._after(self._next_block, 1 / settings._block_interval)
        self._traffic.pay_next_coinbase()
        depth = self._reorg_depth()
        if depth:
            self._reorganize(depth)
        else:
            self._extend()
        return True

    def _arrival(self) -> None:
        settings, random = self._settings, self._random.random
        if random() < settings._replacement_rate and self._traffic.replace() is not None:
            return
        if random() < settings._eviction_rate:
            if random() < 0.5:
                self._chain.evict()
            else:
                self._chain.expire()
        self._traffic.arrive()

    def _reorg_depth(self) -> int:
        if self._random.random() >= self._settings._reorg_rate:
            return 0
        depth = 1
        while self._random.random() < _DEEPER:
            depth += 1
        return min(depth, self._settings._max_reorg_depth, self._chain.height - self._first_height)

    def _template(self) -> Template:
        return self._chain.template(self._settings._block_weight, self._settings._transactions_per_block)

    def _extend(self) -> None:
        template = self._template()
        if self._random.random() < self._settings._conflict_rate:
            double_spend = self._traffic.contradict()
            if double_spend is not None:
                template.add(double_spend)
        fill(template, self._chain.mempool)
        self._chain.extend(template)

    def _reorganize(self, depth: int) -> None:
        random, traffic, mempool = self._random.random, self._traffic, self._chain.mempool
        with self._chain.reorganize(depth) as branch:
            double_spend = None
            if random() < _CONTRADICTED and branch.leftovers:
                # One that others depend on, if there is one: then they have to go as well.
                victim = next((entry for entry in branch.leftovers if mempool.children(entry)), branch.leftovers[0])
                if traffic.owns(victim):  # not one of a miner's
                    double_spend = traffic.respend(victim)
            for _ in range(depth + 1):
                template = self._template()
                if double_spend is not None and template.add(double_spend):
                    double_spend = None
                for entry in branch.leftovers:
                    if random() < _RECONFIRMED:
                        template.add(entry)
                fill(template, mempool)
                branch.connect(template)


def _check(*conditions: tuple[str, object, bool, str]) -> None:
    """(option, value, whether it is good, what would be): ConfigError with all that are not."""
    problems = [ConfigProblem(option, str(value), message) for option, value, good, message in conditions if not good]
    if problems:
        raise ConfigError(*problems)
