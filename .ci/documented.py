"""Does what the documentation says: runs every ``sh`` and ``python`` block of the files given.

    python .ci/documented.py README.md docs/*.md

with ``zmqpub`` and ``make`` on PATH, from the root of a checkout whose environment was made before. A publisher, a
listener or a Python program with a subscriber, which would go on for ever, is interrupted after some seconds and must end
well; what they listen to is published meanwhile. What the file itself does not define is in NAMES. Where the kernel
permits, all of it happens in a network of its own, so that fixed ports are free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 4
PATIENCE = 180

# These are steps of .ci/run itself, or take too long for it.
ELSEWHERE = re.compile(r"make (test|lint|types|sanitize|wheel|fuzz|bench|format|clean)\b|(\S*python\S* -m )?pip install|\.ci/run|cd ")

# What only a machine with a node on it can do.
NODE = re.compile(r"\$HOME|/run/node|\| *jq ")

# Python that receives, and does not publish: what it receives is published meanwhile.
RECEIVES = re.compile(r"\bSubscriber\(")
PUBLISHER = "tcp://127.0.0.1:28332"
REPLAY = "tcp://127.0.0.1:28339"
# Python that asks a node, which is a simulated chain meanwhile, and the commands that do.
ASKS = re.compile(r"\bipc\.connect(_async)?\(node")
SOCKET = "unix:/tmp/zmqpub-node/node.sock"
# Python that asks a real node's HTTP server: tests/test_rpc_http_client_with_node.py does.
NODE_HTTP = re.compile(r"\bHttpRpc\(")

NAMED_REPLAY = re.compile(r"\breplay=\"(.+?)\"")
INTERRUPTED = (0, -signal.SIGINT, 128 + signal.SIGINT)

NAMES = """
import sys
sys.path.insert(0, {tests!r})
from block_samples import chain, genesis
raw_block = genesis("main")
class my_node:
    new_blocks = staticmethod(lambda: chain(5))
class index:
    add = remove = staticmethod(lambda *what: None)
store = index.add
address, replay, repair, node = {address!r}, {replay!r}, None, {node!r}
from pathlib import Path
path = Path({path!r})
"""


def blocks(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, language, text) of each fenced block."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", path.read_text(), re.M | re.S):
        yield path.read_text()[: match.start()].count("\n") + 1, match[1], match[2]


def own_network() -> None:
    """Go on in a network namespace of our own, if that is possible."""
    if os.environ.get("IN_OWN_NETWORK") is None:
        os.environ["IN_OWN_NETWORK"] = "0"
        unshare = shutil.which("unshare")
        if unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode == 0:
            os.environ["IN_OWN_NETWORK"] = "1"
            os.execv(unshare, [unshare, "-rn", sys.executable, *sys.argv])
    if os.environ["IN_OWN_NETWORK"] == "1":
        with socket.socket() as any_socket:  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
            fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


@contextlib.contextmanager
def running(command: str, ok: tuple[int, ...] = (0,), folder: str | None = None) -> Iterator[None]:
    """A command that goes on until it is interrupted, in ``folder``."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(["bash", "-c", f"exec {command}"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)
            yield
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        output.seek(0)
        if code not in ok:
            raise SystemExit(f"{command}: exit code {code}\n{output.read()}")


def publisher(address: str, replay: str | None) -> str:
    """The command that publishes everything there."""
    topics = " ".join(f"--zmqpub{topic}={address}" for topic in ("hashblock", "hashtx", "rawblock", "rawtx", "sequence"))
    return f"zmqpub run {topics}" + (f" --zmqpubreplay={replay}" if replay else "")


def serving_node() -> str:
    """The command that plays the node."""
    Path(SOCKET.removeprefix("unix:")).parent.mkdir(mode=0o700, exist_ok=True)
    return f"zmqpub run --zmqpubhashblock={PUBLISHER} -ipcbind={SOCKET} --block-interval 1"


def run_python(text: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        names = {"tests": str(ROOT / "tests"), "path": str(Path(folder) / "saved"), "address": PUBLISHER, "replay": REPLAY, "node": SOCKET}
        program.write_text(NAMES.format(**names) + text)
        command = [sys.executable, "-W", "error", str(program)]
        if NODE_HTTP.search(text):
            compile(text, "example", "exec")
            return "needs a node"
        if ASKS.search(text):
            with running(serving_node()):
                subprocess.run(command, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=folder)
            return "ran before a node"
        if not RECEIVES.search(text) or "Publisher(" in text:
            subprocess.run(command, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=folder)
            return "ran"
        named = NAMED_REPLAY.search(text)
        with running(publisher(PUBLISHER, named[1] if named else REPLAY)), running(shlex.join(command), INTERRUPTED, folder):
            return "ran until interrupted"


def run_line(line: str) -> str:
    words = shlex.split(line, comments=True)
    if not words:
        return ""
    if ELSEWHERE.match(line):
        return "elsewhere"
    if NODE.search(line):
        return "needs a node"
    if words[:2] == ["zmqpub", "ipc"]:
        with running(serving_node()):
            subprocess.run(["bash", "-ec", line], check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            return "ran before a node"
    if words[:2] == ["zmqpub", "run"]:
        with running(line):
            return "ran until interrupted"
    if words[:2] == ["zmqpub", "listen"]:
        address = next(word for word in words[2:] if "://" in word)
        replay = words[words.index("--replay") + 1] if "--replay" in words else None
        with running(publisher(address, replay)), running(line):
            return "ran until interrupted"
    subprocess.run(["bash", "-ec", line], check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return "ran"


def main() -> None:
    own_network()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    from block_samples import chain, write_raw

    with tempfile.TemporaryDirectory() as folder:
        directory = write_raw(Path(folder) / "blocks", chain(20))
        done = 0
        for path in map(Path, sys.argv[1:]):
            for number, language, text in blocks(path):
                if language == "python":
                    print(f"{path}:{number}: {run_python(text)}: python", flush=True)
                    done += 1
                for line in text.replace("\\\n", " ").splitlines() if language in ("sh", "console") else ():
                    command = line.removeprefix("$ ").strip().replace("DIR", str(directory))
                    if result := run_line(command):
                        print(f"{path}:{number}: {result}: {line.strip()}", flush=True)
                        done += 1
    if not done:
        raise SystemExit("nothing to run: is that the documentation?")


if __name__ == "__main__":
    main()
