"""A tally as a table on a terminal, and a row of it as a line."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from zmqpub._fast import Received, Sequence
from zmqpub.cli.screen import amount, plural, size
from zmqpub.cli.tally import Row, Tally, hash_of
from zmqpub.wire import Topic

__all__ = ["row_line", "table"]

_REST_OF_TABLE = 98  # columns that everything but addresses and hashes takes, with large numbers


def table(tally: Tally, rates: dict[tuple[str, Topic], float], width: int) -> Table:
    """All rows of ``tally``, with messages a second, on ``width`` columns; hashes are shortened where they do not fit."""
    several = len(tally.addresses) > 1
    address_width = max(map(len, tally.addresses)) + 2 if several else 0
    whole = width >= _REST_OF_TABLE + address_width + 2 * 32
    result = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    result.add_column("topic", no_wrap=True)
    if several:
        result.add_column("address", no_wrap=True)
    for heading in ("messages", "/s", *(("bytes",) if whole else ()), "counter", "missed", "repaired", "lost"):
        result.add_column(heading, justify="right", no_wrap=True)
    # The only column that gives way on a narrow terminal; its cells are cut off all the same.
    result.add_column("last")
    for key, row in tally.rows.items():
        cells = [row.topic.value, *((row.address,) if several else ()), f"{row.messages:,}", amount(rates.get(key, 0.0))]
        cells += [*((size(row.size),) if whole else ()), "-" if row.counter is None else f"{row.counter}"]
        cells += [f"{row.missed:,}", f"{row.repaired:,}"]
        last = Text("-" if row.last is None else _last(row.last, whole), no_wrap=True, overflow="ellipsis")
        result.add_row(*cells, Text(f"{row.lost:,}", style="bold red" if row.losses else ""), last)
    return result


def row_line(row: Row) -> str:
    """One notifier in words."""
    last = "" if row.last is None else f", last {_last(row.last)}"
    return (
        f"{row.topic} at {row.address}: {plural(row.messages, 'message')}, {size(row.size)}, counter {row.counter}, "
        f"{row.missed:,} missed, {row.repaired:,} repaired, {row.lost:,} lost, {plural(row.restarts, 'restart')}, "
        f"{row.malformed:,} malformed{last}"
    )


def _last(message: Received, whole: bool = True) -> str:
    """What it was about; of a shortened hash the end, as those of blocks begin with zeros."""
    text = hash_of(message).hex() if whole else f"..{hash_of(message)[-6:].hex()}"
    if not isinstance(message, Sequence):
        return text
    number = "" if message.mempool_sequence is None else f" {message.mempool_sequence}"
    return f"{message.label} {text}{number}"
