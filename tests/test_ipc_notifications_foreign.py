"""The child as a program in another language sees it: a socket, Cap'n Proto, and nothing of zmqpub's on this side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ipc_story import ANY_PORT
from synthetic import block, transaction

import zmqpub

pytest.importorskip("capnp", reason="zmqpub[ipc] is not installed")

import capnp

from zmqpub.ipc.process import find_program
from zmqpub.ipc.schema import load_file

SCHEMA = Path(zmqpub.__file__).parent / "ipc" / "zmqpub.capnp"
PATIENCE = 60.0


def start(theirs: Any, stderr: int | None = None) -> subprocess.Popen[bytes]:
    """The child at a descriptor."""
    number = theirs.fileno()
    return subprocess.Popen([str(find_program("zmqpub")), "-ipcfd", str(number)], pass_fds=[number], stderr=stderr)


@contextlib.asynccontextmanager
async def spawned() -> AsyncIterator[tuple[Any, Any, subprocess.Popen[bytes], socket.socket]]:
    """(schema, PublisherInit, the process, our end of the socket)"""
    schema = load_file(SCHEMA)
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [str(find_program("zmqpub")), "-ipcfd", str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
    )
    theirs.close()
    try:
        async with capnp.kj_loop():
            stream = await capnp.AsyncIoStream.create_unix_connection(sock=ours)
            client = capnp.TwoPartyClient(stream)
            yield schema, client.bootstrap().cast_as(schema.PublisherInit), child, ours
            stream.close()
            await asyncio.sleep(0)
    finally:
        ours.close()
        try:
            child.wait(PATIENCE)
        finally:
            child.kill()
            child.communicate()


def options_of(init: Any, options: dict[str, list[str]], **settings: Any) -> Any:
    request = init.makeNotifications_request()
    asked = request.init("options")
    for option, (name, values) in zip(asked.init("options", len(options)), options.items(), strict=True):
        option.name, option.values = name, values
    for setting, (name, value) in zip(asked.init("settings", len(settings)), settings.items(), strict=True):
        setting.name = name
        kind = {int: "integer", float: "number", str: "text"}[type(value)]
        setattr(setting.value, kind, value)
    return request


async def publish(notifications: Any, *events: dict[str, Any]) -> Any:
    request = notifications.publish_request()
    for event, given in zip(request.init("events", len(events)), events, strict=True):
        event.kind = given["kind"]
        event.mempoolSequence = given.get("sequence", 0)
        if "lane" in given:
            event.body.init("lane")
            event.body.lane.offset, event.body.lane.size = given["lane"]
        elif "data" in given:
            event.body.data = given["data"]
        elif "txid" in given:
            event.body.txid = given["txid"]
        else:
            event.body.same = None
    return await request.send()


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test(), PATIENCE))


def test_a_whole_session() -> None:
    async def session() -> None:
        async with spawned() as (_schema, init, child, _):
            request = options_of(
                init, {"zmqpubrawblock": [ANY_PORT], "zmqpubsequence": [ANY_PORT], "zmqpubreplay": [ANY_PORT]}, stall_timeout=3.0
            )
            made = await request.send()
            assert made.failure.which() == "none"
            notifiers = [(str(one.type), str(one.address), one.hwm) for one in made.state.notifiers]
            assert [one[0] for one in notifiers] == ["pubrawblock", "pubsequence"]
            assert made.state.processId == child.pid
            assert len(made.state.epoch) == 16
            notifications = made.notifications
            subscriber = zmqpub.Subscriber(notifiers[0][1], replay=str(made.state.replayAddress), only_notifications=True)
            try:
                raw, tx = bytes(block(1)), transaction(2)
                answer = await publish(
                    notifications,
                    {"kind": "transactionAdded", "sequence": 5, "data": bytes(tx)},
                    {"kind": "blockConnected", "data": raw},
                    {"kind": "tip"},
                    {"kind": "transactionRemoved", "sequence": 6, "txid": tx.txid[::-1]},
                )
                assert (answer.journaled, answer.settled, len(answer.refused)) == (4, True, 0)
                answer = await publish(notifications, {"kind": "blockDisconnected"})
                assert answer.journaled == 5
                assert (await notifications.flush(PATIENCE * 1000)).flushed
                items: list[Any] = [await asyncio.to_thread(subscriber.recv, PATIENCE) for _ in range(5)]
                told = [(str(one.topic), bytes(one.body)) for one in items]
                hash_of = block(1).hash
                assert told == [
                    ("sequence", tx.txid + b"A" + (5).to_bytes(8, "little")),
                    ("sequence", hash_of + b"C"),
                    ("rawblock", raw),
                    ("sequence", tx.txid + b"R" + (6).to_bytes(8, "little")),
                    ("sequence", hash_of + b"D"),
                ]
            finally:
                subscriber.close()
            assert '"appended": 5' in (await notifications.stats()).json
            await notifications.close(0)
        assert child.returncode == 0

    run(session)


def test_what_is_malformed_is_refused_by_its_number_and_the_rest_is_published() -> None:
    async def session() -> None:
        async with spawned() as (_schema, init, child, _):
            notifications = (await options_of(init, {"zmqpubrawtx": [ANY_PORT]}).send()).notifications
            answer = await publish(
                notifications,
                {"kind": "tip"},  # of no block
                {"kind": "transactionAdded", "data": bytes(transaction(1))},
                {"kind": "blockConnected", "data": b"\1" * 90},
                {"kind": "blockConnected", "lane": (0, 10)},  # there is none
                {"kind": "blockConnected", "txid": bytes(32)},
                {"kind": "transactionAdded", "txid": bytes(32)},
                {"kind": "transactionRemoved", "txid": bytes(31)},
                {"kind": "transactionAdded", "data": b""},
                {"kind": "transactionAdded"},
                {"kind": "transactionRemoved", "txid": bytes(32)},
            )
            assert [one.index for one in answer.refused] == [0, 2, 3, 4, 5, 6, 7, 8]
            assert {one.failure.which() for one in answer.refused} == {"decode"}
            assert str(answer.refused[6].failure.decode.what) == "transaction"
            assert answer.journaled == 2
        assert child.returncode == 0

    run(session)


def test_bad_options_are_all_told_and_the_call_may_be_made_again() -> None:
    async def session() -> None:
        async with spawned() as (_schema, init, child, _):
            made = await options_of(init, {"zmqpubrawtx": ["nowhere"], "zmqpubx": ["1"]}, on_full="never", linger=-3.0).send()
            problems = {(str(one.option), str(one.value) if one._has("value") else None) for one in made.failure.config}
            assert {option for option, _ in problems} == {"zmqpubrawtx", "zmqpubx", "on_full", "linger"}
            assert ("zmqpubx", None) in problems
            assert not made._has("notifications")
            with socket.create_server(("127.0.0.1", 0)) as taken:
                address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
                made = await options_of(init, {"zmqpubrawtx": [address]}).send()
                assert (str(made.failure.bind.option), str(made.failure.bind.address)) == ("zmqpubrawtx", address)
                assert made.failure.bind.errno == 98
            made = await options_of(init, {"zmqpubrawtx": [address]}).send()
            assert made.failure.which() == "none"
            again = await options_of(init, {"zmqpubrawtx": [ANY_PORT]}).send()
            assert "there is a publisher already" in str(again.failure.config[0].message)
            await made.notifications.close()
            assert (await options_of(init, {"zmqpubrawtx": [address]}).send()).failure.which() == "none"
        assert child.returncode == 0

    run(session)


def test_a_child_that_goes_on_skips_by_number_what_its_journal_has(tmp_path: Path) -> None:
    """Connected, disconnected, connected again: their content alone could not say what of this the journal has."""
    one, two = bytes(block(1, 3)), bytes(block(2, 3))
    first: list[dict[str, Any]] = [{"kind": "blockConnected", "data": one}, {"kind": "tip"}]
    then: list[dict[str, Any]] = [
        {"kind": "blockDisconnected", "data": one},
        {"kind": "blockConnected", "data": two},
        {"kind": "tip"},
        {"kind": "transactionAdded", "data": b"malformed"},  # which the journal never has
        {"kind": "blockDisconnected", "data": two},
        {"kind": "blockConnected", "data": one},
    ]
    rest: list[dict[str, Any]] = [{"kind": "tip", "data": one}]

    async def life(journaled: int | None, *calls: list[dict[str, Any]]) -> list[tuple[int, int]]:
        """(journaled, refused) of each call; then the child is killed."""
        async with spawned() as (_schema, init, child, _):
            options = {f"zmqpub{topic}": ["tcp://127.0.0.1:*"] for topic in ("sequence", "rawblock")}
            request = options_of(init, options, journal_path=str(tmp_path / "journal"), journal_bytes=2**24)
            request.options.resume = journaled is not None
            request.options.journaled = journaled or 0
            made = await request.send()
            assert made.failure.which() == "none"
            answers = [await publish(made.notifications, *call) for call in calls]
            assert all(answer.settled for answer in answers)
            child.kill()
            return [(answer.journaled, len(answer.refused)) for answer in answers]

    async def session() -> None:
        assert await life(None, first, then) == [(2, 0), (7, 1)]
        # As if the answer to the second call had not come: the same again, and what comes after it.
        assert await life(2, then, rest) == [(7, 1), (8, 0)]
        assert await life(7, rest, first) == [(8, 0), (10, 0)]

    run(session)


def test_a_program_that_makes_all_large_bodies_go_through_a_file(tmp_path: Path) -> None:
    async def session() -> None:
        raw = bytes(block(3, 5, size=5000))
        lane = tmp_path / "lane"
        lane.write_bytes(b"x" * 100 + raw + b"y" * 100)
        async with spawned() as (_schema, init, _child, _):
            request = options_of(init, {"zmqpubrawblock": [ANY_PORT], "zmqpubreplay": [ANY_PORT]})
            request.options.lane = str(lane)
            made = await request.send()
            assert made.state.lane
            address = str(made.state.notifiers[0].address)
            subscriber = zmqpub.Subscriber(address, replay=str(made.state.replayAddress), only_notifications=True)
            try:
                place = (100, len(raw))
                answer = await publish(made.notifications, {"kind": "tip", "lane": place}, {"kind": "tip", "lane": (2**63, 2**63)})
                assert [one.index for one in answer.refused] == [1]
                got: Any = await asyncio.to_thread(subscriber.recv, PATIENCE)
                assert bytes(got.body) == raw
            finally:
                subscriber.close()

    run(session)


def test_the_child_is_an_init_as_bitcoin_core_has_them() -> None:
    async def session() -> None:
        async with spawned() as (schema, init, child, _):
            init = init.cast_as(schema.Init)
            threads = (await init.construct()).threadMap
            thread = (await threads.makeThread("here")).result
            assert (await thread.getName()).result == "here"
            context = {"thread": thread}
            echo = (await init.makeEcho(context)).result
            assert (await echo.echo(context, "hällo")).result == "hällo"
        assert child.returncode == 0

    run(session)


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_cap_n_proto_end_the_child_in_good_order(seed: int) -> None:
    import random

    rng = random.Random(seed)
    ours, theirs = socket.socketpair()
    child = start(theirs)
    theirs.close()
    with ours:
        with contextlib.suppress(OSError):
            ours.sendall(rng.randbytes(rng.choice((1, 7, 100, 100_000))))
            ours.shutdown(socket.SHUT_WR)
        try:
            assert child.wait(PATIENCE) == 0
        finally:
            child.kill()
            child.wait()


@pytest.mark.parametrize("number", ["x", "-1", "999", "1e3", ""])
def test_a_number_that_is_no_socket_is_said_in_one_line(number: str) -> None:
    done = subprocess.run([str(find_program("zmqpub")), "-ipcfd", number], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode not in (0, -signal.SIGABRT)
    assert done.stderr.startswith("zmqpub: error: fd:")
    assert done.stderr.count("\n") == 1


def test_a_file_is_no_socket(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        child = start(file, stderr=subprocess.PIPE)
    assert b"is no socket" in child.communicate(timeout=PATIENCE)[1]


def test_interrupts_are_the_parents_business_and_sigterm_is_obeyed() -> None:
    async def session() -> None:
        async with spawned() as (_schema, init, child, _):
            made = await options_of(init, {"zmqpubrawtx": [ANY_PORT]}).send()
            os.kill(child.pid, signal.SIGINT)
            time.sleep(0.2)
            assert (await publish(made.notifications, {"kind": "transactionAdded", "data": bytes(transaction(1))})).journaled == 1
            os.kill(child.pid, signal.SIGTERM)
            assert await asyncio.to_thread(child.wait, PATIENCE) == 0

    run(session)
