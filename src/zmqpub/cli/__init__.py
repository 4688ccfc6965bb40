"""The program ``zmqpub``. What it prints and the codes that it exits with are described in docs/cli.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zmqpub.cli.codes import ExitCode, code_of

__all__ = ["main"]

_EXTRA = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with ``arguments``, by default the process's own; returns the exit code.

    click and rich come with the extra ``zmqpub[cli]``; without them it says so, in one line. Spawned by another program
    (``-ipcfd N`` and nothing else, see docs/notifications.md) it needs ``zmqpub[ipc]`` instead.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) == 2 and given[0] == "-ipcfd":
        return _serve_parent(given)
    try:
        from zmqpub.cli.app import run_program
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(f"zmqpub: error: {missing} is not installed: pip install 'zmqpub[cli]'", file=sys.stderr)
        return ExitCode.MISSING_EXTRA
    return run_program(given)


def _serve_parent(arguments: Sequence[str]) -> int:
    from zmqpub.errors import ZmqPubError

    try:
        from zmqpub.ipc.notifications.child import serve_parent
        from zmqpub.ipc.process import UnixProcess

        sock = UnixProcess().check_spawned(["zmqpub", *arguments])
    except ZmqPubError as error:  # no pycapnp, or a number that is no socket
        print(f"zmqpub: error: {error}", file=sys.stderr)
        return code_of(error)
    assert sock is not None
    return serve_parent(sock)
