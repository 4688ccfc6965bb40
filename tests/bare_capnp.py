"""Bare pycapnp clients, each in a process of its own: what they hold may be freed by their own loop's thread only.

A test module has coroutine functions that take a `Bare`; `bare` runs one of them in a child and gives back what it returned, which
went through JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Scenario = Callable[..., Awaitable[Any]]


class Bare:
    """A connection as a program with nothing but pycapnp makes it."""

    def __init__(self, schema: Any, client: Any, stream: Any) -> None:
        self.schema = schema
        self.client = client
        self.stream = stream
        self.init = client.bootstrap().cast_as(schema.Init)
        self.threads: Any = None

    async def construct(self) -> None:
        self.threads = (await self.init.construct()).threadMap

    async def context(self, name: str = "bare") -> Any:
        """A context with a new thread of the server's."""
        if self.threads is None:
            await self.construct()
        context = self.schema.Context.new_message()
        context.thread = (await self.threads.makeThread(name)).result
        return context

    async def echo(self) -> tuple[Any, Any]:
        context = await self.context()
        return (await self.init.makeEcho(context)).result, context


async def error_of(call: Awaitable[Any]) -> list[str]:
    """Type and description of the exception that a call ends with."""
    import capnp

    try:
        await call
    except capnp.KjException as error:
        return [str(error.type), str(error.description)]
    raise AssertionError("no exception")


async def connected(path: str) -> Bare:
    import capnp

    parser = _parsers.setdefault("parser", capnp.SchemaParser())
    schema = _parsers.get("schema") or parser.load(str(Path(__file__).parents[1] / "src/zmqpub/ipc/zmqpub.capnp"))
    _parsers["schema"] = schema
    stream = await capnp.AsyncIoStream.create_unix_connection(path)
    return Bare(schema, capnp.TwoPartyClient(stream), stream)


_parsers: dict[str, Any] = {}


def start_bare(scenario: Scenario, path: Path | str, *args: Any) -> subprocess.Popen[str]:
    """As `bare`, but returns at once; what the scenario prints comes before its result."""
    command = [sys.executable, __file__, scenario.__module__, scenario.__qualname__, str(path), json.dumps(args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)


def result_of(child: subprocess.Popen[str], timeout: float = 60) -> Any:
    try:
        output, _ = child.communicate(timeout=timeout)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0, child.returncode
    return json.loads(output.splitlines()[-1])


def bare(scenario: Scenario, path: Path | str, *args: Any, timeout: float = 60) -> Any:
    """Run ``scenario(Bare, *args)`` over a new connection to the socket at ``path`` in a process of its own."""
    return result_of(start_bare(scenario, path, *args), timeout)


async def _main() -> None:
    import capnp

    module, function, path, args = sys.argv[1:]
    scenario = getattr(importlib.import_module(module), function)
    async with capnp.kj_loop():
        peer = await connected(path)
        result = await scenario(peer, *json.loads(args))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
