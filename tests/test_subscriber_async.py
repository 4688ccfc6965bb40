"""AsyncSubscriber on asyncio: the same stream, cancellation at any time, fairness, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from listening import wait_for, wait_wanted
from programs import free_port
from test_subscriber_replay import TOPICS, expected, kinds, options, publish, seen

from zmqpub import (
    AsyncSubscriber,
    ClosedError,
    ConfigError,
    Connected,
    CounterGap,
    CursorError,
    Lost,
    Publisher,
    Received,
    Repaired,
    StreamEvent,
)
from zmqpub.testing.relay import Relay

T = TypeVar("T")
PATIENCE = 30.0


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 60))


async def wanted(publisher: Publisher) -> None:
    await asyncio.to_thread(wait_wanted, publisher)


async def take(subscriber: AsyncSubscriber, count: int) -> list[Any]:
    items: list[Any] = []
    while sum(isinstance(item, Received) for item in items) < count:
        items += await subscriber.recv_batch(1000, PATIENCE)
    return items


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="at least one is needed"):
        AsyncSubscriber()


def test_iteration() -> None:
    async def main() -> list[Any]:
        with Publisher(options()) as publisher:
            async with AsyncSubscriber(publisher.active_notifiers()[0].address, topics=TOPICS) as subscriber:
                await wanted(publisher)
                publish(publisher, 0, 2000)
                items: list[Any] = []
                async for item in subscriber:
                    items.append(item)
                    if len(items) == 6001:
                        break
                assert subscriber.state().status == "live"
                return items

    items = run(main())
    assert isinstance(items[0], Connected)
    assert seen(items) == expected(0, 2000)


def test_iteration_recv_anext_and_batches_take_turns() -> None:
    async def main() -> list[Any]:
        with Publisher(options()) as publisher:
            async with AsyncSubscriber(publisher.active_notifiers()[0].address, topics=TOPICS) as subscriber:
                await wanted(publisher)
                publish(publisher, 0, 100)
                items: list[Any] = []
                async for item in subscriber:
                    items.append(item)
                    items.append(await subscriber.recv(PATIENCE))
                    items.append(await anext(subscriber))
                    items += await subscriber.recv_batch(2, PATIENCE)
                    if len(items) > 250:
                        break
                while len(items) < 301:
                    items.append(await subscriber.recv(PATIENCE))
                return items

    assert seen(run(main())) == expected(0, 100)


def test_it_opens_when_first_asked_for_something() -> None:
    async def main() -> None:
        with Publisher(options()) as publisher:
            subscriber = AsyncSubscriber(publisher.active_notifiers()[0].address, topics=TOPICS)
            assert subscriber.state().status == "connecting"
            assert next(iter(subscriber.cursor()["sources"].values()))["next"] == dict.fromkeys(TOPICS)
            assert isinstance(await subscriber.recv(PATIENCE), Connected)
            await subscriber.close()
            assert subscriber.closed
            with pytest.raises(ClosedError):
                await subscriber.recv()
            await subscriber.close()

    run(main())


def test_nothing_within_the_timeout() -> None:
    async def main() -> None:
        with Publisher(options()) as publisher:
            async with AsyncSubscriber(publisher.active_notifiers()[0].address) as subscriber:
                await subscriber.recv(PATIENCE)
                began = time.monotonic()
                with pytest.raises(TimeoutError):
                    await subscriber.recv(0.2)
                assert 0.19 < time.monotonic() - began < 5
                with pytest.raises(TimeoutError):
                    await subscriber.recv_batch(10, 0)
                with pytest.raises(ValueError, match="at least one"):
                    await subscriber.recv_batch(0)

    run(main())


def test_what_was_missed_is_repaired_in_its_place() -> None:
    async def main() -> list[Any]:
        with Relay() as relay, Publisher(options()) as publisher:
            relay.turn_to(publisher.active_notifiers()[0].address)
            async with AsyncSubscriber(
                relay.address, topics=TOPICS, replay=publisher.replay_address, reconnect_interval=0.01, check_interval=0.5
            ) as subscriber:
                await wanted(publisher)
                publish(publisher, 0, 10)
                items = await take(subscriber, 30)
                for number in range(10, 60, 10):
                    relay.cut()
                    publish(publisher, number, number + 10)
                return items + await take(subscriber, 150)

    items = run(main())
    assert seen(items) == expected(0, 60)
    assert kinds(items, Lost) == []
    assert kinds(items, CounterGap, Repaired) != []


def test_waiting_can_be_canceled_at_any_time_without_losing_anything() -> None:
    async def main() -> list[Any]:
        with Relay() as relay, Publisher(options()) as publisher:
            relay.turn_to(publisher.active_notifiers()[0].address)
            async with AsyncSubscriber(
                relay.address, topics=TOPICS, replay=publisher.replay_address, reconnect_interval=0.01, check_interval=0.2
            ) as subscriber:
                await wanted(publisher)
                items: list[Any] = []
                number = 0
                deadline = time.monotonic() + PATIENCE
                while len(seen(items)) < 900 and time.monotonic() < deadline:
                    if number < 300:
                        if number % 50 == 0:
                            relay.cut()
                        publish(publisher, number, number + 5)
                        number += 5
                    task = asyncio.ensure_future(subscriber.recv())
                    await asyncio.sleep(0.0003 * (number % 7))
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        items.append(await task)
                    while True:
                        try:
                            items.append(await subscriber.recv(0))
                        except TimeoutError:
                            break
                return items

    items = run(main())
    assert seen(items) == expected(0, 300)
    assert kinds(items, Lost) == []


def test_other_tasks_have_their_turn_during_a_flood() -> None:
    async def main() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with Publisher(options()) as publisher:
            async with AsyncSubscriber(publisher.active_notifiers()[0].address, topics=TOPICS) as subscriber:
                await wanted(publisher)
                await subscriber.recv(PATIENCE)
                publish(publisher, 0, 10_000)
                publisher.flush()
                await asyncio.to_thread(wait_for, lambda: subscriber.state().queued_bytes > 10_000 * 64)
                task = asyncio.create_task(other())
                for _ in range(20_000):
                    await subscriber.recv(PATIENCE)
                task.cancel()
        return turns

    assert run(main()) > 20


def test_closing_ends_an_iteration_and_a_recv_of_other_tasks() -> None:
    async def main() -> None:
        with Publisher(options()) as publisher:
            async with AsyncSubscriber(publisher.active_notifiers()[0].address) as subscriber:
                items: list[Received | StreamEvent] = []

                async def iterate() -> None:
                    async for item in subscriber:
                        items.append(item)

                task = asyncio.create_task(iterate())
                while not items:
                    await asyncio.sleep(0.01)
                await subscriber.close()
                await asyncio.wait_for(task, PATIENCE)
            async with AsyncSubscriber(publisher.active_notifiers()[0].address) as subscriber:
                await subscriber.recv(PATIENCE)
                waiting = asyncio.create_task(subscriber.recv())
                await asyncio.sleep(0.05)
                await subscriber.close()
                with pytest.raises(ClosedError):
                    await asyncio.wait_for(waiting, PATIENCE)

    run(main())


def test_closing_while_the_replay_endpoint_does_not_answer() -> None:
    async def main() -> None:
        with Publisher(options()) as publisher:
            replay = f"tcp://127.0.0.1:{free_port()}"
            began = time.monotonic()
            async with AsyncSubscriber(publisher.active_notifiers()[0].address, topics=TOPICS, replay=replay) as subscriber:
                assert time.monotonic() - began < 10
                assert isinstance(await subscriber.recv(PATIENCE), Connected)
                with pytest.raises(TimeoutError):
                    await subscriber.recv(0.1)
                assert subscriber.state().status == "repairing"
                began = time.monotonic()
            assert time.monotonic() - began < 3

    run(main())


def test_a_cursor_that_does_not_fit_is_refused_when_it_opens() -> None:
    async def main() -> None:
        with Publisher(options()) as publisher:
            address = publisher.active_notifiers()[0].address
            cursor = {"version": 1, "sources": {address: {"epoch": "77" * 16, "next": dict.fromkeys(TOPICS, 1)}}}
            with pytest.raises(CursorError, match="does not hold the life"):
                async with AsyncSubscriber(address, topics=TOPICS, replay=publisher.replay_address, resume=cursor):
                    pass

    run(main())


def test_a_cursor_goes_on_where_it_was_saved() -> None:
    async def main() -> list[Any]:
        with Publisher(options()) as publisher:
            address = publisher.active_notifiers()[0].address
            items: list[Any] = []
            async with AsyncSubscriber(address, topics=TOPICS, replay=publisher.replay_address) as subscriber:
                await wanted(publisher)
                publish(publisher, 0, 10)
                while len(seen(items)) < 7:
                    items.append(await subscriber.recv(PATIENCE))
                cursor = subscriber.cursor()
            publish(publisher, 10, 20)
            async with AsyncSubscriber(address, topics=TOPICS, replay=publisher.replay_address, resume=cursor) as resumed:
                return items + await take(resumed, 60 - 7)

    items = run(main())
    assert seen(items) == expected(0, 20)
    assert kinds(items, Lost) == []


def test_one_that_was_never_closed_warns() -> None:
    subscriber = AsyncSubscriber("tcp://127.0.0.1:1")
    assert repr(subscriber) == "<AsyncSubscriber tcp://127.0.0.1:1>"
    with pytest.warns(ResourceWarning, match="was never closed"):
        del subscriber
