"""The program as a whole: versions, help, errors in one line and their exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq
from programs import ENVIRONMENT, PATIENCE, Program, everything, once

import zmqpub

pytest.importorskip("click")
pytest.importorskip("rich")

ERROR = "zmqpub: error: "


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_version_names_what_a_bug_report_needs() -> None:
    program = once("--version")
    assert program.process.returncode == 0
    expected = f"zmqpub {zmqpub.__version__} (SHA-256: {zmqpub.sha256_backend()}, libzmq {zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}, "
    assert program.seen[0].startswith(expected)


@pytest.mark.parametrize("command", [["--help"], ["-h"], ["run", "--help"], ["listen", "-h"], ["demo", "--help"]])
def test_help(command: list[str]) -> None:
    program = once(*command)
    assert program.process.returncode == 0
    assert program.seen[0].startswith("Usage: zmqpub")
    assert program.errors == []


def test_without_a_command_there_is_help_and_a_code_that_a_script_notices() -> None:
    program = once()
    assert program.process.returncode == 2
    assert program.seen[0].startswith("Usage: zmqpub")


def test_the_documented_options_are_the_options() -> None:
    """docs/cli.md names every option of every command, and no other."""
    from zmqpub.cli.app import program

    documented = set(re.findall(r"^\| `(-[\w-]+)", (Path(__file__).parents[1] / "docs" / "cli.md").read_text(), re.MULTILINE))
    documented = {name for name in documented if not name.startswith("-zmqpub")}
    commands: list[Any] = list(program.commands.values())
    commands += [command for group in commands for command in getattr(group, "commands", {}).values()]
    options = {
        option.opts[0]
        for command in commands
        for option in command.params
        if option.param_type_name == "option" and not option.opts[0].startswith("-zmqpub")
    }
    assert documented == options


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    done = python(f"import sys; sys.modules[{missing!r}] = None; from zmqpub.cli import main; sys.exit(main(['--version']))")
    assert done.returncode == 7
    assert done.stdout == ""
    assert done.stderr == f"{ERROR}{missing} is not installed: pip install 'zmqpub[cli]'\n"


def test_a_module_that_is_missing_for_another_reason_is_no_missing_extra() -> None:
    done = python("import sys; sys.modules['zmqpub.cli.app'] = None; from zmqpub.cli import main; sys.exit(main(['--version']))")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bogus"], 2, "No such command 'bogus'"),
        (["run", "--bogus"], 2, "--bogus"),
        (["run", "--seed", "many"], 2, "'many' is not a valid integer"),
        (["run", "-zmqpubrawblok=tcp://127.0.0.1:0"], 2, "zmqpubrawblok: no known option; did you mean zmqpubrawblock?"),
        (["run", "--zmqpubhashtxhmw", "3"], 2, "zmqpubhashtxhmw: no known option; did you mean zmqpubhashtxhwm?"),
        (["run", "-nozmqpubrawtx=1"], 2, "nozmqpubrawtx: is for a bitcoin.conf; here, leave zmqpubrawtx out"),
        (["run", "-zmqpubrawtx"], 2, "Option '-zmqpubrawtx' requires an argument"),
        (["run", "-zmqpubrawtx=28332"], 2, "zmqpubrawtx=28332: this is no address: did you mean tcp://127.0.0.1:28332?"),
        (["run", "--journal-bytes=12X"], 2, "'12X' is no size"),
        (["run", "--linger=long"], 2, "'long' is neither a number of seconds nor forever"),
        (
            ["run", "--source=simulation"],
            2,
            "expected simulated, blocks:DIR or bitcoin-node[:ADDRESS]; did you mean simulated?",
        ),
        (
            ["run", "--source=blocks"],
            2,
            "expected simulated, blocks:DIR or bitcoin-node[:ADDRESS]; did you mean blocks:DIR?",
        ),
        (["run", "--source=blocks:"], 2, "--source=blocks:: a directory is missing: blocks:DIR"),
        (["run", "--source=blocks:/tmp", "--seed=3"], 2, "--seed: is for --source simulated only"),
        (["run", "--network=main"], 2, "--network: is for --source blocks:DIR only"),
        (["run", "--source=blocks:/tmp", "--network=mian"], 2, "--network=mian: unknown"),
        (["run", "--source=blocks:/tmp", "--start=first"], 2, "--start=first: neither a height nor a block hash"),
        (["run", "--block-interval=0"], 2, "--block-interval=0.0: expected more than 0 seconds"),
        (["run", "--rate=-1"], 2, "--rate=-1.0: expected 0 or more"),
        (["run", "--speed=0"], 2, "--speed=0: expected more than 0"),
        (["run", "--speed=2", "--flat-out"], 2, "--speed=2: conflicts with --flat-out"),
        (["run", "--wait-subscribers=-1"], 2, "--wait-subscribers=-1: expected 0 or more"),
        (["run", "--zmqpubrawtx=inproc://x"], 2, "zmqpubrawtx=inproc://x: inproc exists within one process only"),
        (["run", "--chain=regtest"], 2, "-chain=regtest: chooses a section of a bitcoin.conf: give -conf, too"),
        (["run", "--conf=/nonexistent/bitcoin.conf"], 2, "conf=/nonexistent/bitcoin.conf: cannot read the configuration file"),
        (["run", "--source=blocks:/nonexistent/blocks"], 4, "/nonexistent/blocks: cannot be read: No such file or directory"),
        (["run", "-zmqpubrawtx=tcp://192.0.2.1:28332"], 3, "zmqpubrawtx=tcp://192.0.2.1:28332: cannot bind: "),
        (["listen"], 2, "Missing argument 'ADDRESS...'"),
        (["listen", "127.0.0.1:28332"], 2, "ADDRESS=127.0.0.1:28332: the scheme is missing: did you mean tcp://127.0.0.1:28332?"),
        (["listen", "tcp://*:28332"], 2, "ADDRESS=tcp://*:28332: the publisher's host is needed"),
        (["listen", "tcp://127.0.0.1:*"], 2, "ADDRESS=tcp://127.0.0.1:*: the real port (or path) is needed"),
        (["listen", "inproc://here"], 2, "ADDRESS=inproc://here: inproc exists within one process only"),
        (["listen", "tcp://127.0.0.1:1", "--topic=rawtxs"], 2, "--topic=rawtxs: no known topic, these are hashblock, hashtx, "),
        (["listen", "tcp://127.0.0.1:1", "--bodies"], 2, "--bodies: goes with --json"),
        (["listen", "tcp://no-such-host.invalid\n:1"], 2, "control characters"),
    ],
)
def test_an_error_is_one_line_and_a_code(arguments: list[str], code: int, message: str) -> None:
    program = once(*arguments)
    assert program.process.returncode == code
    assert len(program.errors) == 1
    assert program.errors[0].startswith(ERROR)
    assert message in program.errors[0]
    assert program.seen == []


def test_all_that_is_wrong_is_told_at_once() -> None:
    options = ("--zmqpubhashtx=foo", "-zmqpubrawtx=bar", "--stall-timeout=0", "--on-full=block", "--seed=-1", "--speed=-2")
    program = once("run", *options, "--slow-subscriber=disconect")
    assert program.process.returncode == 2
    named = ["zmqpubhashtx=foo", "zmqpubrawtx=bar", "--on-full='block'", "--stall-timeout=0.0"]
    named += ["--slow-subscriber='disconect'", "--speed=-2", "--seed=-1"]
    assert [line.removeprefix(ERROR).partition(": ")[0] for line in program.errors] == named
    assert "did you mean 'disconnect'?" in program.errors[4]


def test_all_addresses_to_listen_to_are_checked_at_once() -> None:
    program = once("listen", "tcp://127.0.0.1", "28332", "--topic", "foo")
    assert program.process.returncode == 2
    assert len(program.errors) == 3


def test_an_address_in_use() -> None:
    with Program("run", *everything()) as first:
        address = first.address()
        second = once("run", f"--zmqpubrawtx={address}")
        assert second.process.returncode == 3
        assert second.errors == [f"{ERROR}zmqpubrawtx={address}: cannot bind: Address already in use"]
        assert second.seen == []


def test_what_others_wrote_does_not_reach_the_terminal_as_it_is() -> None:
    program = once("run", "--source=\x1b[31mred\n")
    assert program.process.returncode == 2
    assert program.errors == [f"{ERROR}--source=\\x1b[31mred\\n: expected simulated, blocks:DIR or bitcoin-node[:ADDRESS]"]


def test_a_name_that_is_no_text() -> None:
    program = once("run", os.fsdecode(b"--source=blocks:/nonexistent/\xff"))
    assert program.process.returncode == 4
    assert len(program.errors) == 1


def test_completion_for_shells() -> None:
    environment = {**ENVIRONMENT, "_ZMQPUB_COMPLETE": "zsh_source"}
    done = subprocess.run([sys.executable, "-m", "zmqpub"], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    assert "#compdef zmqpub" in done.stdout
