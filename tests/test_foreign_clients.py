"""Clients that others wrote, from their registries, receive what Bitcoin Core would have sent them, byte for byte.

Two on Node.js, one of them made for bitcoind, and one in Python with a ZMTP implementation that is not libzmq's. They are
installed once, into pytest's cache; without a network or Node.js their tests are skipped.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from listening import ALL_TOPICS, address_of, everything, wait_for
from synthetic import block
from test_trace import EVENTS, frames_of, hand_over

from zmqpub import Publisher

HERE = Path(__file__).parent / "foreign"
INSTALL_SECONDS = 50
CANNOT_LOAD = 77
"""What a driver ends with when its client does not run on this machine."""

ROUNDS = 8
BIG = block(1, 300, size=10_000)

Message = tuple[bytes, ...]


def publish(publisher: Publisher) -> None:
    """All at once: the recorded events several times over, then a block of 3 MB."""
    for _ in range(ROUNDS):
        for line in EVENTS:
            hand_over(line["event"], publisher, True)
    publisher.block_connected(BIG)
    publisher.updated_block_tip(BIG)


def expected() -> list[Message]:
    """What publish() makes; the counters run on where the recording begins anew."""
    bodies = [message[:2] for _ in range(ROUNDS) for line in EVENTS for message in frames_of(line)]
    for transaction in BIG:
        bodies += [(b"hashtx", transaction.txid), (b"rawtx", bytes(transaction))]
    bodies += [(b"sequence", BIG.hash + b"C"), (b"hashblock", BIG.hash), (b"rawblock", bytes(BIG))]
    counters = {topic.encode(): itertools.count() for topic in ALL_TOPICS}
    return [(topic, body, next(counters[topic]).to_bytes(4, "little")) for topic, body in bodies]


def messages_in(output: bytes) -> list[Message]:
    """What a driver wrote: for each message the count of its frames, then length and bytes of each."""
    messages, at = [], 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        assert at <= len(output), "the client ended within a message"
        return output[at - size : at]

    while at < len(output):
        count = int.from_bytes(take(4), "little")
        messages.append(tuple(take(int.from_bytes(take(4), "little")) for _ in range(count)))
    return messages


# ---- the clients ----


def install(folder: Path, wanted: Path, *command: str) -> Path:
    """Run the installer in ``folder``, unless what stands in ``wanted`` was installed there before."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "installed"
        if done.exists() and done.read_bytes() == wanted.read_bytes():
            return folder
        shutil.copy(wanted, folder)
        try:
            result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{command[0]}: not installed within {INSTALL_SECONDS} s")
        if result.returncode:
            reason = next(iter((result.stderr or result.stdout).splitlines()), f"exit code {result.returncode}")
            pytest.skip(f"cannot install {wanted.name}: {reason}")
        shutil.copy(wanted, done)
    return folder


@dataclass(frozen=True)
class Runtime:
    """What runs a driver."""

    program: str
    environment: dict[str, str]

    def command(self, driver: str, *arguments: str) -> list[str]:
        return [self.program, str(HERE / driver), *arguments]


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where to install: pytest's cache, unless that is switched off."""
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    return cache.mkdir("foreign-clients") if cache else tmp_path_factory.mktemp("foreign-clients")


@pytest.fixture(scope="module")
def node(folder: Path) -> Runtime:
    """Node.js with what package.json asks for."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("there is no Node.js with npm")
    options = "--no-audit --no-fund --no-package-lock --ignore-scripts --fetch-retries=0 --fetch-timeout=20000 --loglevel=error"
    folder = install(folder / "npm", HERE / "package.json", npm, "install", *options.split())
    return Runtime(node, {"NODE_PATH": str(folder / "node_modules")})


@pytest.fixture(scope="module")
def python(folder: Path) -> Runtime:
    """This Python with what requirements.txt asks for."""
    options = "--quiet --no-deps --require-hashes --disable-pip-version-check --retries 0 --timeout 20 --upgrade --target packages"
    command = (sys.executable, "-m", "pip", "install", *options.split(), "-r", "requirements.txt")
    folder = install(folder / "python", HERE / "requirements.txt", *command)
    return Runtime(sys.executable, {"PYTHONPATH": str(folder / "packages")})


def subscriptions(publisher: Publisher) -> int:
    """To how many of the topics somebody has subscribed."""
    return sum(notifier.wanted for notifier in publisher.stats().notifiers)


def received_by(runtime: Runtime, command: list[str], publisher: Publisher, topics: int) -> list[Message]:
    """Start a client, publish once it has subscribed, and give what it received."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | runtime.environment)
    try:
        wait_for(lambda: process.poll() is not None or subscriptions(publisher) == topics, 20, "its subscription")
        if process.returncode is None:
            publish(publisher)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    if process.returncode == CANNOT_LOAD:
        pytest.skip(f"does not run on this machine: {errors.decode().strip()}")
    assert process.returncode == 0, errors.decode()
    assert publisher.stats().evictions == 0
    return messages_in(output)


# ---- the tests ----


@pytest.mark.parametrize(("runtime", "driver"), [("node", "zeromq_client.js"), ("python", "azmq_client.py")], ids=["zeromq", "azmq"])
def test_all_five_topics(runtime: str, driver: str, request: pytest.FixtureRequest) -> None:
    runs: Runtime = request.getfixturevalue(runtime)
    wanted = expected()
    with Publisher(everything()) as publisher:
        messages = received_by(runs, runs.command(driver, address_of(publisher), str(len(wanted))), publisher, 5)
    assert len(messages) == len(wanted) == ROUNDS * 414 + 603
    assert messages == wanted


def test_a_client_made_for_bitcoind(node: Runtime) -> None:
    """@node-lightning/bitcoind gives its application the bodies of rawtx and rawblock, each from an address of its own."""
    wanted = [message[:2] for message in expected() if message[0] in (b"rawtx", b"rawblock")]
    with Publisher({"zmqpubrawtx": "tcp://127.0.0.1:*", "zmqpubrawblock": "tcp://127.0.0.1:*"}) as publisher:
        addresses = [address_of(publisher, "rawtx"), address_of(publisher, "rawblock")]
        messages = received_by(node, node.command("node_lightning_client.js", *addresses, str(len(wanted))), publisher, 2)
    assert len(messages) == len(wanted)
    for topic in (b"rawtx", b"rawblock"):
        assert [body for name, body in messages if name == topic] == [body for name, body in wanted if name == topic]
