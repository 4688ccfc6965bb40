"""`zmqpub ipc`: ask a node of Bitcoin Core, over its IPC."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import click

from zmqpub.cli.codes import ExitCode
from zmqpub.cli.nodes import connect
from zmqpub.cli.screen import print_error
from zmqpub.interfaces import BlockRef

__all__ = ["ipc"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(short_help="Ask a node over its IPC: echo, tip, wait, rpc.")
def ipc() -> None:
    """Ask a node of Bitcoin Core, or whatever serves its interfaces, over a unix socket.

    ADDRESS is unix:PATH, or unix for node.sock in the chain's directory. A relative PATH is below that directory.
    """


def _utf8(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Not where it came as other bytes than those of the terminal's encoding."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{text!r} is no UTF-8") from None
    return text


def _seconds(context: click.Context, option: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and math.isnan(seconds):
        raise click.BadParameter(f"{seconds} is no number of seconds")
    return seconds


def _peer_options(command: _Command) -> _Command:
    for option in (
        click.option(
            "--deadline", type=click.FloatRange(min=0.01), default=30.0, metavar="SECONDS", help="Give up an answer after so long [30]."
        ),
        click.option("--json", "as_json", is_flag=True, help="A JSON object instead of words."),
        click.option("-chain", "--chain", "chain", metavar="NAME", help="Whose directory: main, test, testnet4, signet, regtest [main]."),
        click.option("-datadir", "--datadir", "datadir", metavar="DIR", help="Bitcoin Core's data directory [as Bitcoin Core has it]."),
    ):
        command = option(command)
    return click.argument("address", metavar="ADDRESS")(command)


def _print(text: str) -> None:
    print(text)
    sys.stdout.flush()


def _print_tip(tip: BlockRef, as_json: bool) -> None:
    _print(json.dumps({"hash": tip.hash.hex(), "height": tip.height}) if as_json else f"{tip.hash.hex()} {tip.height}")


@ipc.command()
@_peer_options
@click.argument("text", default="", callback=_utf8)
@click.option("--count", type=click.IntRange(min=1), default=1, metavar="N", help="So many times [1].")
def echo(address: str, text: str, count: int, as_json: bool, deadline: float, datadir: str | None, chain: str | None) -> int:
    """Let the peer send TEXT back: is somebody there, and how far away?

    Prints what came back and the median of the round trips. Exit code 5 when something else comes back.
    """
    with connect(address, datadir, chain, deadline=deadline) as init, init.make_echo() as peer:
        took = []
        for _ in range(count):
            start = monotonic()
            back = peer.echo(text)
            took.append(monotonic() - start)
            if back != text:
                print_error(f"{init.address}: sent {text!r}, received {back!r}")
                return ExitCode.MALFORMED
        median = sorted(took)[len(took) // 2]
        known = {"echo": back, "address": init.address, "version": init.version.name.lower(), "count": count, "seconds": round(median, 6)}
        _print(json.dumps(known) if as_json else f"{back}\n{init.address} ({known['version']}): {1e6 * median:.0f} us")
    return ExitCode.OK


@ipc.command()
@_peer_options
def tip(address: str, as_json: bool, deadline: float, datadir: str | None, chain: str | None) -> int:
    """Print the hash and the height of the last block."""
    with connect(address, datadir, chain, deadline=deadline) as init:
        found = init.make_mining().get_tip()
        if found is None:
            print_error(f"{init.address}: the node has no block yet")
            return ExitCode.FAILURE
        _print_tip(found, as_json)
    return ExitCode.OK


@ipc.command()
@_peer_options
@click.argument("tip", required=False, metavar="[HASH]")
@click.option("--timeout", type=click.FloatRange(min=0), callback=_seconds, metavar="SECONDS", help="End after so long [never].")
@click.option("--follow", is_flag=True, help="Go on with the next one, until interrupted or --timeout.")
def wait(
    address: str,
    tip: str | None,
    timeout: float | None,
    follow: bool,
    as_json: bool,
    deadline: float,
    datadir: str | None,
    chain: str | None,
) -> int:
    """Wait for a block, and print its hash and height: until the tip is not HASH, by default the present one.

    Exit code 8 when --timeout passed first. Blocks that come in quick succession may be skipped: it is the tip that is waited for.
    """
    try:
        known = None if tip is None else bytes.fromhex(tip)
    except ValueError:
        known = b""
    if known is not None and len(known) != 32:
        raise click.UsageError(f"{tip!r} is no block hash: expected 64 hex digits")
    end = None if timeout is None else monotonic() + timeout
    with connect(address, datadir, chain, deadline=deadline) as init:
        mining = init.make_mining()
        while known is None:
            now = mining.get_tip()
            known = bytes(32) if now is None else now.hash
        while True:
            left = None if end is None else max(end - monotonic(), 0.0)
            found = mining.wait_tip_changed(known, timeout=left)
            if found is None:
                print_error(f"{init.address}: the node shuts down")
                return ExitCode.PEER
            if found.hash == known:
                if left is None or end is None or monotonic() < end:
                    continue
                if follow:
                    return ExitCode.OK
                print_error(f"no other tip than {known.hex()} within {timeout:g} seconds")
                return ExitCode.TIMEOUT
            _print_tip(found, as_json)
            if not follow:
                return ExitCode.OK
            known = found.hash


@ipc.command(context_settings={"ignore_unknown_options": True})
@_peer_options
@click.argument("method")
@click.argument("params", nargs=-1, type=click.UNPROCESSED)
@click.option("--wallet", callback=_utf8, metavar="NAME", help="Ask this wallet.")
@click.option("--http", metavar="URL", help="The node's HTTP server, for one whose IPC has no JSON-RPC (v30, v31).")
def rpc(
    address: str,
    method: str,
    params: tuple[str, ...],
    wallet: str | None,
    http: str | None,
    as_json: bool,
    deadline: float,
    datadir: str | None,
    chain: str | None,
) -> int:
    """Call METHOD of the node's JSON-RPC and print its result: text as it is, all else as JSON.

    PARAMS are JSON; what is no JSON is taken as text, as hashes are. With --json text is printed as JSON, too. With --http
    what IPC does not have goes over HTTP, with the node's cookie, or with user and password of the URL.
    """
    with connect(address, datadir, chain, deadline=deadline, http=http) as init:
        result = init.make_rpc().execute(method, *map(_parameter, params), wallet=wallet)
    if isinstance(result, str) and not as_json:
        _print(result)
    else:
        _print(json.dumps(result, indent=None if as_json else 2, default=str))
    return ExitCode.OK


def _parameter(text: str) -> Any:
    """JSON, or else text. A hash can look like a number: what is too long for one is text."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except ValueError:
        return text
    return text if isinstance(value, int | float) and not isinstance(value, bool) and len(text) > 30 else value


def _finite(text: str) -> float:
    """Python has numbers that JSON has not: NaN, Infinity, and what 1e999 comes to."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
