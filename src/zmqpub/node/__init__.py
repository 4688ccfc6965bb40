"""What a node is asked over JSON-RPC, answered from the events of a source and the publisher that they were handed to."""

from zmqpub.node.commands import node_commands
from zmqpub.node.view import NodeView

__all__ = ["NodeView", "node_commands"]
