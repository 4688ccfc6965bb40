"""The click group, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Sequence

import click
import zmq

import zmqpub
from zmqpub.cli.codes import ExitCode, ForcedEnd, code_of, lines_of, one_line
from zmqpub.cli.demo import demo
from zmqpub.cli.ipc import ipc
from zmqpub.cli.listen import listen
from zmqpub.cli.run import run
from zmqpub.cli.screen import print_error
from zmqpub.errors import ZmqPubError

__all__ = ["program", "run_program"]


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(
        f"zmqpub {zmqpub.__version__} (SHA-256: {zmqpub.sha256_backend()}, libzmq {zmq.zmq_version()}, "
        f"pyzmq {zmq.pyzmq_version()}, {platform.python_implementation()} {platform.python_version()})"
    )
    context.exit()


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show versions and exit.")
@click.pass_context
def program(context: click.Context) -> int:
    """Bitcoin's ZeroMQ notifications: publish them, listen to them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        return ExitCode.USAGE
    return ExitCode.OK


program.add_command(run)
program.add_command(listen)
program.add_command(demo)
program.add_command(ipc)


def run_program(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit code. No traceback for anything that was foreseen."""
    # Names of files need not be text, and a terminal need not know every character.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # closed by whoever started this
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        return _invoke(arguments)
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE
    finally:
        _abandon_output()


def _invoke(arguments: Sequence[str]) -> int:
    if "_ZMQPUB_COMPLETE" in os.environ:
        program.main(prog_name="zmqpub")
    try:
        # Not program.main(): it would answer errors, broken pipes among them, in its own way.
        with program.make_context("zmqpub", list(arguments)) as context:
            code = program.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        print_error(one_line(" ".join(error.format_message().split()).rstrip(".") + hint))
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        return 128 + 2
    except ForcedEnd as forced:
        return 128 + forced.number
    except (ZmqPubError, zmq.ZMQError) as error:
        for line in lines_of(error):
            print_error(line)
        return code_of(error)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        print_error(one_line(f"{place}{error.strerror or error}"))
        return ExitCode.FAILURE
    return int(code)


def _abandon_output() -> None:
    """Let nothing that is still in stdout's buffer, because writing failed, fail once more when the interpreter ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        try:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, sys.stdout.fileno())
            os.close(descriptor)
        except (OSError, ValueError):
            pass
