"""Who receives on asyncio: as receivers.py, each in an event loop of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager

import zmq
import zmq.asyncio
from receivers import Receive

from zmqpub import AsyncSubscriber, Connected

_SETTLE = 0.2
"""Seconds between the connection and the moment when the publisher surely knows the subscription."""

_AsyncReceive = Callable[[int], Awaitable[float]]


@asynccontextmanager
async def _iterated(address: str, topic: str) -> AsyncIterator[_AsyncReceive]:
    """zmqpub.AsyncSubscriber, iterated over."""

    async def receive(count: int) -> float:
        got, began = 0, 0.0
        async for _ in stream:
            if not got:
                began = time.perf_counter()
            got += 1
            if got == count:
                break
        return time.perf_counter() - began

    async with AsyncSubscriber(address, topics=[topic]) as stream:
        assert isinstance(await stream.recv(10), Connected)
        await asyncio.sleep(_SETTLE)
        yield receive


@asynccontextmanager
async def _batches(address: str, topic: str) -> AsyncIterator[_AsyncReceive]:
    """zmqpub.AsyncSubscriber, lists of notifications."""

    async def receive(count: int) -> float:
        got = len(await stream.recv_batch(1024))
        began = time.perf_counter()
        while got < count:
            got += len(await stream.recv_batch(1024))
        return time.perf_counter() - began

    async with AsyncSubscriber(address, topics=[topic]) as stream:
        assert isinstance(await stream.recv(10), Connected)
        await asyncio.sleep(_SETTLE)
        yield receive


@asynccontextmanager
async def _zmq_asyncio(address: str, topic: str) -> AsyncIterator[_AsyncReceive]:
    """A loop over zmq.asyncio's recv_multipart; the frames are not looked at."""

    async def receive(count: int) -> float:
        await sub.recv_multipart()
        began = time.perf_counter()
        for _ in range(count - 1):
            _topic, _body, _counter = await sub.recv_multipart()
        return time.perf_counter() - began

    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as sub:
        sub.rcvhwm = 0
        sub.linger = 0
        sub.subscribe(topic)
        sub.connect(address)
        await asyncio.sleep(_SETTLE + 0.1)
        yield receive


def _in_loop(make: Callable[[str, str], AbstractAsyncContextManager[_AsyncReceive]]) -> Callable[..., AbstractContextManager[Receive]]:
    """``make`` for who knows nothing of asyncio."""

    @contextmanager
    def made(address: str, topic: str) -> Iterator[Receive]:
        with asyncio.Runner() as runner:
            manager = make(address, topic)
            receive = runner.run(manager.__aenter__())
            try:
                yield lambda count: runner.run(_await(receive, count))
            finally:
                runner.run(manager.__aexit__(None, None, None))

    return made


async def _await(receive: _AsyncReceive, count: int) -> float:
    return await receive(count)


iterated = _in_loop(_iterated)
batches = _in_loop(_batches)
zmq_asyncio = _in_loop(_zmq_asyncio)
