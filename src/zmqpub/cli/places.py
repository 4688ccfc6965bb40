"""The addresses that a listener is given: of publishers, and of their replay endpoints. What is wrong with them is told at once."""

from __future__ import annotations

from collections.abc import Sequence

from zmqpub.addresses import parse_address
from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["choose_replays", "peer_problems"]


def peer_problems(option: str, text: str) -> list[ConfigProblem]:
    """Why nobody could connect to an address; nothing where one can."""
    try:
        address = parse_address(text)
    except ValueError as error:
        return [ConfigProblem(option, text, str(error))]
    problem = ""
    if address.scheme == "inproc":
        problem = "inproc exists within one process only; nobody else can listen to it"
    elif address.wildcard:
        problem = "the real port (or path) is needed: the publisher reports it"
    elif address.host == "*":
        problem = f"the publisher's host is needed, as in tcp://127.0.0.1:{address.port}"
    return [ConfigProblem(option, text, problem)] if problem else []


def choose_replays(given: Sequence[str], addresses: Sequence[str]) -> dict[str, str] | None:
    """The replay endpoint of each of ``addresses`` that has one: ``REPLAY`` is that of all of them, ``ADDRESS=REPLAY`` of one.

    ConfigError for addresses that nobody could connect to or that are not listened to, and for two answers to one question.
    """
    problems: list[ConfigProblem] = []
    chosen: dict[str, str] = {}
    for text in given:
        address, _, replay = text.rpartition("=")
        named = address in addresses
        if not named and address and not (peer_problems("", address) or peer_problems("", replay)):
            problems.append(ConfigProblem("--replay", text, f"{address} is no address that is listened to: {', '.join(addresses)}"))
            continue
        end = replay if named else text
        problems += peer_problems("--replay", end)
        for each in [address] if named else addresses:
            if chosen.setdefault(each, end) != end:
                problems.append(ConfigProblem("--replay", text, f"the replay endpoint of {each} is {chosen[each]} already"))
    if problems:
        raise ConfigError(*problems)
    return chosen or None
