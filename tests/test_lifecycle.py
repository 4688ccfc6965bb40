"""Beginnings and ends: binding, closing, forking, exiting, a context terminated from under it; nothing leaks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import zmq
from listening import RemoteSubscriber, address_of, everything, receive, subscriber, wait_for, wait_wanted
from synthetic import block, transaction

from zmqpub import BindError, Block, ClosedError, ConfigError, DecodeError, ForkedError, Publisher

BLOCK = block(1, 300)


def run(script: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    here = str(Path(__file__).parent)
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", f"import sys; sys.path.insert(0, {here!r})\n" + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# ---- binding ----


def test_an_address_in_use_is_named_and_nothing_is_left_bound() -> None:
    with Publisher({"zmqpubhashtx": "tcp://127.0.0.1:*"}) as first:
        taken = address_of(first, "hashtx")
        with Publisher({"zmqpubrawtx": "tcp://127.0.0.1:*"}) as probe:
            free = address_of(probe, "rawtx")
        with pytest.raises(BindError) as caught:
            Publisher({"zmqpubhashblock": free, "zmqpubrawblock": taken})
        assert (caught.value.option, caught.value.address) == ("zmqpubrawblock", taken)
        assert f"zmqpubrawblock={taken}" in str(caught.value)
        assert "in use" in str(caught.value)
        with Publisher({"zmqpubhashblock": free}):
            pass


def test_a_live_unix_socket_is_not_stolen_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/node.sock"
    with Publisher({"zmqpubhashtx": address}) as first, subscriber(address_of(first, "hashtx")) as sub:
        wait_wanted(first)
        with pytest.raises(BindError) as caught:
            Publisher({"zmqpubhashtx": address})
        assert caught.value.address == address
        first.transaction_added_to_mempool(transaction(1), 1)
        assert len(receive(sub, 1)) == 1
    killed = run(f"""
        import os, signal
        from zmqpub import Publisher
        publisher = Publisher({{"zmqpubhashtx": {address!r}}})
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "node.sock").exists()
    with Publisher({"zmqpubhashtx": address}):
        pass


def test_bad_options_are_refused_all_at_once_before_anything_is_bound() -> None:
    with Publisher({"zmqpubrawtx": "tcp://127.0.0.1:*"}) as probe:
        free = address_of(probe, "rawtx")
    with pytest.raises(ConfigError) as caught:
        Publisher({"zmqpubrawtx": free, "zmqpubrawblok": free, "zmqpubhashtxhwm": -1}, stall_timout=1)
    assert [problem.option for problem in caught.value.problems] == ["zmqpubrawblok", "zmqpubhashtxhwm", "stall_timout"]
    assert "zmqpubrawblock" in str(caught.value)
    with Publisher({"zmqpubrawtx": free}):
        pass


def test_ports_left_to_the_system_are_reported() -> None:
    with Publisher({"zmqpubrawtx": "tcp://127.0.0.1:0", "zmqpubhashtx": "tcp://127.0.0.1:*"}) as publisher:
        for notifier in publisher.active_notifiers():
            assert int(notifier.address.rpartition(":")[2]) > 0


def test_a_bitcoin_conf_is_enough(tmp_path: Path) -> None:
    conf = tmp_path / "bitcoin.conf"
    conf.write_text(
        "regtest=1\nrpcuser=x\n[regtest]\nzmqpubhashtx=tcp://127.0.0.1:*\nzmqpubhashtxhwm=7\n[main]\nzmqpubrawtx=tcp://0.0.0.0:1\n"
    )
    with Publisher.from_conf(conf, stall_timeout=1) as publisher:
        (notifier,) = publisher.active_notifiers()
        assert (notifier.type, notifier.hwm) == ("pubhashtx", 7)
        assert publisher.settings.stall_timeout == 1


# ---- malformed events ----


def test_a_malformed_event_publishes_nothing_and_the_publisher_goes_on() -> None:
    with Publisher(everything()) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        raw = bytes(BLOCK)
        for bad in (raw[:-1], raw + b"\0", raw[:80], b"", b"\xff" * 200):
            for event in (publisher.block_connected, publisher.block_disconnected, publisher.updated_block_tip):
                with pytest.raises(DecodeError) as caught:
                    event(bad)
                assert caught.value.offset <= len(bad)
                assert caught.value.expected
                assert caught.value.got
        with pytest.raises(DecodeError):
            publisher.transaction_added_to_mempool(raw, 1)
        for nonsense in (None, "abc", 5):
            with pytest.raises(TypeError):
                publisher.block_connected(nonsense)  # type: ignore[arg-type]
        with pytest.raises(OverflowError):
            publisher.transaction_added_to_mempool(transaction(1), -1)
        publisher.updated_block_tip(raw)
        assert receive(sub, 1)[0] == (b"hashblock", BLOCK.hash, bytes(4))
        assert publisher.flush(10)  # a message can arrive before it is counted
        assert sum(notifier.published for notifier in publisher.stats().notifiers) == 2


def test_mutable_input_may_change_after_the_call() -> None:
    with Publisher(everything()) as publisher, subscriber(address_of(publisher), "rawblock") as sub:
        wait_wanted(publisher, 1)
        raw = bytearray(bytes(BLOCK))
        publisher.updated_block_tip(raw)
        raw[:] = bytes(len(raw))
        assert receive(sub, 1)[0][1] == bytes(BLOCK)


# ---- notifiers that come and go ----


def test_notifiers_are_added_and_removed_while_it_runs() -> None:
    with Publisher({"zmqpubhashtx": "tcp://127.0.0.1:*"}) as publisher:
        address = address_of(publisher, "hashtx")
        with subscriber(address) as sub:
            wait_wanted(publisher)
            publisher.transaction_added_to_mempool(transaction(1), 1)
            assert publisher.add_notifier("rawtx", address) == ("pubrawtx", address, 1000)
            publisher.transaction_added_to_mempool(transaction(2), 2)
            publisher.remove_notifier("hashtx", address)
            publisher.transaction_added_to_mempool(transaction(3), 3)
            publisher.add_notifier("hashtx", address)
            publisher.transaction_added_to_mempool(transaction(4), 4)
            rows = [(message[0], message[2][0]) for message in receive(sub, 6)]
            assert rows == [(b"hashtx", 0), (b"hashtx", 1), (b"rawtx", 0), (b"rawtx", 1), (b"hashtx", 0), (b"rawtx", 2)]
        other = publisher.add_notifier("hashblock", "inproc://other")
        with subscriber(other.address, context=publisher.context) as sub:
            wait_for(lambda: publisher.stats().notifiers[0].wanted)
            publisher.updated_block_tip(BLOCK)
            receive(sub, 1)
        publisher.remove_notifier("hashblock", "inproc://other")
        publisher.add_notifier("hashblock", "inproc://other")
        with pytest.raises(ConfigError):
            publisher.add_notifier("hashtx", address)
        with pytest.raises(ConfigError):
            publisher.remove_notifier("sequence", address)
        with pytest.raises(ConfigError):
            publisher.add_notifier("rawtxx", address)


def test_a_publisher_without_notifiers_takes_events_and_keeps_nothing() -> None:
    with Publisher() as publisher:
        publisher.block_connected(BLOCK)
        assert publisher.flush(1)
        assert publisher.active_notifiers() == []
        assert publisher.stats().journal.bytes == 0


# ---- the end ----


def test_every_call_after_close_is_refused() -> None:
    publisher = Publisher(everything())
    publisher.close()
    publisher.close()
    for call in (
        lambda: publisher.block_connected(BLOCK),
        lambda: publisher.updated_block_tip(BLOCK, initial_download=True),
        lambda: publisher.transaction_added_to_mempool(transaction(1), 1),
        lambda: publisher.active_notifiers(),
        lambda: publisher.add_notifier("rawtx", "inproc://x"),
        lambda: publisher.remove_notifier("rawtx", "inproc://x"),
    ):
        with pytest.raises(ClosedError):
            call()
    assert publisher.closed
    assert publisher.stats().sent == 0


def test_the_context_may_be_terminated_under_it() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = Publisher(everything(), context=context)
    publisher.block_connected(BLOCK)
    context.term()  # would hang if the senders kept their sockets
    with pytest.raises(ClosedError):
        publisher.block_connected(BLOCK)
    wait_for(lambda: {endpoint.state for endpoint in publisher.stats().endpoints} == {"terminated"})
    publisher.close()


def test_a_notifier_added_while_the_context_ends_is_told_so() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = Publisher(everything(), context=context)
    holder = context.socket(zmq.PAIR)  # until it is closed, the termination is under way
    ending = threading.Thread(target=context.term)
    ending.start()
    wait_for(lambda: {endpoint.state for endpoint in publisher.stats().endpoints} == {"terminated"})
    with pytest.raises(ClosedError, match="terminated"):
        publisher.add_notifier("rawtx", "tcp://127.0.0.1:*")
    holder.close(0)
    ending.join(10)
    assert not ending.is_alive()
    publisher.close()


def test_the_context_may_be_terminated_while_a_full_pipe_is_waited_for() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = Publisher(everything(hwm=1), context=context, slow_subscriber="wait")
    with RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
        wait_wanted(publisher)
        remote.stop()
        big = block(5, 300, size=20_000)
        for _ in range(5):
            publisher.block_connected(big)
        assert not publisher.flush(0.2)
        context.term()
        publisher.close()


def test_a_forked_child_is_told_and_the_parent_goes_on() -> None:
    with Publisher(everything()) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for call in (lambda: publisher.block_connected(BLOCK), publisher.flush, publisher.stats, publisher.active_notifiers):
                    with pytest.raises(ForkedError, match="parent"):
                        call()
                publisher.close()
                assert BLOCK.txids  # what is not the publisher's still works
                del publisher
                gc.collect()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        publisher.block_connected(BLOCK)
        assert len(receive(sub, 601)) == 601


def test_a_forked_child_makes_its_own_publisher() -> None:
    result = run("""
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tested
        from listening import *
        from synthetic import block
        from zmqpub import Publisher
        publisher = Publisher(everything())
        pid = os.fork()
        with Publisher(everything()) as own, subscriber(address_of(own)) as sub:
            wait_wanted(own)
            own.block_connected(block(1, 5))
            assert len(receive(sub, 11)) == 11
        if pid == 0:
            sys.exit(0)  # atexit runs with the parent's publisher still open
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        publisher.close()
    """)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit", "del publisher; gc.collect()"])
def test_the_interpreter_may_exit_with_messages_in_flight(ending: str) -> None:
    result = run(f"""
        import gc, sys, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        from listening import *
        from synthetic import block
        from zmqpub import Publisher
        publisher = Publisher(everything(hwm=5))
        remote = RemoteSubscriber(address_of(publisher)).__enter__()
        wait_wanted(publisher)
        remote.stop()
        for seed in range(50):
            publisher.block_connected(bytes(block(seed, 100, size=3000)))
        remote.kill()
        {ending}
    """)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_subscriber_killed_while_the_publisher_closes_does_not_abort_the_process() -> None:
    """libzmq asserts when a connection fails in the middle of a message of a socket that was closed without lingering."""
    result = run(
        """
        import random
        from listening import *
        from synthetic import block
        from zmqpub import Publisher
        random.seed(1)
        blocks = [block(seed, 300, size=600) for seed in range(10)]
        for _ in range(40):
            publisher = Publisher(everything())
            remotes = [RemoteSubscriber(address_of(publisher)).process for _ in range(3)]
            wait_wanted(publisher)
            for one in blocks:
                publisher.block_connected(one)
            time.sleep(random.random() * 0.01)
            for process in remotes:
                process.kill()
            publisher.close()
            for process in remotes:
                process.communicate()
        print("alive")
    """,
        timeout=100,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("alive\n", "", 0)


def test_a_publisher_that_was_forgotten_warns_and_ends() -> None:
    publisher = Publisher(everything())
    address = address_of(publisher)
    last_reference = [publisher]
    del publisher
    with pytest.warns(ResourceWarning, match="never closed"):
        last_reference.clear()
    with Publisher(everything(address)):
        pass


def test_an_interrupt_ends_a_flush_and_a_close() -> None:
    result = run("""
        import os, signal, threading, time
        from listening import *
        from synthetic import block
        from zmqpub import Publisher
        publisher = Publisher(everything(hwm=1), slow_subscriber="wait")
        with RemoteSubscriber(address_of(publisher), rcvbuf=65536) as remote:
            wait_wanted(publisher)
            remote.stop()
            for seed in range(30):
                publisher.block_connected(block(seed, 100, size=10_000))
            for call in (publisher.flush, lambda: publisher.close(None)):
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                began = time.monotonic()
                try:
                    call()
                    print("not interrupted")
                except KeyboardInterrupt:
                    print(f"interrupted {time.monotonic() - began < 20}")
    """)
    assert (result.stdout.splitlines(), result.returncode) == (["interrupted True"] * 2, 0), result.stderr


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_neither_descriptors_nor_threads_leak() -> None:
    def once() -> None:
        with Publisher(everything() | {"zmqpubrawtx": ["tcp://127.0.0.1:*", "inproc://x"]}) as publisher:
            with subscriber(address_of(publisher)) as sub:
                wait_wanted(publisher, 5)
                publisher.block_connected(BLOCK)
                receive(sub, 10)

    once()
    before = descriptors(), threading.active_count(), len(os.listdir("/proc/self/task"))
    for _ in range(20):
        once()
    wait_for(lambda: (descriptors(), threading.active_count(), len(os.listdir("/proc/self/task"))) <= before)


def test_memory_is_given_back() -> None:
    """What went through the publisher is freed, whoever dropped the last reference."""
    with Publisher(everything()) as publisher, RemoteSubscriber(address_of(publisher)):
        wait_wanted(publisher)

        def publish(count: int) -> None:
            for seed in range(count):
                publisher.block_connected(Block(bytes(block(seed, 20, size=5000))))
                publisher.transaction_added_to_mempool(bytes(transaction(seed)), seed)
            assert publisher.flush(20)

        publish(100)
        time.sleep(0.2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        publish(1000)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 40_000, f"{grown} KB more after 100 MB of blocks"


def test_what_was_sent_is_released_without_further_events() -> None:
    with Publisher(everything()) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        raw = bytes(block(3, 50))
        before = sys.getrefcount(raw)
        publisher.block_connected(raw)
        receive(sub, 101)
        wait_for(lambda: sys.getrefcount(raw) == before, 5, "the release")


def test_it_works_in_a_spawned_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_publish_once) == 601


def _publish_once() -> int:
    with Publisher(everything()) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        publisher.block_connected(BLOCK)
        return len(receive(sub, 601))
