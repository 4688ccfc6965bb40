"""A world to mend in, without sockets: a publisher with several lives, a line that loses, a receiver, and a replay endpoint.

The receiver is the slow, readable twin of the compiled one (stream.c, _batch.pxi) as far as counters go. Everything that is
published says in its body what it is, so that whatever comes out of a Stream can be held against what went in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from zmqpub import Lost, Restart, StreamEvent, SubscriberSettings, Topic
from zmqpub.addresses import parse_address
from zmqpub.mending.positions import Place
from zmqpub.mending.steps import Ask, Failure, HandOut, Pause, Reply, Step, Take, Tell
from zmqpub.receiving.cursor import SavedPosition
from zmqpub.receiving.streaming import Stream
from zmqpub.replay.protocol import (
    EpochInfo,
    ErrorAnswer,
    HelloAnswer,
    HelloRequest,
    NotifierInfo,
    RangeAnswer,
    RangeNotifier,
    RangeRequest,
    Status,
)

ADDRESS = "tcp://127.0.0.1:28332"
REPLAY = "tcp://127.0.0.1:28331"
TOPICS = (Topic.HASHBLOCK, Topic.HASHTX, Topic.SEQUENCE)
INDICES = tuple(list(Topic).index(topic) for topic in TOPICS)
MODULUS = 2**32


@dataclass(frozen=True)
class Message:
    """What the stream hands out: an event number of a life tells its place in the order of publication."""

    life: int
    event: int
    index: int
    number: int
    repaired: bool = False

    @property
    def counter(self) -> int:
        return self.number % MODULUS

    @property
    def topic(self) -> Topic:
        return list(Topic)[self.index]

    @property
    def address(self) -> str:
        return ADDRESS


@dataclass
class Life:
    """One life of the publisher: each event makes one message of one topic."""

    index: int
    base: int
    log: list[Message] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    held_from: int = 0
    """The first event that the journal still holds."""
    removed: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def epoch(self) -> bytes:
        return bytes([self.index + 1]) * 16

    def next(self, topic: int) -> int:
        return self.base + self.counts.get(topic, 0)

    def first_held(self, topic: int) -> int:
        held = [message.number for message in self.log[self.held_from :] if message.index == topic]
        return held[0] if held else self.next(topic)

    def publish(self, topic: int) -> Message:
        message = Message(self.index, len(self.log), topic, self.next(topic))
        self.counts[topic] = self.counts.get(topic, 0) + 1
        self.log.append(message)
        return message


class Entries:
    """Twin of Batch."""

    def __init__(self, feed: Line, entries: list[tuple[Any, ...]], repaired: bool = False) -> None:
        self.feed = feed
        self.entries = entries
        self.repaired = repaired
        self.malformed: str | None = None
        self.messages = len(entries)
        self.spans: dict[int, tuple[int, int, bool]] = {}
        for entry in entries if repaired else ():
            message = entry[2]
            first, following, whole = self.spans.get(message.index, (message.counter, message.counter, True))
            self.spans[message.index] = (first, (message.counter + 1) % MODULUS, whole and following == message.counter)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = self._next(True)
        if item is None:
            raise StopIteration
        return item

    def notifications(self) -> Iterator[Any]:
        while (item := self._next(False)) is not None:
            yield item

    def take(self, limit: int, /) -> list[Any]:
        return [item for item, _ in zip(self.notifications(), range(limit), strict=False)]

    def _next(self, tuples: bool) -> Any:
        feed = self.feed
        while self.entries:
            kind, generation, *rest = self.entries[0]
            old = not self.repaired and generation < feed.oldest and kind in ("message", "gap", "restart")
            if old:
                self.entries.pop(0)
            elif kind == "message":
                message: Message = rest[0]
                known = feed.positions.get(message.index)
                if not self.repaired and known is not None and message.counter != known:
                    if feed.is_behind(message.index, message.counter):
                        self.entries.pop(0)
                        continue
                    if feed.announced.get(message.index) != message.counter:
                        return self._gap(message.index, known, message.counter) if tuples else None
                self.entries.pop(0)
                feed.handed_out(message, self.repaired)
                return message
            elif kind == "gap":
                topic, expected, got = rest
                if feed.is_behind(topic, (got - 1) % MODULUS):
                    self.entries.pop(0)
                    continue
                if not tuples:
                    return None
                self.entries.pop(0)
                return self._gap(topic, feed.positions[topic] if feed.is_behind(topic, expected) else expected, got)
            elif not tuples:
                return None
            else:
                self.entries.pop(0)
                if kind == "restart":
                    feed.before_restart = dict(feed.positions)
                    feed.positions = dict.fromkeys(INDICES, 0)
                    feed.skip_from = dict.fromkeys(INDICES, 0)
                    feed.announced.clear()
                    return "restart", 0, *rest
                return kind, 0, *rest
        return None

    def _gap(self, topic: int, expected: int, got: int) -> tuple[Any, ...]:
        self.feed.announced[topic] = got
        return "gap", 0, list(Topic)[topic], expected, got, "network"


class Line:
    """Twin of Receiver, for one source."""

    def __init__(self) -> None:
        self.positions: dict[int, int] = {}
        self.skip_from: dict[int, int] = {}
        """What was repaired, from here to the position, is skipped when it arrives."""
        self.announced: dict[int, int] = {}
        self.before_restart: dict[int, int] = {}
        self.oldest = 0
        self.queue: list[tuple[Any, ...]] = []
        self.expected: dict[int, int] = {}
        self.made = 0
        self.is_connected = False

    def expect(self, numbers: dict[int, int]) -> None:
        for topic, number in numbers.items():
            self.set_delivered(0, topic, number)
        self.expected = dict(numbers)

    def is_behind(self, topic: int, counter: int) -> bool:
        if topic not in self.positions:
            return False
        begin = self.skip_from[topic]
        return (counter - begin) % MODULUS < (self.positions[topic] - begin) % MODULUS

    def handed_out(self, message: Message, repaired: bool) -> None:
        topic, counter = message.index, message.counter
        position = self.positions.get(topic)
        if not repaired:
            self.skip_from[topic] = (counter + 1) % MODULUS
        elif position is None or counter != position or self.skip_from[topic] == position:
            self.skip_from[topic] = counter
        self.positions[topic] = (counter + 1) % MODULUS
        self.announced.pop(topic, None)

    # what the thread does

    def connect(self) -> None:
        self.made += 1
        self.is_connected = True
        self.queue.append(("connected", self.made, self.made, ADDRESS))

    def disconnect(self) -> None:
        if self.is_connected:
            self.is_connected = False
            self.queue.append(("disconnected", self.made, self.made))

    def go_stale(self) -> None:
        self.is_connected = False
        self.queue.append(("stale", self.made, 1.0))

    def arrive(self, message: Message) -> None:
        known = self.expected.get(message.index)
        if known is not None and (message.counter - known) % MODULUS > 0x7FFFFFFE:
            self.queue.append(("restart", self.made, list(Topic)[message.index], known, message.counter))
            self.expected = dict.fromkeys(INDICES, 0)
            known = 0
        if known is not None and message.counter != known:
            self.queue.append(("gap", self.made, message.index, known, message.counter))
        self.expected[message.index] = (message.counter + 1) % MODULUS
        self.queue.append(("message", self.made, message))

    # what the consumer asks

    def take(self) -> Entries | None:
        if not self.queue:
            return None
        entries, self.queue = self.queue, []
        return Entries(self, entries)

    def delivered(self, source: int, /) -> dict[int, int]:
        return dict(self.positions)

    def set_delivered(self, source: int, topic: int, counter: int | None, /) -> None:
        assert counter is None or 0 <= counter < MODULUS
        self.announced.pop(topic, None)
        if counter is None:
            self.positions.pop(topic, None)
            return
        if topic not in self.positions:
            self.skip_from[topic] = (counter + MODULUS // 2) % MODULUS
        elif (counter - self.positions[topic]) % MODULUS >= MODULUS // 2:
            self.skip_from[topic] = counter
        self.positions[topic] = counter

    def generation(self, source: int, /) -> int:
        return self.made

    def connected(self, source: int, /) -> bool:
        return self.is_connected

    def skip_before(self, source: int, generation: int, /) -> None:
        self.oldest = generation

    def delivered_before_restart(self, source: int, /) -> dict[int, int]:
        return dict(self.before_restart)


class World:
    """The publisher, what is between, and time."""

    def __init__(self, base: int = 0, limit: int = 3) -> None:
        self.now = 1000.0
        self.lives = [Life(0, base)]
        self.alive = True
        self.line = Line()
        self.endpoint_up = True
        self.losing: set[int] = set()
        """Topics whose live messages are lost on the way."""
        self.limit = limit
        self.lies: list[Any] = []
        """Functions (request, reply) -> reply, for the next answers."""
        self.holds_former = True
        self.asked: list[Any] = []

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def publish(self, topic: int) -> None:
        if not self.alive:
            return
        message = self.life.publish(topic)
        if self.line.is_connected and topic not in self.losing:
            self.line.arrive(message)

    def kill(self) -> None:
        self.alive = False
        self.line.disconnect()

    def start(self, new_life: bool = True) -> None:
        if self.alive:
            return
        self.alive = True
        if new_life:
            self.lives.append(Life(len(self.lives), 0))
            if not self.holds_former:
                for life in self.lives[:-1]:
                    life.held_from = len(life.log) + 1
        self.reconnect()

    def reconnect(self) -> None:
        if self.alive and not self.line.is_connected:
            self.line.connect()

    # the endpoint

    def answer(self, request: Any) -> Reply | Failure:
        self.asked.append(request)
        if not (self.endpoint_up and self.alive):
            return Failure("down")
        reply = self._truth(request)
        return self.lies.pop(0)(request, reply) if self.lies else reply

    def _truth(self, request: Any) -> Reply:
        held = [life for life in self.lives if life is self.life or life.held_from < max(len(life.log), 1)]
        if isinstance(request, HelloRequest):
            return Reply(HelloAnswer(tuple(self._describe(life) for life in held)))
        assert isinstance(request, RangeRequest)
        life = next((life for life in held if life.epoch == request.epoch), None)
        if life is None:
            return Reply(ErrorAnswer(2, Status.UNKNOWN_EPOCH, "not held"))
        return self._range(life, request)

    def _describe(self, life: Life) -> EpochInfo:
        notifiers = tuple(NotifierInfo(t, list(Topic)[t], life.first_held(t), life.next(t), ADDRESS) for t in INDICES)
        return EpochInfo(life.epoch, 1000 + life.index, life is self.life, notifiers)

    def _range(self, life: Life, request: RangeRequest) -> Reply:
        firsts = {start.notifier: max(start.first, life.first_held(start.notifier)) for start in request.starts}
        following = dict(firsts)
        found: list[Message] = []
        more = False
        for message in life.log[life.held_from :]:
            if request.until is not None and (message.index, message.number) == (request.until.notifier, request.until.number):
                break
            if message.index not in firsts or message.number < firsts[message.index]:
                continue
            if len(found) == self.limit:
                more = True
                break
            found.append(Message(message.life, message.event, message.index, message.number, True))
            following[message.index] = message.number + 1
        if request.until is not None and firsts[request.until.notifier] > request.until.number:
            found, following, more = [], dict(firsts), False
        notifiers = tuple(
            RangeNotifier(start.notifier, firsts[start.notifier], following[start.notifier], firsts[start.notifier] - start.first)
            for start in request.starts
        )
        gone = any(one.gone for one in notifiers)
        batch = Entries(self.line, [("message", 0, message) for message in found], repaired=True)
        return Reply(RangeAnswer(life.epoch, more, gone, notifiers), batch)


class Consumer:
    """Drives a Stream in a world, and keeps what comes out."""

    def __init__(self, world: World, resume: SavedPosition | None = None, **settings: Any) -> None:
        self.world = world
        self.place = Place(0, parse_address(ADDRESS), TOPICS, parse_address(REPLAY))
        chosen = SubscriberSettings(**{"check_interval": 30.0, "repair_timeout": 10.0, "repair_retries": 2, **settings})
        self.settings = settings
        self.stream = Stream([self.place], chosen, None, {ADDRESS: resume} if resume else None, lambda: world.now)
        self.items: list[Message | StreamEvent] = []
        opening = self.stream.open()
        answer = None
        try:
            while True:
                answer = self._do(opening.send(answer))
        except StopIteration as stop:
            world.line.expect(stop.value[0])
        self.stream.attach(world.line)
        self._run = self.stream.run()
        self._step = next(self._run)
        self.started = {topic: world.life.next(topic) for topic in INDICES}

    def _do(self, step: Step) -> Any:
        if isinstance(step, Ask):
            self.world.now += 0.001
            reply = self.world.answer(step.request)
            if isinstance(reply, Failure):
                self.world.now += step.timeout
            return reply
        if isinstance(step, Tell):
            self.items.append(step.item)  # type: ignore[arg-type]
        elif isinstance(step, HandOut):
            self.items.extend(step.batch.notifications())  # type: ignore[arg-type]
        elif isinstance(step, Pause):
            self.world.now = max(self.world.now, step.until)
        else:
            raise AssertionError(step)
        return None

    def step(self) -> bool:
        """Do one thing; False: there is nothing to do but to wait for messages or for time to pass."""
        answer = None
        if isinstance(self._step, Take):
            answer = self.world.line.take()
            if answer is None and self.world.now < self._step.until:
                return False
        else:
            answer = self._do(self._step)
        self._step = self._run.send(answer)
        return True

    def settle(self, seconds: float = 100.0) -> None:
        """Until nothing more happens, so many seconds long."""
        end = self.world.now + seconds
        while self.world.now < end:
            if not self.step():
                assert isinstance(self._step, Take)
                self.world.now = min(self._step.until, end)

    @property
    def messages(self) -> list[Message]:
        return [item for item in self.items if isinstance(item, Message)]

    def events(self, *kinds: type) -> list[Any]:
        return [item for item in self.items if isinstance(item, kinds)]

    # ---- the truth ----

    def check_truth(self) -> None:
        """Nothing that was not published, nothing twice, the topics in order, the lives in order."""
        published = {(m.life, m.index, m.number): m.event for life in self.world.lives for m in life.log}
        seen: set[tuple[int, int, int]] = set()
        last: dict[int, tuple[int, int]] = {}
        for message in self.messages:
            key = (message.life, message.index, message.number)
            assert published[key] == message.event
            assert key not in seen, f"twice: {message}"
            seen.add(key)
            assert (message.life, message.number) > last.get(message.index, (-1, -1)), f"out of order: {message}"
            last[message.index] = (message.life, message.number)

    def check_merged(self) -> None:
        """All topics together in the order of publication."""
        places = [(message.life, message.event) for message in self.messages]
        assert places == sorted(places)

    def check_whole(self) -> None:
        """Whatever was published since the start was handed out, or is told to be lost."""
        assert list(self.missing()) == []

    def missing(self) -> Iterator[Message]:
        seen = {(m.life, m.index, m.number) for m in self.messages}
        lost = list(self._lost())
        for life in self.world.lives:
            for m in life.log:
                if life.index == 0 and m.number < self.started[m.index]:
                    continue
                if (m.life, m.index, m.number) in seen:
                    continue
                if not any(_covers(one, m) for one in lost):
                    yield m

    def _lost(self) -> Iterator[tuple[int, int, Lost]]:
        """With the life that was the present one by name when it was told, and that of the message that follows.

        The two differ while the endpoint does not answer: then nobody can name the life of what arrives.
        """
        named = 0
        for place, item in enumerate(self.items):
            if isinstance(item, Restart) and item.epoch is not None:
                named = item.epoch[0] - 1
            elif isinstance(item, Lost):
                following = next((one.life for one in self.items[place:] if isinstance(one, Message)), named)
                yield named, max(named, following), item


def _covers(lost: tuple[int, int, Lost], message: Message) -> bool:
    named, following, event = lost
    if message.topic is not event.topic or message.life < named:
        return False
    if event.until is None:  # the rest of that life, and of all that nobody heard of
        return message.life > named or (message.counter - event.first) % MODULUS < MODULUS // 2
    return message.life <= following and (message.counter - event.first) % MODULUS < (event.until - event.first) % MODULUS
