"""`zmqpub demo`: a publisher and a listener, to see it work."""

from __future__ import annotations

from time import monotonic

import click

from zmqpub.cli.codes import ExitCode
from zmqpub.cli.hearing import TextHearing
from zmqpub.cli.job import Job
from zmqpub.cli.listening import ItemListening
from zmqpub.cli.options import DEFAULT_ADDRESS
from zmqpub.cli.screen import Screen, amount, plural, print_error, size, warnings_shown
from zmqpub.cli.signals import Signals
from zmqpub.cli.tally import Tally
from zmqpub.publisher import Publisher
from zmqpub.sources.simulated import Simulated
from zmqpub.subscriber import Subscriber
from zmqpub.wire import Topic

__all__ = ["demo"]

_BLOCK_INTERVAL, _TRANSACTIONS_PER_SECOND, _SPEED = 30.0, 100.0, 30.0  # about a full block a second
_SUBSCRIBED_WITHIN = 10.0
_DRAINED_WITHIN = 10.0


@click.command(short_help="See a simulated chain being published, and received.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long to publish.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, another chain.")
def demo(seconds: float, seed: int) -> int:
    """Publish a simulated chain at thirty times its speed, and listen to it, over TCP on this machine.

    Needs no node, no files and no fixed port. Exit code 6 if a message was lost.
    """
    with Screen(essential=True) as screen, warnings_shown(screen), Signals() as signals:
        if not screen.live:
            screen.every = 2.0
        source = Simulated(seed, block_interval=_BLOCK_INTERVAL, transactions_per_second=_TRANSACTIONS_PER_SECOND)
        with Publisher({topic.option: "tcp://127.0.0.1:*" for topic in Topic}) as publisher:
            address = publisher.active_notifiers()[0].address
            screen.report(f"publishing {source.describe()}, {_SPEED:g} times as fast, at {address}")
            job = Job(source, publisher, speed=_SPEED, on_change=signals.wake)
            with Subscriber(address) as subscriber:
                show = _Demo(screen, publisher, job, subscriber, signals, address)
                try:
                    show.play(seconds)
                finally:
                    job.stop()
            return show.conclude()


class _Demo:
    """The two halves and what they counted."""

    def __init__(self, screen: Screen, publisher: Publisher, job: Job, subscriber: Subscriber, signals: Signals, address: str) -> None:
        self._screen = screen
        self._publisher = publisher
        self._job = job
        self._signals = signals
        self._tally = Tally([address], list(Topic))
        self._hearing = TextHearing(screen, self._tally)
        self._listening = ItemListening(subscriber, self._tally, self._hearing, signals)
        self._seconds = 0.0

    def play(self, seconds: float) -> None:
        """Publish for so long, or until a signal comes; then receive what is still on its way."""
        subscribed_by = monotonic() + _SUBSCRIBED_WITHIN
        while not all(notifier.wanted for notifier in self._publisher.stats().notifiers):
            if self._signals.received is not None or monotonic() > subscribed_by:
                return
            self._receive(0.02)
        self._job.start()
        while self._signals.received is None and not self._job.finished and not self._job.events:
            self._receive(0.02)  # the chain has a past, which a busy machine takes its time to make
        start = monotonic()
        while self._signals.received is None and not self._job.finished and monotonic() - start < seconds:
            self._receive(min(self._hearing.due, start + seconds) - monotonic())
            if monotonic() >= self._hearing.due:
                self._hearing.show()
        self._job.stop()
        self._seconds = monotonic() - start
        drained_by = monotonic() + _DRAINED_WITHIN
        flushed = False
        while monotonic() < drained_by and not (flushed and self._received() >= self._publisher.stats().sent):
            flushed = flushed or self._publisher.flush(0)
            self._receive(0.05)

    def conclude(self) -> int:
        """The summary and the exit code."""
        self._listening.conclude()
        if self._job.error is not None:
            raise self._job.error
        tally, job, seconds = self._tally, self._job, max(self._seconds, 0.001)
        published = sum(notifier.published for notifier in self._publisher.stats().notifiers)
        received = self._received()
        bodies = size(sum(row.size for row in tally.rows.values()))
        lost = max(published - received, tally.lost)
        latency = self._publisher.stats().endpoints[0].latency
        lines = (
            "",
            f"published  {plural(published, 'message')} for {plural(job.events, 'event')} in {seconds:.1f} s: "
            f"{plural(job.blocks, 'block')} ({amount(job.blocks / seconds)}/s), "
            f"{plural(job.transactions, 'transaction')} ({amount(job.transactions / seconds)}/s)",
            f"received   {plural(received, 'message')} ({amount(received / seconds)}/s), {bodies}",
            f"lost       {lost:,}",
            f"latency    from the event to its last message with libzmq: median {latency.p50 * 1e6:,.0f} us, "
            f"99 % within {latency.p99 * 1e6:,.0f} us",
            "",
            "Next, in two terminals:",
            "  zmqpub run",
            f"  zmqpub listen {DEFAULT_ADDRESS}",
        )
        for line in lines:
            self._screen.line(line)
        if tally.malformed:
            print_error(f"{plural(tally.malformed, 'message')} came malformed")
            return ExitCode.MALFORMED
        if lost:
            print_error(f"{lost:,} messages were lost")
            return ExitCode.LOST
        if not received and self._signals.received is None:
            print_error("nothing was published")
            return ExitCode.FAILURE
        return ExitCode.OK

    def _received(self) -> int:
        return self._tally.messages + self._tally.malformed

    def _receive(self, seconds: float) -> None:
        for item in self._listening.take(seconds):
            self._listening.note(item)
        self._listening.look()
