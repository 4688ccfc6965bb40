"""Bitcoin's notification plane for Python: Bitcoin Core's ZeroMQ notifications, published fast and without loss."""

from zmqpub._build import build_block, build_transaction, merkle_root, mine, serialize_header, witness_commitment
from zmqpub._fast import Block, HashBlock, HashTx, RawBlock, RawTx, Received, Sequence, Transaction, sha256_backend, sha256d
from zmqpub.async_subscriber import AsyncSubscriber
from zmqpub.config import Settings
from zmqpub.errors import (
    BindError,
    ClosedError,
    ConfigError,
    ConfigProblem,
    ConnectError,
    CursorError,
    DamagedRecordError,
    DecodeError,
    ForkedError,
    JournalError,
    RepairError,
    SourceError,
    SubscriberClosed,
    UnsupportedError,
    ZmqPubError,
)
from zmqpub.follower import AsyncChainFollower, ChainFollower
from zmqpub.primitives import BlockHeader, TxIn, TxOut
from zmqpub.publisher import ActiveNotifier, Publisher
from zmqpub.receiving.state import SourceState, SubscriberState
from zmqpub.repair import HeaderInfo, MempoolSnapshot, Repair
from zmqpub.replay.snapshot import Snapshot
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
    Refused,
    Reorg,
    Repaired,
    Restart,
    Stale,
    StreamEvent,
)
from zmqpub.subscriber import Subscriber
from zmqpub.subscriber_settings import SubscriberSettings
from zmqpub.wire import Notification, SequenceBody, SequenceLabel, Topic

__version__ = "0.1.0"

__all__ = [
    "ActiveNotifier",
    "AsyncChainFollower",
    "AsyncSubscriber",
    "BindError",
    "Block",
    "BlockHeader",
    "ChainFollower",
    "ClosedError",
    "ConfigError",
    "ConfigProblem",
    "ConnectError",
    "Connected",
    "CounterGap",
    "CursorError",
    "DamagedRecordError",
    "DecodeError",
    "Disconnected",
    "Duplicate",
    "ForkedError",
    "HashBlock",
    "HashTx",
    "HeaderInfo",
    "JournalError",
    "Lost",
    "Malformed",
    "MempoolGap",
    "MempoolSnapshot",
    "Notification",
    "Publisher",
    "RawBlock",
    "RawTx",
    "Received",
    "Reconnected",
    "Refused",
    "Reorg",
    "Repair",
    "RepairError",
    "Repaired",
    "Restart",
    "Sequence",
    "SequenceBody",
    "SequenceLabel",
    "Settings",
    "Snapshot",
    "SourceError",
    "SourceState",
    "Stale",
    "Stats",
    "StreamEvent",
    "Subscriber",
    "SubscriberClosed",
    "SubscriberSettings",
    "SubscriberState",
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
