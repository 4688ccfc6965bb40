"""`zmqpub demo`, as CI and a newcomer run it; and the examples."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import ENVIRONMENT, PATIENCE, Program, connected_listener, everything, free_port, on_terminal, once
from synthetic import block

EXAMPLES = Path(__file__).parents[1] / "examples"

needs_extra = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import click, rich"], capture_output=True, check=False).returncode != 0,
    reason="needs the extra zmqpub[cli]",
)


@needs_extra
def test_without_a_terminal_it_says_that_nothing_was_lost() -> None:
    program = once("demo", "--seconds=3")
    assert program.process.returncode == 0
    assert program.errors == []
    assert not any("\x1b" in line for line in program.seen)
    published, received = (
        int(match[1].replace(",", ""))
        for name in ("published", "received  ")
        for line in program.seen
        if (match := re.match(rf"{name} +([\d,]+) messages", line))
    )
    assert published == received > 1000
    assert any(re.fullmatch(r"lost +0", line) for line in program.seen)
    assert any(re.search(r"\d blocks? \([\d.,]+/s\)", line) for line in program.seen)
    assert program.seen[-2:] == ["  zmqpub run", "  zmqpub listen tcp://127.0.0.1:28332"]


@needs_extra
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_same_summary(number: int) -> None:
    with Program("demo", "--seconds=60") as program:
        program.line("connected")
        time.sleep(1)
        begun = time.monotonic()
        assert program.end(number) == 0
        assert time.monotonic() - begun < 10
        assert any(re.fullmatch(r"lost +0", line) for line in program.seen)


@needs_extra
def test_on_a_terminal_there_is_a_table() -> None:
    code, output = on_terminal("demo", "--seconds=2", until=r"lost +0")
    assert code == 0
    assert re.search(r"rawtx +[1-9]", output)


def test_the_embedding_example_publishes_what_it_is_fed() -> None:
    """With another port, as the one that it names may be taken."""
    port = free_port()
    code = (EXAMPLES / "embed.py").read_text().replace("28332", str(port))
    made = block(5, 4)
    with (
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as example,
        connected_listener(f"tcp://127.0.0.1:{port}", "--bodies", "--count=5") as listener,
    ):
        time.sleep(2)  # until its subscriptions are there, which only the publisher could tell
        output, _ = example.communicate(bytes(made).hex() + "\n", timeout=PATIENCE)
        assert output == "5 messages sent\n"
        assert example.returncode == 0
        assert listener.end() == 0
    messages = [line for line in listener.objects() if line["event"] == "message"]
    assert [line["hash"] for line in messages] == [*(txid.hex() for txid in made.txids), made.hash.hex()]
    assert messages[-1]["body"] == bytes(made).hex()


@needs_extra
def test_the_listening_example_hears_the_program() -> None:
    with Program("run", *everything(), "--speed=30", "--wait-subscribers=1") as publisher:
        address = publisher.address()
        with Program(command=[sys.executable, str(EXAMPLES / "listen.py"), address]) as example:
            first = example.line(r"^hashtx (\d+) [0-9a-f]{64} $")
            assert int(first[1]) == 0
            example.line(r"^rawtx \d+ \d+ bytes$")
            example.line(r"^sequence \d+ [0-9a-f]{64} A$")
            example.process.kill()
            assert not any("missed" in line for line in example.seen)
        assert publisher.end(signal.SIGTERM) == 0
