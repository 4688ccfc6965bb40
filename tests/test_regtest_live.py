"""The simulated chain in real time: things happen when they are told, and miners' blocks are told in their place."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable

import pytest
from test_regtest_mining import solution

from zmqpub import Block, Transaction
from zmqpub.interfaces import CheckResult
from zmqpub.sources.events import BlockConnected, Event, TransactionAdded
from zmqpub.sources.live import LiveSimulated
from zmqpub.sources.pace import pump
from zmqpub.sources.regtest.mining import RegtestMining
from zmqpub.sources.simulated import Simulated

PATIENCE = 60.0
NEVER = 1e9  # seconds
GOOD = CheckResult(True)


class Follower:
    """A publisher that remembers, and checks that each block follows the one before it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []
        self.chain: list[Block] = []
        self.numbers: list[int] = []

    def transaction_added_to_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None:
        self.told.append(("added", tx.txid))
        self.numbers.append(mempool_sequence)

    def transaction_removed_from_mempool(self, tx: Transaction, mempool_sequence: int, /) -> None:
        self.told.append(("removed", tx.txid))
        self.numbers.append(mempool_sequence)

    def block_connected(self, block: Block, /) -> None:
        assert not self.chain or block.header.prev_hash == self.chain[-1].hash
        self.chain.append(block)
        self.told.append(("connected", block.hash))

    def block_disconnected(self, block: Block, /) -> None:
        if self.chain:  # else it was there before
            assert self.chain.pop() == block
        self.told.append(("disconnected", block.hash))

    def updated_block_tip(self, block: Block, /, initial_download: bool = False) -> None:
        assert block == self.chain[-1]
        assert not initial_download
        self.told.append(("tip", block.hash))


class Running:
    """A live source that is pumped by a thread of its own."""

    def __init__(self, source: LiveSimulated, speed: float = 1.0) -> None:
        self.source = source
        self.follower = Follower()
        self.mining = RegtestMining(source.shared)
        self._extra_nonces = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pump, args=(speed,))
        self.count: int | None = None
        self._thread.start()

    def _pump(self, speed: float) -> None:
        self.count = pump(self.source, self.follower, speed=speed, stop=self._stop)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.end()

    def end(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def mine(self) -> bytes:
        """The hash of a block that was accepted."""
        while True:
            template = self.mining.create_new_block()
            assert template is not None
            result = template.submit_solution(*solution(template, next(self._extra_nonces).to_bytes(4, "little")))
            if result:
                return Block(template.get_block()).hash
            assert result.reason == "inconclusive"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def simulated(**settings: float | int | None) -> Simulated:
    defaults: dict[str, float | int | None] = {"block_interval": NEVER, "transactions_per_second": 0.0, "coins": 200}
    return Simulated(5, **{**defaults, **settings})  # type: ignore[arg-type]


def test_without_miners_it_tells_what_simulated_tells() -> None:
    settings = {"blocks": 20, "block_interval": 2.0, "transactions_per_second": 5.0, "reorg_rate": 0.3}
    assert list(LiveSimulated(simulated(**settings), speed=math.inf)) == list(simulated(**settings))


def test_listener_hears_of_the_chain_from_its_first_block_on() -> None:
    heard: list[Event] = []
    source = LiveSimulated(simulated(blocks=3, block_interval=1.0), speed=math.inf, on_event=heard.append)
    connected = [event for event in heard if isinstance(event, BlockConnected)]
    assert [event.height for event in connected] == list(range(source.shared.chain.height + 1))
    before = len(heard)
    assert list(source) == heard[before:]
    assert source.describe() == simulated(blocks=3, block_interval=1.0).describe()


def test_things_happen_when_they_are_told() -> None:
    """Not when the source looks ahead for the next event: the tip on the chain is the tip that was told."""
    source = LiveSimulated(simulated(block_interval=0.5, transactions_per_second=20.0), speed=10.0)
    with Running(source, 10.0) as running:
        for _ in range(5):
            tip = running.mining.get_tip()
            assert tip is not None
            changed = running.mining.wait_tip_changed(tip.hash, PATIENCE)
            assert changed is not None
            wait_for(lambda: bool(running.follower.chain) and running.follower.chain[-1].hash == source.shared.chain.tip.hash)


def test_time_passes_as_fast_as_asked() -> None:
    source = LiveSimulated(simulated(blocks=3, block_interval=20.0), speed=50.0)
    due: list[float] = []
    start = time.monotonic()
    for event in source:
        due.append(event.due)
        assert time.monotonic() - start >= event.due / 50.0 - 0.01
    assert due


def test_mined_blocks_are_published_in_order() -> None:
    source = LiveSimulated(simulated(transactions_per_second=50.0))
    with Running(source) as running:
        mined = []
        for _ in range(10):
            mined.append(running.mine())
            time.sleep(0.02)
        wait_for(lambda: ("tip", mined[-1]) in running.follower.told)
        told = running.follower.told
        assert [block_hash for kind, block_hash in told if kind == "connected"] == mined
        for block_hash in mined:
            place = told.index(("connected", block_hash))
            assert told[place + 1] == ("tip", block_hash)
        assert running.follower.numbers == sorted(set(running.follower.numbers))
        assert any(len(block) > 1 for block in running.follower.chain)


def test_miners_beside_the_simulations_own_blocks_and_reorganizations() -> None:
    settings = {"block_interval": 1.0, "transactions_per_second": 20.0, "reorg_rate": 0.5, "max_reorg_depth": 3, "conflict_rate": 0.5}
    source = LiveSimulated(simulated(**settings), speed=30.0)
    with Running(source, 30.0) as running:
        mined = set()

        def work() -> None:
            for _ in range(25):
                mined.add(running.mine())

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        wait_for(lambda: mined <= {block_hash for kind, block_hash in running.follower.told if kind == "connected"})
        wait_for(lambda: any(kind == "disconnected" for kind, _ in running.follower.told))
        assert len(mined) == 75
    assert running.count
    numbers = running.follower.numbers
    assert numbers == sorted(set(numbers))


def test_miners_may_begin_before_it_is_read() -> None:
    source = LiveSimulated(simulated())
    mining = RegtestMining(source.shared)
    template = mining.create_new_block()
    assert template is not None
    assert template.submit_solution(*solution(template)) == GOOD
    with Running(source) as running:
        wait_for(lambda: len(running.follower.chain) == 1)


def test_miner_waits_for_a_reader_that_lags() -> None:
    source = LiveSimulated(simulated())
    mining = RegtestMining(source.shared)
    done = threading.Event()
    results: list[CheckResult] = []

    def work() -> None:
        for _ in range(300):
            template = mining.create_new_block()
            if template is None:
                break
            results.append(template.submit_solution(*solution(template)))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: len(results) == 128)  # two events each
    assert not done.wait(0.3)
    assert len(results) == 128
    events = iter(source)
    first = next(events)
    assert isinstance(first, BlockConnected)
    wait_for(lambda: len(results) > 128)
    wait_for(lambda: len(results) == 256)  # the second batch fills up, too
    source.close()
    thread.join(PATIENCE)
    assert done.is_set()
    assert list(events) == []
    template = mining.create_new_block()
    assert template is None
    assert set(results) <= {GOOD, CheckResult(False, "inconclusive", "the chain was closed")}
    assert len(results) < 300


def test_close_ends_the_iteration_while_it_waits() -> None:
    source = LiveSimulated(simulated())
    with Running(source) as running:
        waiting = threading.Thread(target=lambda: running.mining.wait_tip_changed(source.shared.chain.tip.hash))
        waiting.start()
        time.sleep(0.05)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert running.count == 0


def test_ends_after_so_many_blocks_of_its_own() -> None:
    source = LiveSimulated(simulated(blocks=2, block_interval=1.0), speed=math.inf)
    events = list(source)
    assert len([event for event in events if isinstance(event, BlockConnected)]) >= 2
    assert not any(isinstance(event, TransactionAdded) for event in events)
    assert all(before.due <= after.due for before, after in itertools.pairwise(events))


def test_senseless_speed() -> None:
    with pytest.raises(ValueError, match="speed=0"):
        LiveSimulated(simulated(), speed=0)
