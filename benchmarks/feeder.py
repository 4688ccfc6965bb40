"""A publisher in a process of its own that sends one topic as fast as it can, on request.

python benchmarks/feeder.py TOPIC FILE     # prints its address; then each line is a number of messages to send
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from samples import file_of

from zmqpub import Block, Publisher


class Feeder:
    """Messages of one topic, made of one block again and again. Use as a context manager; ``address`` is where."""

    def __init__(self, topic: str, raw: bytes) -> None:
        command = [sys.executable, __file__, topic, file_of(raw)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.per_block = len(Block(raw)) if topic in ("hashtx", "rawtx") else 1

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self, messages: int) -> int:
        """Begin to send about so many; how many exactly."""
        blocks = max(1, round(messages / self.per_block))
        assert self._process.stdin is not None
        self._process.stdin.write(f"{blocks}\n")
        self._process.stdin.flush()
        return blocks * self.per_block


def main(topic: str, path: str) -> None:
    block = Block(Path(path).read_bytes())
    with Publisher({f"zmqpub{topic}": "tcp://127.0.0.1:*"}) as publisher:
        publish = publisher.block_connected if topic in ("hashtx", "rawtx") else publisher.updated_block_tip
        print(publisher.active_notifiers()[0].address, flush=True)
        for line in sys.stdin:
            for _ in range(int(line)):
                publish(block)


if __name__ == "__main__":
    main(*sys.argv[1:])
