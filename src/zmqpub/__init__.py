"""Bitcoin's notification plane for Python: Bitcoin Core's ZeroMQ notifications, published fast and without loss."""

from zmqpub._build import build_block, build_transaction, merkle_root, mine, serialize_header, witness_commitment
from zmqpub._fast import Block, Transaction, sha256_backend, sha256d
from zmqpub.config import Settings
from zmqpub.errors import (
    BindError,
    ClosedError,
    ConfigError,
    ConfigProblem,
    CursorError,
    DamagedRecordError,
    DecodeError,
    ForkedError,
    RepairError,
    SourceError,
    SubscriberClosed,
    UnsupportedError,
    ZmqPubError,
)
from zmqpub.primitives import BlockHeader, TxIn, TxOut
from zmqpub.publisher import ActiveNotifier, Publisher
from zmqpub.repair import HeaderInfo, MempoolSnapshot, Repair
from zmqpub.stats import Stats
from zmqpub.stream_events import (
    Connected,
    CounterGap,
    Disconnected,
    Duplicate,
    Lost,
    Malformed,
    MempoolGap,
    Reconnected,
    Reorg,
    Repaired,
    Restart,
    Stale,
    StreamEvent,
)
from zmqpub.wire import Notification, SequenceBody, SequenceLabel, Topic

__version__ = "0.1.0"

__all__ = [
    "ActiveNotifier",
    "BindError",
    "Block",
    "BlockHeader",
    "ClosedError",
    "ConfigError",
    "ConfigProblem",
    "Connected",
    "CounterGap",
    "CursorError",
    "DamagedRecordError",
    "DecodeError",
    "Disconnected",
    "Duplicate",
    "ForkedError",
    "HeaderInfo",
    "Lost",
    "Malformed",
    "MempoolGap",
    "MempoolSnapshot",
    "Notification",
    "Publisher",
    "Reconnected",
    "Reorg",
    "Repair",
    "RepairError",
    "Repaired",
    "Restart",
    "SequenceBody",
    "SequenceLabel",
    "Settings",
    "SourceError",
    "Stale",
    "Stats",
    "StreamEvent",
    "SubscriberClosed",
    "Topic",
    "Transaction",
    "TxIn",
    "TxOut",
    "UnsupportedError",
    "ZmqPubError",
    "build_block",
    "build_transaction",
    "merkle_root",
    "mine",
    "serialize_header",
    "sha256_backend",
    "sha256d",
    "witness_commitment",
]
