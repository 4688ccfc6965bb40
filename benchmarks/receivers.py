"""Who receives: each takes a number of messages from an address, and looks at them as its users do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from zmqpub import Topic
from zmqpub._fast import RawBlock, Receiver

_SETTLE = 0.2
"""Seconds between the connection and the moment when the publisher surely knows the subscription."""

Receive = Callable[[int], float]
"""Receive so many messages; seconds from the first to the last."""


@contextmanager
def _receiver(address: str, topic: str) -> Iterator[Receiver]:
    with zmq.Context() as context:
        receiver = Receiver([(address, address, False, 1 << list(Topic).index(Topic(topic)), {})], context=context)
        try:
            receiver.take(10)
            time.sleep(_SETTLE)
            yield receiver
        finally:
            receiver.close()


@contextmanager
def typed(address: str, topic: str) -> Iterator[Receive]:
    """zmqpub's receiver, iterated over."""

    def receive(count: int) -> float:
        batch = receiver.take(10)
        began = time.perf_counter()
        got = 0
        while got < count:
            for _ in batch:
                got += 1
            if got < count:
                batch = receiver.take(10)
        return time.perf_counter() - began

    with _receiver(address, topic) as receiver:
        yield receive


@contextmanager
def typed_lists(address: str, topic: str) -> Iterator[Receive]:
    """zmqpub's receiver, lists of notifications."""

    def receive(count: int) -> float:
        batch = receiver.take(10)
        began = time.perf_counter()
        got = 0
        while got < count:
            got += len(batch.take(1024))
            if got < count and not batch.remaining:
                batch = receiver.take(10)
        return time.perf_counter() - began

    with _receiver(address, topic) as receiver:
        yield receive


@contextmanager
def typed_txids(address: str, topic: str) -> Iterator[Receive]:
    """zmqpub's receiver, the txids of each block listed."""

    def receive(count: int) -> float:
        began = time.perf_counter()
        got = 0
        while got < count:
            for message in receiver.take(10):
                assert isinstance(message, RawBlock)
                assert message.block.txids
                got += 1
        return time.perf_counter() - began

    with _receiver(address, topic) as receiver:
        yield receive


@contextmanager
def subscriber(address: str, topic: str) -> Iterator[Receive]:
    """zmqpub.Subscriber, iterated over."""
    try:
        from zmqpub import Subscriber
    except ImportError as absent:
        pytest.skip(str(absent))

    def receive(count: int) -> float:
        began = 0.0
        for got, _ in enumerate(stream):
            if not got:
                began = time.perf_counter()
            if got == count - 1:
                break
        return time.perf_counter() - began

    with Subscriber(address, topics=[topic], only_notifications=True) as stream:
        time.sleep(_SETTLE + 0.3)
        yield receive


@contextmanager
def _sub(address: str, topic: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.rcvhwm = 0
        sub.linger = 0
        sub.subscribe(topic)
        sub.connect(address)
        time.sleep(_SETTLE + 0.1)
        yield sub


@contextmanager
def pyzmq(address: str, topic: str) -> Iterator[Receive]:
    """A loop over recv_multipart; the frames are not looked at."""

    def receive(count: int) -> float:
        sub.recv_multipart()
        began = time.perf_counter()
        for _ in range(count - 1):
            _topic, _body, _counter = sub.recv_multipart()
        return time.perf_counter() - began

    with _sub(address, topic) as sub:
        yield receive


@contextmanager
def bitcoinlib_txids(address: str, topic: str) -> Iterator[Receive]:
    """pyzmq, and python-bitcoinlib for the txids of each block."""
    core: Any = pytest.importorskip("bitcoin.core")

    def receive(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            _topic, body, _counter = sub.recv_multipart()
            assert [tx.GetTxid() for tx in core.CBlock.deserialize(body).vtx]
        return time.perf_counter() - began

    with _sub(address, topic) as sub:
        yield receive
