"""What is said over a socket, as Bitcoin Core's ipc::Protocol has it. `zmqpub.ipc.CapnpProtocol` is the one that there is."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

__all__ = ["Protocol"]


class Protocol(ABC):
    """How objects are called through a socket. Any thread may call any method; who hands a socket over does not use it any more."""

    @abstractmethod
    def connect(self, sock: socket.socket, address: str) -> Any:
        """The peer's Init. ``sock``: connected; ``address``: canonical, for errors."""

    @abstractmethod
    def listen(self, sock: socket.socket, init: object, address: str) -> None:
        """Serve ``init`` to whoever connects to ``sock``, which is bound and listens, in the background until close()."""

    @abstractmethod
    def serve(self, init: object, sock: socket.socket, address: str) -> None:
        """Serve ``init`` to the one peer at the other end of ``sock``; returns when the peer has gone."""

    @abstractmethod
    def disconnect_incoming(self) -> None:
        """End the connections that listen() accepted and that are still there; new ones are accepted."""

    @abstractmethod
    def add_cleanup(self, target: object, cleanup: Callable[[], None]) -> None:
        """Call ``cleanup`` once ``target``, an object that connect() or its methods returned, is closed or gone."""

    @property
    @abstractmethod
    def context(self) -> Any:
        """What the embedding program wants to find again from within calls; nothing of the protocol's own."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening, end all connections, and remove the sockets' files."""
