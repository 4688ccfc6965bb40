"""zmqpub, as a program that embeds it would use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contenders import TOPICS
from zmqpub import Block, Publisher


class Core:
    def __init__(self, hwm: int, address: str = "tcp://127.0.0.1:*", options: Mapping[str, object] = {}, **settings: Any) -> None:
        options = dict(options)
        for topic in TOPICS:
            options[f"zmqpub{topic}"] = address
            options[f"zmqpub{topic}hwm"] = hwm
        self.publisher = Publisher(options, **settings)
        self.address = self.publisher.active_notifiers()[0].address

    def burst(self, raw: bytes) -> None:
        block = Block(raw)
        self.publisher.block_connected(block)
        self.publisher.updated_block_tip(block)
        self.publisher.flush()

    def transaction(self, raw: bytes, mempool_sequence: int) -> None:
        self.publisher.transaction_added_to_mempool(raw, mempool_sequence)

    def flush(self) -> None:
        self.publisher.flush()

    def close(self) -> None:
        self.publisher.close()
