"""A Publisher in a process of its own, that can be stopped or killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from types import TracebackType


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class RemotePublisher:
    """All five topics at ``address``. Use as a context manager; it dies with it."""

    def __init__(self, address: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _REMOTE, json.dumps({"address": address})], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> RemotePublisher:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "bound\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.kill()

    def wait_wanted(self) -> None:
        """Until somebody subscribes to each topic."""
        self._do("wait", "wanted")

    def publish(self, transactions: int) -> None:
        """So many transactions enter the mempool: three messages each, mempool sequences counting from 1. Returns when they are sent."""
        self._do(str(transactions), "published")

    def _do(self, what: str, answer: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{answer}\n"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


_REMOTE = """
import json, sys, time
from zmqpub import Publisher, TxIn, TxOut, build_transaction
address = json.loads(sys.argv[1])["address"]
number = 0
with Publisher({f"zmqpub{topic}": address for topic in ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")}) as publisher:
    print("bound", flush=True)
    for line in sys.stdin:
        if line == "wait\\n":
            while not all(notifier.wanted for notifier in publisher.stats().notifiers):
                time.sleep(0.002)
            print("wanted", flush=True)
            continue
        for _ in range(int(line)):
            number += 1
            tx = build_transaction([TxIn(bytes(32), 0)], [TxOut(number, b"")])
            publisher.transaction_added_to_mempool(tx, number)
        publisher.flush()
        print("published", flush=True)
"""
