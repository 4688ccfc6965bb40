"""From a source to a publisher, each event at its time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic

from zmqpub.sources.events import Event, EventSink, Source, hand_over

__all__ = ["pump"]


def pump(
    source: Source,
    publisher: EventSink,
    *,
    speed: float = 1.0,
    stop: threading.Event,
    on_event: Callable[[Event], None] | None = None,
) -> int:
    """Hand over the events of ``source``, each ``due / speed`` seconds after the call; returns how many there were.

    The times count from the call, so delays never add up: what is late goes at once. A ``speed`` of ``math.inf`` waits
    for nothing. Setting ``stop`` ends it before the next event, a wait included; a source that blocks while it looks
    for its next event must be closed besides. ``on_event`` is called after each event was handed over. What the source,
    the publisher or ``on_event`` raises passes through; the source is left open.
    """
    if not speed > 0:
        raise ValueError(f"speed={speed}: expected more than 0, math.inf for flat out")
    flat_out = math.isinf(speed)
    start = monotonic()
    count = 0
    for event in source:
        if not flat_out:
            wait = start + event.due / speed - monotonic()
            if wait > 0:
                # A wait may be longer than the platform's longest.
                while wait > 0 and not stop.wait(min(wait, threading.TIMEOUT_MAX)):
                    wait = start + event.due / speed - monotonic()
        if stop.is_set():
            break
        hand_over(event, publisher)
        count += 1
        if on_event is not None:
            on_event(event)
    return count
