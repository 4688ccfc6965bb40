"""What it takes to test a client of Bitcoin's ZeroMQ notifications without a node: described in docs/testing.md.

FaultyPublisher   real sockets, and every fault that a subscriber has to survive, when a test asks for it
RegtestChain      blocks, reorganizations and a mempool, when a test asks for them
Relay             the network between any publisher and its subscribers: slow, dead, cut off

``zmqpub.pytest_plugin`` is a pytest plugin with fixtures of these; nothing else here needs pytest.
"""

from zmqpub.testing.chain import RegtestChain
from zmqpub.testing.faulty import FaultyPublisher
from zmqpub.testing.relay import Relay

__all__ = ["FaultyPublisher", "RegtestChain", "Relay"]
