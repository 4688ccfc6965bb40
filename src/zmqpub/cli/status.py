"""What a running publisher is doing, as numbers of one moment, as a line and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from rich.console import Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from zmqpub.cli.job import Job
from zmqpub.cli.screen import amount, plural, size
from zmqpub.sources.bitcoin_node import BitcoinNode
from zmqpub.stats import Stats

__all__ = ["Picture", "ProgressOf", "Status", "status_line", "summary_line"]


@dataclass(frozen=True, slots=True)
class ProgressOf:
    """How far a source is."""

    done: int
    total: int
    unit: str
    """``files`` while it is indexed, then ``blocks``."""


@dataclass(frozen=True, slots=True)
class Status:
    """One moment."""

    time: float
    phase: str
    events: int
    blocks: int
    height: int | None
    progress: ProgressOf | None
    stats: Stats
    node: str = ""
    """How a node that is the source is doing, in words."""
    events_per_second: float = 0.0
    messages_per_second: float = 0.0

    @classmethod
    def of(cls, job: Job, stats: Stats, progress: ProgressOf | None, before: Status | None) -> Status:
        """Now; rates are those since ``before``."""
        now = monotonic()
        elapsed = now - before.time if before else 0.0
        events_rate = (job.events - before.events) / elapsed if before and elapsed > 0 else 0.0
        messages_rate = (stats.sent - before.stats.sent) / elapsed if before and elapsed > 0 else 0.0
        node = job.source.counts.in_words() if isinstance(job.source, BitcoinNode) else ""
        return cls(now, job.phase, job.events, job.blocks, job.height, progress, stats, node, events_rate, messages_rate)


def status_line(status: Status) -> str:
    """Everything in one line."""
    stats = status.stats
    subscribers = sum(len(endpoint.subscribers) for endpoint in stats.endpoints)
    backlog = sum(endpoint.backlog_bytes for endpoint in stats.endpoints)
    parts = [_where(status), *filter(None, [status.node]), f"{plural(status.events, 'event')} ({amount(status.events_per_second)}/s)"]
    parts.append(f"{plural(stats.sent, 'message')} sent ({amount(status.messages_per_second)}/s)")
    parts.append(f"{stats.dropped:,} dropped")
    if stats.evictions:
        parts.append(f"{stats.evictions:,} disconnected as too slow")
    parts.append(f"{plural(subscribers, 'subscriber')}, backlog {size(backlog)}")
    journal = stats.journal
    behind = f", {journal.oldest:.1f} s behind" if journal.oldest >= 0.1 else ""
    parts.append(f"journal {size(journal.bytes)} of {size(journal.bound)}{behind}")
    return "; ".join(parts)


def summary_line(job: Job, stats: Stats, seconds: float) -> str:
    """What was done, at the end."""
    unwanted = sum(notifier.unwanted for notifier in stats.notifiers)
    parts = [
        f"{plural(job.events, 'event')} ({plural(job.blocks, 'block')}) in {seconds:,.1f} s",
        f"{plural(stats.sent, 'message')} sent",
        f"{unwanted:,} that nobody had subscribed to",
        f"{stats.dropped:,} dropped",
        f"{plural(stats.evictions, 'subscriber')} disconnected as too slow",
    ]
    if isinstance(job.source, BitcoinNode):
        parts.append(job.source.counts.shortcomings() or "nothing that the node did was missed")
    return "; ".join(parts)


class Picture:
    """The status line below a progress bar, where there is progress to show."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.fields[unit]}"),
            TimeRemainingColumn(),
            auto_refresh=False,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, unit="")
        self._unit = ""

    def __call__(self, status: Status) -> RenderableType:
        line = Text(status_line(status), overflow="fold")
        progress = status.progress
        if progress is None:
            return line
        if progress.unit != self._unit:
            self._unit = progress.unit
            self._bar.reset(self._task, unit=progress.unit)
        self._bar.update(self._task, description=status.phase, completed=progress.done, total=progress.total)
        return Group(self._bar.get_renderable(), line)


def _where(status: Status) -> str:
    where = status.phase
    if status.progress is not None:
        where += f" {status.progress.done:,} of {status.progress.total:,} {status.progress.unit}"
    if status.height is not None:
        where += f" (height {status.height:,})"
    return where
