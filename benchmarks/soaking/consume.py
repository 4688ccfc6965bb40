"""A consuming process: writes down what it is told and saves its position with it, so that it can be killed at any moment.

Run as ``python -m soaking.consume FOLDER NUMBER KIND LIVE=OWN,LIVE=OWN REPLAY RESTART``. KIND is ``sync`` (Subscriber), ``async``
(AsyncSubscriber), ``chain`` (ChainFollower), or ``chain-two`` (the same, of both addresses). OWN is how the publisher calls the
address LIVE, which is a relay's.

What was written and the cursor become valid together: the file of the
cursor names how many bytes of the other file count, and replaces its predecessor at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from soaking.record import MESSAGE, STEP, message_record, step_record
from soaking.shared import Shared
from zmqpub import AsyncSubscriber, ChainFollower, Subscriber, Topic
from zmqpub.chain_events import ChainGap
from zmqpub.stream_events import Lost

_BATCH = 2000
_WAIT = 0.1
_SAVE_SECONDS = 0.1

# A publisher that was killed is back soon, and its journal has everything: nothing may be given up in the meantime.
SETTINGS: dict[str, Any] = {"repair_timeout": 60.0, "repair_retries": 30, "check_interval": 0.5, "reconnect_interval_max": 0.5}
CHAIN_TOPICS = (Topic.RAWBLOCK, Topic.SEQUENCE)


class Book:
    """What a consumer wrote, and its position."""

    def __init__(self, folder: Path, number: int, record_size: int) -> None:
        self._shared = Shared(folder)
        self._number = number
        self._record_size = record_size
        self._position = folder / f"consumer-{number}.json"
        self._log = (folder / f"consumer-{number}.log").open("a", buffering=1)
        saved = json.loads(self._position.read_text()) if self._position.exists() else {"bytes": 0, "cursor": None}
        self.cursor: dict[str, Any] | None = saved["cursor"]
        data = folder / f"consumer-{number}.data"
        data.touch()
        self._data = data.open("r+b", buffering=0)
        self._data.truncate(saved["bytes"])
        self._data.seek(saved["bytes"])
        self._bytes: int = saved["bytes"]
        self._unsaved: list[bytes] = []
        self._saved_at = time.monotonic()

    @property
    def stopped(self) -> bool:
        return self._shared.stop

    def write(self, record: bytes) -> None:
        self._unsaved.append(record)

    def tell(self, event: object) -> None:
        """Something that is no part of the story."""
        word = "LOST" if isinstance(event, (Lost, ChainGap)) else "event"
        self._log.write(f"{word} {event}\n")

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved_at >= _SAVE_SECONDS or len(self._unsaved) >= 50_000

    def begin(self, cursor: dict[str, Any]) -> bool:
        """Save where it all begins, before anything is told: whoever is killed earlier than that has no position.

        False where there is none yet, as the publisher did not answer in time: on a busy machine that may happen.
        """
        sources = cursor.get("subscriber", cursor)["sources"].values()
        if any(source["epoch"] is None for source in sources):
            return False
        if self.cursor is None:
            self._save(cursor)
        print("ready", flush=True)
        return True

    def save(self, cursor: dict[str, Any]) -> None:
        if self._unsaved:
            self._save(cursor)
        self._saved_at = time.monotonic()

    def _save(self, cursor: dict[str, Any]) -> None:
        if self._unsaved:
            self._bytes += self._data.write(b"".join(self._unsaved))
            self._unsaved.clear()
        fresh = self._position.with_suffix(".new")
        fresh.write_text(json.dumps({"bytes": self._bytes, "cursor": cursor}))
        os.replace(fresh, self._position)
        self._shared.set_progress(self._number, self._bytes // self._record_size)


def consume(folder: Path, number: int, live: str, replay: str, counted: bool) -> None:
    book = Book(folder, number, MESSAGE.size)
    with Subscriber(live, replay=replay, resume=book.cursor, **SETTINGS) as subscriber:
        if not book.begin(subscriber.cursor()):
            return
        while not book.stopped:
            try:
                items = subscriber.recv_batch(_BATCH, timeout=_WAIT)
            except TimeoutError:
                items = []
            take(book, items, counted)
            if book.due:
                book.save(subscriber.cursor())


async def consume_async(folder: Path, number: int, live: str, replay: str, counted: bool) -> None:
    book = Book(folder, number, MESSAGE.size)
    async with AsyncSubscriber(live, replay=replay, resume=book.cursor, **SETTINGS) as subscriber:
        if not book.begin(subscriber.cursor()):
            return
        while not book.stopped:
            try:
                items = await subscriber.recv_batch(_BATCH, timeout=_WAIT)
            except TimeoutError:
                items = []
            take(book, items, counted)
            if book.due:
                book.save(subscriber.cursor())


def take(book: Book, items: list[Any], counted: bool) -> None:
    for item in items:
        if hasattr(item, "body"):
            book.write(message_record(item, counted=counted))
        else:
            book.tell(item)


def follow(folder: Path, number: int, live: list[str], replay: str) -> None:
    book = Book(folder, number, STEP.size)
    resume = None if book.cursor is None else ChainFollower.subscriber_cursor(book.cursor)
    with Subscriber(*live, topics=CHAIN_TOPICS, replay=replay, resume=resume, **SETTINGS) as subscriber:
        follower = ChainFollower(subscriber, cursor=book.cursor)
        if not book.begin(follower.cursor()):
            return
        while not book.stopped:
            try:
                event = follower.recv(_WAIT)
            except TimeoutError:
                pass
            else:
                if isinstance(event, ChainGap):
                    book.tell(event)
                else:
                    book.write(step_record(event))
            if book.due:
                book.save(follower.cursor())


def main(folder: Path, number: int, kind: str, addresses: str, replay: str, restart: str) -> None:
    own = dict(pair.split("=") for pair in addresses.split(","))
    live = list(own) if kind == "chain-two" else list(own)[:1]
    SETTINGS["publisher_addresses"] = {address: own[address] for address in live}
    counted = restart == "continue"
    shared = Shared(folder)
    while not shared.stop:  # once, unless there was no position to begin at
        if kind == "async":
            asyncio.run(consume_async(folder, number, live[0], replay, counted))
        elif kind == "sync":
            consume(folder, number, live[0], replay, counted)
        else:
            follow(folder, number, live, replay)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5], sys.argv[6])
