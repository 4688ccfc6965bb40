"""`zmqpub listen`: what publishers say, Bitcoin Core among them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from zmqpub.cli.codes import ExitCode
from zmqpub.cli.hearing import JsonHearing, TextHearing
from zmqpub.cli.listening import Listening
from zmqpub.cli.places import choose_replays, peer_problems
from zmqpub.cli.screen import Screen, print_error
from zmqpub.cli.signals import Signals
from zmqpub.cli.tally import Tally
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.subscriber import Subscriber
from zmqpub.wire import Topic

__all__ = ["listen"]


@click.command(short_help="Show what publishers send.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--topic", "topics", multiple=True, metavar="TOPIC", help="Only this one; repeatable [all five].")
@click.option("--replay", "replays", multiple=True, metavar="[ADDRESS=]REPLAY", help="Ask this replay endpoint for what was missed.")
@click.option("--stale-after", type=click.FloatRange(min=0.01), metavar="SECONDS", help="Connect anew after such a silence [never].")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each message and each event.")
@click.option("--bodies", is_flag=True, help="With --json: bodies, too, in hex.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many messages.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so many seconds at the latest.")
def listen(
    addresses: tuple[str, ...],
    topics: tuple[str, ...],
    replays: tuple[str, ...],
    stale_after: float | None,
    as_json: bool,
    bodies: bool,
    count: int | None,
    timeout: float | None,
) -> int:
    """Show the notifications of any publisher: zmqpub's, Bitcoin Core's.

    What goes wrong is shown as it happens: gaps, restarts, silence, malformed messages; and, with --replay, how it is
    mended. On a terminal, a table of all topics; otherwise lines. Ends by SIGINT or SIGTERM, --count or --timeout, with a
    summary.

    Exit code: 0, 5 when malformed messages came, 6 when messages were lost, 8 when --timeout passed before --count was
    reached (without --count: before anything came).
    """
    places = list(dict.fromkeys(addresses))
    _check(places, topics, replays, bodies, as_json)
    chosen = [topic for topic in Topic if not topics or topic.value in topics]
    endpoints = choose_replays(replays, places)
    with (
        Screen(essential=True, draw=not as_json) as screen,
        Signals() as signals,
        Subscriber(*places, topics=chosen, replay=endpoints, stale_after=stale_after) as subscriber,
    ):
        tally = Tally(places, chosen)
        hearing = JsonHearing(screen, tally, bodies) if as_json else TextHearing(screen, tally)
        in_time = Listening(subscriber, tally, hearing, signals).until(count, timeout)
        hearing.conclude()
    return _code(tally, in_time, count, timeout)


def _check(addresses: Sequence[str], topics: Sequence[str], replays: Sequence[str], bodies: bool, as_json: bool) -> None:
    """ConfigError with all that is wrong."""
    problems = [problem for address in addresses for problem in peer_problems("ADDRESS", address)]
    known = [topic.value for topic in Topic]
    problems += [ConfigProblem("--topic", topic, f"no known topic, these are {', '.join(known)}") for topic in topics if topic not in known]
    if bodies and not as_json:
        problems.append(ConfigProblem("--bodies", None, "goes with --json"))
    try:
        choose_replays(replays, addresses)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(*problems)


def _code(tally: Tally, in_time: bool, count: int | None, timeout: float | None) -> ExitCode:
    if tally.malformed:
        return ExitCode.MALFORMED
    if tally.losses:
        return ExitCode.LOST
    if not in_time:
        what = f"{tally.messages:,} of {count:,} messages" if count else "nothing"
        print_error(f"{what} came within {timeout:g} seconds")
        return ExitCode.TIMEOUT
    return ExitCode.OK
