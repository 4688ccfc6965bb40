"""Bitcoin's notification plane for Python: Bitcoin Core's ZeroMQ notifications, published fast and without loss."""

from zmqpub._build import build_block, build_transaction, merkle_root, mine, serialize_header, witness_commitment
from zmqpub._fast import Block, Transaction, sha256_backend, sha256d
from zmqpub.config import Settings
from zmqpub.errors import (
    BindError,
    ClosedError,
    ConfigError,
    ConfigProblem,
    DamagedRecordError,
    DecodeError,
    ForkedError,
    SourceError,
    UnsupportedError,
    ZmqPubError,
)
from zmqpub.primitives import BlockHeader, TxIn, TxOut
from zmqpub.publisher import ActiveNotifier, Publisher
from zmqpub.stats import Stats
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
    "DamagedRecordError",
    "DecodeError",
    "ForkedError",
    "Notification",
    "Publisher",
    "SequenceBody",
    "SequenceLabel",
    "Settings",
    "SourceError",
    "Stats",
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
