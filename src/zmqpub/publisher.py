"""Publisher: events in, Bitcoin Core's notifications out."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import socket
import threading
import warnings
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq

from zmqpub._fast import Block, Endpoint, Engine, Transaction
from zmqpub.config import (
    EndpointConfig,
    NotifierConfig,
    PublisherConfig,
    ReplayConfig,
    Settings,
    make_notifier,
    parse_options,
    parse_settings,
    read_conf,
)
from zmqpub.errors import BindError, ClosedError, ConfigError, ConfigProblem
from zmqpub.replay.endpoint import Replay
from zmqpub.replay.snapshot import SnapshotSource
from zmqpub.reporter import Reporter
from zmqpub.stats import EndpointStats, JournalStats, LatencyStats, NotifierStats, Stats, SubscriberStats
from zmqpub.wire import Topic

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ActiveNotifier", "Publisher"]

# The kinds of events, as _fast.pxd numbers them.
_TRANSACTION_ADDED, _TRANSACTION_REMOVED, _BLOCK_CONNECTED, _BLOCK_DISCONNECTED, _TIP_UPDATED = range(1, 6)

_INDEX = {topic: index for index, topic in enumerate(Topic)}
_ON_FULL = {"wait": 0, "drop": 1}
_SLOW_SUBSCRIBER = {"disconnect": 0, "drop": 1, "wait": 2}
_SHARES = (0.5, 0.9, 0.99, 0.999)

_UNSET: Any = object()

_log = logging.getLogger("zmqpub")

_open_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


class ActiveNotifier(NamedTuple):
    """What Bitcoin Core's ``getzmqnotifications`` reports of a notifier."""

    type: str
    """``pubhashblock``, ``pubhashtx``, ``pubrawblock``, ``pubrawtx`` or ``pubsequence``."""
    address: str
    """With the real port where it was left to the system."""
    hwm: int
    """High-water mark in messages."""


class _Running:
    """An endpoint and the notifiers on it."""

    def __init__(self, config: EndpointConfig, endpoint: Endpoint) -> None:
        self.config = config
        self.endpoint = endpoint
        self.notifiers: list[NotifierConfig] = list(config.notifiers)

    @property
    def address(self) -> str:
        """What a client connects to, with the real port."""
        wildcard = config_port_is_open(self.config.endpoint)
        return self.endpoint.bound if wildcard else self.config.endpoint


def config_port_is_open(endpoint: str) -> bool:
    """Was the port (or the whole address) left to the system?"""
    return endpoint.endswith((":*", ":0")) or endpoint == "ipc://*"


class Publisher:
    """Publishes Bitcoin's notifications, wire-compatible with Bitcoin Core's, and loses none.

    ``options``: Bitcoin Core's, with or without leading dash, one value or a list each::

        Publisher({"zmqpubrawblock": "tcp://127.0.0.1:28332", "zmqpubrawblockhwm": 10000})

    Keywords are the fields of zmqpub.Settings. ``context``: a zmq.Context to use (inproc subscribers must share it), by
    default one of its own. Raises ConfigError, before any socket is bound, with all that is wrong, and BindError when
    an address cannot be bound; nothing is left bound then.

    Any thread may call any method. An event method appends to the journal and returns; frames are made and sent by one
    thread for each address, which never takes the GIL. It waits only when the journal has reached ``journal_bytes`` and
    ``on_full`` is ``"wait"``. It raises DecodeError for a malformed block or transaction (nothing is published then),
    ClosedError after close() or when the context was terminated, ForkedError in a child of the process that made it.
    """

    def __init__(
        self, options: Mapping[str, object] | PublisherConfig | None = None, /, *, context: zmq.Context[Any] | None = None, **settings: Any
    ) -> None:
        problems: list[ConfigProblem] = []
        try:
            config = options if isinstance(options, PublisherConfig) else parse_options(options or {})
        except ConfigError as error:
            problems.extend(error.problems)
        try:
            self.settings: Settings = parse_settings(settings)
        except ConfigError as error:
            problems.extend(error.problems)
        if problems:
            raise ConfigError(*problems)
        self._lock = threading.RLock()
        self._closed = False
        self._running: list[_Running] = []
        self._config = config
        self._replay: Replay | None = None
        self._order = list(config.notifiers)
        self._own_context = context is None
        self._context: zmq.Context[Any] = zmq.Context(self.settings.io_threads) if context is None else context
        try:
            self.engine = _make_engine(self._context, self.settings, own_context=self._own_context, retain=config.replay is not None)
            if config.replay is not None:
                _refuse_live_socket(config.replay)
                self._replay = Replay(config.replay, self.engine, self.settings)
            self._running = [self._open(endpoint) for endpoint in config.endpoints()]
            for running in self._running:
                running.endpoint.start([_INDEX[notifier.topic] for notifier in running.notifiers], running.address)
            self.engine.settle()
            if self._replay is not None:
                self._replay.start()
        except BaseException:
            self._abandon()
            raise
        self._reporter = Reporter(self.engine)
        _open_publishers.add(self)

    @classmethod
    def from_conf(
        cls, path: str | os.PathLike[str], chain: str | None = None, *, context: zmq.Context[Any] | None = None, **settings: Any
    ) -> Publisher:
        """A publisher for the ``zmqpub…`` options of a bitcoin.conf.

        ``chain``: ``main``, ``test``, ``testnet4``, ``signet`` or ``regtest``; by default the file chooses. Raises
        ConfigError with file and line of everything that is wrong.
        """
        return cls(read_conf(path, chain), context=context, **settings)

    # ---- events ----

    def transaction_added_to_mempool(self, tx: Transaction | Buffer, mempool_sequence: int) -> None:
        """A transaction entered the mempool: hashtx, rawtx, sequence ``A``. ``tx``: a Transaction or its serialization."""
        self.engine.transaction_event(_TRANSACTION_ADDED, tx, mempool_sequence)

    def transaction_removed_from_mempool(self, tx: Transaction | Buffer, mempool_sequence: int) -> None:
        """A transaction left the mempool, and not into a block: sequence ``R``.

        ``tx``: a Transaction, its serialization, or its txid (32 bytes, display order).
        """
        self.engine.transaction_event(_TRANSACTION_REMOVED, tx, mempool_sequence)

    def block_connected(self, block: Block | Buffer) -> None:
        """A block joined the active chain: for each transaction hashtx and rawtx, then sequence ``C``."""
        self.engine.block_event(_BLOCK_CONNECTED, block)

    def block_disconnected(self, block: Block | Buffer) -> None:
        """A block left the active chain: for each transaction hashtx and rawtx, then sequence ``D``."""
        self.engine.block_event(_BLOCK_DISCONNECTED, block)

    def updated_block_tip(self, block: Block | Buffer, initial_download: bool = False) -> None:
        """The active chain has a new tip: hashblock, rawblock. Silent during initial download.

        As in Bitcoin Core it is called once after the blocks that led there were connected, and not when blocks were
        only disconnected.
        """
        if not initial_download:
            self.engine.block_event(_TIP_UPDATED, block)
        else:
            self._check()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was handed over so far is with libzmq; False when ``timeout`` (seconds) was not enough."""
        return self.engine.flush(timeout)

    # ---- notifiers ----

    @property
    def context(self) -> zmq.Context[Any]:
        """The ZeroMQ context of the sockets; inproc subscribers connect within it."""
        return self._context

    @property
    def epoch(self) -> bytes:
        """16 bytes that name this life of the counters: another epoch's counters began at 0 on their own."""
        return self.engine.epoch

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._closed

    def active_notifiers(self) -> list[ActiveNotifier]:
        """What ``getzmqnotifications`` reports: sorted by topic, within a topic in the order of configuration."""
        self._check()
        return [ActiveNotifier(notifier.topic.notifier_type, running.address, notifier.hwm) for notifier, running in self._rows()]

    def add_notifier(self, topic: Topic | str, address: str, hwm: int = 1000) -> ActiveNotifier:
        """Publish a topic at an address, from the next event on; its counter begins at 0.

        Raises ConfigError (a bad address, or a notifier that exists) and BindError.
        """
        self.engine.check()  # in a forked child the lock may be held for ever
        with self._lock:
            self._check()
            notifier = make_notifier(topic, address, hwm, self._order, self._config.replay)
            running = self._running_at(notifier)
            if running is None:
                running = self._open(PublisherConfig((notifier,)).endpoints()[0])
                running.endpoint.start([_INDEX[notifier.topic]], running.address)
                self._running.append(running)
            else:
                if any(other.topic is notifier.topic for other in running.notifiers):
                    raise ConfigError(ConfigProblem(notifier.option, address, "there is such a notifier already"))
                running.endpoint.change(_INDEX[notifier.topic], True, running.address)
                running.notifiers.append(notifier)
            self._order.append(notifier)
            return ActiveNotifier(notifier.topic.notifier_type, running.address, notifier.hwm)

    def remove_notifier(self, topic: Topic | str, address: str) -> None:
        """Publish a topic at an address no more: what was handed over before still counts and is sent.

        With the last notifier of an address its socket is closed, ``linger`` seconds later at most. ``address``: as
        configured or as reported. Raises ConfigError when there is no such notifier.
        """
        self.engine.check()
        with self._lock:
            self._check()
            for running in self._running:
                for notifier in running.notifiers:
                    if notifier.topic == topic and address in (notifier.address, notifier.endpoint, running.address):
                        self._remove(running, notifier)
                        return
        raise ConfigError(ConfigProblem(f"zmqpub{topic}", address, "there is no such notifier"))

    # ---- replay ----

    @property
    def replay_address(self) -> str | None:
        """Where subscribers ask for what they missed, with the real port; None without the option ``zmqpubreplay``."""
        return None if self._replay is None else self._replay.address

    def set_snapshot(self, source: SnapshotSource | None) -> None:
        """Who tells the state of the chain and the mempool to subscribers that ask for it at the replay endpoint.

        ``source`` is called without arguments, on a thread of the publisher's, and returns a zmqpub.Snapshot; one call
        serves all who wait. What it raises is logged. None: nobody (any more). Without a replay endpoint it is never called.
        """
        self.engine.check()
        with self._lock:
            self._check()
            if self._replay is not None:
                self._replay.set_snapshot(source)

    # ---- what is going on ----

    def stats(self) -> Stats:
        """Counters, backlogs and latencies, as of now; after close() as of then."""
        self.engine.check()
        with self._lock:
            running = list(self._running)
        notifiers = [
            NotifierStats(notifier.topic, one.address, notifier.hwm, *_counts(one.endpoint.notifier_stats(_INDEX[notifier.topic])))
            for notifier, one in self._rows()
        ]
        journal = JournalStats(*self.engine.journal_stats(), self.engine.journal_path)
        replay = None if self._replay is None else self._replay.stats()
        return Stats(tuple(notifiers), tuple(_endpoint_stats(one) for one in running), journal, replay)

    # ---- the end ----

    def close(self, linger: float | None = _UNSET) -> None:
        """Stop publishing and close the sockets; a second call does nothing.

        ``linger``: seconds that what is under way may still take, None for as long as it takes; by default the setting
        of that name (0.0: at once, as in Bitcoin Core).
        """
        try:
            self.engine.check()
        except ClosedError:  # in a forked child there is nothing that is ours to close
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            running: list[Endpoint | Replay] = [one.endpoint for one in self._running]
            if self._replay is not None:
                running.append(self._replay)
        seconds = self.settings.linger if linger is _UNSET else linger
        self.engine.close_journal()
        try:
            for one in running:
                one.stop(seconds)
            for one in running:
                one.join()
        finally:  # after an interrupt, at once
            for one in running:
                one.stop(0)
                one.join()
            self.engine.close_file()
            self._reporter.close()
            self._end_context()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or not hasattr(self, "_reporter"):
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
        self.close(0.0)

    def __repr__(self) -> str:
        state = "closed" if self._closed else ", ".join(dict.fromkeys(running.address for running in self._running)) or "no address"
        return f"<Publisher {state}>"

    # ---- inside ----

    def _rows(self) -> list[tuple[NotifierConfig, _Running]]:
        """The notifiers, sorted by topic and within a topic as configured, with what they run on."""
        with self._lock:
            owner = {id(notifier): running for running in self._running for notifier in running.notifiers}
            return [(notifier, owner[id(notifier)]) for notifier in sorted(self._order, key=lambda notifier: _INDEX[notifier.topic])]

    def _check(self) -> None:
        self.engine.check()
        if self._closed:
            raise ClosedError("the publisher was closed")

    def _running_at(self, notifier: NotifierConfig) -> _Running | None:
        """What is bound there already, under the configured address or, for a port left to the system, the real one."""
        for running in self._running:
            if (running.config.endpoint, running.config.notifiers[0].instance) == (notifier.endpoint, notifier.instance):
                return running
        return next((running for running in self._running if running.address == notifier.endpoint), None)

    def _open(self, config: EndpointConfig) -> _Running:
        _refuse_live_socket(config)
        settings = self.settings
        endpoint = Endpoint(
            self.engine,
            config.option,
            config.address,
            config.endpoint,
            hwm=config.hwm,
            ipv6=config.ipv6,
            slow_subscriber=_SLOW_SUBSCRIBER[settings.slow_subscriber],
            stall_timeout=settings.stall_timeout,
            max_lag=settings.max_lag,
            keepalive_idle=-1 if settings.tcp_keepalive_idle is None else settings.tcp_keepalive_idle,
            keepalive_interval=-1 if settings.tcp_keepalive_interval is None else settings.tcp_keepalive_interval,
        )
        return _Running(config, endpoint)

    def _remove(self, running: _Running, notifier: NotifierConfig) -> None:
        running.endpoint.change(_INDEX[notifier.topic], False, running.address)
        running.notifiers.remove(notifier)
        self._order.remove(notifier)
        if not running.notifiers:
            try:
                running.endpoint.stop(self.settings.linger)
                running.endpoint.join()
            finally:  # after an interrupt, at once
                running.endpoint.stop(0)
                running.endpoint.join()
                self._running.remove(running)

    def _end_context(self) -> None:
        """End a context of our own, unless somebody has sockets in it (inproc subscribers): to wait for those could be for ever.
        Then it ends with the last of them."""
        if self._own_context and all(one.closed for one in list(getattr(self._context, "_sockets", ()))):
            self._context.term()

    def _abandon(self) -> None:
        """Leave nothing bound after a failure in the constructor."""
        self._closed = True
        for running in self._running:
            running.endpoint.stop(0)
            running.endpoint.join()
        self._running.clear()
        if self._replay is not None:
            self._replay.stop(0)
            self._replay.join()
        if hasattr(self, "engine"):
            self.engine.close_file()
        if self._own_context:
            self._context.destroy(linger=0)


def _make_engine(context: zmq.Context[Any], settings: Settings, *, own_context: bool, retain: bool) -> Engine:
    """The journal, in its file where there is one; what was found there is logged."""
    sync = {"none": 0.0, "event": -1.0}.get(str(settings.journal_sync))
    engine = Engine(
        context,
        settings.journal_bytes,
        _ON_FULL[settings.on_full],
        retain=retain,
        journal_path=settings.journal_path,
        journal_sync=float(settings.journal_sync) if sync is None else sync,
        go_on=settings.journal_restart == "continue",
        own_context=own_context,
    )
    if settings.journal_path is not None:
        _report_recovery(settings.journal_path, *engine.recovery())
    return engine


def _report_recovery(path: str, events: int, lost: int, may_continue: bool) -> None:
    if lost:
        _log.warning("%s: %d events at its end cannot be read and were cut; a new epoch begins", path, lost)
    elif not may_continue:
        _log.warning("%s: the machine went down while it was open, so that its end may be missing; a new epoch begins", path)
    if events:
        _log.info("%s: holds %d events of before", path, events)


def _counts(row: tuple[int, int, int, int, bool]) -> tuple[int, int, int, int, bool]:
    _counter, sent, unwanted, dropped, wanted = row
    return sent + unwanted + dropped, sent, unwanted, dropped, wanted


def _endpoint_stats(running: _Running) -> EndpointStats:
    subscribers = tuple(SubscriberStats(*row) for row in running.endpoint.subscribers())
    events, (p50, p90, p99, p999), longest = running.endpoint.latency(_SHARES)
    evictions, blocked = running.endpoint.flow_stats()
    return EndpointStats(
        running.address,
        running.endpoint.state,
        subscribers,
        sum(subscriber.backlog_bytes for subscriber in subscribers),
        evictions,
        blocked,
        LatencyStats(events, p50, p90, p99, p999, longest),
    )


def _refuse_live_socket(config: EndpointConfig | ReplayConfig) -> None:
    """libzmq unlinks whatever socket stands at an ipc path: make sure that nobody listens there."""
    path = config.endpoint.removeprefix("ipc://")
    if path == config.endpoint or path.startswith(("@", "*")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except BlockingIOError:  # its backlog is full: somebody is there
            pass
        except OSError:  # nobody listens: a stale socket, or none
            return
    raise BindError(config.option, config.address, errno.EADDRINUSE)


@atexit.register
def _close_all() -> None:
    for publisher in list(_open_publishers):
        publisher.close()
