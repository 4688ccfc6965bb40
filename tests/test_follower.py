"""ChainFollower over real sockets: a publisher with a replay endpoint, a subscriber, and a node to ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from chain_stories import Consumer, SimulatedNode, Story, simulate, told
from listening import ALL_TOPICS, address_of, everything, wait_for, wait_wanted

from zmqpub import AsyncChainFollower, AsyncSubscriber, ChainFollower, ClosedError, ConfigError, CursorError, Publisher, Subscriber, Topic
from zmqpub.chain_events import BlockConnected, BlockDisconnected, ChainEvent, ChainGap, MempoolReset, TransactionAdded
from zmqpub.sources import events as source_events
from zmqpub.sources.events import hand_over
from zmqpub.testing import Relay

PATIENCE = 20.0
REPLAY = "tcp://127.0.0.1:*"
LABELS_AND_BODIES = (Topic.RAWBLOCK, Topic.RAWTX, Topic.SEQUENCE)


@pytest.fixture(scope="module")
def story() -> Story:
    return simulate(4, 12)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher(everything() | {"zmqpubreplay": REPLAY}) as publisher:
        yield publisher


def replay_of(publisher: Publisher) -> str:
    stats = publisher.stats().replay
    assert stats is not None
    return stats.address


def subscribe(publisher: Publisher, **options: Any) -> Subscriber:
    if "replay" not in options:
        options["replay"] = replay_of(publisher)
    return Subscriber(address_of(publisher), **({"topics": LABELS_AND_BODIES} | options))


def publish(publisher: Publisher, events: list[source_events.Event]) -> None:
    for event in events:
        hand_over(event, publisher)


def receive(follower: ChainFollower, count: int) -> list[ChainEvent]:
    return [follower.recv(PATIENCE) for _ in range(count)]


def wanted(story: list[source_events.Event]) -> list[tuple[str, bytes]]:
    """What is to be told of it: kind, and block or transaction."""
    return [name(event) for event in map(told, story) if event is not None]


def name(event: ChainEvent) -> tuple[str, bytes]:
    assert not isinstance(event, (ChainGap, MempoolReset)), event
    return type(event).__name__, event.hash if isinstance(event, (BlockConnected, BlockDisconnected)) else event.txid


def test_it_tells_the_story_that_was_published(publisher: Publisher, story: Story) -> None:
    with subscribe(publisher) as subscriber:
        follower = ChainFollower(subscriber)
        publish(publisher, story)
        events = receive(follower, len(wanted(story)))
    assert [name(event) for event in events] == wanted(story)
    assert all(event.transaction is not None for event in events if isinstance(event, TransactionAdded))
    tips = {event.block.hash for event in story if isinstance(event, source_events.UpdatedBlockTip)}
    assert all(event.block is not None for event in events if isinstance(event, BlockConnected) and event.hash in tips)
    assert follower.tip is not None
    assert follower.tip.hash == events[-1].hash if isinstance(events[-1], BlockConnected) else True
    assert follower.tip.hash.hex() in repr(follower)


def test_iterating_ends_with_the_subscriber(publisher: Publisher, story: Story) -> None:
    subscriber = subscribe(publisher)
    follower = ChainFollower(subscriber)
    publish(publisher, story)
    got = []
    for event in follower:
        got.append(name(event))
        if len(got) == len(wanted(story)):
            subscriber.close()
    assert got == wanted(story)
    with pytest.raises(ClosedError):
        follower.recv(0.1)


def test_a_consumer_starts_again_where_it_was(publisher: Publisher, story: Story) -> None:
    """Its cursor goes through JSON; what happened while it was away is replayed, nothing twice."""
    expected = wanted(story)
    got: list[tuple[str, bytes]] = []
    with subscribe(publisher) as subscriber:
        cursor = ChainFollower(subscriber).cursor()
    parts = 6
    size = len(story) // parts + 1
    for part in range(parts + 1):
        publish(publisher, story[part * size : (part + 1) * size])
        there = len(wanted(story[: (part + 1) * size]))
        with subscribe(publisher, resume=ChainFollower.subscriber_cursor(cursor)) as subscriber:
            follower = ChainFollower(subscriber, cursor=cursor)
            left = 1 if part < parts else 0  # for the next
            got += [name(event) for event in receive(follower, there - len(got) - left)]
            cursor = json.loads(json.dumps(follower.cursor()))
    assert got == expected


def test_two_addresses_of_one_publisher_tell_one_story(story: Story) -> None:
    """One of them is taken away in the middle, and the consumer starts again: nothing is told twice, nothing left out."""
    options: dict[str, object] = {f"zmqpub{topic}": ["tcp://127.0.0.1:*", "ipc://*"] for topic in LABELS_AND_BODIES}
    expected = wanted(story)
    third = len(story) // 3
    with Publisher(options | {"zmqpubreplay": REPLAY}) as publisher:
        addresses = [notifier.address for notifier in publisher.active_notifiers() if notifier.type == "pubsequence"]
        arguments: dict[str, Any] = {"topics": LABELS_AND_BODIES, "replay": replay_of(publisher)}
        with Subscriber(*addresses, **arguments) as subscriber:
            follower = ChainFollower(subscriber)
            publish(publisher, story[:third])
            got = [name(event) for event in receive(follower, len(wanted(story[:third])) - 1)]
            cursor = json.loads(json.dumps(follower.cursor()))
        publish(publisher, story[third : 2 * third])
        with Subscriber(*addresses, resume=ChainFollower.subscriber_cursor(cursor), **arguments) as subscriber:
            follower = ChainFollower(subscriber, cursor=cursor)
            got += [name(event) for event in receive(follower, len(wanted(story[: 2 * third])) - len(got))]
            for topic in LABELS_AND_BODIES:
                publisher.remove_notifier(topic, addresses[0])
            publish(publisher, story[2 * third :])
            got += [name(event) for event in receive(follower, len(expected) - len(got))]
            with pytest.raises(TimeoutError):
                follower.recv(0.5)
    assert len(addresses) == 2
    assert got == expected


def test_an_address_that_comes_late_takes_over_after_a_restart(story: Story) -> None:
    """It was not heard before the consumer started again, and has all to repeat when the one that told until then is gone."""
    options: dict[str, object] = {f"zmqpub{topic}": ["tcp://127.0.0.1:*", "ipc://*"] for topic in LABELS_AND_BODIES}
    expected = wanted(story)
    third = len(story) // 3
    with Publisher(options | {"zmqpubreplay": REPLAY}) as publisher, Relay() as early, Relay() as late:
        here, there = (notifier.address for notifier in publisher.active_notifiers() if notifier.type == "pubsequence")
        early.turn_to(here)
        late.turn_to(there)
        late.hold_new()
        arguments: dict[str, Any] = {
            "topics": LABELS_AND_BODIES,
            "replay": replay_of(publisher),
            "publisher_addresses": {early.address: here, late.address: there},
            "check_interval": 60.0,  # else the late address has from the replay endpoint what it would send
        }
        with Subscriber(late.address, early.address, **arguments) as subscriber:
            follower = ChainFollower(subscriber)
            publish(publisher, story[:third])
            got = [name(event) for event in receive(follower, len(wanted(story[:third])) - 1)]
            cursor = json.loads(json.dumps(follower.cursor()))
        assert cursor["merge"]["behind"] == {early.address: 0, late.address: len(cursor["merge"]["keys"])}
        with Subscriber(late.address, early.address, resume=ChainFollower.subscriber_cursor(cursor), **arguments) as subscriber:
            follower = ChainFollower(subscriber, cursor=cursor)
            publish(publisher, story[third : 2 * third])
            got += [name(event) for event in receive(follower, len(wanted(story[: 2 * third])) - len(got))]
            wait_for(lambda: subscriber.state().source(early.address).connections, what="the early connection")
            early.hold_new()
            early.cut()
            late.hold_new(False)
            publish(publisher, story[2 * third :])
            got += [name(event) for event in receive(follower, len(expected) - len(got))]
    assert got == expected


def test_without_replay_a_node_closes_the_gap(story: Story) -> None:
    """The subscriber is away for the middle of the story: it learns of what was lost, and the node tells the rest."""
    node = SimulatedNode(story.before)
    with Publisher(everything()) as publisher:
        with subscribe(publisher, replay=None, topics=ALL_TOPICS) as subscriber:
            wait_wanted(publisher)
            follower = ChainFollower(subscriber, node)
            consumer = Consumer()
            first, rest = story[: len(story) // 3], story[2 * len(story) // 3 :]
            for event in first:
                node.see(event)
            publish(publisher, first)
            consumer.read(_quiet(follower))
            cursor = json.loads(json.dumps(follower.cursor()))
        wait_for(lambda: not any(notifier.wanted for notifier in publisher.stats().notifiers), what="nobody there")
        for event in story[len(first) : len(story) - len(rest)]:
            node.see(event)
            hand_over(event, publisher)
        with subscribe(publisher, replay=None, topics=ALL_TOPICS, resume=ChainFollower.subscriber_cursor(cursor)) as subscriber:
            wait_wanted(publisher)
            follower = ChainFollower(subscriber, node, cursor)
            for event in rest:
                node.see(event)
                hand_over(event, publisher)
            events = _quiet(follower)
            assert any(isinstance(event, MempoolReset) for event in events)
            consumer.read(events)
    assert consumer.gaps == 0
    assert consumer.chain[-1] == node.active[-1]
    common = min(len(consumer.chain), len(node.active)) - 1
    assert consumer.chain[-common:] == node.active[-common:]
    assert consumer.mempool == set(node.get_mempool().txids)


def _quiet(follower: ChainFollower) -> list[ChainEvent]:
    """All there is, until it is quiet."""
    events = [follower.recv(PATIENCE)]
    while True:
        try:
            events.append(follower.recv(1.0))
        except TimeoutError:
            return events


def test_a_block_waits_for_its_body_no_longer_than_it_may(publisher: Publisher, story: Story) -> None:
    first = next(event for event in story if isinstance(event, source_events.BlockConnected))
    with subscribe(publisher, topics=(Topic.RAWBLOCK, Topic.SEQUENCE)) as subscriber:
        follower = ChainFollower(subscriber, body_patience=0.3)
        publisher.block_connected(first.block)  # and no new tip: that comes too late
        with pytest.raises(TimeoutError):
            follower.recv(0.05)
        event = follower.recv(PATIENCE)
        assert isinstance(event, BlockConnected)
        assert event.block is None
        publisher.updated_block_tip(first.block)
        with pytest.raises(TimeoutError):
            follower.recv(0.3)


def test_a_repair_that_is_interrupted_is_asked_again(publisher: Publisher, story: Story) -> None:
    class Interrupted(SimulatedNode):
        interrupts = 2

        def get_best_block_hash(self) -> bytes:
            if self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            return super().get_best_block_hash()

    node = Interrupted([*story.before, *story])
    with subscribe(publisher) as subscriber:
        follower = ChainFollower(subscriber, node)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                follower.recv(PATIENCE)
            assert set(follower.cursor()["flags"]) >= {"owes_blocks", "owes_mempool"}
        assert isinstance(follower.recv(PATIENCE), MempoolReset)


def test_a_node_that_does_not_answer_is_a_gap_not_the_end(publisher: Publisher, story: Story) -> None:
    node = SimulatedNode(story.before)
    node.down = True
    with subscribe(publisher) as subscriber:
        follower = ChainFollower(subscriber, node)
        gap = follower.recv(PATIENCE)
        assert isinstance(gap, ChainGap)
        assert gap.blocks
        assert gap.mempool
        publish(publisher, story[:20])
        assert [name(event) for event in receive(follower, len(wanted(story[:20])))] == wanted(story[:20])


class TestAsync:
    """The same over asyncio."""

    def test_it_tells_the_story_that_was_published(self, publisher: Publisher, story: Story) -> None:
        async def follow() -> list[ChainEvent]:
            async with AsyncSubscriber(address_of(publisher), topics=LABELS_AND_BODIES, replay=replay_of(publisher)) as subscriber:
                follower = AsyncChainFollower(subscriber)
                publish(publisher, story)
                events = [await follower.recv(PATIENCE) for _ in range(len(wanted(story)))]
                assert follower.tip is not None
                assert follower.tip.hash.hex() in repr(follower)
                with pytest.raises(TimeoutError):
                    await follower.recv(0.05)
                return events

        events = asyncio.run(follow())
        assert [name(event) for event in events] == wanted(story)
        assert all(event.transaction is not None for event in events if isinstance(event, TransactionAdded))

    def test_iterating_with_a_node_and_starting_again(self, publisher: Publisher, story: Story) -> None:
        """The node answers in another thread; a cancelled wait loses nothing; the cursor goes on elsewhere."""
        node = SimulatedNode(story.before)
        expected = wanted(story)
        half = len(story) // 2

        async def first() -> tuple[list[tuple[str, bytes]], dict[str, Any]]:
            got: list[tuple[str, bytes]] = []
            async with AsyncSubscriber(address_of(publisher), topics=LABELS_AND_BODIES, replay=replay_of(publisher)) as subscriber:
                follower = AsyncChainFollower(subscriber, node)
                assert isinstance(await follower.recv(PATIENCE), MempoolReset)
                for event in story[:half]:
                    node.see(event)
                    hand_over(event, publisher)
                    waiting = asyncio.ensure_future(follower.recv(PATIENCE))
                    await asyncio.sleep(0)
                    waiting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        got.append(name(await waiting))
                async for told_now in follower:
                    got.append(name(told_now))
                    if len(got) == len(wanted(story[:half])):
                        break
                return got, json.loads(json.dumps(follower.cursor()))

        async def second(cursor: dict[str, Any], count: int) -> list[tuple[str, bytes]]:
            resume = AsyncChainFollower.subscriber_cursor(cursor)
            async with AsyncSubscriber(
                address_of(publisher), topics=LABELS_AND_BODIES, replay=replay_of(publisher), resume=resume
            ) as subscriber:
                follower = AsyncChainFollower(subscriber, node, cursor)
                return [name(await follower.recv(PATIENCE)) for _ in range(count)]

        got, cursor = asyncio.run(first())
        for event in story[half:]:
            node.see(event)
            hand_over(event, publisher)
        got += asyncio.run(second(cursor, len(expected) - len(got)))
        assert got == expected
        assert {"header", "mempool"} <= set(node.asked)

    def test_it_ends_with_the_subscriber(self, publisher: Publisher) -> None:
        async def follow() -> None:
            subscriber = AsyncSubscriber(address_of(publisher), replay=replay_of(publisher))
            async with subscriber:
                follower = AsyncChainFollower(subscriber)
                waiting = asyncio.ensure_future(follower.recv(PATIENCE))
                await asyncio.sleep(0.1)
                await subscriber.close()
                with pytest.raises(ClosedError):
                    await waiting
                assert [event async for event in follower] == []

        asyncio.run(follow())


class TestArguments:
    def test_a_repair_has_to_be_one(self, publisher: Publisher) -> None:
        with subscribe(publisher) as subscriber, pytest.raises(ConfigError, match="repair"):
            ChainFollower(subscriber, object())  # type: ignore[arg-type]

    @pytest.mark.parametrize("setting", ["only_notifications", "latest_only"])
    def test_a_subscriber_has_to_tell_everything(self, publisher: Publisher, setting: str) -> None:
        options: dict[str, Any] = {setting: True}
        with Subscriber(address_of(publisher), **options) as subscriber, pytest.raises(ConfigError, match=setting):
            ChainFollower(subscriber)

    def test_a_cursor_has_to_be_a_followers(self, publisher: Publisher) -> None:
        with subscribe(publisher) as subscriber, pytest.raises(CursorError):
            ChainFollower(subscriber, cursor=subscriber.cursor())
        with pytest.raises(CursorError):
            ChainFollower.subscriber_cursor({"version": 1})

    def test_a_cursor_of_another_chain_is_refused(self, publisher: Publisher, story: Story) -> None:
        with subscribe(publisher) as subscriber:
            follower = ChainFollower(subscriber)
            publish(publisher, story)
            receive(follower, len(wanted(story)))
            cursor = follower.cursor()
        other = simulate(77, 3, start_time=1_600_000_000)
        with subscribe(publisher, resume=ChainFollower.subscriber_cursor(cursor)) as subscriber:
            with pytest.raises(CursorError, match="another chain"):
                ChainFollower(subscriber, SimulatedNode([*other.before, *other]), cursor)
