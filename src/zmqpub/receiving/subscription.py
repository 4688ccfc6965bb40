"""What Subscriber and AsyncSubscriber have in common: arguments checked, sockets and logic made and closed, state told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import zmq

from zmqpub._fast import Receiver
from zmqpub.addresses import Address, parse_address
from zmqpub.errors import ConfigError, ConfigProblem, CursorError
from zmqpub.mending.positions import Place
from zmqpub.mending.steps import Item
from zmqpub.receiving.cursor import SavedPosition, pack_cursor, unpack_cursor
from zmqpub.receiving.replay_client import ReplayClient
from zmqpub.receiving.state import Status, SubscriberState
from zmqpub.receiving.streaming import Stream
from zmqpub.repair import Repair
from zmqpub.stream_events import EVENT_TYPES, Connected, Lost
from zmqpub.subscriber_settings import SubscriberSettings, parse_subscriber_settings
from zmqpub.wire import Topic

__all__ = ["Subscription"]

_log = logging.getLogger("zmqpub")

_TOPICS: Final = tuple(Topic)
_WORST_FIRST: Final[tuple[Status, ...]] = ("degraded", "repairing", "stale", "connecting", "live")


class Subscription:
    """The parts of a subscriber, made from its arguments. ConfigError, with all that is wrong, before anything is connected."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        topics: Iterable[Topic | str] | None,
        replay: str | Mapping[str, str] | None,
        rpc: Repair | None,
        resume: Mapping[str, Any] | None,
        context: zmq.Context[Any] | None,
        keywords: Mapping[str, Any],
    ) -> None:
        problems: list[ConfigProblem] = []
        self.topics = _parse_topics(topics, problems)
        self.settings = _parse_settings(keywords, problems)
        self.places = _parse_places(addresses, self.topics, replay, problems)
        _check_together(self.settings, self.places, rpc, problems)
        if problems:
            raise ConfigError(*problems)
        positions = None if resume is None else unpack_cursor(resume, [place.text for place in self.places], self.topics)
        for place in self.places:
            if positions is not None and place.replay is None and positions[place.text].epoch is not None:
                raise CursorError(place.text, "to go on from it needs the publisher's replay endpoint, by which its life is known: replay=")
        self._resume = positions or {}
        self.stream = Stream(self.places, self.settings, rpc, positions, time.monotonic)
        self.receiver: Receiver | None = None
        self._own_context = context is None
        self._context: zmq.Context[Any] = zmq.Context() if context is None else context
        self._lock = threading.Lock()
        self.ended = threading.Event()
        bits = sum(1 << _TOPICS.index(topic) for topic in self.topics)
        self._bits = bits
        self.clients = {
            place.index: ReplayClient(place.replay, place.index, bits, self._context, time.monotonic)
            for place in self.places
            if place.replay is not None
        }

    def start(self, expected: list[dict[int, int]]) -> Receiver:
        """Connect and receive."""
        settings = self.settings
        receiver = Receiver(
            [(place.text, place.address.endpoint, place.address.ipv6, self._bits, expected[place.index]) for place in self.places],
            context=self._context,
            byte_bound=settings.byte_bound,
            rcvhwm=settings.rcvhwm,
            latest_only=settings.latest_only,
            stale_after=settings.stale_after,
            heartbeat=settings.heartbeat,
            keepalive_idle=-1 if settings.keepalive_idle is None else settings.keepalive_idle,
            keepalive_interval=-1 if settings.keepalive_interval is None else settings.keepalive_interval,
            reconnect_interval=settings.reconnect_interval,
            reconnect_interval_max=settings.reconnect_interval_max,
        )
        self.stream.attach(receiver)
        self.receiver = receiver  # state() may be asked by another thread at any time
        return receiver

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self.ended.is_set()

    def end(self) -> bool:
        """From now on it is closed; whether it was not before. release() is to follow then."""
        with self._lock:
            first = not self.ended.is_set()
            self.ended.set()
            return first

    def release(self) -> None:
        """Close all sockets, once it has ended. Who waits in another thread gets ClosedError."""
        for client in self.clients.values():
            client.close()
        if self.receiver is not None:
            self.receiver.close()
        if self._own_context:
            self._context.term()

    def close(self) -> None:
        """Both; a second call does nothing."""
        if self.end():
            self.release()

    def state(self) -> SubscriberState:
        """As of now; after close() as of then."""
        sources = self.stream.source_states() if self.receiver is not None else ()
        statuses = {source.status for source in sources}
        status: Status = next((one for one in _WORST_FIRST if one in statuses), "connecting")
        held = 0 if self.receiver is None else self.receiver.stats().held_bytes
        return SubscriberState("closed" if self.closed else status, sources, held, self.settings.byte_bound)

    def cursor(self) -> dict[str, Any]:
        """The position after the last item handed out."""
        if self.receiver is None:
            return pack_cursor({place.text: self._resume.get(place.text, SavedPosition(None, {})) for place in self.places}, self.topics)
        return pack_cursor(self.stream.positions(), self.topics)

    def wanted(self, item: Item) -> bool:
        """Is an item for the user? Events may be for the log instead."""
        if not self.settings.only_notifications or not isinstance(item, EVENT_TYPES):
            return True
        log = _log.info if isinstance(item, Connected) else _log.error if isinstance(item, Lost) else _log.warning
        log("%s", item)
        return False

    def __repr__(self) -> str:
        return "closed" if self.closed else ", ".join(place.text for place in self.places)


def _parse_topics(topics: Iterable[Topic | str] | None, problems: list[ConfigProblem]) -> tuple[Topic, ...]:
    if topics is None:
        return _TOPICS
    names = [topics] if isinstance(topics, str) else list(topics)
    known = {topic.value for topic in Topic}
    for name in names:
        if name not in known:
            problems.append(ConfigProblem("topics", str(name), f"no topic; these are known: {', '.join(sorted(known))}"))
    if not names:
        problems.append(ConfigProblem("topics", None, "at least one is needed"))
    return tuple(topic for topic in Topic if topic in names)


def _parse_settings(keywords: Mapping[str, Any], problems: list[ConfigProblem]) -> SubscriberSettings:
    try:
        return parse_subscriber_settings(keywords)
    except ConfigError as error:
        problems.extend(error.problems)
        return SubscriberSettings()


def _parse_places(
    addresses: tuple[str, ...], topics: tuple[Topic, ...], replay: str | Mapping[str, str] | None, problems: list[ConfigProblem]
) -> list[Place]:
    if not addresses:
        problems.append(ConfigProblem("addresses", None, "at least one is needed"))
    parsed = [_parse_peer("addresses", text, problems) for text in addresses]
    mapped = dict.fromkeys(addresses, replay) if isinstance(replay, str) else dict(replay or {})
    for text in mapped:
        if text not in addresses:
            problems.append(ConfigProblem("replay", text, f"no address that is subscribed to: {', '.join(addresses)}"))
    ends = {text: _parse_peer("replay", value, problems) for text, value in mapped.items()}
    places: list[Place] = []
    for index, address in enumerate(parsed):
        if address is None:
            continue
        if any(address.endpoint == place.address.endpoint for place in places):
            problems.append(ConfigProblem("addresses", address.text, "it is there twice"))
        end = ends.get(address.text)
        alone = end is not None and sum(other is not None and other.endpoint == end.endpoint for other in ends.values()) == 1
        places.append(Place(index, address, topics, end, alone))
    return places


def _parse_peer(option: str, text: object, problems: list[ConfigProblem]) -> Address | None:
    """An address that can be connected to; else None, and a problem."""
    if not isinstance(text, str):
        problems.append(ConfigProblem(option, repr(text), "expected an address, a str"))
        return None
    try:
        address = parse_address(text)
    except ValueError as error:
        problems.append(ConfigProblem(option, text, str(error)))
        return None
    if address.wildcard:
        problems.append(ConfigProblem(option, text, "the real port (or path) is needed: the publisher reports it"))
    elif address.host == "*":
        problems.append(ConfigProblem(option, text, f"the publisher's host is needed, as in tcp://127.0.0.1:{address.port}"))
    else:
        return address
    return None


def _check_together(settings: SubscriberSettings, places: list[Place], rpc: Repair | None, problems: list[ConfigProblem]) -> None:
    if settings.latest_only and (rpc is not None or any(place.replay is not None for place in places)):
        problems.append(ConfigProblem("latest_only", "True", "it leaves messages out on purpose, and replay and rpc= bring them back"))
    if rpc is not None and not isinstance(rpc, Repair):
        problems.append(ConfigProblem("rpc", repr(rpc), "it has not the methods of zmqpub.Repair"))
    for text in settings.publisher_addresses or {}:
        if text not in [place.text for place in places]:
            problems.append(ConfigProblem("publisher_addresses", text, "no address that is subscribed to"))
