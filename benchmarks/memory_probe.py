"""What 100 blocks cost that wait behind a stopped subscriber; run by bench_memory.py in a process of its own.

    python memory_probe.py CONTENDER

Prints the address, waits for a line on stdin (the subscriber is stopped then), publishes, and prints a JSON line: resident bytes
before the blocks existed and with all of them published; the blocks' bytes objects; messages that wait; seconds for each block.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time

from contenders import CONTENDERS
from contenders.core import Core
from samples import messages, renonced, usual

from zmqpub import Block

COUNT = 100


def resident() -> int:
    """Bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(name: str) -> None:
    zmqpub = name == "zmqpub"
    contender = Core(1000, slow_subscriber="wait") if zmqpub else CONTENDERS[name](0)
    print(contender.address, flush=True)
    sys.stdin.readline()
    _, raw = usual()
    gc.collect()
    before = resident()
    raws = [renonced(raw, nonce) for nonce in range(COUNT)]
    size = sum(map(sys.getsizeof, raws))
    journal = 0
    began = time.monotonic()
    if zmqpub:
        assert isinstance(contender, Core)
        publisher = contender.publisher
        while raws:
            one = Block(raws.pop())
            publisher.block_connected(one)
            publisher.updated_block_tip(one)
            del one
        taken = time.monotonic() - began
        time.sleep(0.5)
        stats = publisher.stats()
        journal = stats.journal.bytes
        waiting = messages(raw) * COUNT - stats.sent
    else:
        while raws:
            contender.burst(raws.pop())
        taken = time.monotonic() - began
        waiting = messages(raw) * COUNT
    told = {"before": before, "after": resident(), "size": size, "journal": journal, "waiting": waiting, "seconds": taken / COUNT}
    print(json.dumps(told), flush=True)
    os._exit(0)


main(sys.argv[1])
