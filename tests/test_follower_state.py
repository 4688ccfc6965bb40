"""ChainState against a simulated chain: any mix of topics, one story."""

from __future__ import annotations

import json
from collections.abc import Collection
from itertools import combinations
from random import Random
from typing import Any

import pytest
from chain_stories import (
    ALL,
    HERE,
    THERE,
    Consumer,
    FakeHashBlock,
    FakeRawBlock,
    FakeRawTx,
    FakeSequence,
    SimulatedNode,
    Story,
    drain,
    feed,
    finish,
    make_state,
    messages_of,
    published,
    run,
    simulate,
    told,
)

from zmqpub import SequenceLabel, Topic
from zmqpub.chain_events import (
    BlockConnected,
    BlockDisconnected,
    ChainEvent,
    ChainGap,
    MempoolReset,
    TransactionAdded,
    TransactionRemoved,
)
from zmqpub.errors import CursorError
from zmqpub.following.cursor import pack_cursor, unpack_cursor
from zmqpub.following.state import ChainState
from zmqpub.sources import events as source_events
from zmqpub.stream_events import Disconnected, Lost, Malformed, MempoolGap, Restart

BLOCK_EVENTS = (BlockConnected, BlockDisconnected)
STORIES = {seed: simulate(seed) for seed in range(6)}
MIXES = [mix for size in range(1, 6) for mix in combinations(ALL, size)]


def no_heights(events: list[ChainEvent]) -> list[ChainEvent]:
    """As told by who cannot know heights."""
    plain: list[ChainEvent] = []
    for event in events:
        if isinstance(event, BlockConnected):
            event = BlockConnected(event.hash, None, event.previous)
        elif isinstance(event, BlockDisconnected):
            event = BlockDisconnected(event.hash)
        plain.append(event)
    return plain


def expected(story: list[source_events.Event]) -> list[ChainEvent]:
    return [event for event in map(told, story) if event is not None]


def blocks_in(events: list[ChainEvent]) -> list[ChainEvent]:
    return [event for event in events if isinstance(event, BLOCK_EVENTS)]


def lost(topic: Topic, address: str = HERE) -> Lost:
    return Lost(address, topic, 5, 9, "the replay endpoint does not hold it any more")


def test_stories_are_worth_telling() -> None:
    """The oracle has what the tests are about."""
    kinds = {type(event) for story in STORIES.values() for event in story}
    assert len(kinds) == 5
    depths = [
        sum(isinstance(event, source_events.BlockDisconnected) for event in moment)
        for story in STORIES.values()
        for moment in _moments(story)
    ]
    assert max(depths) >= 2


def _started(story: Story) -> int:
    """Block events of the first moment: a node that is asked at the start has them already."""
    return sum(isinstance(told(event), BLOCK_EVENTS) for event in _moments(story)[0])


def _moments(story: list[source_events.Event]) -> list[list[source_events.Event]]:
    """The events up to each new tip."""
    moments: list[list[source_events.Event]] = [[]]
    for event in story:
        moments[-1].append(event)
        if isinstance(event, source_events.UpdatedBlockTip):
            moments.append([])
    return [moment for moment in moments if moment]


class TestWithSequence:
    @pytest.mark.parametrize("mix", [mix for mix in MIXES if Topic.SEQUENCE in mix], ids="+".join)
    @pytest.mark.parametrize("seed", STORIES)
    def test_every_event_once_and_in_order(self, mix: tuple[Topic, ...], seed: int) -> None:
        story = STORIES[seed]
        state = make_state(mix)
        events = feed(state, published(story, mix))
        events += finish(state)
        wanted = no_heights(expected(story))
        known = 0
        for place, event in enumerate(events):
            if isinstance(event, BlockConnected) and event.previous is None:  # nothing names the parent of the first block
                block = wanted[place]
                assert isinstance(block, BlockConnected)
                wanted[place] = BlockConnected(block.hash)
            known += isinstance(event, BlockConnected) and event.previous is not None
        assert no_heights(events) == wanted
        assert known >= 20

    @pytest.mark.parametrize("seed", STORIES)
    def test_bodies_come_with_the_tip_and_with_transactions(self, seed: int) -> None:
        story = STORIES[seed]
        state = make_state()
        events = feed(state, published(story)) + finish(state)
        tips = {event.block.hash for event in story if isinstance(event, source_events.UpdatedBlockTip)}
        for event in events:
            if isinstance(event, BlockConnected):
                assert (event.block is not None) == (event.hash in tips)
                assert event.block is None or event.block.hash == event.hash
            elif isinstance(event, TransactionAdded):
                assert event.transaction is not None
                assert event.transaction.txid == event.txid

    def test_without_rawtx_a_transaction_has_no_body(self) -> None:
        state = make_state((Topic.HASHTX, Topic.SEQUENCE))
        events = feed(state, published(STORIES[0], (Topic.HASHTX, Topic.SEQUENCE)))
        assert all(event.transaction is None for event in events if isinstance(event, TransactionAdded))

    @pytest.mark.parametrize("seed", STORIES)
    def test_with_a_node_every_block_has_height_and_body(self, seed: int) -> None:
        story = STORIES[seed]
        node = SimulatedNode(story.before)
        state = make_state(can_ask=True)
        run(state.start(), node)
        events: list[ChainEvent] = []
        for event in story:
            node.see(event)
            events += feed(state, messages_of(event), node)
        events += finish(state, node)
        wanted = blocks_in(expected(story))
        got = blocks_in(events)
        assert got == wanted
        assert all(event.block is not None for event in got if isinstance(event, BlockConnected))

    @pytest.mark.parametrize("seed", STORIES)
    def test_topics_at_different_addresses_in_any_order(self, seed: int) -> None:
        """Labels here, bodies there: whichever is late, every block that was a tip has its body, in order."""
        story, random = STORIES[seed], Random(seed)
        labels = published(story, (Topic.SEQUENCE,), HERE)
        bodies = published(story, (Topic.RAWBLOCK,), THERE)
        state = make_state(sources=2)
        events: list[ChainEvent] = []
        # The bodies lead or lag by up to three blocks.
        cut = {message.hash: place for place, message in enumerate(labels) if message.label is SequenceLabel.CONNECTED}  # type: ignore[union-attr]
        due = sorted((cut[body.hash] + random.randint(-30, 30), place) for place, body in enumerate(bodies))  # type: ignore[union-attr]
        waiting = [bodies[place] for place in sorted(place for _, place in due)]
        times = sorted(time for time, _ in due)
        for place, label in enumerate(labels):
            while times and times[0] <= place:
                times.pop(0)
                events += feed(state, [waiting.pop(0)])
            events += feed(state, [label])
        events += feed(state, waiting)
        events += finish(state)
        consumer = Consumer()
        consumer.read(events)
        node = SimulatedNode([*story.before, *story])
        assert consumer.chain[-5:] == node.active[-5:]
        assert consumer.gaps == 0
        wanted = [event.hash for event in expected(story) if isinstance(event, BlockConnected)]
        assert [event.hash for event in events if isinstance(event, BlockConnected)] == wanted


class TestWithoutSequence:
    @pytest.mark.parametrize("mix", [mix for mix in MIXES if Topic.RAWBLOCK in mix and Topic.SEQUENCE not in mix], ids="+".join)
    @pytest.mark.parametrize("seed", STORIES)
    def test_rawblock_and_a_node_give_every_block(self, mix: tuple[Topic, ...], seed: int) -> None:
        story = STORIES[seed]
        node = SimulatedNode(story.before)
        state = make_state(mix, can_ask=True)
        events: list[ChainEvent] = []
        for moment in _moments(story):
            for event in moment:
                node.see(event)
            events += feed(state, published(moment, mix), node)
        events += finish(state, node)
        wanted = blocks_in(expected(story))
        got = blocks_in(events)
        assert got == wanted[_started(story) :]
        assert all(event.block is not None for event in got if isinstance(event, BlockConnected))

    @pytest.mark.parametrize("seed", STORIES)
    def test_hashblock_and_a_node_give_every_block(self, seed: int) -> None:
        story = STORIES[seed]
        node = SimulatedNode(story.before)
        state = make_state((Topic.HASHBLOCK,), can_ask=True)
        events: list[ChainEvent] = []
        for moment in _moments(story):
            for event in moment:
                node.see(event)
            events += feed(state, published(moment, (Topic.HASHBLOCK,)), node)
        wanted = blocks_in(expected(story))
        assert blocks_in(events) == wanted[_started(story) :]

    @pytest.mark.parametrize("seed", STORIES)
    def test_rawblock_alone_says_where_it_cannot_know(self, seed: int) -> None:
        """A reorganization shows its last block only: those between it and the fork were never published."""
        story = STORIES[seed]
        consumer = Consumer()
        state = make_state((Topic.RAWBLOCK,))
        gaps = reorganizations = 0
        for moment in _moments(story):
            events = feed(state, published(moment, (Topic.RAWBLOCK,)))
            reorganizations += any(isinstance(event, source_events.BlockDisconnected) for event in moment) and bool(consumer.chain)
            gap = [event for event in events if isinstance(event, ChainGap)]
            gaps += len(gap)
            if gap:
                assert gap[0].blocks
                consumer.chain.clear()
            consumer.read(events)
            assert consumer.chain[-1] == moment[-1].block.hash  # type: ignore[union-attr]
        assert gaps == reorganizations > 0

    def test_hashblock_alone_names_no_parent(self) -> None:
        story = STORIES[0]
        state = make_state((Topic.HASHBLOCK,))
        events = feed(state, published(story, (Topic.HASHBLOCK,)))
        tips = [event.block.hash for event in story if isinstance(event, source_events.UpdatedBlockTip)]
        assert events == [BlockConnected(block_hash) for block_hash in tips]

    def test_the_very_first_block_waits_for_its_body(self) -> None:
        """hashblock comes before rawblock, which is the better teller."""
        tips = [event for event in STORIES[0] if isinstance(event, source_events.UpdatedBlockTip)]
        mix = (Topic.HASHBLOCK, Topic.RAWBLOCK)
        state = make_state(mix)
        (event,) = feed(state, published(tips[:1], mix))
        assert isinstance(event, BlockConnected)
        assert event.block == tips[0].block
        assert event.previous == tips[0].block.header.prev_hash

    def test_where_no_body_is_published_a_pause_is_enough(self) -> None:
        tips = [event.block.hash for event in STORIES[0] if isinstance(event, source_events.UpdatedBlockTip)]
        state = make_state()
        events: list[ChainEvent] = []
        for tip in tips:
            events += feed(state, [FakeHashBlock(tip)])
            events += finish(state)
        assert [event.hash for event in events if isinstance(event, BlockConnected)] == tips
        assert not state.waiting

    def test_every_transaction_is_told_when_first_seen(self) -> None:
        story = STORIES[1]
        for mix in ((Topic.RAWTX,), (Topic.HASHTX,), (Topic.HASHTX, Topic.RAWTX)):
            state = make_state(mix)
            events = feed(state, published(story, mix))
            txids = [event.txid for event in events if isinstance(event, TransactionAdded)]
            assert len(txids) == len(events) == len(set(txids))
            added = {event.transaction.txid for event in story if isinstance(event, source_events.TransactionAdded)}
            assert added <= set(txids)
            coinbases = {event.block[0].txid for event in story if isinstance(event, source_events.BlockConnected)}
            assert coinbases.isdisjoint(txids) == (Topic.RAWTX in mix)


class TestSeveralAddresses:
    @pytest.mark.parametrize("trial", range(40))
    def test_what_several_addresses_tell_is_told_once(self, trial: int) -> None:
        random = Random(trial)
        story, count = STORIES[trial % len(STORIES)], random.randint(2, 4)
        streams = [published(story, (Topic.SEQUENCE,), f"tcp://127.0.0.1:{port}") for port in range(1, count + 1)]
        wanted = feed(make_state((Topic.SEQUENCE,)), streams[0])
        state = make_state((Topic.SEQUENCE,), sources=count)
        places = [0] * count
        events: list[ChainEvent] = []
        while any(place < len(stream) for place, stream in zip(places, streams, strict=True)):
            which = random.randrange(count)
            step = random.choice((1, 1, 2, 5, 40))
            # All begin together; from then on each at its pace.
            events += feed(state, streams[which][places[which] : places[which] + step])
            places[which] += step
            if random.random() < 0.05:
                state = restored(state, (Topic.SEQUENCE,), sources=count)
        assert events == wanted

    @pytest.mark.parametrize("trial", range(40))
    def test_one_may_lose_what_another_tells(self, trial: int) -> None:
        story, random = STORIES[trial % len(STORIES)], Random(trial)
        here, there = (published(story, (Topic.SEQUENCE,), address) for address in (HERE, THERE))
        wanted = feed(make_state((Topic.SEQUENCE,)), here)
        state = make_state((Topic.SEQUENCE,), sources=2)
        events = feed(state, [here.pop(0), there.pop(0)])
        while here or there:
            if here and (not there or random.random() < 0.5):
                events += feed(state, [here.pop(0)])
            else:
                if random.random() < 0.03:
                    del there[: random.randint(1, 30)]
                    events += feed(state, [lost(Topic.SEQUENCE, THERE)])
                if there:
                    events += feed(state, [there.pop(0)])
        assert events == wanted

    @pytest.mark.parametrize("trial", range(60))
    def test_whoever_is_cut_off_and_wherever_the_reader_starts_again_nothing_is_unknown(self, trial: int) -> None:
        """Each address repeats all that it has, so connections that break and readers that die leave nothing open."""
        random = Random(trial)
        story, addresses = STORIES[trial % len(STORIES)], [f"tcp://127.0.0.1:{port}" for port in range(1, random.randint(2, 3) + 1)]
        streams = [published(story, (Topic.SEQUENCE,), address) for address in addresses]
        wanted = feed(make_state((Topic.SEQUENCE,)), streams[0])
        state = make_state((Topic.SEQUENCE,), sources=len(addresses))
        events: list[ChainEvent] = []
        while any(streams):
            which = random.randrange(len(addresses))
            step = random.choice((1, 2, 5, 40, 200))
            events += feed(state, streams[which][:step])
            del streams[which][:step]
            if random.random() < 0.2:
                events += feed(state, map(Disconnected, random.sample(addresses, random.randint(1, len(addresses)))))
            if random.random() < 0.2:
                state = restored(state, (Topic.SEQUENCE,), placed=addresses, sources=len(addresses))
        assert events == wanted

    def test_who_lags_unheard_when_the_reader_dies_has_all_to_repeat(self) -> None:
        story = STORIES[3]
        here, there = (published(story, (Topic.SEQUENCE,), address) for address in (HERE, THERE))
        middle = len(here) // 2
        events = feed(state := make_state((Topic.SEQUENCE,), sources=2), here[:middle])
        state = restored(state, (Topic.SEQUENCE,), placed=(HERE, THERE), sources=2)
        events += feed(state, [Disconnected(HERE), *there, *here[middle:]])
        assert events == feed(make_state((Topic.SEQUENCE,)), here)

    def test_who_lags_unheard_does_not_cover_what_another_loses(self) -> None:
        here = published(STORIES[3], (Topic.SEQUENCE,), HERE)
        feed(state := make_state((Topic.SEQUENCE,), sources=2), here[:20])
        state = restored(state, (Topic.SEQUENCE,), placed=(HERE, THERE), sources=2)
        events = feed(state, [lost(Topic.SEQUENCE), *here[25:]])
        assert isinstance(events[0], ChainGap)
        assert events[1:] == feed(make_state((Topic.SEQUENCE,)), here[25:])

    @pytest.mark.parametrize("again", [False, True], ids=["alive", "from a cursor"])
    def test_who_is_ahead_is_in_step_once_another_tells_what_it_said_last(self, again: bool) -> None:
        story = STORIES[2]
        here, there = (published(story, (Topic.SEQUENCE,), address) for address in (HERE, THERE))
        state = make_state((Topic.SEQUENCE,), sources=2)
        events = feed(state, [here[0], there[0], lost(Topic.SEQUENCE, THERE)])
        middle = next(place for place in range(len(here) // 2, len(here)) if here[place].mempool_sequence is not None) + 1  # type: ignore[union-attr]
        events += feed(state, there[5:middle])
        if again:
            state = restored(state, (Topic.SEQUENCE,), sources=2)
        events += feed(state, [*here[1:middle], Disconnected(HERE), *there[middle:]])
        assert events == feed(make_state((Topic.SEQUENCE,)), here)

    def test_who_is_left_goes_on(self) -> None:
        story = STORIES[2]
        here, there = (published(story, (Topic.SEQUENCE,), address) for address in (HERE, THERE))
        state = make_state((Topic.SEQUENCE,), sources=2)
        middle = len(here) // 2
        events = feed(state, [message for pair in zip(here[:middle], there[:middle], strict=True) for message in pair])
        events += feed(state, [Disconnected(HERE), *there[middle:]])
        assert events == feed(make_state((Topic.SEQUENCE,)), here)

    def test_who_lost_something_leads_once_nobody_else_is_left(self) -> None:
        story = STORIES[2]
        here, there = (published(story, (Topic.SEQUENCE,), address) for address in (HERE, THERE))
        state = make_state((Topic.SEQUENCE,), sources=2)
        middle = len(here) // 2
        feed(state, [message for pair in zip(here[:middle], there[:middle], strict=True) for message in pair])
        events = feed(state, [lost(Topic.SEQUENCE, THERE), Disconnected(HERE), *there[middle + 5 :]])
        assert [event for event in events if isinstance(event, ChainGap)]
        assert events[-10:] == feed(make_state((Topic.SEQUENCE,)), here)[-10:]


def restored(state: ChainState, topics: tuple[Topic, ...], placed: Collection[str] = (), **options: int) -> ChainState:
    """A new state from a cursor that went through JSON."""
    cursor = json.loads(json.dumps(pack_cursor(state, {"subscriber": 1}, placed=placed)))
    fresh = make_state(topics, **options)
    unpack_cursor(cursor, fresh)
    assert json.loads(json.dumps(pack_cursor(fresh, {"subscriber": 1}))) == cursor
    return fresh


class TestCursor:
    @pytest.mark.parametrize("mix", MIXES, ids="+".join)
    def test_a_consumer_that_starts_again_and_again_reads_the_same(self, mix: tuple[Topic, ...]) -> None:
        random = Random(str(mix))
        story = random.choice(list(STORIES.values()))
        messages = published(story, mix)
        if Topic.SEQUENCE not in mix:  # what was seen is not in the cursor
            messages = [message for message in messages if not isinstance(message, FakeRawTx) and hasattr(message, "hash")]
        wanted = feed(make_state(mix), messages)
        state, events = make_state(mix), []
        for message in messages:
            run(state.take(message), None)
            while True:
                if random.random() < 0.1:
                    state = restored(state, mix)
                event = state.pop()
                if event is None:
                    break
                events.append(event)
        # What was walked is forgotten with the process: a way back along it has a gap.
        assert blocks_of(events) == blocks_of(wanted) or Topic.SEQUENCE not in mix
        if Topic.SEQUENCE in mix:
            assert no_heights(events) == no_heights(wanted)

    def test_it_is_small(self) -> None:
        story = simulate(7, 400, transactions_per_second=0.5)
        state = make_state()
        feed(state, published(story))
        cursor = pack_cursor(state, None)
        assert len(cursor["recent"]) == 288  # type: ignore[arg-type]
        assert len(json.dumps(cursor)) < 30_000

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"version": 2}, "version"),
            ({"recent": [[5, "00"]]}, "recent"),
            ({"recent": [[5, "aa" * 32], [6, "aa" * 32]]}, "recent"),
            ({"recent": 7}, "recent"),
            ({"recent": [[1, "00" * 32]] * 300}, "recent"),
            ({"heard": None}, "heard"),
            ({"flags": ["tired"]}, "flags"),
            ({"mempool": {}}, "mempool"),
            ({"mempool": {"floor": "x", "last": {}}}, "mempool"),
            ({"pending": [["exploded", "aa" * 32]]}, "pending"),
            ({"pending": [["connected"]]}, "pending"),
            ({"held": [1]}, "held"),
            ({"merge": {"keys": [["A", "aa" * 32]], "behind": {}, "unique": False}}, "merge"),
            ({"merge": {"keys": [], "behind": {}, "unique": False, "ahead": {HERE: ["A"]}}}, "merge"),
        ],
    )
    def test_damage_is_named(self, change: dict[str, object], where: str) -> None:
        state = make_state()
        feed(state, published(STORIES[0]))
        cursor: dict[str, Any] = {**pack_cursor(state, None), **change}
        with pytest.raises(CursorError) as caught:
            unpack_cursor(cursor, make_state(sources=2))
        assert caught.value.where == where

    def test_missing_parts_are_named(self) -> None:
        state = make_state()
        feed(state, published(STORIES[0]))
        cursor = pack_cursor(state, None)
        for name in ("version", "recent", "heard", "flags", "mempool"):
            with pytest.raises(CursorError):
                unpack_cursor({key: value for key, value in cursor.items() if key != name}, make_state())
        with pytest.raises(CursorError):
            unpack_cursor([], make_state())  # type: ignore[arg-type]

    def test_a_node_of_another_chain_is_refused(self) -> None:
        state = make_state()
        feed(state, published(STORIES[0]))
        fresh = make_state(can_ask=True)
        unpack_cursor(pack_cursor(state, None), fresh)
        with pytest.raises(CursorError, match="another chain"):
            run(fresh.blocks.check_cursor(), SimulatedNode(simulate(99, start_time=1_600_000_000)))

    def test_a_node_of_this_chain_is_taken(self) -> None:
        state = make_state()
        feed(state, published(STORIES[0]))
        fresh = make_state(can_ask=True)
        unpack_cursor(pack_cursor(state, None), fresh)
        run(fresh.blocks.check_cursor(), SimulatedNode([*STORIES[0].before, *STORIES[0]]))
        assert drain(fresh) == []


def blocks_of(events: list[ChainEvent]) -> list[ChainEvent]:
    return no_heights(blocks_in(events))


class TestLoss:
    @pytest.mark.parametrize("mix", [(Topic.SEQUENCE,), ALL, (Topic.RAWBLOCK,), (Topic.HASHBLOCK,)], ids="+".join)
    @pytest.mark.parametrize("trial", range(30))
    def test_with_a_node_the_story_stays_whole(self, trial: int, mix: tuple[Topic, ...]) -> None:
        """Events are lost at random, and the node is ahead of what is published, also in the middle of a reorganization."""
        story, random = STORIES[trial % len(STORIES)], Random(trial)
        node, consumer = NodeAhead(story), Consumer()
        state = make_state(mix, can_ask=True)
        run(state.start(), node)
        drain(state)
        consumer.chain = node.active
        lossy = random.choice((0.0, 0.02, 0.1))
        place = 0
        while place < len(story):
            count = random.randint(1, 20) if random.random() < lossy else 1
            node.move_on(place + count + random.choice((0, 0, 1, 2, 30)))
            if count > 1:
                consumer.read(feed(state, [lost(mix[-1])], node))
            else:
                consumer.read(feed(state, published(story[place : place + 1], mix), node))
            place += count
        consumer.read(finish(state, node))
        consumer.read(feed(state, [lost(mix[-1])], node))
        assert consumer.gaps == 0
        assert consumer.chain == node.active
        if mix == (Topic.SEQUENCE,):
            consumer.mempool.intersection_update(node.get_mempool().txids)
        if Topic.SEQUENCE in mix:
            assert consumer.mempool == set(node.get_mempool().txids)

    @pytest.mark.parametrize("topic", [Topic.SEQUENCE, Topic.RAWBLOCK])
    def test_without_a_node_it_is_said(self, topic: Topic) -> None:
        state = make_state((topic,))
        messages = published(STORIES[0], (topic,))
        feed(state, messages[:10])
        (gap,) = feed(state, [lost(topic)])
        assert isinstance(gap, ChainGap)
        assert gap.blocks
        assert gap.mempool == (topic is Topic.SEQUENCE)
        assert "does not hold" in gap.reason
        events = feed(state, messages[10:])
        assert events

    def test_bodies_that_are_lost_are_only_missing(self) -> None:
        state = make_state()
        messages = published(STORIES[0])
        wanted = feed(make_state(), messages)
        events = feed(state, messages[:50]) + feed(state, [lost(Topic.RAWTX), lost(Topic.HASHTX), lost(Topic.RAWBLOCK)])
        events += feed(state, messages[50:])
        assert no_heights(events) == no_heights(wanted)

    def test_a_malformed_message_is_lost_too(self) -> None:
        state = make_state((Topic.SEQUENCE,))
        feed(state, published(STORIES[0], (Topic.SEQUENCE,))[:10])
        assert not feed(state, [Malformed(HERE, "rawblockheader", None, "an unknown topic")])
        (gap,) = feed(state, [Malformed(HERE, Topic.SEQUENCE, 10, "40 bytes")])
        assert isinstance(gap, ChainGap)

    def test_a_node_that_is_down_is_asked_again_later(self) -> None:
        story, now = STORIES[0], [0.0]
        node = SimulatedNode([*story.before, *story[:60]])
        state = make_state((Topic.SEQUENCE,), can_ask=True, clock=lambda: now[0])
        feed(state, published(story[50:60], (Topic.SEQUENCE,)), node)
        node.down = True
        (gap,) = feed(state, [lost(Topic.SEQUENCE)], node)
        assert isinstance(gap, ChainGap)
        node.asked.clear()
        events = feed(state, published(story[60:80], (Topic.SEQUENCE,)), node)
        assert not [event for event in events if isinstance(event, ChainGap)]
        assert "mempool" not in node.asked
        for event in story[60:80]:
            node.see(event)
        node.down = False
        now[0] = 5.0
        events = finish(state, node)
        assert isinstance(events[-1], MempoolReset)
        assert not state.owes_blocks
        assert not state.owes_mempool

    def test_a_chain_that_does_not_lead_back_is_a_gap_and_a_new_beginning(self) -> None:
        story = STORIES[0]
        node = SimulatedNode([*story.before, *story[:50]])
        state = make_state((Topic.SEQUENCE,), can_ask=True, walk_limit=3)
        feed(state, published(story[:50], (Topic.SEQUENCE,)), node)
        for event in story[50:]:
            node.see(event)
        events = feed(state, [lost(Topic.SEQUENCE)], node)
        assert [type(event) for event in events] == [ChainGap, BlockConnected, MempoolReset]
        assert state.line.tip is not None
        assert state.line.tip.hash == node.active[-1]

    def test_the_mempool_sequence_that_goes_back_means_a_new_mempool(self) -> None:
        node = SimulatedNode([*STORIES[0].before, *STORIES[0]])
        state = make_state((Topic.SEQUENCE,), can_ask=True)
        feed(state, [FakeSequence(bytes(32), SequenceLabel.ADDED, 10_000)], node)
        events = feed(state, [FakeSequence(bytes(32), SequenceLabel.ADDED, 10_001), FakeSequence(b"\1" * 32, SequenceLabel.ADDED, 1)], node)
        assert [type(event) for event in events] == [TransactionAdded, MempoolReset]
        alone = make_state((Topic.SEQUENCE,))
        events = feed(alone, [FakeSequence(bytes(32), SequenceLabel.ADDED, 10), FakeSequence(b"\1" * 32, SequenceLabel.REMOVED, 1)])
        assert [type(event) for event in events] == [TransactionAdded, ChainGap, TransactionRemoved]

    def test_a_new_life_that_is_known_from_its_beginning_leaves_nothing_open(self) -> None:
        messages = published(STORIES[0], (Topic.SEQUENCE,))
        state = make_state((Topic.SEQUENCE,))
        events = feed(state, [*messages[:50], Restart(HERE, epoch=b"b" * 16, previous_epoch=b"a" * 16), *messages[50:]])
        assert events == feed(make_state((Topic.SEQUENCE,)), messages)

    @pytest.mark.parametrize("event", [MempoolGap(HERE, 5, 9), Restart(HERE), Restart(HERE, epoch=b"b" * 16)])
    def test_a_jump_of_the_mempool_sequence_and_a_restart_are_mended(self, event: object) -> None:
        node = SimulatedNode([*STORIES[0].before, *STORIES[0]])
        state = make_state((Topic.SEQUENCE,), can_ask=True)
        feed(state, published(STORIES[0], (Topic.SEQUENCE,)), node)
        (reset,) = feed(state, [event], node)
        assert isinstance(reset, MempoolReset)
        assert set(reset.txids) == set(node.get_mempool().txids)


class NodeAhead(SimulatedNode):
    """A node that knows more of a story than is published; who asks it finds it between two moments, never within one."""

    def __init__(self, story: Story) -> None:
        super().__init__(story.before)
        self._story = story
        self._place = 0

    def move_on(self, place: int) -> None:
        while self._place < min(place, len(self._story)) or self._is_changing():
            self.see(self._story[self._place])
            self._place += 1

    def _is_changing(self) -> bool:
        """Was a block disconnected or connected, and the new tip not told yet?"""
        for event in reversed(self._story[: self._place]):
            if isinstance(event, source_events.UpdatedBlockTip):
                return False
            if isinstance(event, (source_events.BlockConnected, source_events.BlockDisconnected)):
                return True
        return False


def test_a_body_that_contradicts_its_label_is_followed() -> None:
    """A label C whose block's parent is not the tip: something between them was never published."""
    tips = [event for event in STORIES[3] if isinstance(event, source_events.BlockConnected)][:3]
    mix = (Topic.RAWBLOCK, Topic.SEQUENCE)
    items = [
        item
        for event in (tips[0], tips[2])
        for item in (FakeSequence(event.block.hash, SequenceLabel.CONNECTED), FakeRawBlock(event.block))
    ]
    events = feed(make_state(mix), items)
    assert [type(event) for event in events] == [BlockConnected, ChainGap, BlockConnected]
    node = SimulatedNode([*STORIES[3].before, tips[0]])
    state = make_state(mix, can_ask=True)
    run(state.start(), node)
    drain(state)
    for event in tips[1:]:
        node.see(event)
    assert [event.hash for event in blocks_in(feed(state, items, node)) if isinstance(event, BlockConnected)] == [
        event.block.hash for event in tips[1:]
    ]
