"""Mending without sockets: order, wholeness, no duplicates, whatever the publisher, the line and the replay endpoint do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from mending_world import INDICES, Consumer, Message, World

from zmqpub import Connected, CounterGap, CursorError, Lost, Reconnected, Repaired, Restart, Stale, Topic
from zmqpub.mending.steps import Failure, Reply
from zmqpub.receiving.cursor import SavedPosition, pack_cursor, unpack_cursor
from zmqpub.replay.protocol import ErrorAnswer, HelloAnswer, HelloRequest, RangeAnswer, RangeRequest, Status

A, B, C = INDICES


def begin(**settings: Any) -> tuple[World, Consumer]:
    world = World(**{key: settings.pop(key) for key in ("base", "limit") if key in settings})
    for topic in (A, B, C, B):
        world.publish(topic)
    consumer = Consumer(world, **settings)
    world.line.connect()
    consumer.settle(1)
    return world, consumer


def publish(world: World, *topics: int) -> None:
    for topic in topics:
        world.publish(topic)


def miss(world: World, *topics: int) -> None:
    """Published while there is no connection."""
    connected = world.line.is_connected
    world.line.disconnect()
    publish(world, *topics)
    if connected:
        world.reconnect()


def lose(world: World, *topics: int) -> None:
    """Lost on the way, on a connection that stands."""
    world.losing = set(INDICES)
    publish(world, *topics)
    world.losing = set()


# ---- gaps ----


def test_without_trouble_nothing_is_repaired() -> None:
    world, consumer = begin()
    publish(world, A, B, C, A)
    consumer.settle()
    assert consumer.events(CounterGap, Lost, Repaired, Restart) == []
    assert [(m.index, m.repaired) for m in consumer.messages] == [(A, False), (B, False), (C, False), (A, False)]
    # … but before the first message of the connection.
    assert len([request for request in world.asked if isinstance(request, RangeRequest)]) <= 1


@pytest.mark.parametrize("base", [0, 2**32 - 5, 2**40 + 2**32 - 3])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_gap_is_mended_across_topics_before_the_message_that_showed_it(base: int, limit: int) -> None:
    world, consumer = begin(base=base, limit=limit)
    publish(world, A, B)
    lose(world, C, A, B, A, B)
    publish(world, A, C, B)
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert [m.repaired for m in consumer.messages] == [False] * 2 + [True] * 5 + [False] * 3
    gaps = consumer.events(CounterGap)
    assert (gaps[0].topic, gaps[0].missed) == (Topic.HASHBLOCK, 2)
    assert {gap.topic for gap in gaps} == {Topic.HASHBLOCK, Topic.HASHTX, Topic.SEQUENCE}
    assert len(gaps) == 3
    assert [event.messages for event in consumer.events(Repaired)] == [5]
    kinds = [type(item) for item in consumer.items]
    assert kinds.index(CounterGap) < kinds.index(Repaired)


def test_the_last_message_lost_is_found_without_a_later_one() -> None:
    world, consumer = begin()
    lose(world, A, B)
    consumer.settle(40)
    consumer.check_whole()
    assert [m.repaired for m in consumer.messages] == [True, True]


def test_what_is_under_way_is_not_taken_for_missing() -> None:
    world, consumer = begin()
    lose(world, A)
    late = world.life.log[-1]
    asked = len(world.asked)
    while len(world.asked) == asked:
        consumer.settle(0.05)
    world.line.arrive(late)
    consumer.settle(1)
    assert consumer.events(CounterGap, Repaired) == []
    assert consumer.messages == [late]


def test_a_rare_topic_that_was_lost_is_found_although_another_goes_on() -> None:
    world, consumer = begin()
    world.line.disconnect()
    publish(world, A)
    world.reconnect()
    for _ in range(100):
        publish(world, B)
        consumer.settle(0.1)
    consumer.check_truth()
    consumer.check_whole()


def test_what_left_the_journal_is_lost_and_the_rest_repaired() -> None:
    world, consumer = begin()
    lose(world, A, A, A, A)
    world.life.held_from = len(world.life.log) - 2
    publish(world, A)
    consumer.settle()
    consumer.check_truth()
    consumer.check_whole()
    assert [(event.first, event.until) for event in consumer.events(Lost)] == [(1, 3)]
    assert [event.messages for event in consumer.events(Repaired)] == [2]


def test_when_all_left_the_journal_each_topic_is_lost_up_to_its_next_message() -> None:
    world, consumer = begin()
    lose(world, A, B, A, B)
    publish(world, A, B)
    publish(world, *[C] * 5)
    world.life.held_from = len(world.life.log) - 2
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert [(event.topic, event.messages) for event in consumer.events(Lost)] == [(Topic.HASHBLOCK, 2), (Topic.HASHTX, 2)]
    assert len([m for m in consumer.messages if not m.repaired]) == 7


def test_after_silence_and_a_new_socket_the_endpoint_is_asked_at_once() -> None:
    world, consumer = begin()
    lose(world, A, B)
    world.line.go_stale()
    consumer.settle(0.1)
    assert [type(item) for item in consumer.items if not isinstance(item, Message)] == [
        Connected,
        Stale,
        CounterGap,
        CounterGap,
        Repaired,
    ]
    world.reconnect()
    publish(world, C)
    consumer.settle()
    consumer.check_truth()
    consumer.check_whole()


# ---- restarts ----


@pytest.mark.parametrize("held", [True, False])
def test_a_new_life_comes_after_the_rest_of_the_old_one(held: bool) -> None:
    world, consumer = begin()
    world.holds_former = held
    publish(world, A, B)
    lose(world, A, B)
    world.kill()
    world.start()
    publish(world, A, B, C)
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    restarts = consumer.events(Restart)
    assert [(event.epoch, event.previous_epoch) for event in restarts] == [(world.lives[1].epoch, world.lives[0].epoch)]
    assert [event.until for event in consumer.events(Lost)] == ([] if held else [None] * 3)
    assert [(m.life, m.index) for m in consumer.messages if m.life] == [(1, A), (1, B), (1, C)]


def test_what_a_new_life_published_before_the_connection_is_had() -> None:
    world, consumer = begin()
    publish(world, A)
    world.kill()
    world.alive = True
    world.lives.append(type(world.life)(1, 0))
    publish(world, A, A, B)
    world.reconnect()
    publish(world, A)
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()


def test_several_lives_passed_unseen() -> None:
    world, consumer = begin()
    publish(world, A)
    world.line.disconnect()
    for _ in range(3):
        publish(world, A, B)
        world.alive = False
        world.lives.append(type(world.life)(len(world.lives), 0))
        world.alive = True
    publish(world, C)
    world.reconnect()
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert [event.epoch for event in consumer.events(Restart)] == [life.epoch for life in world.lives[1:]]


def test_a_life_that_goes_on_after_a_restart_is_no_restart() -> None:
    world, consumer = begin()
    publish(world, A)
    world.line.disconnect()
    publish(world, A, B)
    world.kill()
    world.start(new_life=False)
    consumer.settle()
    publish(world, A)
    consumer.settle()
    consumer.check_merged()
    consumer.check_whole()
    assert consumer.events(Restart) == []
    assert len(consumer.events(Reconnected)) == 1


def test_counters_that_happen_to_fit_do_not_deceive() -> None:
    """The new life has counted just as far as the old one: without its name nobody would notice."""
    world, consumer = begin()
    publish(world, A, B)
    positions = dict(world.line.positions)
    world.kill()
    world.alive = True
    world.lives.append(type(world.life)(1, 0))
    for topic in INDICES:
        publish(world, *[topic] * positions[topic])
    world.reconnect()
    publish(world, A, B, C)
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert len(consumer.events(Restart)) == 1


def test_a_restart_while_a_gap_is_mended() -> None:
    world, consumer = begin(limit=1)
    publish(world, A)
    lose(world, A, B, A, B, C)
    publish(world, A)
    while not any(m.repaired for m in consumer.messages):
        assert consumer.step()
    world.kill()
    world.start()
    publish(world, A, A)
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert consumer.events(Lost) == []


def test_connections_that_are_older_than_the_present_life_are_not_trusted() -> None:
    world, consumer = begin()
    publish(world, A)
    consumer.settle(1)
    world.line.disconnect()
    world.reconnect()  # still the old life …
    publish(world, A, B)
    world.kill()
    world.start()  # … and both connections are seen only now
    publish(world, A)
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert consumer.events(Lost) == []


def test_a_restart_behind_a_proxy_shows_no_new_connection() -> None:
    world, consumer = begin()
    publish(world, A, B, A)
    consumer.settle(1)
    world.lives.append(type(world.life)(1, 0))
    publish(world, B, A, A)
    consumer.settle()
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert len(consumer.events(Restart)) == 1


def test_a_restart_behind_a_proxy_is_found_in_silence() -> None:
    world, consumer = begin()
    publish(world, A)
    consumer.settle(1)
    world.lives.append(type(world.life)(1, 0))
    lose(world, A, B)
    consumer.settle()
    consumer.check_merged()
    consumer.check_whole()
    assert len(consumer.events(Restart)) == 1


@pytest.mark.parametrize("published", [0, 1, 6])
def test_a_publisher_that_lost_what_it_had_sent_is_not_believed_to_go_on(published: int) -> None:
    """The same life, but its counters are back where its journal was when it last reached the disk."""
    world, consumer = begin()
    publish(world, *[A, B] * 5)
    consumer.settle(1)
    before = len(consumer.messages)
    world.kill()
    life = world.life
    del life.log[-6:]
    life.counts[A] -= 3
    life.counts[B] -= 3
    world.start(new_life=False)
    publish(world, *[A, B] * published)
    consumer.settle()
    publish(world, *[A, B, C] * 5)
    consumer.settle()
    assert consumer.events(Restart) != []
    assert {event.topic for event in consumer.events(Lost) if event.until is None} >= {Topic.HASHBLOCK, Topic.HASHTX}
    after = consumer.messages[before:]
    assert len(set(after)) == len(after)
    assert [m.event for m in after if m.index == C] == sorted(m.event for m in after if m.index == C)
    assert after[-3:] == life.log[-3:]


# ---- an endpoint that is down, or lies ----


def test_an_endpoint_that_is_down_for_a_while_is_asked_again() -> None:
    world, consumer = begin(repair_timeout=100.0, repair_retries=9)
    lose(world, A, B)
    publish(world, A)
    world.endpoint_up = False
    for _ in range(12):
        consumer.step()
    world.endpoint_up = True
    consumer.settle()
    consumer.check_whole()
    consumer.check_merged()
    assert consumer.events(Lost) == []


def test_an_endpoint_that_stays_down_costs_the_messages_but_not_the_stream() -> None:
    world, consumer = begin()
    lose(world, A, A)
    world.endpoint_up = False
    publish(world, A, B)
    before = world.now
    consumer.settle(60)
    assert [(event.first, event.until, event.reason) for event in consumer.events(Lost)] == [(1, 3, "down")]
    assert consumer.stream.source_states()[0].status == "degraded"
    assert consumer.stream.source_states()[0].error == "down"
    assert world.now - before < 120
    consumer.check_truth()
    world.endpoint_up = True
    lose(world, A)
    consumer.settle(200)
    assert consumer.stream.source_states()[0].status == "live"
    consumer.check_whole()


def test_a_restart_while_the_endpoint_is_down() -> None:
    world, consumer = begin()
    publish(world, A, B, B)
    consumer.settle(1)
    world.endpoint_up = False
    world.kill()
    world.start()
    publish(world, A, B)
    lose(world, B)
    publish(world, B)
    consumer.settle(100)
    consumer.check_truth()
    assert any(event.topic for event in consumer.events(Restart))
    world.endpoint_up = True
    consumer.settle(100)
    publish(world, A, B, C)
    consumer.settle(100)
    consumer.check_truth()
    consumer.check_whole()
    assert consumer.stream.positions()["tcp://127.0.0.1:28332"].epoch == world.life.epoch


def _another_epoch(request: Any, reply: Reply) -> Reply:
    answer: Any = reply.answer
    return dataclasses.replace(reply, answer=dataclasses.replace(answer, epoch=b"x" * 16))


def _one_fewer(request: Any, reply: Reply) -> Reply:
    batch: Any = reply.batch
    return dataclasses.replace(reply, batch=type(batch)(batch.feed, batch.entries[:-1], True))


def _other_numbers(request: Any, reply: Reply) -> Reply:
    batch: Any = reply.batch
    entries = [(kind, g, dataclasses.replace(m, number=m.number + 1)) for kind, g, m in batch.entries]
    return dataclasses.replace(reply, batch=type(batch)(batch.feed, entries, True))


def _wrong_first(request: Any, reply: Reply) -> Reply:
    answer: Any = reply.answer
    return dataclasses.replace(
        reply,
        answer=dataclasses.replace(answer, notifiers=tuple(dataclasses.replace(one, first=one.first + 1) for one in answer.notifiers)),
    )


def _silently_gone(request: Any, reply: Reply) -> Reply:
    answer: Any = reply.answer
    notifiers = tuple(dataclasses.replace(one, first=one.next, gone=one.next - one.first + one.gone) for one in answer.notifiers)
    batch: Any = reply.batch
    return Reply(dataclasses.replace(answer, notifiers=notifiers, gone=False), type(batch)(batch.feed, [], True))


def _other_notifiers(request: Any, reply: Reply) -> Reply:
    answer: Any = reply.answer
    return dataclasses.replace(reply, answer=dataclasses.replace(answer, notifiers=answer.notifiers[::-1]))


def _malformed(request: Any, reply: Reply) -> Reply:
    batch: Any = reply.batch
    batch.malformed = "a message of two frames"
    return reply


def _more_of_nothing(request: Any, reply: Reply) -> Reply:
    answer: Any = reply.answer
    notifiers = tuple(dataclasses.replace(one, next=one.first) for one in answer.notifiers)
    batch: Any = reply.batch
    return Reply(dataclasses.replace(answer, notifiers=notifiers, more=True), type(batch)(batch.feed, [], True))


def _hello(request: Any, reply: Reply) -> Reply:
    return Reply(HelloAnswer(()))


def _busy(request: Any, reply: Reply) -> Reply:
    return Reply(ErrorAnswer(2, Status.BUSY, "later"))


LIES = [
    _another_epoch,
    _one_fewer,
    _other_numbers,
    _wrong_first,
    _silently_gone,
    _other_notifiers,
    _malformed,
    _more_of_nothing,
    _hello,
    _busy,
]


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_never_handed_out_and_the_truth_is_asked_for_again(lie: Callable[[Any, Reply], Reply]) -> None:
    world, consumer = begin()
    lose(world, A, B, A)
    world.lies = [lie]
    publish(world, A)
    consumer.settle()
    assert world.lies == []
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert consumer.events(Lost) == []


@pytest.mark.parametrize("lie", LIES)
def test_who_only_lies_repairs_nothing(lie: Callable[[Any, Reply], Reply]) -> None:
    world, consumer = begin()
    lose(world, A, B, A)
    world.lies = [lambda request, reply: lie(request, reply) if isinstance(request, RangeRequest) else reply] * 1000
    publish(world, A)
    consumer.settle()
    consumer.check_truth()
    consumer.check_whole()
    assert consumer.events(Repaired) == []
    assert consumer.events(Lost) != []
    assert "replay endpoint" in consumer.events(Lost)[0].reason


@pytest.mark.parametrize(
    "answer",
    [
        lambda hello: RangeAnswer(b"x" * 16, False, False, ()),
        lambda hello: dataclasses.replace(hello, epochs=hello.epochs * 2),
        lambda hello: dataclasses.replace(hello, epochs=tuple(dataclasses.replace(one, current=False) for one in hello.epochs)),
        lambda hello: dataclasses.replace(
            hello, epochs=tuple(dataclasses.replace(one, notifiers=one.notifiers * 2) for one in hello.epochs)
        ),
        lambda hello: dataclasses.replace(hello, epochs=tuple(dataclasses.replace(one, notifiers=()) for one in hello.epochs)),
    ],
)
def test_a_hello_that_makes_no_sense_changes_nothing(answer: Callable[[Any], Any]) -> None:
    world, consumer = begin()
    publish(world, A)
    world.lies = [lambda request, reply: Reply(answer(reply.answer)) if isinstance(request, HelloRequest) else reply] * 3
    world.line.disconnect()
    world.reconnect()
    publish(world, A, B)
    consumer.settle()
    consumer.check_truth()
    consumer.check_whole()
    assert consumer.events(Restart, Lost) == []


# ---- cursors ----


def resumed(world: World, consumer: Consumer) -> Consumer:
    saved = unpack_cursor(pack_cursor(consumer.stream.positions(), consumer.place.topics), [consumer.place.text], consumer.place.topics)
    world.line = type(world.line)()
    again = Consumer(world, saved[consumer.place.text], **consumer.settings)
    again.started = consumer.started
    again.items = list(consumer.items)
    world.line.connect()
    return again


@pytest.mark.parametrize("stop", range(0, 40, 3))
@pytest.mark.parametrize("restart", [True, False])
def test_a_cursor_goes_on_exactly_where_it_was_saved(stop: int, restart: bool) -> None:
    world, consumer = begin(limit=1, base=2**32 - 4)
    publish(world, A, B)
    lose(world, A, B, C, A)
    publish(world, A, C)
    for _ in range(stop):
        consumer.step()
    if restart:
        world.kill()
        world.start()
        publish(world, A, B)
    again = resumed(world, consumer)
    publish(world, A, B)
    again.settle()
    again.check_truth()
    again.check_merged()
    again.check_whole()
    assert again.events(Lost) == []


def test_a_cursor_of_a_life_that_is_not_held_is_refused_at_once() -> None:
    world, consumer = begin()
    publish(world, A)
    consumer.settle(1)
    world.holds_former = False
    world.kill()
    world.start()
    with pytest.raises(CursorError, match="does not hold the life"):
        resumed(world, consumer)


def test_a_cursor_of_a_life_that_is_not_held_is_refused_once_the_endpoint_answers() -> None:
    world, consumer = begin()
    publish(world, A)
    consumer.settle(1)
    world.holds_former = False
    world.kill()
    world.start()
    world.endpoint_up = False
    again = resumed(world, consumer)
    again.settle(5)
    world.endpoint_up = True
    with pytest.raises(CursorError, match="does not hold the life"):
        again.settle(100)


def test_a_cursor_waits_for_a_publisher_that_comes_later() -> None:
    world, consumer = begin()
    publish(world, A)
    consumer.settle(1)
    lose(world, A, B)
    world.kill()
    saved = consumer.stream.positions()[consumer.place.text]
    world.line = type(world.line)()
    again = Consumer(world, SavedPosition(saved.epoch, saved.numbers))
    again.started, again.items = consumer.started, list(consumer.items)
    again.settle(300)
    world.start(new_life=False)
    publish(world, C)
    again.settle()
    again.check_truth()
    again.check_merged()
    again.check_whole()
    assert again.events(Lost) == []


# ---- whatever happens ----

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.lists(st.sampled_from(INDICES), min_size=1, max_size=5)),
        st.tuples(st.just("lose"), st.lists(st.sampled_from(INDICES), min_size=1, max_size=5)),
        st.tuples(st.just("steps"), st.integers(1, 8)),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 0.5, 2.0, 31.0])),
        st.tuples(st.just("disconnect"), st.none()),
        st.tuples(st.just("reconnect"), st.none()),
        st.tuples(st.just("stale"), st.none()),
        st.tuples(st.just("restart"), st.booleans()),
        st.tuples(st.just("kill"), st.none()),
        st.tuples(st.just("forget"), st.integers(0, 3)),
        st.tuples(st.just("resume"), st.none()),
        st.tuples(st.just("lie"), st.sampled_from([_busy, _another_epoch, _more_of_nothing, lambda *_: Failure("down")])),
    ),
    max_size=40,
)


def play(world: World, consumer: Consumer, actions: list[tuple[str, Any]], faults: bool) -> Consumer:
    for action, argument in actions:
        if action == "publish":
            publish(world, *argument)
        elif action == "lose":
            (lose if faults else miss)(world, *argument)
        elif action == "steps":
            for _ in range(argument):
                consumer.step()
        elif action == "wait":
            consumer.settle(argument)
        elif action == "disconnect":
            world.line.disconnect()
        elif action == "reconnect":
            world.reconnect()
        elif action == "stale":
            world.line.go_stale()
        elif action == "restart":
            world.kill()
            world.start(argument)
        elif action == "kill":
            world.kill()
        elif action == "forget" and faults:
            world.life.held_from = max(world.life.held_from, len(world.life.log) - argument)
            for former in world.lives[:-1] if world.life.held_from else ():
                former.held_from = len(former.log) + 1  # the oldest goes first
        elif action == "resume" and not faults:
            consumer = resumed(world, consumer) if world.alive else consumer
        elif action == "lie" and faults and isinstance(argument, type(_busy)):
            world.lies.append(lambda request, reply, lie=argument: lie(request, reply) if _fits(lie, request) else reply)
    return consumer


def _fits(lie: Any, request: Any) -> bool:
    return isinstance(request, RangeRequest) or lie not in (_another_epoch, _more_of_nothing)


def rest(world: World, consumer: Consumer) -> None:
    """All is well again."""
    world.lies.clear()
    if not world.alive:
        world.start(new_life=False)
    world.reconnect()
    consumer.settle(200)
    publish(world, *INDICES)
    consumer.settle(200)


@given(ACTIONS, st.sampled_from([0, 2**32 - 6]), st.integers(1, 4))
def test_with_an_endpoint_that_answers_nothing_is_lost_whatever_happens(actions: list[tuple[str, Any]], base: int, limit: int) -> None:
    world = World(base, limit)
    publish(world, A, B, C, B)
    consumer = Consumer(world, repair_timeout=1000.0, repair_retries=100)
    consumer = play(world, consumer, actions, faults=False)
    rest(world, consumer)
    note(f"items: {consumer.items}")
    consumer.check_truth()
    consumer.check_merged()
    consumer.check_whole()
    assert consumer.events(Lost) == []


@given(ACTIONS, st.booleans(), st.sampled_from([0, 2**32 - 6]), st.integers(1, 4))
def test_whatever_happens_nothing_is_missing_that_was_not_told(
    actions: list[tuple[str, Any]], holds_former: bool, base: int, limit: int
) -> None:
    world = World(base, limit)
    world.holds_former = holds_former
    publish(world, A, B, C, B)
    consumer = Consumer(world)
    consumer = play(world, consumer, actions, faults=True)
    rest(world, consumer)
    note(f"items: {consumer.items}")
    consumer.check_truth()
    consumer.check_whole()
