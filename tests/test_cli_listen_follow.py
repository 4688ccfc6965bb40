"""`zmqpub listen --follow`: the chain and the mempool as they were, whatever happened on the way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from listening import everything, wait_wanted
from programs import ANY_PORT, Program, connected_listener, once

from zmqpub import Publisher
from zmqpub.sources.events import BlockConnected, BlockDisconnected, TransactionAdded, TransactionRemoved
from zmqpub.testing import FaultyPublisher, RegtestChain, Relay

pytest.importorskip("click")
pytest.importorskip("rich")

CHAIN = ("block_connected", "block_disconnected", "transaction_added", "transaction_removed")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher({**everything(), "zmqpubreplay": ANY_PORT}) as made:
        yield made


def told(listener: Program) -> list[tuple[str, str]]:
    """What happened to chain and mempool, by name and hash."""
    return [(line["event"], line.get("hash") or line["txid"]) for line in listener.objects() if line["event"] in CHAIN]


def happened(chain: RegtestChain) -> list[tuple[str, str]]:
    """The same from who did it. What a block takes out of the mempool is told by nobody."""
    result = []
    for event in chain.events:
        if isinstance(event, BlockConnected):
            result.append(("block_connected", event.block.hash.hex()))
        elif isinstance(event, BlockDisconnected):
            result.append(("block_disconnected", event.block.hash.hex()))
        elif isinstance(event, TransactionAdded):
            result.append(("transaction_added", event.transaction.txid.hex()))
        elif isinstance(event, TransactionRemoved):
            result.append(("transaction_removed", event.transaction.txid.hex()))
    return result


def play(chain: RegtestChain) -> None:
    chain.mine(2, txs=4)
    chain.add_transactions(4)
    chain.replace()
    chain.evict()
    chain.reorg(2)
    chain.mine(1)


def test_blocks_and_transactions_each_once_and_in_order(publisher: Publisher) -> None:
    chain = RegtestChain(publisher)
    with connected_listener(publisher.active_notifiers()[0].address, "--follow") as listener:
        wait_wanted(publisher)
        play(chain)
        listener.line(f'"block_connected".*{chain.tip.hash.hex()}')
        assert listener.end(signal.SIGTERM) == 0
        assert told(listener) == happened(chain)
        summary: dict[str, Any] = listener.objects()[-1]
        assert (summary["blocks_connected"], summary["blocks_disconnected"], summary["chain_gaps"]) == (6, 2, 0)
        assert summary["tip"] == chain.tip.hash.hex()
        assert summary["messages"] > 0
        assert "message" not in [line["event"] for line in listener.objects()]


def test_what_was_missed_is_told_in_its_place(publisher: Publisher) -> None:
    chain = RegtestChain(publisher)
    assert publisher.replay_address is not None
    with Relay(to=publisher.active_notifiers()[0].address) as relay:
        with connected_listener(relay.address, "--follow", "--replay", publisher.replay_address) as listener:
            wait_wanted(publisher)
            play(chain)
            listener.line(f'"block_connected".*{chain.tip.hash.hex()}')
            relay.refuse()
            relay.cut()
            listener.line('"event": "disconnected"')
            play(chain)
            relay.refuse(False)
            listener.line(f'"block_connected".*{chain.tip.hash.hex()}')
            assert listener.end(signal.SIGTERM) == 0
            assert told(listener) == happened(chain)
            assert "repaired" in [line["event"] for line in listener.objects()]


def test_what_cannot_be_known_is_said() -> None:
    with FaultyPublisher() as faulty, connected_listener(faulty.address, "--follow") as listener:
        faulty.wait_for_subscribers()
        faulty.chain.mine()
        listener.line('"block_connected"')
        with faulty.losing():
            faulty.chain.mine(2, txs=3)
        faulty.chain.mine()
        gap = listener.line('"event": "chain_gap".*')
        assert '"blocks": true' in gap[0]
        listener.line('"block_connected"')
        assert listener.end(signal.SIGTERM) == 6


def test_lines_for_people(publisher: Publisher) -> None:
    chain = RegtestChain(publisher)
    with Program("listen", publisher.active_notifiers()[0].address, "--follow", "--topic=rawblock", "--topic=sequence") as listener:
        listener.line("Z connected: ")
        wait_wanted(publisher, 2)
        added = chain.add_transaction()
        (block,) = chain.mine()
        listener.line(rf"Z transaction added: {added.txid.hex()}$")
        listener.line(rf"Z block connected: .*{block.hash.hex()} \(2 transactions\)$")
        chain.reorg()
        listener.line(rf"Z block disconnected: .*{block.hash.hex()}")
        listener.line(rf"Z block connected: .*{chain.tip.hash.hex()}")
        assert listener.end(signal.SIGINT) == 0
        assert listener.seen[-1].startswith("3 blocks connected, 1 disconnected, 2 transactions added, 0 removed; tip ")
        assert listener.seen[-1].endswith(chain.tip.hash.hex())


def test_so_many_events(publisher: Publisher) -> None:
    chain = RegtestChain(publisher)
    with connected_listener(publisher.active_notifiers()[0].address, "--follow", "--bodies", "--count=3") as listener:
        wait_wanted(publisher)
        transaction = chain.add_transaction()
        (block,) = chain.mine()
        chain.mine(5)
        assert listener.end() == 0
        events = [line for line in listener.objects() if line["event"] in CHAIN]
        assert len(events) == 3
        assert events[0]["body"] == bytes(transaction).hex()
        assert events[1]["body"] == bytes(block).hex()
        assert events[1]["transactions"] == 2


def test_too_few_in_time() -> None:
    program = once("listen", "tcp://127.0.0.1:9", "--follow", "--count=3", "--timeout=0.5")
    assert program.process.returncode == 8
    assert program.errors == ["zmqpub: error: 0 of 3 events came within 0.5 seconds"]
