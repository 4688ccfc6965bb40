"""The simulated chain before its judge: a Bitcoin Core node in regtest must accept, and tell, the very same.

Needs ``bitcoind``, or ``bitcoin-node``, which is the same with IPC: the path in the environment variable ZMQPUB_BITCOIND or
ZMQPUB_BITCOIN_NODE, or on PATH.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from zmqpub import Transaction, build_transaction
from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.events import (
    BlockConnected,
    BlockDisconnected,
    Event,
    TransactionAdded,
    TransactionRemoved,
    UpdatedBlockTip,
)
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.coins import Coin
from zmqpub.sources.regtest.scripts import ANYONE_CAN_SPEND
from zmqpub.sources.simulated import Simulated

_GIVEN = os.environ.get("ZMQPUB_BITCOIND") or os.environ.get("ZMQPUB_BITCOIN_NODE")
BITCOIND = _GIVEN or shutil.which("bitcoind") or shutil.which("bitcoin-node")
START_TIME = 1_750_000_000

pytestmark = pytest.mark.skipif(BITCOIND is None, reason="no bitcoind: set ZMQPUB_BITCOIND to the path of one, or put it on PATH")

Notification = tuple[str, bytes]


class RPCError(Exception):
    pass


class Node:
    """A bitcoind of its own, without peers, whose clock stands an hour after the simulated chain's start."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.cookie = directory / "regtest" / ".cookie"
        self.notifications = f"ipc://{directory}/zmq"
        assert BITCOIND is not None
        self.process = subprocess.Popen(
            [
                BITCOIND,
                "-regtest",
                f"-datadir={directory}",
                "-listen=0",
                "-connect=0",
                "-dnsseed=0",
                "-server=1",
                "-rpcbind=127.0.0.1",
                "-rpcallowip=127.0.0.1",
                f"-rpcport={self.port}",
                "-printtoconsole=0",
                "-acceptnonstdtxn=1",
                "-persistmempool=0",
                "-checkmempool=0",
                f"-mocktime={START_TIME + 3600}",
                *(f"-zmqpub{topic}{option}" for topic in ("hashblock", "sequence") for option in (f"=unix:{directory}/zmq", "hwm=0")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.authorization = ""

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while True:
            try:
                self.authorization = "Basic " + base64.b64encode(self.cookie.read_bytes()).decode()
                self("getblockcount")
            except (OSError, RPCError, http.client.HTTPException):
                self.connection.close()
                if self.process.poll() is not None or time.monotonic() > end:
                    self.process.kill()
                    _, errors = self.process.communicate()
                    pytest.fail(f"bitcoind did not start: {errors.decode()}")
                time.sleep(0.05)
            else:
                return

    def answer(self, request: str) -> str:
        """To a JSON-RPC request as text; empty where there is none."""
        self.connection.request("POST", "/", request.encode(), {"Authorization": self.authorization})
        return self.connection.getresponse().read().decode()

    def __call__(self, method: str, *parameters: object) -> Any:
        answer = json.loads(self.answer(json.dumps({"method": method, "params": parameters})))
        if answer["error"] is not None:
            raise RPCError(f"{method}: {answer['error']}")
        return answer["result"]

    def stop(self) -> None:
        try:
            if self.process.poll() is None:
                self("stop")
            self.process.wait(60)
        except (OSError, RPCError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        finally:
            self.connection.close()
            if self.process.stderr is not None:
                self.process.stderr.close()


@pytest.fixture
def node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="zmqpub-") as directory:
        made = Node(Path(directory))
        try:
            made.wait_until_ready()
            yield made
        finally:
            made.stop()


def submit_block(node: Node, event: BlockConnected) -> None:
    """Hand a block over; the node calls one of a branch that has not overtaken yet "inconclusive": valid so far."""
    above_tip = event.height > node("getblockcount")
    assert node("submitblock", bytes(event.block).hex()) == (None if above_tip else "inconclusive")


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


def as_notification(event: Event) -> Notification:
    """Topic and body of what Bitcoin Core publishes for ``event``, of the two topics that the node was asked for."""
    if isinstance(event, UpdatedBlockTip):
        return "hashblock", event.block.hash
    if isinstance(event, BlockConnected):
        return "sequence", event.block.hash + b"C"
    if isinstance(event, BlockDisconnected):
        return "sequence", event.block.hash + b"D"
    label = b"A" if isinstance(event, TransactionAdded) else b"R"
    return "sequence", event.transaction.txid + label + event.mempool_sequence.to_bytes(8, "little")


def is_removed_in_any_order(event: Event) -> bool:
    """Whether Bitcoin Core's TxGraph, which knows no order among descendants, chose what was removed when."""
    return isinstance(event, TransactionRemoved) and event.reason in ("conflict", "reorg")


def in_one_order(notifications: list[Notification], unordered: list[bool]) -> list[Notification]:
    """Each run of removals in any order with its txids sorted and its numbers as they came."""
    result: list[Notification] = []
    for any_order, run in itertools.groupby(zip(notifications, unordered, strict=True), key=lambda pair: pair[1]):
        got = [notification for notification, _ in run]
        if any_order:
            txids = sorted(body[:32] for _, body in got)
            got = [(topic, txid + body[32:]) for (topic, body), txid in zip(got, txids, strict=True)]
        result += got
    return result


def receive(subscriber: zmq.Socket[bytes], count: int) -> list[Notification]:
    got: list[Notification] = []
    for _ in range(count):
        assert subscriber.poll(10_000), f"{len(got)} of {count} notifications came"
        topic, body, _ = subscriber.recv_multipart()
        got.append((topic.decode(), body))
    return got


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (1, {}),
        (2, {"reorg_rate": 0.5, "max_reorg_depth": 5, "conflict_rate": 0.3, "transactions_per_second": 10.0}),
        (3, {"transactions_per_second": 400.0, "block_interval": 12.0, "blocks": 4}),
        (4, {"transactions_per_second": 0.2, "block_interval": 1.0, "blocks": 250}),
    ],
)
def test_every_block_is_accepted(node: Node, seed: int, settings: dict[str, Any]) -> None:
    settings = {"blocks": 40, **settings}
    for event in Simulated(seed, start_time=START_TIME, publish_bootstrap=True, **settings):
        if isinstance(event, BlockConnected):
            submit_block(node, event)
        elif isinstance(event, UpdatedBlockTip):
            assert node("getbestblockhash") == event.block.hash.hex()
            assert node("getblockcount") == event.height


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_node_tells_the_same_of_the_same(node: Node, seed: int) -> None:
    """Given our transactions and blocks, the node makes our removals, our returns to the mempool and our numbers."""
    source = Simulated(
        seed,
        blocks=60,
        start_time=START_TIME,
        publish_bootstrap=True,
        eviction_rate=0.0,  # the node has its own reasons to evict
        reorg_rate=0.25,
        conflict_rate=0.25,
        replacement_rate=0.1,
        transactions_per_second=6.0,
        coins=150,  # few, so that many spend what was made a moment ago
    )
    expected: list[Notification] = []
    unordered: list[bool] = []
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.linger = 0
        subscriber.rcvhwm = 0
        subscriber.subscribe(b"")
        subscriber.connect(node.notifications)
        wait_for_subscription(node, subscriber)
        for group in by_moment(iter(source)):
            expected += map(as_notification, group)
            unordered += map(is_removed_in_any_order, group)
            in_block = any(isinstance(event, UpdatedBlockTip) for event in group)
            for event in group:
                if isinstance(event, BlockConnected):
                    submit_block(node, event)
                elif isinstance(event, TransactionAdded) and not in_block:
                    node("sendrawtransaction", bytes(event.transaction).hex(), 0)
        got = receive(subscriber, len(expected))
        assert in_one_order(got, unordered) == in_one_order(expected, unordered)
        assert not subscriber.poll(200)
    labels = {body[32:33] for topic, body in expected if topic == "sequence"}
    assert labels == {b"A", b"R", b"C", b"D"}


def test_node_takes_blocks_off_as_the_chain_does(node: Node) -> None:
    """``invalidateblock`` against RegtestChain.disconnect(): what returns to the mempool, and when, and no new tip."""
    events: list[Event] = []
    chain = RegtestChain(events.append, start_time=START_TIME)
    chain.generate(104)
    coins = [coin for coin in chain.coins.values() if chain.spendable(coin.outpoint)]
    for event in events:
        if isinstance(event, BlockConnected):
            submit_block(node, event)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.linger = 0
        subscriber.subscribe(b"")
        subscriber.connect(node.notifications)
        wait_for_subscription(node, subscriber)
        events.clear()
        for _ in range(3):
            for coin in coins:
                entry = chain.submit(spend(coin))
                node("sendrawtransaction", bytes(entry.transaction).hex(), 0)
            coins = [coin for entry in chain.mempool for coin in entry.created]
            chain.generate()
            block = next(event for event in reversed(events) if isinstance(event, BlockConnected))
            submit_block(node, block)
        chain.disconnect(3)
        node("invalidateblock", next(event.block.hash.hex() for event in events if isinstance(event, BlockConnected)))
        expected = [as_notification(event) for event in events]
        assert receive(subscriber, len(expected)) == expected
        assert len(chain.mempool) == 15
        assert node("getrawmempool", False, True)["mempool_sequence"] == chain.mempool.next_sequence


def spend(coin: Coin) -> Transaction:
    inputs = [TxIn(*coin.outpoint, witness=(b"\x51",))]
    return build_transaction(inputs, [TxOut(coin.value - 10_000, ANYONE_CAN_SPEND)])


def wait_for_subscription(node: Node, subscriber: zmq.Socket[bytes]) -> None:
    """Let the node tell something until it is heard: a block that it mines and then forgets."""
    for attempt in range(100):
        (made,) = node("generatetodescriptor", 1, f"raw(6a02{attempt:04x})")
        node("invalidateblock", made)
        if subscriber.poll(100):
            break
    else:
        pytest.fail("the node publishes nothing")
    while subscriber.poll(200):
        subscriber.recv_multipart()
