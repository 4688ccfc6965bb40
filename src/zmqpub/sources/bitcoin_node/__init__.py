"""Events of a running Bitcoin Core node, over its IPC alone: neither ZeroMQ nor HTTP is needed in the node."""

from zmqpub.sources.bitcoin_node.calls import NodeConnection, NodeMining, NodeRpc
from zmqpub.sources.bitcoin_node.counts import NodeCounts
from zmqpub.sources.bitcoin_node.source import Beginning, BitcoinNode

__all__ = ["Beginning", "BitcoinNode", "NodeConnection", "NodeCounts", "NodeMining", "NodeRpc"]
