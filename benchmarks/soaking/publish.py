"""The publishing process: a node that is killed, starts again, and does not remember exactly what it had handed over.

Run as ``python -m soaking.publish FOLDER LIVE,LIVE REPLAY JOURNAL_BYTES RESTART REWIND``: it hands over again the REWIND events before the
last that it is sure of. It ends when the conductor says so.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from soaking.shared import Shared
from soaking.story import ADDED, REMOVED, Story
from zmqpub import Publisher, Topic

_PAUSE = 0.002


def main(folder: Path, live: list[str], replay: str, journal_bytes: int, restart: str, rewind: int) -> None:
    story, shared = Story(folder), Shared(folder)
    options: dict[str, object] = {f"zmqpub{topic}": live for topic in Topic}
    options["zmqpubreplay"] = replay
    publisher = Publisher(
        options,
        journal_path=str(folder / "journal"),
        journal_bytes=journal_bytes,
        journal_restart=restart,
        stall_timeout=0.5,
        max_lag=5.0,
    )
    with publisher:
        print("ready", flush=True)
        for place in range(_beginning(story, shared.handed - rewind), len(story)):
            while place >= shared.limit:
                if shared.stop:
                    return
                time.sleep(_PAUSE)
            story.hand_over(place, publisher)
            if place >= shared.handed:
                shared.handed = place + 1
        while not shared.stop:
            time.sleep(_PAUSE)


def _beginning(story: Story, place: int) -> int:
    """The transaction at ``place`` or the last one before: with its mempool sequence it cannot be taken for something new."""
    while place > 0 and story.row(place).kind not in (ADDED, REMOVED):
        place -= 1
    return max(0, place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
