"""`zmqpub run --source bitcoin-node` before a real node that publishes over ZeroMQ, too: both say the same.

Needs ``bitcoin-node``: the path in the environment variable ZMQPUB_BITCOIN_NODE, or on PATH.
"""

from __future__ import annotations

import itertools
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import zmq
from ipc_node import IpcNode, needs_node
from programs import TOPICS, Program

from zmqpub import Block, Transaction, build_transaction
from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.events import BlockConnected, Event, TransactionAdded, UpdatedBlockTip
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND
from zmqpub.sources.simulated import Simulated

pytest.importorskip("capnp")
pytest.importorskip("click")
pytest.importorskip("rich")

pytestmark = [needs_node, pytest.mark.unsanitized]

PATIENCE = 30.0
START_TIME = 1_750_000_000

Message = tuple[str, bytes]


class Ear:
    """A subscriber of everything at an address; counters have to go up by one, or back, after a restart."""

    def __init__(self, address: str, context: zmq.Context[Any]) -> None:
        self.heard: list[Message] = []
        self._counters: dict[str, int] = {}
        self._socket = context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.rcvhwm = 0
        self._socket.subscribe(b"")
        self._socket.connect(address)

    def listen(self, timeout: float = 0.0) -> int:
        """Take what is there, and what follows within ``timeout`` seconds of silence; how many messages that were."""
        before = len(self.heard)
        while self._socket.poll(int(1000 * timeout)):
            topic, body, counter = self._socket.recv_multipart()
            name, number = topic.decode(), int.from_bytes(counter, "little")
            expected = self._counters.get(name)
            assert expected is None or number <= expected + 1, f"{name}: {expected} was followed by {number}"
            self._counters[name] = number
            self.heard.append((name, body))
        return len(self.heard) - before

    def forget(self) -> None:
        self.heard.clear()

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()


class Pair:
    """A node, the publisher before it, and an ear at each."""

    def __init__(self, node: IpcNode, ours: Program, theirs: Ear, mine: Ear) -> None:
        self.node = node
        self.program = ours
        self.theirs = theirs
        self.mine = mine

    # What happens

    def mine_blocks(self, count: int = 1) -> list[str]:
        made: list[str] = self.node("generatetodescriptor", count, f"raw({ANYONE_CAN_SPEND.hex()})")
        return made

    def mine_only(self, *transactions: Transaction) -> str:
        raw = [bytes(transaction).hex() for transaction in transactions]
        made: str = self.node("generateblock", f"raw({ANYONE_CAN_SPEND.hex()})", raw)["hash"]
        return made

    def take_coin(self, height: int) -> tuple[bytes, int]:
        """The coinbase's output in the active chain's block of ``height``."""
        block = Block(bytes.fromhex(self.node("getblock", self.node("getblockhash", height), 0)))
        return block[0].txid, block[0].outputs[0].value

    def send(self, transaction: Transaction) -> Transaction:
        self.node("sendrawtransaction", bytes(transaction).hex(), 0)
        return transaction

    # What is heard

    def agree(self, silence: float = 0.1) -> list[Message]:
        """Wait until both fell silent for so many seconds, and compare; what was heard since the last time."""
        end = time.monotonic() + PATIENCE
        self.theirs.listen(silence)
        while len(self.mine.heard) < len(self.theirs.heard) and time.monotonic() < end:
            self.mine.listen(0.02)
            self.theirs.listen()
        self.mine.listen(silence)
        self.theirs.listen()
        theirs, mine = in_one_order(self.theirs.heard), in_one_order(self.mine.heard)
        assert list(map(shown, mine)) == list(map(shown, theirs))
        assert mine == theirs
        self.theirs.forget()
        self.mine.forget()
        return theirs


def spend(coin: tuple[bytes, int], fee: int = 10_000, parts: int = 1) -> Transaction:
    """A transaction of one coin that anyone can spend."""
    txid, value = coin
    each = (value - fee) // parts
    return build_transaction([TxIn(txid, 0, witness=(b"\x51",))], [TxOut(each, ANYONE_CAN_SPEND)] * parts)


def output(transaction: Transaction) -> tuple[bytes, int]:
    return transaction.txid, transaction.outputs[0].value


def shown(message: Message) -> str:
    topic, body = message
    if topic == "sequence":
        number = f" {int.from_bytes(body[33:], 'little')}" if len(body) > 33 else ""
        return f"sequence {body[:32].hex()} {chr(body[32])}{number}"
    return f"{topic} {body.hex()[:64]} ({len(body)} bytes)"


def in_one_order(messages: list[Message]) -> list[Message]:
    """Removals that follow each other by txid, their numbers as they came: TxGraph knows no order among descendants."""
    result: list[Message] = []
    for removal, run in itertools.groupby(messages, key=lambda one: one[0] == "sequence" and one[1][32:33] == b"R"):
        group = list(run)
        if removal:
            txids = sorted(body[:32] for _, body in group)
            group = [(topic, txid + body[32:]) for (topic, body), txid in zip(group, txids, strict=True)]
        result += group
    return result


def labels(messages: list[Message]) -> str:
    """The letters of the topic sequence, and B for a tip."""
    letters = [body[32:33].decode() if topic == "sequence" else "B" for topic, body in messages if topic in ("sequence", "hashblock")]
    return "".join(letters)


@contextmanager
def pair(*options: str, poll: float = 0.01, mature: int = 110) -> Iterator[Pair]:
    """A node with spendable coins, and both publishers heard."""
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as directory, zmq.Context() as context:
        node = IpcNode(Path(directory), *options)
        try:
            if mature:
                node("generatetodescriptor", mature, f"raw({ANYONE_CAN_SPEND.hex()})")
            address = f"ipc://{directory}/ours"
            with Program(*arguments(node, address), "--poll", str(poll)) as ours:
                ours.line("^bound pubsequence")
                ours.line(r"publishing the node at unix:/")
                with Ear(node.notifications, context) as theirs, Ear(address, context) as mine:
                    made = Pair(node, ours, theirs, mine)
                    hear_both(made)
                    yield made
                assert ours.end(signal.SIGINT) == 0
        finally:
            node.stop()


def arguments(node: IpcNode, address: str) -> list[str]:
    topics = [f"-zmqpub{topic}{option}" for topic in TOPICS for option in (f"={address}", "hwm=0")]
    return ["run", "--source", f"bitcoin-node:{node.socket}", *topics]


def hear_both(it: Pair) -> None:
    """Blocks that are made and forgotten, until both ears hear of them; then nothing more is on its way."""
    end = time.monotonic() + PATIENCE
    number = 0
    while not (it.theirs.heard and it.mine.heard):
        assert time.monotonic() < end, "nothing is heard"
        number += 1
        (made,) = it.node("generatetodescriptor", 1, f"raw(6a02{number:04x})")
        it.node("invalidateblock", made)
        it.theirs.listen(0.2)
        it.mine.listen(0.2)
    while it.theirs.listen(0.3) or it.mine.listen(0.3):
        pass
    it.theirs.forget()
    it.mine.forget()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_blocks_transactions_replacements_and_conflicts() -> None:
    with pair() as it:
        first = it.send(spend(it.take_coin(1)))
        assert labels(it.agree()) == "A"
        child = it.send(spend(output(first)))
        assert labels(it.agree()) == "A"
        it.send(spend(it.take_coin(1), fee=60_000))  # replaces both
        assert labels(it.agree()) == "RRA"
        it.mine_blocks()
        assert labels(it.agree()) == "CB"
        victim = it.send(spend(it.take_coin(2)))
        assert labels(it.agree()) == "A"
        it.send(spend(output(victim)))
        assert labels(it.agree()) == "A"
        it.send(other := spend(it.take_coin(3)))
        assert labels(it.agree()) == "A"
        it.mine_only(other, spend(it.take_coin(2), fee=1_000_000))
        heard = it.agree()
        assert labels(heard) == "RRCB"
        assert any(topic == "rawblock" and len(body) > 300 for topic, body in heard)
        it.mine_blocks(5)
        assert labels(it.agree()) == "CB" * 5
        # Sent, and confirmed before anybody could look.
        it.send(spend(it.take_coin(4)))
        it.mine_blocks()
        assert labels(it.agree()) == "ACB"
        assert child.txid != first.txid


def test_reorganizations() -> None:
    with pair() as it:
        # A branch with more work takes over: the longer one was put aside, and is reconsidered.
        longer = it.mine_blocks(2)
        it.agree()
        it.node("invalidateblock", longer[0])
        assert labels(it.agree()) == "DD"
        kept = it.send(spend(it.take_coin(1)))
        it.agree()
        shorter = it.mine_blocks(1)
        assert labels(it.agree()) == "CB"
        it.node("reconsiderblock", longer[0])
        assert labels(it.agree()) == "DACCB"
        assert it.node("getrawmempool") == [kept.txid.hex()]
        # Invalidated: the other branch comes back, a block at a time.
        it.node("invalidateblock", longer[0])
        assert labels(it.agree()) in ("DDCB", "DDACB")
        assert it.node("getbestblockhash") == shorter[0]
        # Two blocks on it, with a child of what is confirmed by now.
        it.send(spend(it.take_coin(2), parts=3))
        it.agree()
        it.mine_blocks(2)
        assert labels(it.agree()) == "CBCB"
        it.node("invalidateblock", shorter[0])
        heard = labels(it.agree())
        assert heard.startswith("D")
        assert heard.count("D") == 3


def test_conflict_in_a_branch_that_takes_over() -> None:
    with pair() as it:
        double = spend(it.take_coin(1), fee=5_000)
        base = it.mine_blocks(1)
        it.agree()
        long = [it.mine_only(double), *it.mine_blocks(1)]
        it.agree()
        it.node("invalidateblock", long[0])
        it.agree()
        assert it.node("getbestblockhash") == base[0]
        # The double spend has returned to the mempool; it is replaced, and the other one confirmed.
        it.send(winner := spend(it.take_coin(1), fee=500_000))
        it.agree()
        it.mine_only(winner)
        it.agree()
        it.send(spend(output(winner)))
        it.agree()
        it.node("reconsiderblock", long[0])
        assert labels(it.agree()) == "DRCCB"


@pytest.mark.parametrize("seed", [5, 6])
def test_simulated_life(seed: int) -> None:
    """Blocks and transactions of a simulated chain, fed to the node: reorganizations, conflicts, replacements, each as it comes."""
    source = Simulated(
        seed,
        blocks=20,
        start_time=START_TIME,
        publish_bootstrap=True,
        eviction_rate=0.0,
        reorg_rate=0.25,
        conflict_rate=0.25,
        replacement_rate=0.1,
        transactions_per_second=1.0,
        coins=150,
    )
    with pair(f"-mocktime={START_TIME + 3600}", "-persistmempool=0", "-maxtipage=1000000000", mature=0) as it:
        told = 0
        for group in by_moment(iter(source)):
            in_block = any(isinstance(event, UpdatedBlockTip) for event in group)
            for event in group:
                if isinstance(event, BlockConnected):
                    it.node("submitblock", bytes(event.block).hex())
                elif isinstance(event, TransactionAdded) and not in_block:
                    it.node("sendrawtransaction", bytes(event.transaction).hex(), 0)
            told += len(it.agree(0.03))
        assert told > 500


def by_moment(source: Iterator[Event]) -> Iterator[list[Event]]:
    """The events of each thing that happened."""
    group: list[Event] = []
    for event in source:
        if group and (event.due != group[0].due or isinstance(group[-1], UpdatedBlockTip)):
            yield group
            group = []
        group.append(event)
    if group:
        yield group


def test_at_full_speed_the_chain_is_complete_and_the_mempool_adds_up() -> None:
    """Many transactions and blocks at once: every block is told as by the node; what is not told of the mempool shows in its numbers."""
    with pair(poll=0.02) as it:
        coins = [it.take_coin(height) for height in range(1, 9)]
        start = it.node("getrawmempool", False, True)["mempool_sequence"]
        transactions = [it.send(spend(coin, parts=20)) for coin in coins]
        it.mine_blocks(3)
        parts = [(transaction.txid, index, transaction.outputs[0].value) for transaction in transactions for index in range(20)]
        for txid, index, value in parts:
            it.send(build_transaction([TxIn(txid, index, witness=(b"\x51",))], [TxOut(value - 5_000, ANYONE_CAN_SPEND)]))
        it.mine_blocks(2)
        last = it.send(spend(it.take_coin(9)))
        wait_for(lambda: it.mine.listen(0.2) or any(topic == "hashtx" and body == last.txid for topic, body in it.mine.heard))
        it.mine.listen(0.3)
        it.theirs.listen(0.3)

        def blocks(heard: list[Message]) -> list[Message]:
            return [
                (topic, body) for topic, body in heard if topic in ("hashblock", "rawblock") or (topic == "sequence" and len(body) == 33)
            ]

        assert blocks(it.mine.heard) == blocks(it.theirs.heard)
        added = [body for topic, body in it.mine.heard if topic == "sequence" and body[32:33] == b"A"]
        known = {body[:32] for topic, body in it.theirs.heard if topic == "sequence" and body[32:33] == b"A"}
        numbers = [int.from_bytes(body[33:], "little") for body in added]
        assert {body[:32] for body in added} <= known
        assert numbers == sorted(set(numbers))
        end = it.node("getrawmempool", False, True)["mempool_sequence"]
        assert start <= numbers[0]
        assert numbers[-1] == end - 1


def test_node_that_is_killed_and_started_again() -> None:
    """The publisher stays, its subscribers stay connected, and what it tells leads from what was to what is."""
    with pair() as it:
        it.node("gettxoutsetinfo", "none")  # writes the chain to disk; what follows, the node loses
        confirmed = it.send(spend(it.take_coin(1)))
        it.agree()
        lost = it.mine_blocks(2)
        it.agree()
        waiting = it.send(spend(it.take_coin(2)))
        number = it.node("getrawmempool", False, True)["mempool_sequence"]
        it.agree()
        it.node.kill()
        it.node.start()
        assert it.node("getblockcount") == 110
        assert it.mine.listen(1.0) == 0  # it may have them again soon
        made = it.mine_blocks(3)
        wait_for(lambda: it.mine.listen(0.1) or labels(it.mine.heard).count("C") == 3)
        wait_for(lambda: it.mine.listen(0.1) or labels(it.mine.heard).endswith("R"))
        chain = [body for topic, body in it.mine.heard if topic == "sequence" and len(body) == 33]
        assert [body.hex()[:64] for body in chain] == [*reversed(lost), *made]
        assert [body[32:] for body in chain] == [b"D", b"D", b"C", b"C", b"C"]
        # The mempool of the former life ends with its numbers.
        assert it.mine.heard[-1] == ("sequence", waiting.txid + b"R" + number.to_bytes(8, "little"))
        assert it.node("getrawmempool") == []
        it.theirs.listen(0.5)
        it.theirs.forget()
        it.mine.forget()
        # From here on both say the same again.
        it.send(confirmed)
        assert labels(it.agree()) == "A"
        it.mine_blocks()
        assert labels(it.agree()) == "CB"


def test_node_that_is_stopped_and_started_again() -> None:
    """In good order: it keeps its chain and its mempool, and there is nothing to tell but a number."""
    with pair() as it:
        it.send(spend(it.take_coin(1)))
        it.agree()
        it.mine_blocks(2)
        it.agree()
        kept = [it.send(spend(it.take_coin(height))) for height in (2, 3)]
        wait_for(lambda: it.mine.listen(0.1) or labels(it.mine.heard) == "AA")
        it.node.stop()
        it.node.start()
        it.mine.forget()
        wait_for(lambda: len(it.node("getrawmempool")) == 2)
        assert it.mine.listen(1.0) == 0
        it.theirs.listen(0.5)
        it.theirs.forget()
        last = it.send(spend(output(kept[0])))
        assert labels(it.agree()) == "A"
        it.mine_blocks()
        heard = it.agree()
        assert labels(heard) == "CB"
        assert ("hashtx", last.txid) in heard
