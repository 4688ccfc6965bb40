"""A publisher in a process of its own, fed through Cap'n Proto: docs/notifications.md.

- `publisher`: what a program calls, with the methods of zmqpub.Publisher
- `backlog`: what the child has not acknowledged yet
- `feeder`: the parent's end: spawns the child, hands over, begins again when it has died
- `child`, `hands`: the child's end: the capabilities, and the publisher that their calls end at
- `codec`, `failures`: values and errors as the schema has them; `lane`: the shared memory for large bodies
"""

from zmqpub.ipc.notifications.publisher import SpawnedPublisher

__all__ = ["SpawnedPublisher"]
