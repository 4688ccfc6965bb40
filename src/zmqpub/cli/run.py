"""`zmqpub run`: a publisher that stands alone."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

import click

from zmqpub.cli.codes import ExitCode, ForcedEnd
from zmqpub.cli.job import PUBLISHING, WAITING, Job
from zmqpub.cli.options import CoreCommand, make_plan, notifier_options, setting_options, source_options
from zmqpub.cli.screen import Screen, plural, print_error, warnings_shown
from zmqpub.cli.signals import Signals
from zmqpub.cli.status import Picture, ProgressOf, Status, status_line, summary_line
from zmqpub.publisher import Publisher
from zmqpub.sources.events import Source
from zmqpub.stats import Stats

__all__ = ["run"]

_LOOK_EVERY = 1.0  # seconds between two looks at whether the senders are well


@click.command(cls=CoreCommand, short_help="Publish what a source tells.")
@source_options
@notifier_options
@setting_options
def run(**given: Any) -> int:
    """Publish the events of a source, as Bitcoin Core publishes its own.

    Without options: a simulated regtest chain, all five topics at tcp://127.0.0.1:28332. A source that ends (block
    files, --blocks) ends the program, once everything is sent. SIGINT and SIGTERM end it in good order; a second one,
    at once.
    """
    with Screen(essential=False) as screen, warnings_shown(screen), Signals() as signals:
        progress = _Progress()
        plan = make_plan(given, progress)
        wanted: int = given["wait_subscribers"]
        source: Source = plan.source
        serving = None
        if plan.ipcbind:
            from zmqpub.cli.serving import Serving

            serving = Serving(plan.ipcbind, plan.source, plan.speed)
            source = serving.source
        publisher = Publisher(plan.config, **plan.settings)
        on_event = serving.on_event if serving else None
        job = Job(source, publisher, speed=plan.speed, wait_subscribers=wanted, on_change=signals.wake, on_event=on_event)
        watch = _Watch(job, publisher, progress, screen, wanted)
        linger: float | None = plan.settings["linger"]
        try:
            for notifier in publisher.active_notifiers():
                screen.line(f"bound {notifier.type} {notifier.address} (hwm {notifier.hwm})")
            if publisher.replay_address:
                screen.line(f"bound replay {publisher.replay_address}")
            for address in serving.listen(publisher) if serving else ():
                screen.line(f"bound ipc {address}")
            job.start()
            failed = watch.until_end(signals)
            if signals.received is not None:
                screen.report(f"{signals.name}: ending")
        except ForcedEnd:
            linger = 0.0
            raise
        finally:
            job.stop()
            if serving:
                serving.close()
            publisher.close(linger)
            source.close()
        screen.freeze()
        return watch.conclude(failed, signals)


class _Progress:
    """Takes a source's progress in one thread, shows it in another."""

    def __init__(self) -> None:
        self.now: ProgressOf | None = None

    def __call__(self, done: int, total: int, unit: str) -> None:
        self.now = ProgressOf(done, total, unit)


class _Watch:
    """Shows what a job does."""

    def __init__(self, job: Job, publisher: Publisher, progress: _Progress, screen: Screen, wanted: int) -> None:
        self._job = job
        self._publisher = publisher
        self._progress = progress
        self._screen = screen
        self._wanted = wanted
        self._start = monotonic()
        self._told = 0
        self._history: deque[Status] = deque(maxlen=screen.span)
        self._picture = Picture()

    def until_end(self, signals: Signals) -> list[str]:
        """Until the job ends, a signal comes or a sender fails: returns the addresses of those."""
        job, screen = self._job, self._screen
        due = monotonic() + screen.every
        self._note(self._publisher.stats())
        while signals.received is None and not job.finished:
            signals.wait(min(due - monotonic(), _LOOK_EVERY))
            self._tell_phases()
            stats = self._publisher.stats()
            if failed := [endpoint.address for endpoint in stats.endpoints if endpoint.state == "failed"]:
                return failed
            if monotonic() >= due:
                due = monotonic() + screen.every
                self._show(stats)
        self._tell_phases()
        return []

    def conclude(self, failed: list[str], signals: Signals) -> int:
        """The last line and the exit code; raises what ended the job."""
        job, stats = self._job, self._publisher.stats()
        self._screen.report(f"ended: {summary_line(job, stats, monotonic() - self._start)}")
        if failed:
            for address in failed:
                print_error(f"{address}: the sender failed; nothing is published there any more")
            return ExitCode.ADDRESS
        if job.error is not None:
            raise job.error
        if signals.received is None and (stats.dropped or stats.evictions):
            gone = plural(stats.evictions, "subscriber")
            print_error(f"not everything arrived: {stats.dropped:,} messages dropped, {gone} disconnected as too slow")
            return ExitCode.LOST
        return ExitCode.OK

    def _tell_phases(self) -> None:
        phases = self._job.phases
        while self._told < len(phases):
            phase = phases[self._told]
            self._told += 1
            if phase == PUBLISHING:
                self._screen.report(f"publishing {self._job.source.describe()}")
            elif phase == WAITING:
                self._screen.report(f"waiting for {plural(self._wanted, 'subscriber')}")

    def _note(self, stats: Stats) -> Status:
        """How things stand; rates are those since the oldest status that is still known."""
        status = Status.of(self._job, stats, self._progress.now, self._history[0] if self._history else None)
        self._history.append(status)
        return status

    def _show(self, stats: Stats) -> None:
        status = self._note(stats)
        if self._screen.live:
            self._screen.draw(self._picture(status))
        else:
            self._screen.report(status_line(status))
