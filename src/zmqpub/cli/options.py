"""The options of `zmqpub run`, and what they come to: notifiers, settings, a source."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from zmqpub.cli.nodes import NODE_SOURCE, node_source
from zmqpub.config import NotifierConfig, PublisherConfig, ReplayConfig, parse_options, parse_settings, read_conf
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.replay.config import REPLAY_OPTION
from zmqpub.sources.bitcoin_node import BitcoinNode
from zmqpub.sources.blocks import BlockFiles, OnProgress
from zmqpub.sources.simulated import Simulated
from zmqpub.wire import Topic

__all__ = ["DEFAULT_ADDRESS", "DEFAULT_LINGER", "CoreCommand", "Plan", "make_plan", "notifier_options", "setting_options", "source_options"]

DEFAULT_ADDRESS = "tcp://127.0.0.1:28332"
"""Where everything is published when nothing else is asked for."""
DEFAULT_LINGER = 5.0

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Made = TypeVar("_Made")

_CORE_OPTIONS = (*(name for topic in Topic for name in (topic.option, topic.hwm_option)), REPLAY_OPTION)
_SETTINGS = (
    "journal_bytes",
    "journal_path",
    "journal_sync",
    "journal_restart",
    "on_full",
    "stall_timeout",
    "max_lag",
    "slow_subscriber",
    "linger",
)
_ONLY_SIMULATED = ("seed", "block_interval", "blocks", "reorg_rate")
_ONLY_BLOCKS = ("network", "start", "stop", "on_damage", "verify")
_ONLY_NODE = ("after", "poll", "datadir", "http")
_PACE = ("rate", "speed", "flat_out")


class _CoreOption(click.Option):
    """Spelled as in Bitcoin Core, with one dash; two are as good, and are not worth a mention."""

    def __init__(self, names: Sequence[str], **keywords: Any) -> None:
        super().__init__([f"-{names[0]}", f"--{names[0]}", names[0]], **keywords)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (f"-{self.name} {self.metavar}", record[1])


class CoreCommand(click.Command):
    """A command with Bitcoin Core's options: one that it does not know is answered with the nearest known name.

    click would take -zmqpubrawblok for -z, -m, -q …
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        problems = []
        for argument in args:
            name = argument.partition("=")[0].lstrip("-")
            if not argument.startswith("-") or not name.lower().removeprefix("no").startswith("zmqpub"):
                continue
            if name.startswith("no") and name[2:] in _CORE_OPTIONS:
                problems.append(ConfigProblem(name, None, f"is for a bitcoin.conf; here, leave {name[2:]} out"))
            elif name not in _CORE_OPTIONS:
                near = difflib.get_close_matches(name.lower(), _CORE_OPTIONS, 1)
                hint = f"did you mean {near[0]}?" if near else f"these are known: {', '.join(_CORE_OPTIONS)}"
                problems.append(ConfigProblem(name, None, f"no known option; {hint}"))
        if problems:
            raise ConfigError(*problems)
        return super().parse_args(ctx, args)


def _bytes(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    match = re.fullmatch(r"([0-9]{1,18}) ?(?:([KMG])(?:i?B)?)?", text or "", re.IGNORECASE)
    if match is None and text is not None:
        raise click.BadParameter(f"{text!r} is no size: bytes, or a number with K, M or G, as in 512M")
    return match and int(match[1]) << 10 * " KMG".index((match[2] or " ").upper())


def _sync(context: click.Context, option: click.Parameter, text: str | None) -> str | float | None:
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def _linger(context: click.Context, option: click.Parameter, text: str) -> float | None:
    if text == "forever":
        return None
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number of seconds nor forever") from None


@dataclass(frozen=True, slots=True)
class Plan:
    """What `zmqpub run` was asked to do."""

    config: PublisherConfig
    settings: dict[str, Any]
    source: Simulated | BlockFiles | BitcoinNode
    speed: float
    ipcbind: tuple[str, ...] = ()
    """Where Bitcoin Core's interfaces are served."""


def source_options(command: _Command) -> _Command:
    """Where events come from, and how fast."""
    return _all(
        command,
        _option(
            "--source",
            "simulated|blocks:DIR|bitcoin-node[:ADDRESS]",
            "A regtest chain made on the spot, block files, or a node over its IPC [simulated].",
            default="simulated",
        ),
        _option("--rate", "N", "simulated: transactions a second [25]; blocks: blocks a second [no limit].", type=float),
        _option("--speed", "FACTOR", "Let the source's time run so many times faster than the clock [1].", type=float),
        click.option("--flat-out", is_flag=True, help="Wait for nothing: publish as fast as possible."),
        _option("--seed", "N", "simulated: another seed, another chain [0].", type=int),
        _option("--block-interval", "SECONDS", "simulated: mean time between blocks [10].", type=float),
        _option("--blocks", "N", "simulated: end after so many blocks [never].", type=int),
        _option("--reorg-rate", "PART", "simulated: which part of the blocks is a reorganization [0.05].", type=float),
        _option("--start", "HEIGHT|HASH", "blocks: the first one to publish [the first there is]."),
        _option("--stop", "HEIGHT|HASH", "blocks: the last one to publish [the last there is]."),
        _option("--network", "NAME", "blocks: main, testnet3, testnet4, signet or regtest [as the files say]."),
        _option("--on-damage", "skip|fail", "blocks: pass over a damaged record, or end there [skip]."),
        click.option("--verify", is_flag=True, help="blocks: check every merkle root, too; slower."),
        _core_option("datadir", "DIR", "bitcoin-node: its data directory, where -chain has its socket [as Bitcoin Core has it]."),
        _option("--http", "URL", "bitcoin-node: its HTTP server, for a node whose IPC has no JSON-RPC (v30, v31)."),
        _option("--after", "HASH", "bitcoin-node: begin after this block [with what is new]."),
        _option("--poll", "SECONDS", "bitcoin-node: between two looks at its mempool [0.05].", type=float),
        _option("--wait-subscribers", "N", "Begin when so many subscribers are connected [0].", type=int, default=0),
    )


def notifier_options(command: _Command) -> _Command:
    """Bitcoin Core's options, with one dash or two, and its configuration file."""
    options = []
    for topic in Topic:
        options.append(_core_option(topic.option, "ADDRESS", f"Publish {topic} at this address; repeatable.", multiple=True))
        options.append(_core_option(topic.hwm_option, "N", f"The high-water mark of {topic} in messages [1000].", multiple=True))
    return _all(
        command,
        *options,
        _core_option(REPLAY_OPTION, "ADDRESS", "Let subscribers ask at this address for what they missed.", multiple=True),
        _core_option("ipcbind", "unix[:PATH]", "Serve Bitcoin Core's IPC interfaces there; repeatable.", multiple=True),
        _core_option("conf", "FILE", "Take the zmqpub options of a bitcoin.conf instead."),
        _core_option("chain", "NAME", "With -conf: whose section applies [as the file says]; with bitcoin-node: whose socket [main]."),
    )


def setting_options(command: _Command) -> _Command:
    """What zmqpub adds to Bitcoin Core's options."""
    return _all(
        command,
        _option("--journal-bytes", "SIZE", "Bound of the queue: bytes, or a number with K, M or G [256M].", callback=_bytes),
        _option("--journal-path", "FILE", "Keep what was published in this file of that size, which outlives the process."),
        _option("--journal-sync", "none|event|SECONDS", "What of it a loss of power may take [none].", callback=_sync),
        _option("--journal-restart", "continue|new_epoch", "Go on with the counters of the file, or begin at 0 [continue]."),
        _option("--on-full", "wait|drop", "At that bound wait for room, or drop the oldest events [wait]."),
        _option("--stall-timeout", "SECONDS", "A subscriber that takes nothing for so long is slow [5].", type=float),
        _option("--max-lag", "SECONDS", "One that holds up its address for so long is slow, too [30].", type=float),
        _option("--slow-subscriber", "disconnect|drop|wait", "What happens to a slow subscriber [disconnect]."),
        _option(
            "--linger",
            "SECONDS|forever",
            f"At the end, how long to wait for what is on its way [{DEFAULT_LINGER:g}].",
            default=f"{DEFAULT_LINGER:g}",
            callback=_linger,
        ),
    )


def _option(name: str, metavar: str, description: str, **keywords: Any) -> Callable[[Any], Any]:
    return click.option(name, metavar=metavar, help=description, **keywords)


def _core_option(name: str, metavar: str, description: str, **keywords: Any) -> Callable[[Any], Any]:
    return click.option(name, cls=_CoreOption, metavar=metavar, help=description, **keywords)


def _all(command: _Command, *options: Callable[[Any], Any]) -> _Command:
    """``command`` with ``options``, which its help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def make_plan(given: Mapping[str, Any], on_progress: OnProgress) -> Plan:
    """ConfigError with everything that is wrong; SourceError where a directory is not what it should be."""
    problems: list[ConfigProblem] = []

    def attempt(make: Callable[[], _Made]) -> _Made | None:
        try:
            return make()
        except ConfigError as error:
            problems.extend(error.problems)
            return None

    config = attempt(lambda: _config(given))
    settings = {name: given[name] for name in _SETTINGS if given[name] is not None or name == "linger"}
    attempt(lambda: _own_names(lambda: parse_settings(settings)))
    speed = attempt(lambda: _speed(given))
    source = attempt(lambda: _own_names(lambda: _source(given, on_progress)))
    if given["wait_subscribers"] < 0:
        problems.append(ConfigProblem("--wait-subscribers", str(given["wait_subscribers"]), "expected 0 or more"))
    bound: list[NotifierConfig | ReplayConfig] = [*config.notifiers] if config else []
    if config and config.replay:
        bound.append(config.replay)
    for one in bound:
        if one.endpoint.startswith("inproc:"):
            message = "inproc exists within one process only; nobody else could listen to it"
            problems.append(ConfigProblem(one.option, one.address, message, one.where))
    if problems or config is None or speed is None or source is None:
        raise ConfigError(*problems)
    return Plan(config, settings, source, speed, tuple(given["ipcbind"]))


def _own_names(make: Callable[[], _Made]) -> _Made:
    """Let problems with keywords be told in the names of the options that they came from."""
    try:
        return make()
    except ConfigError as error:
        problems = []
        for problem in error.problems:
            name = "rate" if problem.option == "transactions_per_second" else problem.option
            problems.append(problem._replace(option=f"--{name.replace('_', '-').lstrip('-')}"))
        raise ConfigError(*problems) from None


def _config(given: Mapping[str, Any]) -> PublisherConfig:
    written = {name: list(given[name]) for name in _CORE_OPTIONS if given[name]}
    conf, chain = given["conf"], given["chain"]
    if conf is None:
        if chain is not None and not _is_node(given["source"]):
            raise ConfigError(ConfigProblem("-chain", chain, "chooses a section of a bitcoin.conf: give -conf, too"))
        if not any(topic.option in written for topic in Topic):
            written.update({topic.option: [DEFAULT_ADDRESS] for topic in Topic})
        return parse_options(written)
    if written:
        message = "the file of -conf has the notifiers: give one or the other"
        raise ConfigError(*(ConfigProblem(f"-{name}", None, message) for name in written))
    config = read_conf(conf, chain)
    if not config.notifiers:
        raise ConfigError(ConfigProblem("-conf", conf, f"has no zmqpub option for chain {config.chain}: nothing to publish"))
    return config


def _speed(given: Mapping[str, Any]) -> float:
    speed: float | None = given["speed"]
    if given["flat_out"]:
        if speed is not None:
            raise ConfigError(ConfigProblem("--speed", f"{speed:g}", "conflicts with --flat-out: give one or the other"))
        return math.inf
    if speed is not None and not speed > 0:
        raise ConfigError(ConfigProblem("--speed", f"{speed:g}", "expected more than 0"))
    return 1.0 if speed is None else speed


def _is_node(source: str) -> bool:
    return source.partition(":")[0] == NODE_SOURCE


def _source(given: Mapping[str, Any], on_progress: OnProgress) -> Simulated | BlockFiles | BitcoinNode:
    text = given["source"]
    kind, colon, place = text.partition(":")
    own = {"simulated": _ONLY_SIMULATED, "blocks": _ONLY_BLOCKS, NODE_SOURCE: _ONLY_NODE}
    if kind not in own or (kind != NODE_SOURCE and bool(colon) != (kind == "blocks")):
        near = difflib.get_close_matches(kind, own, 1)
        hint = f"; did you mean {'blocks:DIR' if near == ['blocks'] else near[0]}?" if near else ""
        raise ConfigError(ConfigProblem("--source", text, f"expected simulated, blocks:DIR or bitcoin-node[:ADDRESS]{hint}"))
    if kind == "blocks" and not place:
        raise ConfigError(ConfigProblem("--source", text, "a directory is missing: blocks:DIR"))
    problems = [
        ConfigProblem(f"--{name.replace('_', '-')}", None, f"is for --source {'blocks:DIR' if other == 'blocks' else other} only")
        for other, names in own.items()
        for name in names
        if other != kind and given[name] not in (None, False)
    ]
    if kind == NODE_SOURCE:
        message = "a node has a time of its own: it is not for --source bitcoin-node"
        problems += [ConfigProblem(f"--{name.replace('_', '-')}", None, message) for name in _PACE if given[name] not in (None, False)]
    if problems:
        raise ConfigError(*problems)
    if kind == NODE_SOURCE:
        keywords = {name: given[name] for name in ("http", "after", "poll") if given[name] is not None}
        return node_source(place or "unix", given["datadir"], given["chain"], **keywords)
    keywords = {name: given[name] for name in own[kind] if given[name] is not None}
    if kind == "blocks":
        return BlockFiles(place, rate=given["rate"], on_progress=on_progress, **keywords)
    if given["rate"] is not None:
        keywords["transactions_per_second"] = given["rate"]
    return Simulated(**keywords)
