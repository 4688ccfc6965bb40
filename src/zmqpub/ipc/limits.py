"""How much a server gives to its clients."""

from __future__ import annotations

from dataclasses import dataclass, fields

from zmqpub.errors import ConfigError, ConfigProblem

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What goes beyond is refused with an error of type overloaded; the server itself goes on. `ConfigError` where one makes no sense."""

    max_connections: int = 64
    """At once. One more is told so at its first call, and closed."""
    max_message_bytes: int = 64 << 20
    """Of a request, whose connection is ended if it is larger, and of an answer, which becomes an error. Bitcoin Core's peers take no
    more than the default."""
    max_calls_in_flight: int = 1_000
    """Of one connection, those that wait for their thread included."""
    max_threads: int = 64
    """That one connection has made, its pool included. Each costs a thread of this process once a method that may block runs in it."""
    max_objects: int = 1_000
    """Echo, Rpc, Mining and block templates that one connection holds at once."""
    handshake_timeout: float = 30.0
    """Seconds until a connection has to have made its first call."""
    message_timeout: float = 30.0
    """Seconds without another byte, after which a message that has begun to arrive ends its connection."""
    grace: float = 5.0
    """Seconds that calls under way have to end when the server closes; those that have not are cancelled."""

    def __post_init__(self) -> None:
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            least = 1_024 if field.name == "max_message_bytes" else 1 if whole else 0
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value >= least:
                problems.append(ConfigProblem(field.name, str(value), f"is not a {'whole ' if whole else ''}number of at least {least}"))
        if problems:
            raise ConfigError(*problems)
