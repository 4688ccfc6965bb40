"""A real publisher's replay endpoint, asked through a Channel: what was lost comes back as it was sent, and fits what is live."""

from __future__ import annotations

import contextlib
import itertools

import zmq
from listening import address_of, everything, wait_for
from raw_publisher import ALL, messages, receiving, take_count
from synthetic import block, transaction

from zmqpub import Publisher, RawBlock
from zmqpub._fast import Batch, Channel, Receiver
from zmqpub.replay.protocol import (
    HelloAnswer,
    HelloRequest,
    RangeAnswer,
    RangeRequest,
    RangeStart,
    pack_request,
    unpack_answer,
)
from zmqpub.wire import Topic

_ids = itertools.count(1)


def hello(channel: Channel, receiver: Receiver) -> HelloAnswer:
    channel.send(pack_request(HelloRequest(next(_ids))))
    answer = channel.receive(10, receiver, 0, ALL)
    assert answer is not None
    header, frames, batch = answer
    assert batch is None
    told = unpack_answer(header, frames)
    assert isinstance(told, HelloAnswer)
    return told


def ranged(channel: Channel, receiver: Receiver, request: RangeRequest) -> tuple[RangeAnswer, Batch]:
    channel.send(pack_request(request))
    answer = channel.receive(10, receiver, 0, ALL)
    assert answer is not None
    header, _frames, batch = answer
    assert batch is not None
    assert batch.malformed is None
    told = unpack_answer(header)
    assert isinstance(told, RangeAnswer)
    return told, batch


def test_all_that_a_publisher_published_before_it_was_listened_to() -> None:
    with zmq.Context() as context, Publisher(everything() | {"zmqpubreplay": "tcp://127.0.0.1:*"}) as publisher:
        one = block(7, 300)
        for i in range(200):
            publisher.transaction_added_to_mempool(transaction(i), i + 1)
        publisher.block_connected(one)
        publisher.updated_block_tip(one)
        publisher.flush(10)
        address = address_of(publisher)
        with receiving(address, context=context) as receiver, contextlib.ExitStack() as stack:
            assert publisher.replay_address is not None
            channel = Channel(publisher.replay_address, False, context)
            stack.callback(channel.close)
            epoch = hello(channel, receiver).epochs[-1]
            starts = tuple(RangeStart(notifier.id, 0) for notifier in epoch.notifiers)
            told, batch = ranged(channel, receiver, RangeRequest(epoch.epoch, starts, request_id=next(_ids)))
            assert not told.more
            index = {notifier.id: list(Topic).index(notifier.topic) for notifier in epoch.notifiers}
            for part in told.notifiers:
                assert batch.spans[index[part.notifier]] == (part.first, part.next, True)
            repaired = messages(batch)
            assert [m.counter for m in repaired if m.topic is Topic.RAWTX] == list(range(500))
            assert isinstance(repaired[-1], RawBlock)
            assert repaired[-1].block.txids == one.txids
            # What is live goes on from there.
            wait_for(lambda: sum(notifier.wanted for notifier in publisher.stats().notifiers) == 5)
            publisher.updated_block_tip(one)
            live = messages(take_count(receiver, 2))
            assert [(m.counter, m.repaired) for m in live] == [(1, False), (1, False)]
