"""The program ``zmqpub``. What it prints and the codes that it exits with are described in docs/cli.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zmqpub.cli.codes import ExitCode

__all__ = ["main"]

_EXTRA = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with ``arguments``, by default the process's own; returns the exit code.

    click and rich come with the extra ``zmqpub[cli]``; without them it says so, in one line.
    """
    try:
        from zmqpub.cli.app import run_program
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(f"zmqpub: error: {missing} is not installed: pip install 'zmqpub[cli]'", file=sys.stderr)
        return ExitCode.MISSING_EXTRA
    return run_program(sys.argv[1:] if arguments is None else arguments)
