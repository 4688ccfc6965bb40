"""A publisher that misbehaves on request, and does nothing wrong otherwise."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import zmq

from zmqpub._fast import Block, Transaction
from zmqpub.config import parse_options
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.testing.announcements import Announcement, of_added, of_block, of_removed, of_tip
from zmqpub.testing.chain import RegtestChain
from zmqpub.testing.outlet import Outlet, pack_counter
from zmqpub.testing.samples import malformed_body, sample_body, wrong_length_body
from zmqpub.wire import COUNTER_MODULUS, Notification, SequenceLabel, Topic

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FaultyPublisher"]

_ANY_PORT: Final = "tcp://127.0.0.1:*"


class FaultyPublisher:
    """Real sockets, the exact wire, and each fault that a subscriber has to survive, at the moment that a test chooses.

    ``options``: Bitcoin Core's, as Publisher takes them; by default all five topics at one port of the system's choice.
    Addresses are tcp or ipc. High-water marks have no effect: nothing is lost that the test did not lose.

    It takes the events that Publisher takes, with Bitcoin Core's order of messages, so that a RegtestChain can drive it, and
    single messages by `publish`. A ``topic`` is a Topic or its name. A topic at several addresses is counted at each for
    itself, and a fault happens at each. Any thread may call any method.
    """

    def __init__(self, options: Mapping[str, object] | None = None, /, *, context: zmq.Context[Any] | None = None) -> None:
        config = parse_options({topic.option: _ANY_PORT for topic in Topic} if options is None else options)
        if config.replay is not None:
            message = "only a Publisher replays; it can be combined with zmqpub.testing.Relay, which loses what a test says"
            raise ConfigError(ConfigProblem(config.replay.option, config.replay.address, message))
        self._lock = threading.RLock()
        self._own_context = context is None
        self._context: zmq.Context[Any] = zmq.Context() if context is None else context
        self._outlets: list[Outlet] = []
        self._losing: Collection[Topic] = ()
        self._samples = 0
        self._chain: RegtestChain | None = None
        try:
            for endpoint in config.endpoints():
                self._outlets.append(Outlet(self._context, endpoint))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FaultyPublisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close everything at once; a second call does nothing."""
        with self._lock:
            for outlet in self._outlets:
                outlet.close()
            self._outlets = []
            if self._own_context:
                self._context.destroy(linger=0)

    def __repr__(self) -> str:
        return f"<FaultyPublisher {', '.join(outlet.address for outlet in self._outlets) or 'closed'}>"

    # Where, and for whom

    @property
    def address(self) -> str:
        """The first address, with the real port: the only one, unless ``options`` named several."""
        return self._outlets[0].address

    @property
    def addresses(self) -> dict[Topic, list[str]]:
        """Where each topic is published."""
        return {topic: [outlet.address for outlet in self._publishing(topic)] for topic in self._topics()}

    def counters(self, address: str | None = None) -> dict[Topic, int]:
        """The counter of each topic's next message, at ``address`` or else the first."""
        with self._lock:
            outlet = next(outlet for outlet in self._outlets if address in (None, outlet.address))
            return dict(outlet.counters)

    def wait_for_subscribers(
        self,
        count: int = 1,
        *,
        topics: Collection[Topic | str] | None = None,
        timeout: float = 10.0,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Until so many have subscribed to each of ``topics``, by default all that are published, at each address.

        They receive what is published from then on. TimeoutError names what was not subscribed to. A plain ZeroMQ socket
        subscribes again, after its connection was lost, only while it is being read: let ``meanwhile`` poll it where no
        other thread does.
        """
        wanted = self._topics() if topics is None else [Topic(topic) for topic in topics]
        deadline = time.monotonic() + timeout
        while lacking := self._lacking(wanted, count):
            if time.monotonic() > deadline:
                raise TimeoutError(f"fewer than {count} subscribed within {timeout:g} s to {', '.join(lacking)}")
            meanwhile()
            time.sleep(0.002)

    # What a sound publisher does

    def publish(self, topic: Topic | str, body: Buffer | None = None) -> Notification:
        """One message, by default with a body made up, each time another. Returned with the first address's counter."""
        topic = Topic(topic)
        with self._lock:
            sent = self._sample(topic) if body is None else bytes(body)
            counter = self.counters(self._publishing(topic)[0].address)[topic]
            self._announce([(topic, sent)])
            return Notification(topic, sent, counter)

    def transaction_added_to_mempool(self, tx: Transaction | Buffer, mempool_sequence: int) -> None:
        """As Publisher's: hashtx, rawtx, sequence ``A``."""
        self._announce(of_added(tx if isinstance(tx, Transaction) else Transaction(tx), mempool_sequence))

    def transaction_removed_from_mempool(self, tx: Transaction | Buffer, mempool_sequence: int) -> None:
        """As Publisher's: sequence ``R``."""
        if not isinstance(tx, Transaction):
            data = bytes(tx)
            txid = data if len(data) == 32 else Transaction(data).txid
        else:
            txid = tx.txid
        self._announce(of_removed(txid, mempool_sequence))

    def block_connected(self, block: Block | Buffer) -> None:
        """As Publisher's: for each transaction hashtx and rawtx, then sequence ``C``."""
        self._announce(of_block(_block(block), SequenceLabel.CONNECTED))

    def block_disconnected(self, block: Block | Buffer) -> None:
        """As Publisher's: for each transaction hashtx and rawtx, then sequence ``D``."""
        self._announce(of_block(_block(block), SequenceLabel.DISCONNECTED))

    def updated_block_tip(self, block: Block | Buffer, initial_download: bool = False) -> None:
        """As Publisher's: hashblock, rawblock; silent during initial download."""
        if not initial_download:
            self._announce(of_tip(_block(block)))

    # Faults of counting

    def gap(self, topic: Topic | str, messages: int = 1) -> None:
        """Count ``messages`` that nobody sends: the next one shows that they are missing."""
        with self._lock:
            for outlet in self._publishing(topic):
                outlet.pass_over(Topic(topic), messages)

    @contextlib.contextmanager
    def losing(self, *topics: Topic | str) -> Iterator[None]:
        """Meanwhile, messages of ``topics`` (all, by default) are counted and not sent: a gap whose content the test knows."""
        with self._lock:
            before, self._losing = self._losing, {Topic(topic) for topic in topics} or set(Topic)
        try:
            yield
        finally:
            with self._lock:
                self._losing = before

    def set_counter(self, topic: Topic | str, counter: int) -> None:
        """Let the next message of ``topic`` have this counter."""
        if not 0 <= counter < COUNTER_MODULUS:
            raise ValueError(f"a counter is an unsigned 32-bit number, not {counter}")
        with self._lock:
            for outlet in self._publishing(topic):
                outlet.counters[Topic(topic)] = counter

    def wrap(self, topic: Topic | str, left: int = 1) -> None:
        """Let the counter of ``topic`` begin again at 0 after ``left`` more messages, as it does after 2**32."""
        self.set_counter(topic, (COUNTER_MODULUS - left) % COUNTER_MODULUS)

    def duplicate(self, topic: Topic | str) -> None:
        """The last message of ``topic`` once more, with the same counter."""
        with self._lock:
            for outlet in self._publishing(topic):
                outlet.repeat(Topic(topic))

    # Messages that are none

    def fourth_frame(self, topic: Topic | str, frame: bytes = b"") -> None:
        """A message that would be sound without a fourth frame. It is counted, as are the others below."""
        self._misshapen(topic, lambda name, body, counter: (name, body, counter, frame))

    def two_frames(self, topic: Topic | str) -> None:
        """A message without its counter."""
        self._misshapen(topic, lambda name, body, counter: (name, body))

    def short_counter(self, topic: Topic | str) -> None:
        """A message whose counter has three bytes."""
        self._misshapen(topic, lambda name, body, counter: (name, body, counter[:3]))

    def wrong_length(self, topic: Topic | str) -> None:
        """A message whose body is too short for its topic."""
        self._announce_sample(topic, wrong_length_body)

    def malformed_body(self, topic: Topic | str) -> None:
        """A message whose body has a possible length and is none all the same: truncated, or with an unknown label.

        ValueError for hashblock and hashtx: any 32 bytes are a hash.
        """
        self._announce_sample(topic, malformed_body)

    def unknown_topic(self, name: str = "hashtxlock", body: bytes = bytes(32), counter: int = 0) -> None:
        """A message of a topic that Bitcoin Core does not have.

        It reaches who subscribed to what ``name`` begins with: ``hashtxlock`` whoever takes ``hashtx``.
        """
        self.send_frames(name.encode(), body, pack_counter(counter))

    def send_frames(self, *frames: bytes) -> None:
        """Exactly these frames, at every address, counted nowhere."""
        self._at_each(lambda outlet: outlet.send_frames(frames))

    # Faults of the network

    def silence(self) -> None:
        """Let the connections that there are go dead without an end, as when a router forgets them.

        Nothing arrives on them any more, whatever is published, and nothing closes them. New ones are served.
        """
        self._at_each(Outlet.silence)

    def disconnect(self) -> None:
        """Close every connection; new ones are served. What is published before they come is lost."""
        self._at_each(Outlet.disconnect)

    def trickle(self, bytes_per_second: float | None) -> None:
        """Let so little through to each subscriber: 0 for nothing, None for all there is, also of what was held back."""
        self._at_each(lambda outlet: outlet.relay.trickle(bytes_per_second))

    # Its own life

    def stop(self) -> None:
        """Be gone: what was published still arrives, then connections are closed and new ones refused."""
        self._at_each(Outlet.stop)

    def start(self, *, reset_counters: bool = True) -> None:
        """Be back after stop(), at the same addresses."""
        with self._lock:
            for outlet in self._outlets:
                if reset_counters:
                    outlet.reset()
                outlet.start()

    def restart(self, reset_counters: bool = True, *, down_for: float = 0.0) -> None:
        """End and begin again, as a node does (counters from 0), or as one that goes on counting where it was.

        For ``down_for`` seconds connections are refused. What was published before still arrives; subscribers have to
        connect again: see wait_for_subscribers(). A trickle goes on; silenced connections stay dead.
        """
        with self._lock:
            for outlet in self._outlets:
                outlet.stop(refuse=down_for > 0)
            time.sleep(down_for)
            self.start(reset_counters=reset_counters)

    # The chain

    @property
    def chain(self) -> RegtestChain:
        """A chain that is published here, made when it is first asked for."""
        with self._lock:
            if self._chain is None:
                self._chain = RegtestChain(self)
            return self._chain

    def reorg(self, depth: int = 1) -> list[Block]:
        """Replace the last ``depth`` blocks of `chain` by one more, which are returned; mines them first if there are fewer."""
        chain = self.chain
        if chain.mined < depth:
            chain.mine(depth - chain.mined)
        return chain.reorg(depth)

    # Inside

    def _topics(self) -> list[Topic]:
        return [topic for topic in Topic if any(topic in outlet.counters for outlet in self._outlets)]

    def _publishing(self, topic: Topic | str) -> list[Outlet]:
        found = [outlet for outlet in self._outlets if topic in outlet.counters]
        if not found:
            raise ValueError(f"{Topic(topic)} is not published here: {', '.join(self._topics()) or 'nothing is'}")
        return found

    def _lacking(self, topics: Collection[Topic], count: int) -> list[str]:
        with self._lock:
            return [f"{topic} at {outlet.address}" for outlet in self._outlets for topic in outlet.lacking(topics, count)]

    def _announce(self, announcements: Sequence[Announcement]) -> None:
        with self._lock:
            for topic, body in announcements:
                for outlet in self._outlets:
                    if topic not in outlet.counters:
                        continue
                    if topic in self._losing:
                        outlet.pass_over(topic)
                    else:
                        outlet.send(topic, body)

    def _sample(self, topic: Topic) -> bytes:
        self._samples += 1
        return sample_body(topic, self._samples)

    def _announce_sample(self, topic: Topic | str, make: Callable[[Topic, int], bytes]) -> None:
        topic = Topic(topic)
        with self._lock:
            self._publishing(topic)
            self._samples += 1
            self._announce([(topic, make(topic, self._samples))])

    def _misshapen(self, topic: Topic | str, shape: Callable[[bytes, bytes, bytes], tuple[bytes, ...]]) -> None:
        topic = Topic(topic)
        with self._lock:
            body = self._sample(topic)
            for outlet in self._publishing(topic):
                outlet.send_frames(shape(topic.frame, body, pack_counter(outlet.pass_over(topic))))

    def _at_each(self, do: Callable[[Outlet], None]) -> None:
        with self._lock:
            for outlet in self._outlets:
                do(outlet)


def _block(block: Block | Buffer) -> Block:
    return block if isinstance(block, Block) else Block(block)
