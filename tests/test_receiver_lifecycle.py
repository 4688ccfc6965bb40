"""How a receiver waits and how it ends: by close, signal, fork, exit of the interpreter, the end of its context; and what it leaves."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import zmq
from listening import wait_for
from raw_publisher import (
    ALL,
    HASHTX,
    RAWBLOCK,
    RAWTX,
    RawPublisher,
    events,
    items_of,
    messages,
    receiving,
    take_all,
    take_count,
    take_until,
    wait_connected,
)
from synthetic import block, transaction

from zmqpub import ClosedError
from zmqpub._fast import Received, Receiver

BODY = bytes(range(32))


def new_receiver(address: str, context: zmq.Context[zmq.Socket[bytes]]) -> Receiver:
    return Receiver([(address, address, False, ALL, {})], context=context, reconnect_interval=0.02)


def wait_entries(receiver: Receiver, count: int) -> None:
    wait_for(lambda: receiver.stats().held_entries == count)


def run(program: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A Python program that finds the tests' modules, in a process of its own."""
    preamble = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom raw_publisher import *\nimport os, threading, time\n"
    return subprocess.run([sys.executable, "-c", preamble + program, *arguments], capture_output=True, text=True, timeout=timeout)


# ---- waiting ----


@pytest.mark.parametrize("timeout", [0, 0.01, 0.12])
def test_nothing_within_the_timeout(timeout: float) -> None:
    with receiving("tcp://127.0.0.1:9") as receiver:
        begun = time.monotonic()
        assert receiver.take(timeout) is None
        assert timeout * 0.9 <= time.monotonic() - begun < timeout + 5


def test_signals_do_not_shorten_the_wait() -> None:
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        with receiving("tcp://127.0.0.1:9") as receiver:
            begun = time.monotonic()
            assert receiver.take(0.5) is None
            assert time.monotonic() - begun >= 0.5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_a_message_ends_the_wait_at_once() -> None:
    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        take_until(receiver, lambda items: items)
        waits = []
        for counter in range(20):
            timer = threading.Timer(0.02, publisher.send, (HASHTX, BODY, counter))
            timer.start()
            assert len(messages(take_count(receiver, 1))) == 1
            waits.append(time.monotonic())
            timer.join()
        assert waits[-1] - waits[0] < 19 * 0.2


def test_a_signal_is_seen_while_it_waits() -> None:
    program = """
with receiving("tcp://127.0.0.1:9") as receiver:
    print("waiting", flush=True)
    try:
        receiver.take(None)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    # Who runs the tests in the background ignores SIGINT, and so would the child.
    preamble = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from raw_publisher import *
"""
    with subprocess.Popen([sys.executable, "-c", preamble + program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            time.sleep(0.2)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            assert time.monotonic() - begun < 20  # it would have waited for ever
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_other_threads_run_while_it_waits() -> None:
    with receiving("tcp://127.0.0.1:9") as receiver:

        def wait() -> None:
            with pytest.raises(ClosedError):
                receiver.take(60)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        assert waiting.is_alive()  # else this would not be reached before the 60 seconds are over
        receiver.close()
        waiting.join()


def test_the_descriptor_is_readable_while_there_is_something() -> None:
    def readable() -> bool:
        return bool(select.select([receiver.fileno()], [], [], 0)[0])

    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        wait_for(readable)
        take_all(receiver, quiet=0.05)
        assert not readable()
        for counter in range(3000):
            publisher.send(HASHTX, BODY, counter)
        wait_for(lambda: receiver.stats().held_entries == 3000)
        taken = 0
        while readable():
            batch = receiver.take(0)
            assert batch is not None
            taken += len(list(batch))
        assert taken == 3000
        receiver.close()
        assert readable()


def test_it_can_be_read_from_asyncio() -> None:
    async def read(receiver: Receiver, count: int) -> list[Received]:
        got: list[Received] = []
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(receiver.fileno(), ready.set)
        while len(got) < count:
            await ready.wait()
            ready.clear()
            while (batch := receiver.take(0)) is not None:
                got += messages(batch)
        loop.remove_reader(receiver.fileno())
        return got

    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        for counter in range(5000):
            publisher.send(HASHTX, BODY, counter)
        assert len(asyncio.run(asyncio.wait_for(read(receiver, 5000), 20))) == 5000


# ---- the end ----


def test_close_ends_a_wait_in_another_thread_and_may_be_repeated() -> None:
    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        take_until(receiver, lambda items: items)
        threading.Timer(0.2, receiver.close).start()
        begun = time.monotonic()
        with pytest.raises(ClosedError):
            receiver.take(None)
        assert time.monotonic() - begun < 5
        receiver.close()
        assert receiver.closed
        with pytest.raises(ClosedError):
            receiver.take(0)
        assert receiver.delivered(0) == {}
        assert receiver.stats().sources[0].address == publisher.address


def test_close_amid_a_burst_gives_everything_back() -> None:
    raw = bytes(block(1, 50, size=1000))
    with RawPublisher() as publisher:
        for _ in range(20):
            with receiving(publisher.address) as receiver:
                publisher.wait_subscribed()
                for counter in range(200):
                    publisher.send(RAWBLOCK, raw, counter)
                batch = receiver.take(10)
                assert batch is not None
            assert receiver.stats().held_bytes == 0
            assert batch.remaining > 0
            list(batch)


def test_a_batch_outlives_its_receiver() -> None:
    with RawPublisher() as publisher:
        context = zmq.Context()
        receiver = new_receiver(publisher.address, context)
        publisher.wait_subscribed()
        publisher.send(RAWBLOCK, bytes(block(1)), 5)
        wait_entries(receiver, 2)
        batch = receiver.take(10)
        assert batch is not None
        receiver.close()
        gone = weakref.ref(receiver)
        del receiver
        context.term()
        gc.collect()
        assert gone() is not None  # for the batch
        (message,) = messages(items_of([batch]))
        assert message.body == bytes(block(1))


def test_the_end_of_the_context_is_told_after_what_was_received() -> None:
    with RawPublisher() as publisher:
        context = zmq.Context()
        receiver = new_receiver(publisher.address, context)
        publisher.wait_subscribed()
        publisher.send(HASHTX, BODY, 0)
        wait_for(lambda: receiver.stats().held_entries == 2)
        context.term()  # does not wait for ever
        batch = receiver.take(0)
        assert batch is not None
        assert len(messages(batch)) == 1
        with pytest.raises(ClosedError, match="context"):
            receiver.take(None)
        receiver.close()


def test_a_context_that_was_terminated_takes_no_receiver() -> None:
    context = zmq.Context()
    context.term()
    with pytest.raises(ClosedError):
        new_receiver("tcp://127.0.0.1:9", context)


def test_a_receiver_that_was_forgotten_ends() -> None:
    threads = len(os.listdir("/proc/self/task"))
    context = zmq.Context()
    receiver = new_receiver("tcp://127.0.0.1:9", context)
    assert len(os.listdir("/proc/self/task")) > threads
    del receiver
    gc.collect()
    context.term()
    wait_for(lambda: len(os.listdir("/proc/self/task")) == threads)


@pytest.mark.parametrize("source", [-1, 1])
def test_a_source_that_there_is_not(source: int) -> None:
    with receiving("tcp://127.0.0.1:9", topics=1 << HASHTX) as receiver:
        for call in (receiver.delivered, receiver.generation, receiver.connected, receiver.delivered_before_restart):
            with pytest.raises(IndexError):
                call(source)
        with pytest.raises(IndexError):
            receiver.set_delivered(source, HASHTX, 0)
        with pytest.raises(ValueError, match="not asked for"):
            receiver.set_delivered(0, RAWTX, 0)


def test_exit_without_close() -> None:
    done = run("""
publisher = RawPublisher()
context = zmq.Context()
receiver = Receiver([(publisher.address, publisher.address, False, 31, {})], context=context)
publisher.wait_subscribed()
for i in range(50000):
    publisher.send(1, bytes(32), i)
first = receiver.take(10)
publisher.close()
print("end", flush=True)
""")
    assert (done.returncode, done.stdout) == (0, "end\n")
    assert done.stderr == ""


def test_exit_while_another_thread_waits() -> None:
    done = run("""
context = zmq.Context()
receiver = Receiver([("x", "tcp://127.0.0.1:9", False, 31, {})], context=context)
def wait():
    try:
        receiver.take(None)
    except Exception as error:
        print(type(error).__name__, flush=True)
threading.Thread(target=wait, daemon=True).start()
time.sleep(0.2)
print("end", flush=True)
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("end\n")


def test_a_forked_child_is_told_so_and_ends_without_harm() -> None:
    done = run("""
from zmqpub import ForkedError
with RawPublisher() as publisher, receiving(publisher.address) as receiver:
    publisher.wait_subscribed()
    publisher.send(2, bytes.fromhex("00" * 80 + "00"), 0)
    batch = receiver.take(10)
    while receiver.stats().held_entries == 0 and len(batch.take(0)) == 0 and batch.remaining < 2:
        time.sleep(0.01)
    pid = os.fork()
    if pid == 0:
        for call in (lambda: receiver.take(0), receiver.fileno, receiver.stats):
            try:
                call()
            except ForkedError:
                continue
            os._exit(1)
        list(batch)
        del batch
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    publisher.send(1, bytes(32), 5)
    items = take_until(receiver, lambda items: messages(items) and messages(items)[-1].counter == 5)
    print("received", flush=True)
""")
    assert (done.returncode, done.stdout) == (0, "received\n"), done.stderr


# ---- what it leaves ----


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_descriptor_and_no_thread_is_left() -> None:
    def once() -> None:
        with RawPublisher() as publisher, receiving(publisher.address, stale_after=0.02) as receiver:
            publisher.wait_subscribed()
            take_until(receiver, lambda items: events(items, "stale"))

    once()
    gc.collect()
    before = descriptors(), len(os.listdir("/proc/self/task"))
    for _ in range(15):
        once()
    gc.collect()
    wait_for(lambda: (descriptors(), len(os.listdir("/proc/self/task"))) <= before, what="as few descriptors and threads")


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    """Blocks, transactions, hashes and malformed messages, half of the batches left unread."""
    raw, tx = bytes(block(1, 200, size=1000)), bytes(transaction(1))
    with RawPublisher() as publisher, receiving(publisher.address) as receiver:
        publisher.wait_subscribed()
        wait_connected(receiver)

        def once(first: int) -> None:
            for counter in range(first, first + 100):
                publisher.send(RAWBLOCK, raw, counter)
                for i in range(10):
                    publisher.send(RAWTX, tx, 10 * counter + i)
                    publisher.send(HASHTX, BODY, 10 * counter + i)
                publisher.send(b"hashtxlock", BODY, counter)
            expected = (first // 100 + 1) * 2100
            wait_for(lambda: receiver.stats().sources[0].messages == expected, 60)
            while (batch := receiver.take(0)) is not None:
                if len(batch.take(50)) == 50:
                    continue
                for message in messages(batch):
                    assert message.body

        for round_ in range(10):
            once(round_ * 100)
        before = resident()
        for round_ in range(10, 40):
            once(round_ * 100)
        assert resident() - before < 60 << 20  # 600 MB went through
