"""The source in front of a node, the node played by a simulated chain that tells what really happened."""

from __future__ import annotations

import importlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace

import pytest
from node_twin import TwinNode

from zmqpub import Transaction
from zmqpub.errors import (
    ConfigError,
    DisconnectedError,
    IpcConnectError,
    IpcProtocolError,
    RemoteError,
    RpcError,
    SourceError,
    UnimplementedError,
)
from zmqpub.node import NodeView
from zmqpub.replay.snapshot import Snapshot
from zmqpub.sources.bitcoin_node import BitcoinNode
from zmqpub.sources.events import BlockConnected, BlockDisconnected, Event, Source, TransactionAdded, TransactionRemoved, UpdatedBlockTip
from zmqpub.sources.view import ChainView
from zmqpub.testing import RegtestChain

PATIENCE = 30.0

Told = tuple[object, ...]


def plain(event: Event) -> Told:
    """What subscribers hear of an event."""
    if isinstance(event, TransactionAdded | TransactionRemoved):
        label = "A" if isinstance(event, TransactionAdded) else "R"
        return label, event.transaction.txid.hex(), event.mempool_sequence, bytes(event.transaction)
    if isinstance(event, UpdatedBlockTip):
        return "tip", event.block.hash.hex(), event.height, event.initial_download, bytes(event.block)
    return "C" if isinstance(event, BlockConnected) else "D", event.block.hash.hex(), event.height, bytes(event.block)


def in_one_order(told: list[Told]) -> list[Told]:
    """Removals that follow each other in order of txid: Bitcoin Core promises none for conflicts."""
    result: list[Told] = []
    for removal, run in itertools.groupby(told, key=lambda one: one[0] == "R"):
        group = list(run)
        if removal:
            ordered = sorted(group, key=lambda one: str(one[1]))
            group = [(*one[:2], other[2], *one[3:]) for one, other in zip(ordered, group, strict=True)]
        result += group
    return result


class Hearing:
    """What a source told so far, in a thread of its own."""

    def __init__(self, source: BitcoinNode, on_baseline: Callable[[Snapshot], None] | None = None) -> None:
        self.source = source
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.baseline: list[Snapshot] = []
        source.on_baseline = on_baseline or self.baseline.append
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self.source:
                self.events.append(event)
        except BaseException as error:
            self.error = error

    def wait(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.error is not None:
                raise self.error
            assert time.monotonic() < end, (self.source.counts, [plain(event)[:3] for event in self.events])
            time.sleep(0.002)

    def wait_for_question(self, method: str, node: TwinNode) -> None:
        asked = node.asked.count(method)
        self.wait(lambda: node.asked.count(method) > asked)

    def wait_until_told(self, count: int) -> None:
        self.wait(lambda: len(self.events) >= count)

    def end(self) -> None:
        self.source.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class World:
    """A node, a source before it, and what each of them told."""

    def __init__(self, node: TwinNode, hearing: Hearing) -> None:
        self.node = node
        self.chain = node.chain
        self.hearing = hearing

    @property
    def told(self) -> list[Told]:
        return [plain(event) for event in self.hearing.events]

    @property
    def counts(self) -> object:
        return self.hearing.source.counts

    def agree(self) -> None:
        """The source tells all that happened, and nothing else."""
        happened = [plain(event) for event in self.chain.events]
        self.hearing.wait(lambda: len(self.hearing.events) >= len(happened))
        self.settle()
        assert [one[:3] for one in in_one_order(self.told)] == [one[:3] for one in in_one_order(happened)]
        assert in_one_order(self.told) == in_one_order(happened)
        assert self.hearing.source.counts.complete

    def settle(self) -> None:
        """The source has seen everything that is so now."""
        for _ in range(3):
            self.hearing.wait_for_question("getmempoolinfo", self.node)


@contextmanager
def world(chain: RegtestChain | None = None, *, downloading: bool = False, **settings: object) -> Iterator[World]:
    node = TwinNode(chain or RegtestChain())
    node.downloading = downloading
    settings.setdefault("poll", 0.002)
    hearing = Hearing(BitcoinNode(node, **settings))  # type: ignore[arg-type]
    try:
        hearing.wait(lambda: hearing.baseline)
        yield World(node, hearing)
    finally:
        hearing.end()
    assert hearing.error is None


def test_is_a_source() -> None:
    source = BitcoinNode(TwinNode(RegtestChain()))
    assert isinstance(source, Source)
    source.close()
    assert list(source) == []


def test_blocks_and_transactions() -> None:
    with world() as it:
        for _ in range(5):
            for _ in range(3):
                it.chain.add_transaction()
                it.agree()
            it.chain.mine()
            it.agree()
        counts = it.hearing.source.counts
        assert (counts.blocks, counts.added, counts.connected, counts.connections) == (5, 15, True, 1)


def test_begins_with_what_is_there_and_tells_nothing_of_it() -> None:
    chain = RegtestChain()
    chain.mine(3, txs=2)
    waiting = chain.add_transactions(7)
    chain.events.clear()
    with world(chain) as it:
        (baseline,) = it.hearing.baseline
        assert (baseline.tip, baseline.height, baseline.mempool_sequence) == (chain.tip.hash, chain.height, chain.mempool_sequence)
        assert set(baseline.txids or ()) == {transaction.txid for transaction in waiting}
        it.settle()
        assert it.told == []
        chain.mine()
        it.agree()


def test_several_blocks_between_two_looks_are_told_one_by_one() -> None:
    with world() as it:
        with it.chain._lock:
            it.chain.mine(20)
        it.agree()


def test_more_blocks_than_are_looked_for_at_once() -> None:
    with world() as it:
        with it.chain._lock:
            it.chain.mine(620)
        it.agree()


@pytest.mark.parametrize("blocks", [1, 3])
def test_what_arrived_and_was_confirmed_between_two_looks_is_told(blocks: int) -> None:
    """The numbers say that all of it came to the mempool first."""
    with world() as it:
        victim = it.chain.add_transaction()
        it.agree()
        with it.chain._lock:
            it.chain.mine(blocks, txs=2)
        happened = [plain(event) for event in it.chain.events]
        it.hearing.wait_until_told(len(happened))
        assert sorted(map(str, it.told)) == sorted(map(str, happened)) or blocks > 1
        assert [one[0] for one in it.told] == ["A", *["A", "A", "C", "tip"] * blocks]
        assert it.hearing.source.counts.complete
        assert victim.txid.hex() == it.told[0][1]


def test_what_replaced_another_and_was_confirmed_between_two_looks() -> None:
    with world() as it:
        victim = it.chain.add_transaction()
        it.agree()
        with it.chain._lock:
            it.chain.replace(victim.txid)
            it.chain.mine()
        it.agree()
        assert [one[0] for one in it.told] == ["A", "R", "A", "C", "tip"]


def test_what_may_not_have_arrived_at_all_is_not_told() -> None:
    """One of two transactions of a block came to the mempool: nothing says which."""
    with world() as it:
        first = it.chain.add_transaction()
        second = it.chain.double_spend(first.txid)
        it.chain.evict(first.txid)
        third = it.chain.add_transaction()
        it.settle()
        it.chain.evict(third.txid)
        it.settle()
        told = len(it.told)
        untold = it.hearing.source.counts.untold_numbers
        with it.chain._lock:
            it.chain.add_transaction(third)
            it.chain.mine(txs=[third, second])
        it.hearing.wait_until_told(told + 2)
        it.settle()
        it.settle()
        assert [one[0] for one in it.told[told:]] == ["C", "tip"]
        assert it.hearing.source.counts.untold_numbers == untold + 2


def test_replacement_and_conflict() -> None:
    with world() as it:
        for _ in range(4):
            victim = it.chain.add_transaction()
            it.agree()
            it.chain.replace(victim.txid)
            it.agree()
        victim = it.chain.add_transaction()
        it.agree()
        it.chain.mine(txs=[it.chain.double_spend(victim.txid)])
        it.agree()
        labels = [one[0] for one in it.told]
        assert labels[-3:] == ["R", "C", "tip"]
        assert labels.count("R") == 5


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_reorganization(depth: int) -> None:
    with world() as it:
        for _ in range(depth):
            it.chain.add_transactions(3)
            it.agree()
            it.chain.mine()
            it.agree()
        it.chain.reorg(depth)
        it.agree()
        labels = [one[0] for one in it.told][-(2 * depth + 2 + 3 * depth) :]
        assert labels == ["D"] * depth + ["A"] * 3 * depth + ["C"] * (depth + 1) + ["tip"]
        assert it.hearing.source.counts.reorganizations == 1


def test_reorganization_with_conflict() -> None:
    with world() as it:
        first = it.chain.add_transaction()
        it.chain.add_transaction()
        it.agree()
        double_spend = it.chain.double_spend(first.txid)
        it.chain.mine()
        it.agree()
        it.chain.reorg(1, [[double_spend]])
        it.agree()


@pytest.mark.parametrize("depth", [1, 3])
def test_blocks_taken_off_without_replacement(depth: int) -> None:
    chain = RegtestChain()
    chain.mine(100)  # or what spends a coinbase that has just matured would return, and leave again with the next block
    chain.events.clear()
    with world(chain) as it:
        for _ in range(depth):
            it.chain.add_transactions(2)
            it.agree()
            it.chain.mine()
            it.agree()
        with it.chain._lock:
            it.chain.disconnect(depth)
        it.agree()
        assert [one[0] for one in it.told][-3 * depth :] == ["D", "A", "A"] * depth


def test_invalidated_and_replaced_by_a_branch_with_the_same_transactions() -> None:
    """What returned and was confirmed again before anybody looked is told, because the numbers say that it happened."""
    with world() as it:
        it.chain.add_transactions(3)
        it.agree()
        it.chain.mine()
        it.agree()
        with it.chain._lock:
            it.node._invalid.add(it.chain.tip.hash)
            it.chain.disconnect(1)
            it.chain.mine()
        it.agree()
        assert [one[0] for one in it.told][-6:] == ["D", "A", "A", "A", "C", "tip"]


def test_deep_disconnection_is_told_block_by_block() -> None:
    chain = RegtestChain()
    with world(chain) as it:
        with chain._lock:
            chain.mine(150)
        it.agree()
        with chain._lock:
            chain.disconnect(140)
            chain.mine(141)
        it.hearing.wait(lambda: it.hearing.events[-1] == chain.events[-1])
        assert [one[0] for one in it.told][300:] == ["D"] * 140 + ["C", "tip"] * 141
        assert it.told == [plain(event) for event in chain.events]


def test_random_histories_step_by_step() -> None:
    """Whatever happens, one thing after the other: all of it is told as it happened."""
    for seed in range(4):
        random = Random(seed)
        with world(RegtestChain(seed=seed)) as it:
            for _ in range(25):
                something(it.chain, random)
                it.agree()


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_at_full_speed(seed: int) -> None:
    """Many things between two looks: what is told is a history that leads from what was to what is, and what it lacks is counted."""
    random = Random(seed)
    chain = RegtestChain(seed=seed)
    chain.add_transactions(5)
    with world(chain, poll=0.01) as it:
        (baseline,) = it.hearing.baseline
        for _ in range(120):
            something(chain, random)
            if random.random() < 0.1:
                time.sleep(0.01)
        it.settle()
        it.settle()
        audit(baseline, it.hearing.events, chain, it.hearing.source)


def something(chain: RegtestChain, random: Random) -> None:
    with chain._lock:
        kind = random.random()
        waiting = chain.mempool
        if kind < 0.5 or not waiting:
            chain.add_transaction()
        elif kind < 0.6:
            try:
                chain.replace()
            except ValueError:
                chain.add_transaction()
        elif kind < 0.65:
            chain.evict()
        elif kind < 0.7:
            chain.expire()
        elif kind < 0.75:
            parents = {given.prev_txid for transaction in waiting for given in transaction.inputs}
            free = [transaction for transaction in waiting if transaction.txid not in parents and not _has_parent(transaction, waiting)]
            chain.mine(txs=[chain.double_spend(random.choice(free).txid)]) if free else chain.mine()
        elif kind < 0.88 or chain.mined < 3:
            chain.mine()
        elif kind < 0.95:
            chain.reorg(random.choice([1, 1, 2]))
        else:
            chain.disconnect(1)


def _has_parent(transaction: Transaction, waiting: list[Transaction]) -> bool:
    names = {other.txid for other in waiting}
    return any(given.prev_txid in names for given in transaction.inputs)


def audit(baseline: Snapshot, events: list[Event], chain: RegtestChain, source: BitcoinNode) -> None:
    """Play the events on what there was, by Bitcoin Core's rules for numbers."""
    tip, sequence = baseline.tip, baseline.mempool_sequence
    assert sequence is not None
    waiting = set(baseline.txids or ())
    confirmed: set[bytes] = set()
    untold = 0
    for event in events:
        if isinstance(event, BlockConnected):
            assert event.block.header.prev_hash == tip
            tip = event.block.hash
            sequence += len(waiting.intersection(event.block.txids))
            waiting.difference_update(event.block.txids)
            confirmed.update(event.block.txids)
        elif isinstance(event, BlockDisconnected):
            assert event.block.hash == tip
            tip = event.block.header.prev_hash
        elif isinstance(event, TransactionAdded | TransactionRemoved):
            number = event.mempool_sequence
            txid = event.transaction.txid
            if isinstance(event, TransactionAdded):
                assert txid not in waiting
                waiting.add(txid)
            else:
                waiting.remove(txid)
            # Inclusions of blocks that are told after the removals and arrivals that they cause have numbers before them.
            untold += number - sequence
            sequence = number + 1
        else:
            assert event.block.hash == tip
    assert tip == chain.tip.hash
    assert waiting == {transaction.txid for transaction in chain.mempool}
    untold += chain.mempool_sequence - sequence
    assert untold == source.counts.untold_numbers
    assert source.counts.renumbered == 0
    numbers = [event.mempool_sequence for event in events if isinstance(event, TransactionAdded | TransactionRemoved)]
    assert numbers == sorted(set(numbers))


def test_what_came_and_left_between_two_looks_is_counted() -> None:
    with world() as it:
        with it.chain._lock:
            it.chain.add_transaction()
            it.chain.evict()
            stays = it.chain.add_transaction()
        it.hearing.wait(lambda: it.hearing.events)
        it.settle()
        assert [one[:2] for one in it.told] == [("A", stays.txid.hex())]
        assert it.hearing.source.counts.untold_numbers == 2
        it.chain.add_transaction()
        it.hearing.wait(lambda: len(it.hearing.events) == 2)
        assert it.told[1][2] == it.chain.mempool_sequence - 1


def test_what_left_before_its_body_was_had_is_counted() -> None:
    with world() as it:
        it.node.before["get_transactions_by_txid"] = it.chain.evict
        it.chain.add_transaction()
        it.hearing.wait(lambda: it.hearing.source.counts.unseen_bodies)
        it.settle()
        assert it.told == []
        assert it.hearing.source.counts.untold_numbers == 2
        assert not it.hearing.source.counts.complete


def test_chain_that_changes_while_it_is_asked_about() -> None:
    with world() as it:
        for method in ("getblock", "getrawmempool", "getbestblockhash", "getblockheader", "getblockhash"):
            it.node.before[method] = it.chain.reorg
            with it.chain._lock:
                it.chain.mine(2)
                it.chain.add_transaction()
            it.hearing.wait(lambda: not it.node.before)
            it.settle()
            told = [event for event in it.hearing.events if isinstance(event, BlockConnected | BlockDisconnected)]
            last = told[-1]
            assert (last.block.hash if isinstance(last, BlockConnected) else last.block.header.prev_hash) == it.chain.tip.hash


def test_initial_download_is_marked() -> None:
    chain = RegtestChain()
    with world(chain, downloading=True) as it:
        chain.mine()
        it.hearing.wait(lambda: len(it.hearing.events) == 2)
        it.node.downloading = False
        with chain._lock:
            chain.mine(3)
        it.hearing.wait(lambda: len(it.hearing.events) == 8)
        marks = [event.initial_download for event in it.hearing.events if isinstance(event, UpdatedBlockTip)]
        # The chain's blocks are of January 2025: only the last of those found together can have ended the download.
        assert marks == [True, True, True, False]
        it.node.downloading = True
        chain.mine()
        it.hearing.wait(lambda: len(it.hearing.events) == 10)
        assert plain(it.hearing.events[-1])[3] is False


def test_without_mempool() -> None:
    with world(mempool=False) as it:
        assert it.hearing.baseline == [Snapshot(it.chain.tip.hash, it.chain.height)]
        it.chain.add_transactions(2)
        it.chain.mine()
        it.hearing.wait(lambda: len(it.hearing.events) == 2)
        assert [one[0] for one in it.told] == ["C", "tip"]
        assert "getmempoolinfo" not in it.node.asked


def test_goes_on_after_a_block() -> None:
    chain = RegtestChain()
    chain.mine(4)
    old = chain.tip.hash
    chain.events.clear()
    chain.reorg(1)
    for after in (old, old.hex()):
        node = TwinNode(chain)
        hearing = Hearing(BitcoinNode(node, after=after, poll=0.002))
        hearing.wait_until_told(len(chain.events))
        hearing.end()
        assert [plain(event) for event in hearing.events] == [plain(event) for event in chain.events]
    hearing = Hearing(BitcoinNode(TwinNode(chain), after=bytes(32)))
    with pytest.raises(SourceError, match="does not know block 0000"):
        hearing.wait(lambda: False)


@pytest.mark.parametrize("in_batches", [False, True])
def test_peers_that_lack_methods(in_batches: bool) -> None:
    chain = RegtestChain()
    node = TwinNode(chain)
    node.hidden = {"getmempoolinfo", "getchaintips"}

    def lacks(txids: object) -> list[bytes | None]:
        raise UnimplementedError(node.address, "Mining", "getTransactionsByTxID", "v32")

    def answer(method: str, *params: object) -> object:
        try:
            return node.execute(method, *params)
        except RpcError as error:
            return error

    batches: list[int] = []

    def batch(calls: Sequence[tuple[str, ...]]) -> list[object]:
        batches.append(len(calls))
        return [answer(*call) for call in calls]

    node.get_transactions_by_txid = lacks  # type: ignore[method-assign]
    if in_batches:
        node.batch = batch  # type: ignore[attr-defined]
    chain.add_transactions(3)
    hearing = Hearing(BitcoinNode(node, poll=0.002))
    try:
        hearing.wait(lambda: hearing.baseline)
        told = len(chain.events)
        chain.add_transaction()
        hearing.wait(lambda: len(hearing.events) == 1)
        chain.mine()
        hearing.wait(lambda: len(hearing.events) == 3)
        assert batches == ([3] if in_batches else [])
        assert [plain(event) for event in hearing.events] == [plain(event) for event in chain.events[told:]]
    finally:
        hearing.end()


def test_connection_that_is_lost_and_made_again() -> None:
    """The same node: nothing is missing."""
    with world(max_retry=0.05) as it:
        it.chain.add_transactions(2)
        it.agree()
        it.node.stop()
        it.hearing.wait(lambda: not it.hearing.source.counts.connected)
        it.chain.mine()
        it.chain.add_transactions(2)
        it.node.running = True
        it.agree()
        assert it.hearing.source.counts.connections == 2


def test_node_that_is_restarted() -> None:
    """Its mempool begins anew: what is gone is told with the old numbers, what came with the new ones."""
    with world(max_retry=0.05) as it:
        before = it.chain.add_transactions(4)
        it.agree()
        it.node.stop()
        it.hearing.wait(lambda: not it.hearing.source.counts.connected)
        last = it.chain.mempool_sequence
        it.chain.evict(before[0].txid)
        it.chain.add_transactions(2)
        it.node.loaded = False
        it.chain._simulation.mempool.next_sequence = len(it.chain.mempool) + 1
        it.node.restart()
        it.hearing.wait(lambda: it.hearing.source.counts.connected)
        told = len(it.told)
        it.chain.mine(txs=[])
        it.hearing.wait(lambda: len(it.told) == told + 2)
        it.node.loaded = True
        it.hearing.wait(lambda: {one[0] for one in it.told[told + 2 :]} == {"A", "R"})
        it.settle()
        numbers = [(one[0], one[2]) for one in it.told[told + 2 :]]
        removed = [number for label, number in numbers if label == "R"]
        added = [number for label, number in numbers if label == "A"]
        assert removed == list(range(last, last + len(removed)))
        assert added == list(range(it.chain.mempool_sequence - len(added), it.chain.mempool_sequence))
        it.chain.add_transaction()
        it.hearing.wait(lambda: it.told[-1][2] == it.chain.mempool_sequence - 1)
        assert it.hearing.source.counts.complete


def test_node_that_comes_back_behind_is_waited_for() -> None:
    chain = RegtestChain()
    with world(chain, max_retry=0.05, settle=60.0) as it:
        chain.mine(3)
        it.agree()
        it.node.stop()
        it.hearing.wait(lambda: not it.hearing.source.counts.connected)
        told = len(it.told)
        ahead = chain.tip
        with chain.unheard():
            chain.disconnect(2)
        it.node.restart()
        it.hearing.wait(lambda: it.hearing.source.counts.connected)
        time.sleep(0.1)
        assert len(it.told) == told
        (made,) = chain.mine()  # beside the two that were lost: they are not waited for any more
        assert made.hash != ahead.hash
        it.hearing.wait(lambda: len(it.told) == told + 4)
        assert [one[0] for one in it.told[told:]] == ["D", "D", "C", "tip"]


def test_node_that_stays_behind_is_believed_in_the_end() -> None:
    chain = RegtestChain()
    with world(chain, max_retry=0.05, settle=0.3) as it:
        chain.mine(3)
        it.agree()
        it.node.stop()
        it.hearing.wait(lambda: not it.hearing.source.counts.connected)
        told = len(it.told)
        chain.disconnect(2)
        it.node.restart()
        it.hearing.wait(lambda: len(it.told) == told + 2)
        assert [one[0] for one in it.told[told:]] == ["D", "D"]


def test_block_that_the_node_does_not_have_is_counted() -> None:
    chain = RegtestChain()
    with world(chain) as it:
        with chain._lock:
            made = chain.mine(3)
            lost = made[1].hash
            body = chain._blocks[lost]
            original = it.node._getblock

            def pruned(name: str, verbosity: int) -> str:
                if bytes.fromhex(name) == lost:
                    raise RpcError(-1, "Block not available (pruned data)")
                return original(name, verbosity)

            it.node._getblock = pruned  # type: ignore[method-assign]
        it.hearing.wait(lambda: it.hearing.events and it.hearing.events[-1] == chain.events[-1])
        assert [one[1] for one in it.told if one[0] == "C"] == [made[0].hash.hex(), made[2].hash.hex()]
        assert it.hearing.source.counts.missing_blocks == 1
        assert body is not None


def test_first_connection_has_to_succeed() -> None:
    node = TwinNode(RegtestChain())
    node.stop()
    with pytest.raises(IpcConnectError):
        list(BitcoinNode(node))


def test_what_never_goes_well_ends_the_source() -> None:
    node = TwinNode(RegtestChain())

    def fails() -> None:
        node.before["getmempoolinfo"] = fails
        raise RemoteError(node.address, "Rpc", "executeRpc", "std::exception", "broken")

    node.before["getmempoolinfo"] = fails
    started = time.monotonic()
    with pytest.raises(RemoteError, match="broken"):
        list(BitcoinNode(node, max_retry=0.01))
    assert node.connections > 2
    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize(("method", "answer"), [("uptime", None), ("getblock", "zz"), ("getblock", "00"), ("getmempoolinfo", [])])
def test_answers_that_make_no_sense_end_the_source(method: str, answer: object) -> None:
    node = TwinNode(RegtestChain())
    execute = node.execute

    def nonsense(asked: str, *params: object) -> object:
        return answer if asked == method else execute(asked, *params)

    node.execute = nonsense  # type: ignore[method-assign,assignment]
    start = node.chain.tip.hash
    node.chain.mine()
    source = BitcoinNode(node, poll=0.002, max_retry=0.002, after=start if method == "getblock" else None)
    with pytest.raises(IpcProtocolError, match=r"^bitcoin-node: Rpc\.\w+: .*makes no sense"):
        next(iter(source))


def test_settings_that_make_no_sense() -> None:
    node = TwinNode(RegtestChain())
    with pytest.raises(ConfigError) as caught:
        BitcoinNode(node, poll=0.0, max_retry=-1.0, after="00")
    assert {problem.option for problem in caught.value.problems} == {"poll", "max_retry", "after"}


def test_view_of_what_was_told() -> None:
    """A snapshot for subscribers begins with what the source found."""
    chain = RegtestChain()
    chain.add_transactions(3)
    node = TwinNode(chain)
    view = ChainView()
    hearing = Hearing(BitcoinNode(node, poll=0.002), view.begin)
    hearing.wait(lambda: view.snapshot().tip)
    assert view.snapshot() == Snapshot(chain.tip.hash, chain.height, tuple(tx.txid for tx in chain.mempool), chain.mempool_sequence)
    hearing.end()


def test_view_of_the_chain_begins_with_the_tip_and_the_mempool_of_the_node() -> None:
    """Also where the connection is lost while the source asks for the tip's body."""
    chain = RegtestChain()
    waiting = chain.add_transactions(3)
    node = TwinNode(chain)
    original, fails = node._getblock, [True]

    def getblock(name: str, verbosity: int) -> str:
        if fails:
            fails.pop()
            raise DisconnectedError(node.address, "Rpc", "getblock", "the peer went away")
        return original(name, verbosity)

    node._getblock = getblock  # type: ignore[method-assign]
    view = NodeView()
    source = BitcoinNode(node, poll=0.002)
    source.on_beginning = lambda beginning: view.begin(*beginning)
    hearing = Hearing(source)
    hearing.wait(lambda: hearing.baseline)
    hearing.wait(lambda: view.tip)
    assert not fails
    tip, body = view.tip, view.body(chain.tip.hash)
    assert tip is not None
    assert (tip.row.hash, tip.row.height, tip.confirmations) == (chain.tip.hash, chain.height, 1)
    assert body is not None
    assert body.hash == chain.tip.hash
    assert not view.initial_download
    assert (set(view.mempool()[0]), view.mempool()[1]) == ({tx.txid for tx in waiting}, chain.mempool_sequence)
    (made,) = chain.mine()
    hearing.wait(lambda: hearing.events and isinstance(hearing.events[-1], UpdatedBlockTip))
    for event in hearing.events:
        view.note(event)
    assert view.hash_at(chain.height) == made.hash
    assert view.mempool() == ({}, chain.mempool_sequence)
    hearing.end()


def test_nothing_is_said_of_a_mempool_that_was_not_listed_yet() -> None:
    """A subscriber that asks meanwhile must not take it for empty."""
    pytest.importorskip("click")
    job = importlib.import_module("zmqpub.cli.job")
    chain = RegtestChain()
    chain.add_transactions(3)
    offered: list[Callable[[], Snapshot]] = []
    source = BitcoinNode(TwinNode(chain), poll=0.002)
    job.Job(source, SimpleNamespace(replay_address="tcp://127.0.0.1:1", set_snapshot=offered.append))
    assert offered[0]() == Snapshot()
    assert source.on_baseline is not None
    source.on_baseline(Snapshot(chain.tip.hash, chain.height, (), 7))
    assert offered[0]() == Snapshot(chain.tip.hash, chain.height, (), 7)


def test_node_that_lost_its_chain_and_then_the_connection() -> None:
    """What can be told is told, and what cannot be is counted, whenever the connection is lost."""
    with world(max_retry=0.05) as it:
        other = RegtestChain(seed=9)
        other.add_transactions(2)
        (made,) = other.mine()

        def fail() -> None:
            raise DisconnectedError(it.node.address, "Rpc", "getrawmempool", "the peer went away")

        it.node.before["getblock"] = lambda: it.node.before.update(getrawmempool=fail)
        it.node.chain = other
        it.hearing.wait(lambda: it.hearing.source.counts.missing_blocks)
        it.settle()
        assert [one[1] for one in it.told if one[0] in ("C", "tip")] == [made.hash.hex()] * 2


def test_node_that_is_restarted_at_once() -> None:
    """Too soon for its uptime to tell; but its mempool sequence went back."""
    with world(max_retry=0.05) as it:
        it.chain.add_transactions(9)
        it.agree()
        it.node.stop()
        it.hearing.wait(lambda: not it.hearing.source.counts.connected)
        last = it.chain.mempool_sequence
        gone = it.chain.evict()
        it.chain._simulation.mempool.next_sequence = len(it.chain.mempool) + 1
        it.node.running = True
        it.hearing.wait(lambda: it.told[-1][0] == "R")
        it.settle()
        assert [one[2] for one in it.told if one[0] == "R"] == list(range(last, last + len(gone)))
        it.chain.add_transaction()
        it.hearing.wait(lambda: it.told[-1][2] == it.chain.mempool_sequence - 1)
        assert it.hearing.source.counts.complete
        assert it.hearing.source.counts.renumbered == 0
