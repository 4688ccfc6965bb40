"""Which of a publisher's notifiers are those at an address here: the publisher calls its addresses by its own names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from zmqpub.addresses import Address, parse_address
from zmqpub.replay.protocol import NotifierInfo
from zmqpub.wire import Topic

__all__ = ["AmbiguousError", "match_notifiers"]

_INDEX: Final = {topic: index for index, topic in enumerate(Topic)}


class AmbiguousError(Exception):
    """Several notifiers could be meant; says which, and what to do."""


def match_notifiers(
    notifiers: Iterable[NotifierInfo], topics: Sequence[Topic], address: Address, called: str | None = None, alone: bool = True
) -> dict[int, NotifierInfo]:
    """By topic index the notifier that publishes ``topics`` at ``address``.

    ``called``: what the publisher calls that address, if known. ``alone``: no other address here belongs to that publisher.

    Taken are, in this order: the notifiers at the very same address; those at the same port, as a publisher that is bound to every
    interface does not know by which one it is reached; and where there is one address only, there and here, that one, as a
    forwarded port has any number. Of notifiers that were removed and added again the youngest counts. Raises AmbiguousError.
    """
    wanted = [notifier for notifier in notifiers if notifier.topic in topics]
    if called is not None:
        return _youngest(notifier for notifier in wanted if _same(notifier.address, called))
    exact = _youngest(notifier for notifier in wanted if _same(notifier.address, address.endpoint))
    if exact:
        return exact
    if address.scheme == "tcp":
        same_port = [notifier for notifier in wanted if _port(notifier.address) == address.port]
        if len({notifier.address for notifier in same_port}) == 1:
            return _youngest(same_port)
    names = sorted({notifier.address for notifier in wanted})
    if len(names) > 1 or (names and not alone):
        raise AmbiguousError(
            f"the replay endpoint knows no {address.endpoint}, but {', '.join(names)}; say which is meant with publisher_addresses"
        )
    return _youngest(wanted)


def _youngest(notifiers: Iterable[NotifierInfo]) -> dict[int, NotifierInfo]:
    return {_INDEX[notifier.topic]: notifier for notifier in sorted(notifiers, key=lambda notifier: notifier.id)}


def _parsed(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None


def _same(one: str, other: str) -> bool:
    first, second = _parsed(one), _parsed(other)
    return one == other if first is None or second is None else first.endpoint == second.endpoint


def _port(text: str) -> int | None:
    address = _parsed(text)
    return address.port if address is not None and address.scheme == "tcp" else None
