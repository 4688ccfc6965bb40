"""`zmqpub listen`: what publishers say, Bitcoin Core among them."""

from __future__ import annotations

import math
from time import monotonic

import click

from zmqpub.cli.codes import ExitCode
from zmqpub.cli.hearing import Hearing, JsonHearing, TextHearing
from zmqpub.cli.receiver import LinkState, Receiver, parse_publisher
from zmqpub.cli.screen import Screen, print_error
from zmqpub.cli.signals import Signals
from zmqpub.cli.tally import Tally
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.wire import Topic

__all__ = ["listen"]

_LAST_CALL = 0.5  # seconds after a signal


@click.command(short_help="Show what publishers send.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--topic", "topics", multiple=True, metavar="TOPIC", help="Only this one; repeatable [all five].")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each message and each event.")
@click.option("--bodies", is_flag=True, help="With --json: bodies, too, in hex.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many messages.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so many seconds at the latest.")
def listen(
    addresses: tuple[str, ...], topics: tuple[str, ...], as_json: bool, bodies: bool, count: int | None, timeout: float | None
) -> int:
    """Show the notifications of any publisher: zmqpub's, Bitcoin Core's.

    Counters tell what was missed: gaps and restarts are shown as they happen. On a terminal, a table of all topics;
    otherwise lines. Ends by SIGINT or SIGTERM, --count or --timeout, with a summary.

    Exit code: 0, 5 when malformed messages came, 6 when messages were missed, 8 when --timeout passed before --count was
    reached (without --count: before anything came).
    """
    problems = [problem for address in addresses for problem in _problems(address)]
    known = {topic.value for topic in Topic}
    problems += [
        ConfigProblem("--topic", topic, f"no known topic, these are {', '.join(known_topic for known_topic in Topic)}")
        for topic in topics
        if topic not in known
    ]
    if bodies and not as_json:
        problems.append(ConfigProblem("--bodies", None, "goes with --json"))
    if problems:
        raise ConfigError(*problems)
    chosen = [topic for topic in Topic if not topics or topic.value in topics]
    publishers = [parse_publisher(address) for address in dict.fromkeys(addresses)]
    with (
        Screen(essential=True, draw=not as_json) as screen,
        Signals() as signals,
        Receiver(publishers, chosen) as receiver,
    ):
        tally = Tally([publisher.text for publisher in publishers], chosen)
        hearing = JsonHearing(screen, tally, bodies) if as_json else TextHearing(screen, tally, receiver.links)
        in_time = _hear(receiver, tally, hearing, signals, count, timeout)
        hearing.conclude()
    if tally.malformed:
        return ExitCode.MALFORMED
    if tally.missed:
        return ExitCode.LOST
    if not in_time:
        what = f"{tally.messages:,} of {count:,} messages" if count else "nothing"
        print_error(f"{what} came within {timeout:g} seconds")
        return ExitCode.TIMEOUT
    return ExitCode.OK


def _problems(address: str) -> tuple[ConfigProblem, ...]:
    try:
        parse_publisher(address)
    except ConfigError as error:
        return error.problems
    return ()


def _hear(receiver: Receiver, tally: Tally, hearing: Hearing, signals: Signals, count: int | None, timeout: float | None) -> bool:
    """Until a signal, the count or the timeout; whether what was asked for came in time."""
    receiver.watch(signals.fileno())
    end = math.inf if timeout is None else monotonic() + timeout
    left = math.inf if count is None else count
    last_call = math.inf
    hearing.show()
    while True:
        idle = True
        for link, what in receiver.receive(min(hearing.due, end) - monotonic()):
            idle = False
            if isinstance(what, LinkState):
                hearing.link(link)
                continue
            hearing.happening(tally.take(link.address, what))
            left -= 1
            if not left:
                return True
        hearing.flush()
        now = monotonic()
        if now >= end:
            return count is None and tally.messages + tally.malformed > 0
        if signals.received is not None:
            # What has arrived by now still counts.
            last_call = min(last_call, now + _LAST_CALL)
            if idle or now >= last_call:
                return True
        elif now >= hearing.due:
            hearing.show()
