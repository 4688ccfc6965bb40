"""Bitcoin Core's options, from Python or from a bitcoin.conf, as frozen notifier configurations. Knows no sockets.

``zmqpub<topic>=address`` may be given several times, ``zmqpub<topic>hwm=n`` sets the high-water mark of all addresses
of that topic, ``nozmqpub<topic>=1`` takes back what stood before it. ``zmqpubreplay=address``, which Bitcoin Core does
not have, is where subscribers ask for what they missed.

Notifiers at the same endpoint share one socket. That holds for addresses that leave the port to libzmq, too, when they
are spelled alike: ``{"zmqpubrawblock": "tcp://127.0.0.1:*", "zmqpubrawtx": "tcp://127.0.0.1:*"}`` is one socket with
one port. Within one topic each such address is a socket of its own, so that the second of one topic shares its port
with the second of another.

Stricter than Bitcoin Core wherever it would run on in silence without the notifications that were asked for.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Final

from zmqpub.addresses import Address, conflict, obstacle, parse_address
from zmqpub.conf_file import CHAINS, ConfFile, Entry, interpret_bool, live_entries, load_conf
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.replay.config import REPLAY_OPTION, ReplayConfig, choose_replay, replay_clashes, replay_entries
from zmqpub.settings import OnFull, Settings, SlowSubscriber, parse_settings
from zmqpub.wire import Topic

__all__ = [
    "DEFAULT_HWM",
    "EndpointConfig",
    "NotifierConfig",
    "OnFull",
    "PublisherConfig",
    "ReplayConfig",
    "Settings",
    "SlowSubscriber",
    "make_notifier",
    "parse_options",
    "parse_settings",
    "read_conf",
]

DEFAULT_HWM: Final = 1000
"""Bitcoin Core's high-water mark, in messages, where none is given."""
MAX_HWM: Final = 2**31 - 1
"""libzmq's mark is an int."""

_PREFIX: Final = "zmqpub"
_ADDRESS_OPTIONS: Final = {topic.option: topic for topic in Topic}
_HWM_OPTIONS: Final = {topic.hwm_option: topic for topic in Topic}
_NAMES: Final = (*_ADDRESS_OPTIONS, *_HWM_OPTIONS, REPLAY_OPTION)

_log = logging.getLogger("zmqpub")


@dataclass(frozen=True, slots=True)
class NotifierConfig:
    """A topic at an address: what Bitcoin Core calls a notifier."""

    topic: Topic
    address: str
    """As it was given."""
    endpoint: str
    """As libzmq wants it: ``unix:path`` is ``ipc://path`` here."""
    hwm: int = DEFAULT_HWM
    """High-water mark in messages, 0 for no limit."""
    where: str | None = None
    """Where it was configured (``file:line``), None for what was given in Python."""
    ipv6: bool = False
    """Whether the socket needs ZMQ_IPV6."""
    instance: int = 0
    """Tells apart sockets with the same endpoint, which only addresses with a port of libzmq's choice have."""

    @property
    def option(self) -> str:
        """The option's name: ``zmqpubrawtx``."""
        return self.topic.option

    def __str__(self) -> str:
        setting = f"{self.option}={self.address}"
        return f"{setting} ({self.where})" if self.where else setting


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """One socket and the notifiers that share it."""

    endpoint: str
    """What to bind."""
    address: str
    """The first notifier's address, as it was given."""
    option: str
    """The first notifier's option, for errors."""
    hwm: int
    """The first notifier's mark: it is the socket's."""
    ipv6: bool
    """Whether the socket needs ZMQ_IPV6."""
    notifiers: tuple[NotifierConfig, ...]
    """At least one, in the order of their topics."""


@dataclass(frozen=True, slots=True)
class PublisherConfig:
    """What a publisher publishes, and where."""

    notifiers: tuple[NotifierConfig, ...] = ()
    """Sorted by topic, within a topic as configured: the order in which each event is announced."""
    chain: str | None = None
    """The chain of the bitcoin.conf that this was read from, None for what was given in Python."""
    replay: ReplayConfig | None = None
    """Where subscribers ask for what they missed, None for nowhere."""

    def endpoints(self) -> tuple[EndpointConfig, ...]:
        """The sockets, in the order of their first notifiers."""
        groups: dict[tuple[str, int], list[NotifierConfig]] = {}
        for notifier in self.notifiers:
            groups.setdefault((notifier.endpoint, notifier.instance), []).append(notifier)
        return tuple(
            EndpointConfig(first.endpoint, first.address, first.option, first.hwm, first.ipv6, tuple(group))
            for group in groups.values()
            for first in group[:1]
        )


def parse_options(options: Mapping[str, object]) -> PublisherConfig:
    """The configuration in ``options``, which map Bitcoin Core's names to values, with or without leading dashes.

    An address option takes one address or a sequence of them, a mark an int or decimal digits; ``nozmqpub<topic>``
    takes 1 or True. As on Bitcoin Core's command line the order counts: a negation takes back what stands before it,
    and the last of several marks holds. Raises ConfigError with everything that is wrong.
    """
    problems: list[ConfigProblem] = []
    entries: dict[str, list[Entry]] = {}
    for key, given in options.items():
        if not isinstance(key, str):
            problems.append(ConfigProblem(repr(key), None, "the name of an option is a str"))
            continue
        written = re.sub(r"\A--?", "", key)
        name = written.removeprefix("no") if written.startswith("no" + _PREFIX) else written
        if name not in _NAMES:
            problems.append(_unknown(written, None))
        elif name != written:
            entries.setdefault(name, []).extend(_negation(name, written, given, problems))
        else:
            entries.setdefault(name, []).extend(_values(name, given, problems))
    marks: dict[Topic, list[Entry]] = {}
    for topic in Topic:
        given_marks = entries.get(topic.hwm_option, [])
        # The last one holds, a negation too; the rest follow to be named in a warning.
        marks[topic] = (live_entries(given_marks) or given_marks[-1:])[::-1]
    addresses = {topic: live_entries(entries.get(topic.option, [])) for topic in Topic}
    return _build(addresses, marks, live_entries(entries.get(REPLAY_OPTION, [])), problems, None)


def read_conf(path: str | os.PathLike[str], chain: str | None = None, *, datadir: str | os.PathLike[str] | None = None) -> PublisherConfig:
    """The configuration in a bitcoin.conf.

    ``chain`` is ``main``, ``test``, ``testnet4``, ``signet`` or ``regtest`` and overrules the file; by default the file
    chooses. ``includeconf=`` is relative to ``datadir``, by default the folder of the file. Options other than
    ``zmqpub…`` are Bitcoin's own business. As in Bitcoin Core, notifications outside sections hold for every chain and
    follow those of the chain's section; of several marks the first holds, the section's before those outside. Raises
    ConfigError with everything that is wrong, each with file and line.
    """
    conf, problems = load_conf(path, chain, datadir)
    for entry in conf:
        problems.extend(_misplaced(entry))
    addresses = {topic: conf.all(topic.option) for topic in Topic}
    marks = {topic: _conf_marks(conf, topic.hwm_option) for topic in Topic}
    return _build(addresses, marks, replay_entries(conf), problems, conf.chain)


def make_notifier(
    topic: Topic | str,
    address: str,
    hwm: int = DEFAULT_HWM,
    beside: Sequence[NotifierConfig] = (),
    replay: ReplayConfig | None = None,
) -> NotifierConfig:
    """One notifier, to be added to those that run (``beside``, and the replay endpoint); ConfigError with everything that
    is wrong with it."""
    try:
        topic = Topic(topic)
    except ValueError:
        known = ", ".join(known.value for known in Topic)
        raise ConfigError(ConfigProblem("topic", str(topic), f"no known topic, these are {known}")) from None
    problems: list[ConfigProblem] = []
    entries = _values(topic.option, address, problems)
    mark = _mark(_values(topic.hwm_option, hwm, problems), problems)
    made = [notifier for entry in entries if (notifier := _notifier(topic, entry, mark, problems))]
    for notifier in made:
        problems.extend(_clashes([*beside, notifier], only=notifier))
        for other in beside:
            if _is_twin(other, notifier):
                problems.append(ConfigProblem(topic.option, address, f"there already is {other}"))
        for _, reason in replay_clashes(replay, made) if replay else ():
            problems.append(ConfigProblem(topic.option, address, f"conflicts with {replay}: {reason}"))
    if problems:
        raise ConfigError(*problems)
    return _number(made, beside)[0]


def _negation(name: str, written: str, given: object, problems: list[ConfigProblem]) -> list[Entry]:
    if isinstance(given, (int, str)):
        if interpret_bool(str(int(given)) if isinstance(given, int) else given):
            return [Entry(name, written, None)]
        problems.append(ConfigProblem(written, str(given), _double_negation(name)))
    else:
        problems.append(ConfigProblem(written, repr(given), "expected 1 or True"))
    return []


def _double_negation(name: str) -> str:
    return f"says twice that it is not meant; leave it out, or give {name} a value"


def _values(name: str, given: object, problems: list[ConfigProblem]) -> list[Entry]:
    text = isinstance(given, (str, bytes, bytearray, memoryview))
    values: Sequence[object] = given if isinstance(given, Sequence) and not text else (given,)
    entries: list[Entry] = []
    for value in values:
        if isinstance(value, str):
            # A str subclass that prints something else (an Enum) would not survive as what it is.
            entries.append(Entry(name, name, str.__str__(value)))
        elif name in _HWM_OPTIONS and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            entries.append(Entry(name, name, str(int(value))))
        elif name in _HWM_OPTIONS:
            # hex() prints an int of any size, repr() only what has at most 4300 digits.
            shown = hex(value) if isinstance(value, int) and not isinstance(value, bool) else repr(value)
            problems.append(ConfigProblem(name, shown, "expected a number of messages, an int or decimal digits"))
        else:
            problems.append(ConfigProblem(name, repr(value), "expected an address, a str, or a sequence of them"))
    return entries


def _conf_marks(conf: ConfFile, name: str) -> list[Entry]:
    """The mark that holds, then those that it outdoes."""
    chosen = conf.one(name)
    if chosen is None:
        return []
    live = [*live_entries(conf.section(conf.chain, name)), *live_entries(conf.outside(name))]
    return [chosen, *(entry for entry in live if entry is not chosen)]


def _misplaced(entry: Entry) -> Iterable[ConfigProblem]:
    """What is wrong with an entry of a file before its value is looked at."""
    *prefix, last = entry.name.split(".")
    bare = last.removeprefix("no") if prefix else last
    if not bare.lower().startswith(_PREFIX):
        return
    if prefix:
        message = f"a section within section [{entry.section}]; Bitcoin Core would ignore it"
        yield ConfigProblem(entry.written, entry.value, message, entry.where)
    elif bare not in _NAMES:
        yield _unknown(entry.written, entry.where)
    elif entry.section and entry.section not in CHAINS:
        aliases = {"mainnet": "main", "testnet": "test", "testnet3": "test"}
        near = difflib.get_close_matches(entry.section.strip(), CHAINS, 1)
        guess = aliases.get(entry.section.strip()) or (near[0] if near else None)
        hint = f"did you mean [{guess}]?" if guess else f"these are {', '.join(CHAINS)}"
        yield ConfigProblem(entry.written, entry.value, f"there is no section [{entry.section}]; {hint}", entry.where)


def _unknown(written: str, where: str | None) -> ConfigProblem:
    """Without the value: an option that is not ours may be a password."""
    written = written.partition("=")[0]
    plain = written.rpartition(".")[2]
    if plain != written and plain.removeprefix("no") in _NAMES:
        return ConfigProblem(written, None, f"sections are for bitcoin.conf; use {plain} here", where)
    if plain in {field.name for field in fields(Settings)}:
        return ConfigProblem(written, None, f"a keyword setting, not an option: pass it as {plain}=…", where)
    candidates = [*_NAMES, *(f"no{name}" for name in _NAMES)] if plain.lower().startswith("no") else _NAMES
    near = difflib.get_close_matches(plain.lower(), candidates, 1)
    hint = f"did you mean {near[0]}?" if near else f"these are known: {', '.join(_NAMES)}"
    return ConfigProblem(written, None, f"no known option; {hint}", where)


def _build(
    addresses: Mapping[Topic, Sequence[Entry]],
    marks: Mapping[Topic, Sequence[Entry]],
    replays: Sequence[Entry],
    problems: list[ConfigProblem],
    chain: str | None,
) -> PublisherConfig:
    notifiers: list[NotifierConfig] = []
    for topic in Topic:
        mark = _mark(marks[topic], problems)
        if marks[topic] and not addresses[topic]:
            _log.warning("%s: has no effect, as no %s is given", marks[topic][0], topic.option)
        for entry in addresses[topic]:
            notifier = _notifier(topic, entry, mark, problems)
            if notifier is None:
                continue
            twin = next((other for other in notifiers if _is_twin(other, notifier)), None)
            if twin is not None:
                _log.warning("%s: ignored, as the same topic is already published there by %s", notifier, twin)
            else:
                notifiers.append(notifier)
    problems.extend(_clashes(notifiers))
    replay = _replay(replays, notifiers, problems)
    if problems:
        raise ConfigError(*problems)
    config = PublisherConfig(tuple(_number(notifiers)), chain, replay)
    _warn_of_lost_marks(config, marks)
    return config


def _mark(entries: Sequence[Entry], problems: list[ConfigProblem]) -> int:
    """The mark that the first of ``entries`` sets; the others are only warned of."""
    if not entries:
        return DEFAULT_HWM
    chosen = entries[0]
    for other in entries[1:]:
        if other.value != chosen.value:
            _log.warning("%s: has no effect, as %s holds", other, chosen)
    if chosen.value is None:
        return 0  # as in Bitcoin Core, where a negated number is 0
    text = chosen.value.strip()
    if chosen.doubly_negated:
        problems.append(ConfigProblem(chosen.written, chosen.value, _double_negation(chosen.name), chosen.where))
    elif not re.fullmatch(r"\+?[0-9]{1,20}", text) or int(text) > MAX_HWM:
        message = f"expected a number of messages from 0 (no limit) to {MAX_HWM}"
        problems.append(ConfigProblem(chosen.written, chosen.value, message, chosen.where))
    else:
        return int(text)
    return DEFAULT_HWM


def _notifier(topic: Topic, entry: Entry, hwm: int, problems: list[ConfigProblem]) -> NotifierConfig | None:
    address = _address(entry, problems)
    if address is None:
        return None
    return NotifierConfig(topic, address.text, address.endpoint, hwm, entry.where, address.ipv6)


def _address(entry: Entry, problems: list[ConfigProblem]) -> Address | None:
    value = entry.value or ""
    if entry.doubly_negated:
        message: str | None = _double_negation(entry.name)
    elif value in ("0", "1"):
        turned_off = f"to turn it off, {'write' if entry.where else 'give'} no{entry.name}=1"
        message = f"this is no address; {turned_off if value == '0' else 'expected one, as in tcp://127.0.0.1:28332'}"
    else:
        try:
            address = parse_address(value)
        except ValueError as error:
            message = str(error)
        else:
            message = obstacle(address)
    if message is not None:
        problems.append(ConfigProblem(entry.written, entry.value, message, entry.where))
        return None
    path = address.path
    if value.startswith("unix://") and path is not None and path[0] not in "/@*":
        _log.warning("%s: is relative to the working directory; Bitcoin Core would take it for /%s", entry, path)
    return address


def _replay(entries: Sequence[Entry], notifiers: Sequence[NotifierConfig], problems: list[ConfigProblem]) -> ReplayConfig | None:
    chosen = choose_replay([(entry, address) for entry in entries if (address := _address(entry, problems))], problems)
    if chosen is not None:
        for other, reason in replay_clashes(chosen, notifiers):
            problems.append(ConfigProblem(REPLAY_OPTION, chosen.address, f"conflicts with {other}: {reason}", chosen.where))
    return chosen


def _is_twin(one: NotifierConfig, other: NotifierConfig) -> bool:
    same = one.topic is other.topic and one.endpoint == other.endpoint
    return same and not parse_address(one.address).wildcard


def _clashes(notifiers: Sequence[NotifierConfig], only: NotifierConfig | None = None) -> Iterable[ConfigProblem]:
    """Pairs of addresses that exclude each other, once for each pair of endpoints, naming both sides."""
    first: dict[str, NotifierConfig] = {}
    for notifier in notifiers:
        first.setdefault(notifier.endpoint, notifier)
    seen: list[NotifierConfig] = []
    for notifier in first.values():
        for other in seen:
            reason = conflict(parse_address(other.address), parse_address(notifier.address))
            if reason is not None and only in (None, notifier):
                message = f"conflicts with {other}: {reason}"
                yield ConfigProblem(notifier.option, notifier.address, message, notifier.where)
        seen.append(notifier)


def _number(notifiers: Iterable[NotifierConfig], beside: Iterable[NotifierConfig] = ()) -> list[NotifierConfig]:
    """Give equal addresses within a topic distinct instances; only those with a port of libzmq's choice recur."""
    taken: dict[tuple[Topic, str], set[int]] = {}
    for notifier in beside:
        taken.setdefault((notifier.topic, notifier.endpoint), set()).add(notifier.instance)
    numbered = []
    for notifier in notifiers:
        used = taken.setdefault((notifier.topic, notifier.endpoint), set())
        instance = next(number for number in count() if number not in used)
        used.add(instance)
        numbered.append(replace(notifier, instance=instance))
    return numbered


def _warn_of_lost_marks(config: PublisherConfig, marks: Mapping[Topic, Sequence[Entry]]) -> None:
    for endpoint in config.endpoints():
        first = endpoint.notifiers[0]
        for notifier in endpoint.notifiers[1:]:
            if marks[notifier.topic] and notifier.hwm != first.hwm:
                _log.warning(
                    "%s: has no effect at %s, as the socket there has the mark of %s, %d",
                    marks[notifier.topic][0],
                    notifier.address,
                    first.option,
                    first.hwm,
                )
