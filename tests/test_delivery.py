"""Everyone gets everything: marks, numbers of subscribers, transports; those who come late, leave, or die."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from listening import RemoteSubscriber, address_of, everything, receive, receive_all, subscriber, wait_for, wait_wanted
from synthetic import block, transaction

from zmqpub import Block, ClosedError, Publisher

BLOCKS = [block(seed, 300) for seed in range(6)]
MESSAGES = sum(2 * len(one) + 3 for one in BLOCKS)


def burst(publisher: Publisher, blocks: list[Block] = BLOCKS) -> None:
    for one in blocks:
        publisher.block_connected(one)
        publisher.updated_block_tip(one)


def has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists() and "00000000000000000000000000000001" in Path("/proc/net/if_inet6").read_text()


def check_adds_up(publisher: Publisher, messages: int) -> None:
    stats = publisher.stats()
    assert sum(notifier.published for notifier in stats.notifiers) == messages
    assert stats.sent == messages
    assert stats.dropped == 0


@pytest.mark.parametrize("hwm", [1, 2, 10, 1000, 10_000, 0])
def test_nothing_is_lost_at_any_mark(hwm: int) -> None:
    with Publisher(everything(hwm=hwm)) as publisher, RemoteSubscriber(address_of(publisher), expect=MESSAGES) as remote:
        wait_wanted(publisher)
        burst(publisher)
        result = remote.result()
        assert (result["received"], result["gaps"]) == (MESSAGES, 0)
        assert publisher.flush(5)
        check_adds_up(publisher, MESSAGES)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_nothing_is_lost_for_many(count: int) -> None:
    with Publisher(everything()) as publisher:
        remotes = [RemoteSubscriber(address_of(publisher), expect=MESSAGES).__enter__() for _ in range(count)]
        try:
            wait_for(lambda: len(publisher.stats().endpoints[0].subscribers) == count)
            wait_wanted(publisher)
            threading.Event().wait(0.3)  # every subscription, not only the first, has to be in
            burst(publisher)
            results = [remote.result() for remote in remotes]
        finally:
            for remote in remotes:
                remote.__exit__()
        assert [(result["received"], result["gaps"]) for result in results] == [(MESSAGES, 0)] * count
        check_adds_up(publisher, MESSAGES)


@pytest.mark.parametrize("transport", ["ipc", "abstract", "inproc", "ipv6"])
def test_nothing_is_lost_on_any_transport(transport: str, tmp_path: Path) -> None:
    if transport == "ipv6" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    addresses = {
        "ipc": f"ipc://{tmp_path}/s",
        "abstract": f"ipc://@zmqpub-test-{os.getpid()}",
        "inproc": "inproc://s",
        "ipv6": "tcp://[::1]:*",
    }
    with Publisher(everything(addresses[transport], hwm=50)) as publisher:
        context = publisher.context if transport == "inproc" else None
        with subscriber(address_of(publisher), context=context, ipv6=transport == "ipv6") as sub:
            wait_wanted(publisher)
            burst(publisher)
            messages = receive(sub, MESSAGES)
            for topic in {message[0] for message in messages}:
                counters = [int.from_bytes(message[2], "little") for message in messages if message[0] == topic]
                assert counters == list(range(len(counters)))
        check_adds_up(publisher, MESSAGES)


def test_who_comes_late_sees_true_counters() -> None:
    with Publisher(everything()) as publisher:
        burst(publisher, BLOCKS[:3])
        assert publisher.flush(5)
        before = {notifier.topic.value: notifier for notifier in publisher.stats().notifiers}
        assert all(notifier.sent == 0 and notifier.unwanted == notifier.published for notifier in before.values())
        with subscriber(address_of(publisher)) as sub:
            wait_wanted(publisher)
            burst(publisher, BLOCKS[3:4])
            first: dict[str, int] = {}
            for topic, _, counter in receive(sub, 603):
                first.setdefault(topic.decode(), int.from_bytes(counter, "little"))
        assert first == {topic: notifier.published for topic, notifier in before.items()}


def test_only_what_is_wanted_is_sent() -> None:
    with Publisher(everything()) as publisher, subscriber(address_of(publisher), "hashblock", "seq") as sub:
        wait_wanted(publisher, topics=2)
        burst(publisher)
        assert [message[0] for message in receive(sub, 12)] == [b"sequence", b"hashblock"] * 6
        assert not sub.poll(50)
        by_topic = {notifier.topic.value: (notifier.sent, notifier.unwanted) for notifier in publisher.stats().notifiers}
        assert by_topic == {"hashblock": (6, 0), "hashtx": (0, 1800), "rawblock": (0, 6), "rawtx": (0, 1800), "sequence": (6, 0)}


def test_who_leaves_disturbs_nobody() -> None:
    with Publisher(everything(hwm=10)) as publisher, RemoteSubscriber(address_of(publisher), expect=MESSAGES * 4) as stays:
        wait_wanted(publisher)
        for _ in range(4):
            with subscriber(address_of(publisher)) as leaves:
                wait_for(lambda: len(publisher.stats().endpoints[0].subscribers) == 2)
                burst(publisher)
                receive(leaves, 100)
        result = stays.result()
        assert (result["received"], result["gaps"]) == (MESSAGES * 4, 0)
        wait_for(lambda: not publisher.stats().endpoints[0].subscribers)


def test_who_is_killed_in_a_burst_disturbs_nobody() -> None:
    with Publisher(everything(hwm=100)) as publisher, RemoteSubscriber(address_of(publisher), expect=MESSAGES * 5) as stays:
        for round_ in range(5):
            with RemoteSubscriber(address_of(publisher)) as dies:
                wait_for(lambda: len(publisher.stats().endpoints[0].subscribers) == 2)
                if round_ == 0:
                    wait_wanted(publisher)
                burst(publisher)
                dies.kill()
        result = stays.result()
        assert (result["received"], result["gaps"]) == (MESSAGES * 5, 0)
        assert publisher.flush(10)
        assert publisher.stats().evictions == 0


def test_many_threads_publish_at_once() -> None:
    each, threads = 2000, 4
    with Publisher({"zmqpubhashtx": "tcp://127.0.0.1:*", "zmqpubsequence": "tcp://127.0.0.1:*"}) as publisher:
        with RemoteSubscriber(address_of(publisher, "hashtx"), expect=2 * each * threads) as remote:
            wait_wanted(publisher)

            def publish(seed: int) -> None:
                for i in range(each):
                    publisher.transaction_added_to_mempool(transaction(seed * each + i), i)

            workers = [threading.Thread(target=publish, args=(seed,)) for seed in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            result = remote.result()
            assert (result["received"], result["gaps"]) == (2 * each * threads, 0)


def test_addresses_are_independent() -> None:
    """The same topic at several addresses, and several topics at different ones: each counts for itself."""
    options = {
        "zmqpubrawtx": ["tcp://127.0.0.1:*", "inproc://second"],
        "zmqpubhashtx": "inproc://second",
        "zmqpubrawblock": "inproc://third",
    }
    with Publisher(options) as publisher:
        addresses = [notifier.address for notifier in publisher.active_notifiers()]
        assert [notifier.type for notifier in publisher.active_notifiers()] == ["pubhashtx", "pubrawblock", "pubrawtx", "pubrawtx"]
        with subscriber(addresses[2]) as first, subscriber("inproc://second", context=publisher.context) as second:
            wait_wanted(publisher, topics=3)
            burst(publisher, BLOCKS[:1])
            assert [message[0] for message in receive(first, 300)] == [b"rawtx"] * 300
            pairs = receive(second, 600)
            assert [message[0] for message in pairs] == [b"hashtx", b"rawtx"] * 300
            assert [int.from_bytes(message[2], "little") for message in pairs[::2]] == list(range(300))


def test_an_inproc_subscriber_that_does_not_read_is_dropped_for_and_counted() -> None:
    with Publisher({"zmqpubhashtx": "inproc://stuck", "zmqpubhashtxhwm": 100}, stall_timeout=0.2) as publisher:
        with subscriber("inproc://stuck", context=publisher.context, hwm=100) as sub:
            wait_wanted(publisher)
            burst(publisher)
            assert publisher.flush(10)
            stats = publisher.stats().notifiers[0]
            assert stats.dropped > 0
            assert stats.sent + stats.dropped == 1800
            received = receive_all(sub)
            assert len(received) == stats.sent
            burst(publisher, BLOCKS[:1])  # it reads again: it gets what fits, and the counters tell what it missed
            again = receive_all(sub)
            stats = publisher.stats().notifiers[0]
            assert len(received) + len(again) == stats.sent
            assert stats.sent + stats.dropped == 2100


def test_policy_drop_counts_what_a_slow_subscriber_misses() -> None:
    with Publisher({"zmqpubhashtx": "tcp://127.0.0.1:*", "zmqpubhashtxhwm": 1}, slow_subscriber="drop") as publisher:
        with RemoteSubscriber(address_of(publisher, "hashtx")) as remote:
            wait_wanted(publisher)
            burst(publisher)
            assert publisher.flush(10)
            result = remote.result()
            stats = publisher.stats().notifiers[0]
            assert stats.sent + stats.dropped == 1800
            assert result["received"] == stats.sent


def test_closing_in_a_burst_neither_hangs_nor_miscounts() -> None:
    for linger in (0.0, 0.05, None):
        publisher = Publisher(everything(hwm=10))
        with RemoteSubscriber(address_of(publisher)) as remote:
            wait_wanted(publisher)
            burst(publisher)
            publisher.close(linger)
            stats = publisher.stats()
            assert stats.sent + stats.dropped == MESSAGES
            if linger is None:
                assert stats.sent == MESSAGES
                assert remote.result()["received"] == MESSAGES
            with pytest.raises(ClosedError):
                publisher.block_connected(BLOCKS[0])
