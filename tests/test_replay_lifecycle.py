"""The replay endpoint's beginning and end, and clients that misbehave: nobody else is held up, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import zmq
from listening import ANY_PORT, address_of, everything, receive, subscriber, wait_for, wait_wanted
from raw_zmtp import MORE, RawPeer, encode
from replaying import REPLAY, client, counter
from synthetic import block, transaction

from zmqpub import BindError, ConfigError, ForkedError, Publisher
from zmqpub.replay.protocol import HelloRequest, RangeRequest, RangeStart, Status, pack_request, unpack_answer

BLOCK = block(1, 300)


def run(script: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    here = str(Path(__file__).parent)
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", f"import sys; sys.path.insert(0, {here!r})\n" + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def replay_stats(publisher: Publisher) -> object:
    stats = publisher.stats().replay
    assert stats is not None
    return stats


# ---- the beginning ----


def test_an_address_in_use_is_named_and_nothing_is_left_bound() -> None:
    with Publisher(REPLAY | {"zmqpubhashtx": ANY_PORT}) as first:
        taken = first.replay_address
        free = address_of(first, "hashtx")
    with Publisher({"zmqpubreplay": taken}):
        with pytest.raises(BindError) as caught:
            Publisher({"zmqpubhashtx": free, "zmqpubreplay": taken})
        assert (caught.value.option, caught.value.address) == ("zmqpubreplay", taken)
        assert "in use" in str(caught.value)
        with Publisher({"zmqpubhashtx": free}):
            pass


def test_a_live_unix_socket_is_not_stolen(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/replay.sock"
    with Publisher({"zmqpubreplay": address}) as first, client(first) as ask:
        with pytest.raises(BindError):
            Publisher({"zmqpubreplay": address})
        assert ask.current().epoch == first.epoch
    with Publisher({"zmqpubreplay": address}):
        pass


def test_its_address_is_refused_to_a_notifier_that_is_added() -> None:
    with Publisher({"zmqpubreplay": "inproc://replay"}) as publisher, pytest.raises(ConfigError, match="address of its own"):
        publisher.add_notifier("hashtx", "inproc://replay")


# ---- the end ----


def test_the_address_is_free_again_and_no_descriptor_stays() -> None:
    with Publisher(REPLAY) as publisher:
        address = publisher.replay_address
    before = len(os.listdir("/dev/fd"))
    for _ in range(10):
        with Publisher({"zmqpubreplay": address}) as publisher, client(publisher) as ask:
            ask.hello()
    assert len(os.listdir("/dev/fd")) <= before


def test_stats_after_the_end() -> None:
    publisher = Publisher(REPLAY)
    with client(publisher) as ask:
        ask.hello()
        publisher.close()
        publisher.close()
    stats = publisher.stats().replay
    assert stats is not None
    assert (stats.state, stats.answers) == ("stopped", 1)


def test_answers_under_way_may_linger() -> None:
    publisher = Publisher(REPLAY | {"zmqpubrawblock": ANY_PORT})
    big = block(2, 300, size=10_000)
    with client(publisher) as ask:
        for _ in range(2):
            publisher.updated_block_tip(big)
        (info,) = ask.current().notifiers
        request = RangeRequest(publisher.epoch, (RangeStart(info.id, 0),), max_bytes=2**23)
        ask.send(pack_request(request))
        wait_for(lambda: publisher.stats().replay.messages == 2)  # type: ignore[union-attr]
        publisher.close(10)
        assert len(ask.receive()) == 1 + 2 * 3


def test_a_forked_child_is_told_and_the_parent_goes_on() -> None:
    with Publisher(REPLAY | {"zmqpubhashtx": ANY_PORT}) as publisher, client(publisher) as ask:
        publisher.transaction_added_to_mempool(transaction(1), 1)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for call in (lambda: publisher.set_snapshot(None), publisher.stats):
                    with pytest.raises(ForkedError):
                        call()
                publisher.close()
                del publisher
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        (info,) = ask.current().notifiers
        assert len(ask.everything(publisher.epoch, [(info.id, 0)])) == 1


@pytest.mark.parametrize("address", [ANY_PORT, "inproc://replay"])
def test_the_context_may_be_terminated_under_it(address: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = Publisher({"zmqpubhashtx": ANY_PORT, "zmqpubreplay": address}, context=context)
    context.term()  # would hang if it kept a socket there
    if address.startswith("inproc"):
        wait_for(lambda: publisher.stats().replay.state == "terminated")  # type: ignore[union-attr]
    else:  # its own context goes on, and so does what can be asked
        with client(publisher) as ask:
            assert ask.current().epoch == publisher.epoch
    publisher.close()


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "del publisher; gc.collect()"])
def test_the_interpreter_may_exit_with_answers_in_flight(ending: str) -> None:
    result = run(f"""
        import gc, sys, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        from listening import *
        from replaying import *
        from synthetic import block
        from zmqpub import Publisher, Snapshot
        from zmqpub.replay.protocol import *
        publisher = Publisher(everything() | REPLAY)
        publisher.set_snapshot(lambda: Snapshot())
        for seed in range(30):
            publisher.block_connected(bytes(block(seed, 100, size=3000)))
        socket = zmq.Context().socket(zmq.DEALER)
        socket.connect(publisher.replay_address)
        ask = Client(socket)
        starts = tuple(RangeStart(one.id, 0) for one in ask.current().notifiers)
        for _ in range(3):
            ask.send(pack_request(RangeRequest(publisher.epoch, starts, max_bytes=MAX_BYTES)))
        {ending}
    """)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_client_killed_while_the_publisher_closes_does_not_abort_the_process() -> None:
    result = run(
        """
        import random, subprocess
        from listening import *
        from replaying import *
        from synthetic import block
        from zmqpub import Publisher
        random.seed(1)
        blocks = [block(seed, 200, size=3000) for seed in range(10)]
        ASK = '''
        import sys
        sys.path[:0] = sys.argv[2:]
        from replaying import *
        with client(sys.argv[1]) as ask:
            epoch = ask.current()
            print("ready", flush=True)
            while True:
                ask.everything(epoch.epoch, [(one.id, 0) for one in epoch.notifiers], max_bytes=2**23)
        '''
        import textwrap
        for _ in range(12):
            publisher = Publisher(everything() | REPLAY)
            for one in blocks:
                publisher.block_connected(one)
            asking = [
                subprocess.Popen([sys.executable, "-c", textwrap.dedent(ASK), publisher.replay_address, *sys.path], stdout=subprocess.PIPE)
                for _ in range(2)
            ]
            for process in asking:
                process.stdout.readline()
            time.sleep(random.random() * 0.02)
            for process in asking:
                process.kill()
            publisher.close()
            for process in asking:
                process.communicate()
        print("alive")
    """,
        timeout=100,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("alive\n", "", 0)


# ---- clients that misbehave ----


def big_publisher(stall_timeout: float = 5.0) -> Publisher:
    """With some 150 MiB to replay."""
    publisher = Publisher({"zmqpubrawblock": ANY_PORT} | REPLAY, stall_timeout=stall_timeout)
    big = bytes(block(3, 300, size=10_000))
    for nonce in range(50):
        publisher.updated_block_tip(big[:76] + nonce.to_bytes(4, "little") + big[80:])
    return publisher


def test_a_client_that_takes_nothing_holds_no_more_than_its_share_and_is_disconnected() -> None:
    with big_publisher(stall_timeout=0.6) as publisher, client(publisher) as healthy:
        (info,) = healthy.current().notifiers
        with client(publisher) as greedy:
            address = str(publisher.replay_address)
            greedy.socket.setsockopt(zmq.RCVHWM, 1)
            greedy.socket.disconnect(address)
            greedy.socket.setsockopt(zmq.RCVBUF, 65536)
            greedy.socket.connect(address)
            request = pack_request(RangeRequest(publisher.epoch, (RangeStart(info.id, 0),), max_bytes=2**23))
            for _ in range(40):
                greedy.send(request)
            # Of the eight MiB that each could be, libzmq holds four at most; the others are refused or dropped.
            wait_for(lambda: publisher.stats().replay.requests >= 20)  # type: ignore[union-attr]
            assert publisher.stats().replay.messages <= 5 * 3  # type: ignore[union-attr]
            began = time.monotonic()
            assert len(healthy.everything(publisher.epoch, [(info.id, 0)])) == 50
            assert time.monotonic() - began < 5
            wait_for(lambda: publisher.stats().replay.evictions == 1)  # type: ignore[union-attr]
        assert healthy.current().epoch == publisher.epoch


def test_many_clients_each_get_their_share() -> None:
    with big_publisher() as publisher:
        finished: list[float] = []

        def replay() -> None:
            with client(publisher) as ask:
                (info,) = ask.current().notifiers
                messages = ask.everything(publisher.epoch, [(info.id, 0)])
                assert [counter(message) for message in messages] == list(range(50))
                finished.append(time.monotonic())

        began = time.monotonic()
        threads = [threading.Thread(target=replay) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(finished) == 6
        # Served in turns, they end together.
        assert min(finished) - began > (max(finished) - began) * 0.25


def test_a_frame_beyond_all_measure_ends_the_connection() -> None:
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        ask.hello()
        assert publisher.replay_address is not None
        port = int(publisher.replay_address.rpartition(":")[2])
        with RawPeer(port, socket_type="DEALER") as peer:
            wait_for(lambda: publisher.stats().replay.clients == 2)  # type: ignore[union-attr]
            peer.send(encode(bytes(70_000)))
            wait_for(lambda: publisher.stats().replay.clients == 1)  # type: ignore[union-attr]
        assert ask.current().epoch == publisher.epoch


def test_live_subscribers_lose_nothing_while_clients_replay() -> None:
    with Publisher(everything(hwm=1000) | REPLAY) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        for _ in range(20):
            publisher.block_connected(BLOCK)
        receive(sub, 20 * 601)
        stop = threading.Event()

        def replay() -> None:
            with client(publisher) as ask:
                starts = [(one.id, 0) for one in ask.current().notifiers]
                while not stop.is_set():
                    ask.everything(publisher.epoch, starts)

        threads = [threading.Thread(target=replay) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            publisher.block_connected(BLOCK)
        live = receive(sub, 20 * 601)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert [counter(message) for message in live if message[0] == b"rawtx"] == list(range(20 * 300, 40 * 300))
        assert publisher.stats().evictions == 0


def test_a_client_may_pipeline_as_long_as_it_takes_its_answers() -> None:
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        for number in range(200):
            ask.send(pack_request(HelloRequest(number)))
            if number >= 2:
                assert unpack_answer(ask.receive()[0]).request_id == number - 2


def test_unknown_versions_of_zmtp_and_silence_cost_nothing() -> None:
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        assert publisher.replay_address is not None
        port = int(publisher.replay_address.rpartition(":")[2])
        with RawPeer(port, None) as silent, RawPeer(port, None) as talker:
            talker.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
            assert ask.refused(RangeRequest(bytes(16), (RangeStart(0, 0),))).status == Status.UNKNOWN_EPOCH
            silent.socket.close()


def test_a_request_that_never_ends_ends_the_connection() -> None:
    with Publisher(REPLAY) as publisher, client(publisher) as ask:
        ask.hello()
        assert publisher.replay_address is not None
        with RawPeer(int(publisher.replay_address.rpartition(":")[2]), socket_type="DEALER") as peer:
            piece = encode(bytes(60_000), MORE)
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    peer.socket.sendall(piece)
                    time.sleep(0.002)
            assert peer.was_closed()
        assert publisher.stats().replay.evictions == 1  # type: ignore[union-attr]
        assert ask.current().epoch == publisher.epoch
