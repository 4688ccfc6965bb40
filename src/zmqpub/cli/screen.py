"""Where the commands write: lines that stay and, on a terminal, a picture below them that is redrawn in place."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from zmqpub.cli.codes import one_line

__all__ = ["Screen", "amount", "plural", "print_error", "size", "timestamp", "warnings_shown"]

REDRAW_EVERY = 0.25
"""Seconds between two pictures."""
_RATES_OVER = 2.0


def timestamp() -> str:
    """Now, as Bitcoin Core's debug.log writes it: ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def amount(number: float) -> str:
    """1,234,567; with one decimal below 10, where that is not a whole number."""
    return f"{number:,.1f}" if number < 10 and number != int(number) else f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes, with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def plural(number: int, noun: str) -> str:
    """``1 block``, ``2 blocks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_error(line: str) -> None:
    """An error, in one line on stderr."""
    _print_on_stderr(f"zmqpub: error: {line}")


def _print_on_stderr(line: str) -> None:
    """For as long as there is one: print() would take None for stdout."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


class Screen:
    """Standard output of a command. ``live`` says whether there is a terminal to draw on.

    ``essential``: whether the lines are what the command is run for. Those of `zmqpub run` are not: a full disk under
    its log must not end a publisher. BrokenPipeError, where the reader is gone, is always raised.
    """

    def __init__(self, *, essential: bool, draw: bool = True) -> None:
        self.live = draw and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.every = REDRAW_EVERY if self.live else 10.0
        """Seconds between two reports of what is going on."""
        self.span = round(_RATES_OVER / REDRAW_EVERY) if self.live else 1
        """Over how many reports a rate is taken: a picture would flicker otherwise."""
        self._essential = essential
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True) if self.live else None
        self._picture: Live | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.freeze()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return 80 if self._console is None else self._console.width

    def line(self, text: str) -> None:
        """A line that stays, above the picture."""
        if self._console is not None:
            self._console.print(Text(text))
        else:
            self.write(f"{text}\n")
            self.flush()

    def report(self, text: str) -> None:
        """A line with the time before it."""
        self.line(f"{timestamp()} {text}")

    def draw(self, picture: RenderableType) -> None:
        """Replace the picture; nothing without a terminal."""
        if self._console is None:
            return
        if self._picture is None:
            # Drawn from this thread only: a reader that is gone must be noticed here, not in a thread of rich's.
            self._picture = Live(
                console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop"
            )
            self._picture.start()
        self._picture.update(picture, refresh=True)

    def freeze(self) -> None:
        """Leave the picture as it is; lines go below it from now on."""
        picture, self._picture = self._picture, None
        if picture is not None:
            picture.stop()

    def write(self, text: str) -> None:
        """Raw text; may stay in the buffer until flush()."""
        try:
            sys.stdout.write(text)
        except BrokenPipeError:
            raise
        except OSError:
            if self._essential:
                raise

    def flush(self) -> None:
        """Write out what is in the buffer."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError:
            if self._essential:
                raise


class _Warnings(logging.Handler):
    """The logger ``zmqpub`` on stderr; above the picture where both are the same terminal."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{timestamp()} zmqpub: {record.levelname.lower()}: {one_line(record.getMessage())}"
        if self._screen.live and sys.stderr is not None and sys.stderr.isatty():
            with suppress(OSError):  # the next picture will tell
                self._screen.line(line)
        else:
            _print_on_stderr(line)


@contextmanager
def warnings_shown(screen: Screen) -> Iterator[None]:
    """Meanwhile, warnings of the package appear on stderr."""
    handler = _Warnings(screen)
    logger = logging.getLogger("zmqpub")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
