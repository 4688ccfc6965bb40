"""Slow consumers: waited for, then disconnected, and counted; nobody else loses anything, and the caller never waits for them."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest
from listening import RemoteSubscriber, address_of, everything, wait_for, wait_wanted
from synthetic import block, transaction

from zmqpub import ClosedError, Publisher

BLOCKS = [block(seed, 200, size=2000) for seed in range(20)]
PER_BLOCK = 2 * 200 + 3


def publish(publisher: Publisher, rounds: int = 1) -> None:
    for _ in range(rounds):
        for one in BLOCKS:
            publisher.block_connected(one)
            publisher.updated_block_tip(one)


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_a_stopped_subscriber_is_evicted_and_the_others_get_everything(
    scheme: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "zmqpub")
    address = "tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc://{tmp_path}/s"
    total = 10 * len(BLOCKS) * PER_BLOCK
    # Long enough that a healthy one, which waits for a processor, is not taken for a stopped one.
    with Publisher(everything(address), stall_timeout=1.0) as publisher:
        healthy = [RemoteSubscriber(address_of(publisher), expect=total).__enter__() for _ in range(3)]
        try:
            with RemoteSubscriber(address_of(publisher), rcvbuf=65536) as stopped:
                wait_for(lambda: len(publisher.stats().endpoints[0].subscribers) == 4)
                time.sleep(0.3)
                stopped.stop()
                publish(publisher, 10)
                wait_for(lambda: publisher.stats().evictions == 1, 20, "an eviction")
                results = [remote.result() for remote in healthy]
        finally:
            for remote in healthy:
                remote.__exit__()
        assert [(result["received"], result["gaps"]) for result in results] == [(total, 0)] * 3
        assert publisher.stats().evictions == 1
        assert publisher.stats().dropped == 0
        wait_for(lambda: any("took nothing for stall_timeout" in record.message for record in caplog.records))


def test_a_reader_that_is_slow_but_alive_is_evicted_before_the_others_lag(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zmqpub")
    total = 4 * len(BLOCKS) * PER_BLOCK
    # The healthy one has time enough, on a busy machine too, and the slow one would take a minute.
    with Publisher(everything(), stall_timeout=60, max_lag=4) as publisher:
        with RemoteSubscriber(address_of(publisher), expect=total) as healthy:
            with RemoteSubscriber(address_of(publisher), per_second=500, hwm=100, rcvbuf=65536):
                wait_for(lambda: len(publisher.stats().endpoints[0].subscribers) == 2)
                time.sleep(0.3)
                began = time.monotonic()
                publish(publisher, 4)
                result = healthy.result()
                took = time.monotonic() - began
        assert (result["received"], result["gaps"]) == (total, 0)
        assert publisher.stats().evictions == 1
        assert took < 30, "at the pace of the slow one it would have taken a minute"
        wait_for(lambda: any("the slowest" in record.message for record in caplog.records))


def test_an_evicted_subscriber_comes_back_and_sees_the_gap() -> None:
    with Publisher(everything(), stall_timeout=0.2) as publisher, RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
        wait_wanted(publisher)
        remote.stop()
        publish(publisher, 10)
        wait_for(lambda: publisher.stats().evictions == 1, 20)
        assert publisher.flush(10)
        remote.resume()
        wait_for(lambda: len(publisher.stats().endpoints[0].subscribers) == 1)
        time.sleep(0.5)
        publish(publisher)
        result = remote.result()
        assert result["gaps"] > 0
        assert result["last"]["rawblock"] == 11 * len(BLOCKS) - 1


def test_a_mark_of_zero_still_lets_go_of_a_stopped_one() -> None:
    with Publisher(everything(hwm=0), stall_timeout=0.3) as publisher, RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
        wait_wanted(publisher)
        remote.stop()
        publish(publisher, 5)
        assert publisher.flush(10)
        wait_for(lambda: publisher.stats().evictions == 1, 10, "an eviction")


def test_the_caller_does_not_wait_for_a_stopped_subscriber() -> None:
    with Publisher(everything(hwm=1), slow_subscriber="wait") as publisher, RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
        wait_wanted(publisher)
        remote.stop()
        took = []
        for _ in range(50):
            for one in BLOCKS:
                began = time.perf_counter()
                publisher.block_connected(one)
                took.append(time.perf_counter() - began)
        # Some may have waited for a processor. A publisher that waited for the subscriber would do so at each call from some call on.
        assert sorted(took)[-len(took) // 10] < 0.25, "calls took as long as if they had waited for somebody"
        assert publisher.stats().journal.events > 0
        assert publisher.stats().journal.oldest > 0
        assert not publisher.flush(0.1)
        assert publisher.stats().endpoints[0].backlog_bytes > 0


def test_a_full_journal_makes_the_caller_wait_until_there_is_room() -> None:
    bound = 3 * BLOCKS[0].size
    with Publisher(everything(hwm=1), slow_subscriber="wait", journal_bytes=bound) as publisher:
        with RemoteSubscriber(address_of(publisher), rcvbuf=65536, expect=20 * PER_BLOCK) as remote:
            wait_wanted(publisher)
            remote.stop()
            publisher_thread = threading.Thread(target=publish, args=(publisher,))
            publisher_thread.start()
            publisher_thread.join(0.5)
            assert publisher_thread.is_alive(), "it should be waiting for room"
            assert publisher.stats().journal.bytes <= bound
            remote.resume()
            publisher_thread.join(20)
            assert not publisher_thread.is_alive()
            result = remote.result()
            assert (result["received"], result["gaps"]) == (20 * PER_BLOCK, 0)
            assert publisher.stats().dropped == 0


def test_who_waits_for_room_is_told_when_the_publisher_is_closed() -> None:
    publisher = Publisher(everything(hwm=1), slow_subscriber="wait", journal_bytes=1000)
    outcome: list[BaseException] = []

    def publish_on() -> None:
        try:
            publish(publisher)
        except ClosedError as error:
            outcome.append(error)

    with RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
        wait_wanted(publisher)
        remote.stop()
        thread = threading.Thread(target=publish_on)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        publisher.close()
        thread.join(5)
        assert not thread.is_alive()
        assert len(outcome) == 1


def test_a_full_journal_drops_the_oldest_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zmqpub")
    options = everything(hwm=1)
    with Publisher(options, slow_subscriber="wait", on_full="drop", journal_bytes=3 * BLOCKS[0].size) as publisher:
        with RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
            wait_wanted(publisher)
            remote.stop()
            publish(publisher, 3)
            assert publisher.stats().journal.bytes <= 3 * BLOCKS[0].size
            assert publisher.stats().journal.dropped > 0
            remote.resume()
            result = remote.result()
            assert publisher.flush(10)
            stats = publisher.stats()
            assert stats.sent + stats.dropped == 60 * PER_BLOCK
            assert stats.dropped > 0
            assert result["received"] == stats.sent, "what was counted as dropped is what did not arrive"
            assert result["gaps"] > 0 or max(result["first"].values()) > 0
            assert {topic: counter + 1 for topic, counter in result["last"].items()} == {
                notifier.topic.value: notifier.published for notifier in stats.notifiers
            }
            wait_for(lambda: any("journal is full" in record.message for record in caplog.records))


def test_a_slow_endpoint_delays_no_other() -> None:
    options = {"zmqpubrawtx": "tcp://127.0.0.1:*", "zmqpubrawtxhwm": 1, "zmqpubhashtx": "inproc://fast"}
    with Publisher(options, slow_subscriber="wait") as publisher:
        stuck, fast = address_of(publisher, "rawtx"), address_of(publisher, "hashtx")
        from listening import receive, subscriber

        with RemoteSubscriber(stuck, rcvbuf=65536) as remote, subscriber(fast, context=publisher.context) as sub:
            wait_wanted(publisher)
            remote.stop()
            publish(publisher, 5)
            assert len(receive(sub, 5 * 20 * 200)) == 5 * 20 * 200
            assert not publisher.flush(0.05)


def test_an_event_larger_than_the_bound_is_let_in_when_the_journal_is_empty() -> None:
    with Publisher(everything(), journal_bytes=100) as publisher, RemoteSubscriber(address_of(publisher), expect=PER_BLOCK) as remote:
        wait_wanted(publisher)
        publisher.block_connected(BLOCKS[0])
        publisher.updated_block_tip(BLOCKS[0])
        assert remote.result()["received"] == PER_BLOCK


def test_a_body_counts_once_in_the_journal() -> None:
    with Publisher(everything(hwm=1), slow_subscriber="wait") as publisher, RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
        wait_wanted(publisher)
        remote.stop()
        publish(publisher, 10)
        time.sleep(0.2)
        before = publisher.stats().journal
        one = block(999, 200, size=2000)
        for _ in range(10):
            publisher.block_connected(one)
            publisher.updated_block_tip(one)
        for i in range(len(one)):
            publisher.transaction_added_to_mempool(one[i], i)
        publisher.transaction_added_to_mempool(transaction(1), 1)
        after = publisher.stats().journal
        assert after.events == before.events + 20 + 200 + 1
        assert one.size < after.bytes - before.bytes < 1.3 * one.size + 221 * 48
