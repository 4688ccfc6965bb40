"""The smallest object to serve."""

from __future__ import annotations

from zmqpub.ipc.handling import inline

__all__ = ["EchoServer"]


class EchoServer:
    """A `zmqpub.interfaces.Echo`."""

    @inline
    def echo(self, echo: str, /) -> str:
        return echo
