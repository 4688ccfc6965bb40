"""A subscriber that comes while the stream runs: from its first message on it has everything, of all its topics, in order."""

from __future__ import annotations

import threading
from itertools import islice, pairwise

import pytest
import zmq
from listening import address_of, everything
from synthetic import transaction

from zmqpub import Publisher

ROUND = {b"hashtx": b"rawtx", b"rawtx": b"sequence", b"sequence": b"hashtx"}


@pytest.mark.slow
def test_its_topics_begin_at_the_same_moment() -> None:
    """Others want ``sequence`` only, so the hashes and raw transactions were not made until it came."""
    stop = threading.Event()
    transactions = [transaction(seed) for seed in range(256)]
    with Publisher(everything()) as publisher, zmq.Context() as context:
        address = address_of(publisher)

        def publish() -> None:
            number = 0
            while not stop.is_set():
                for tx in transactions:
                    publisher.transaction_added_to_mempool(tx, number)
                    number += 1
                publisher.flush()

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            with context.socket(zmq.SUB) as other:
                other.rcvhwm = 0
                other.subscribe(b"sequence")
                other.connect(address)
                for _ in range(150):
                    assert_whole(context, address)
        finally:
            stop.set()
            thread.join()


def assert_whole(context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
    with context.socket(zmq.SUB) as sub:
        sub.rcvtimeo = 10_000
        sub.rcvhwm = 0
        for topic in ROUND:
            sub.subscribe(topic)
        sub.connect(address)
        topics = [topic for topic, _body, _counter in islice(iter(sub.recv_multipart, None), 60)]
    assert all(ROUND[first] == second for first, second in pairwise(topics)), topics
