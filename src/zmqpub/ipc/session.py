"""What the clients for threads and for asyncio have in common: a connection by number, objects by number, and what a call is made of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from zmqpub.errors import ConfigError, ConfigProblem, DestroyedError, DisconnectedError
from zmqpub.ipc.backoff import Reconnect
from zmqpub.ipc.codec import Operation
from zmqpub.ipc.connection import Opener
from zmqpub.ipc.loop import KjLoop
from zmqpub.ipc.process import UnixProcess
from zmqpub.ipc.wire import Facts

if TYPE_CHECKING:
    from zmqpub.rpc.http_transport import HttpTransport

__all__ = [
    "DEADLINE",
    "MAX_CALLS",
    "MAX_MESSAGE_BYTES",
    "Handle",
    "Session",
    "checked_deadline",
    "close_link",
    "opener",
    "reconnect_settings",
]

DEADLINE: Final = 30.0
MAX_MESSAGE_BYTES: Final = 64 << 20
"""What Bitcoin Core takes and sends at most."""
MAX_CALLS: Final = 16_384


class Session:
    """A connection, from outside of the loop."""

    def __init__(self, kj: KjLoop, number: int, facts: Facts, deadline: float) -> None:
        self.kj = kj
        self.number = number
        """Of the connection."""
        self.facts = facts
        self.deadline = deadline
        self.closed = False
        self.cleanups: list[Callable[[], None]] = []
        self.http: HttpTransport | None = None
        """For what the peer's IPC does not have."""

    def use_http(self, http: HttpTransport | None) -> None:
        self.http = http
        if http is not None:
            self.cleanups.append(http.close)

    def clean_up(self) -> None:
        while self.cleanups:
            self.cleanups.pop()()

    def limit(self, timeout: float | None) -> float | None:
        """Seconds after which a call is given up, None for never."""
        if timeout is None:
            timeout = self.deadline
        elif not timeout >= 0:
            raise ValueError(f"timeout: expected a number of seconds, 0 or more, got {timeout!r}")
        return None if timeout == math.inf else timeout

    def limit_of_wait(self, timeout: float | None) -> float | None:
        """… a call that waits for so many seconds in the peer."""
        return None if timeout is None or timeout == math.inf or self.deadline == math.inf else timeout + self.deadline

    def gave_up(self, limit: float | None) -> str:
        trouble = f"; connecting again failed: {self.facts.trouble}" if self.facts.trouble else ""
        return f"no answer within {limit:g} s{trouble}"

    def __del__(self) -> None:
        if not self.closed and not self.kj.forked:
            self.closed = True
            self.kj.post(close_link, self.kj, self.number)
            self.clean_up()
            warnings.warn(f"the connection to {self.facts.address} was not closed", ResourceWarning, stacklevel=2)


class Handle:
    """An object of the peer's, by its number."""

    _interface = ""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number
        self._destroyed = False
        self._cleanups: list[Callable[[], None]] = []

    @property
    def address(self) -> str:
        """The peer's, in its canonical form."""
        return self._session.facts.address

    def add_cleanup(self, cleanup: Callable[[], None]) -> None:
        """Call ``cleanup`` once this object is destroyed, closed or gone, in whatever thread that happens."""
        self._cleanups.append(cleanup)

    def _check(self, operation: Operation) -> None:
        session = self._session
        if session.closed:
            raise DisconnectedError(session.facts.address, operation.interface, operation.method, "the connection was closed")
        if self._destroyed:
            raise DestroyedError(session.facts.address, operation.interface, operation.method, "the object was destroyed")
        session.kj.check()

    def _clean_up(self) -> None:
        while self._cleanups:
            self._cleanups.pop()()

    def __repr__(self) -> str:
        state = "destroyed" if self._destroyed else "closed" if self._session.closed else "open"
        return f"<{type(self).__name__} of {self.address}, {state}>"

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is None:
            return
        if self._number and not self._destroyed and not session.closed:
            self._destroyed = True
            session.kj.post(_release, session.kj, session.number, self._number)
        self._clean_up()


def opener(address: str, data_dir: Any, allow_other_owner: bool) -> tuple[str, Opener]:
    """The canonical address, and what connects to it. Raises IpcAddressError."""
    from zmqpub.ipc.address import canonical, parse_address

    path = parse_address(address, data_dir)
    process = UnixProcess()

    def connect(timeout: float) -> Any:
        return process.connect(None, "bitcoin-node", f"unix:{path}", allow_other_owner=allow_other_owner, timeout=timeout)[0]

    return canonical(path), connect


def reconnect_settings(reconnect: bool | Reconnect) -> Reconnect | None:
    if isinstance(reconnect, Reconnect):
        return reconnect
    return Reconnect() if reconnect else None


def checked_deadline(deadline: float | None, max_message_bytes: int) -> float:
    problems = []
    if deadline is not None and not deadline > 0:
        problems.append(ConfigProblem("deadline", str(deadline), "expected more than 0 seconds"))
    if not 8192 <= max_message_bytes <= 1 << 32:
        problems.append(ConfigProblem("max_message_bytes", str(max_message_bytes), "expected 8192 to 4294967296 bytes"))
    if problems:
        raise ConfigError(*problems)
    return math.inf if deadline is None else deadline


# ---- in the loop ----


def close_link(kj: KjLoop, number: int) -> None:
    link = kj.connections.get(number)
    if link is not None:
        link.close()


def _release(kj: KjLoop, number: int, target: int) -> None:
    link = kj.connections.get(number)
    if link is not None:
        link.release(target)
