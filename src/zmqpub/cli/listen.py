"""`zmqpub listen`: what publishers say, Bitcoin Core among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from zmqpub.cli.chain_hearing import JsonChainHearing, TextChainHearing
from zmqpub.cli.chain_telling import ChainTally
from zmqpub.cli.codes import ExitCode
from zmqpub.cli.following import Following, Overheard
from zmqpub.cli.hearing import JsonHearing, TextHearing
from zmqpub.cli.listening import ItemListening, Listening
from zmqpub.cli.places import choose_replays, peer_problems
from zmqpub.cli.screen import Screen, print_error
from zmqpub.cli.signals import Signals
from zmqpub.cli.tally import Tally
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.wire import Topic

__all__ = ["listen"]


@click.command(short_help="Show what publishers send.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--topic", "topics", multiple=True, metavar="TOPIC", help="Only this one; repeatable [all five].")
@click.option("--replay", "replays", multiple=True, metavar="[ADDRESS=]REPLAY", help="Ask this replay endpoint for what was missed.")
@click.option("--stale-after", type=click.FloatRange(min=0.01), metavar="SECONDS", help="Connect anew after such a silence [never].")
@click.option("--follow", is_flag=True, help="Show the chain and the mempool instead of messages.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each message and each event.")
@click.option("--bodies", is_flag=True, help="With --json: bodies, too, in hex.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many messages.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so many seconds at the latest.")
def listen(
    addresses: tuple[str, ...],
    topics: tuple[str, ...],
    replays: tuple[str, ...],
    stale_after: float | None,
    follow: bool,
    as_json: bool,
    bodies: bool,
    count: int | None,
    timeout: float | None,
) -> int:
    """Show the notifications of any publisher: zmqpub's, Bitcoin Core's.

    What goes wrong is shown as it happens: gaps, restarts, silence, malformed messages; and, with --replay, how it is
    mended. On a terminal, a table of all topics; otherwise lines. Ends by SIGINT or SIGTERM, --count or --timeout, with a
    summary. With --follow every block that joins or leaves the chain, in its order, and every transaction that enters or
    leaves the mempool; a line each.

    Exit code: 0, 5 when malformed messages came, 6 when messages were lost, 8 when --timeout passed before --count was
    reached (without --count: before anything came).
    """
    places = list(dict.fromkeys(addresses))
    _check(places, topics, replays, bodies, as_json)
    chosen = [topic for topic in Topic if not topics or topic.value in topics]
    endpoints = choose_replays(replays, places)
    with (
        Screen(essential=True, draw=not (as_json or follow)) as screen,
        Signals() as signals,
        Overheard(*places, topics=chosen, replay=endpoints, stale_after=stale_after) as subscriber,
    ):
        tally, chain = Tally(places, chosen), ChainTally()
        listening: Listening[Any]
        if follow:
            story = JsonChainHearing(screen, tally, chain, bodies) if as_json else TextChainHearing(screen, tally, chain)
            listening = Following(subscriber, tally, chain, story, signals)
        else:
            hearing = JsonHearing(screen, tally, bodies) if as_json else TextHearing(screen, tally)
            listening = ItemListening(subscriber, tally, hearing, signals)
        in_time = listening.until(count, timeout)
        listening.conclude()
    if tally.malformed:
        return ExitCode.MALFORMED
    if tally.losses or chain.gaps:
        return ExitCode.LOST
    if not in_time:
        what = f"{listening.taken:,} of {count:,} {'events' if follow else 'messages'}" if count else "nothing"
        print_error(f"{what} came within {timeout:g} seconds")
        return ExitCode.TIMEOUT
    return ExitCode.OK


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
