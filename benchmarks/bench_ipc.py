"""What does zmqpub's IPC client add to a call, compared with pycapnp alone?

Calls over a unix socket to a server in another process; seconds are the median of a turn's calls, and for calls in flight at once the
turn's time divided by their number.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any

import capnp
import pytest
from contest import Outcome, Turn, interleave, record
from ipc_servers import SERVERS
from pytest_benchmark.fixture import BenchmarkFixture

from zmqpub import ipc
from zmqpub.ipc import schema

CALLS = 1500
IN_FLIGHT = 100
BATCHES = 15
ROUNDS = 5

Call = Callable[[], Awaitable[Any]]


async def _latency(call: Call) -> Turn:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        await call()
        times.append(time.perf_counter() - start)
    return Turn([statistics.median(times[100:])])


async def _throughput(call: Call) -> Turn:
    times = []
    for _ in range(BATCHES):
        start = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
        times.append((time.perf_counter() - start) / IN_FLIGHT)
    return Turn([statistics.median(times[2:])])


# ---- contenders ----


def _bare(path: str, question: str, measure: Callable[[Call], Awaitable[Turn]]) -> Turn:
    """As one writes it with pycapnp; the same JSON goes in and out."""
    module = schema.load()

    async def main() -> Turn:
        stream = await capnp.AsyncIoStream.create_unix_connection(path)
        client = capnp.TwoPartyClient(stream)
        init = client.bootstrap().cast_as(module.Init)
        threads = (await init.construct()).threadMap
        context = module.Context.new_message(thread=(await threads.makeThread("bench")).result)
        echo, rpc = (await init.makeEcho(context)).result, (await init.makeRpc(context)).result
        numbers = itertools.count(1)

        async def call_echo() -> str:
            return (await echo.echo(context, "hello")).result  # type: ignore[no-any-return]

        async def call_rpc() -> Any:
            request = json.dumps({"jsonrpc": "2.0", "id": next(numbers), "method": "getblockcount", "params": []})
            return json.loads((await rpc.executeRpc(context, request, "", "")).result)["result"]

        turn = await measure(call_echo if question == "echo" else call_rpc)
        stream.close()
        return turn

    return asyncio.run(capnp.run(main()))


def _asyncio(path: str, question: str, measure: Callable[[Call], Awaitable[Turn]]) -> Turn:
    async def main() -> Turn:
        async with ipc.connect_async(f"unix:{path}") as init:
            if question == "echo":
                echo = await init.make_echo()
                return await measure(lambda: echo.echo("hello"))
            rpc = await init.make_rpc()
            return await measure(lambda: rpc.execute("getblockcount"))

    return asyncio.run(main())


def _threads(path: str, question: str, measure: object) -> Turn:
    with ipc.connect(f"unix:{path}") as init:
        call: Callable[[], Any] = partial(init.make_echo().echo, "hello")
        if question == "execute":
            call = partial(init.make_rpc().execute, "getblockcount")
        times = []
        for _ in range(CALLS):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return Turn([statistics.median(times[100:])])


CONTENDERS = {"pycapnp alone": _bare, "zmqpub asyncio": _asyncio, "zmqpub in threads": _threads}
SERVED = pytest.mark.parametrize("server", SERVERS)


@cache
def outcomes(server: str, question: str, in_flight: bool) -> dict[str, Outcome]:
    path = SERVERS[server]()
    contenders = {who: contender for who, contender in CONTENDERS.items() if not (in_flight and contender is _threads)}
    measure = _throughput if in_flight else _latency
    return interleave({who: partial(contender, path, question, measure) for who, contender in contenders.items()}, ROUNDS)


def _ratio(found: dict[str, Outcome], contender: str) -> float:
    return found[contender].median / found["pycapnp alone"].median


@SERVED
@pytest.mark.parametrize("contender", CONTENDERS)
def test_echo(benchmark: BenchmarkFixture, server: str, contender: str) -> None:
    found = outcomes(server, "echo", False)
    record(benchmark, "IPC echo", server, contender, found[contender], of_pycapnp_alone=_ratio(found, contender))


@SERVED
@pytest.mark.parametrize("contender", CONTENDERS)
def test_execute(benchmark: BenchmarkFixture, server: str, contender: str) -> None:
    found = outcomes(server, "execute", False)
    record(benchmark, 'IPC execute("getblockcount")', server, contender, found[contender], of_pycapnp_alone=_ratio(found, contender))


@SERVED
@pytest.mark.parametrize("contender", [who for who in CONTENDERS if who != "zmqpub in threads"])
def test_echoes_in_flight(benchmark: BenchmarkFixture, server: str, contender: str) -> None:
    found = outcomes(server, "echo", True)
    record(benchmark, f"IPC, {IN_FLIGHT} echoes in flight", server, contender, found[contender], of_pycapnp_alone=_ratio(found, contender))
