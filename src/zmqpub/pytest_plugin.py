"""A pytest plugin: publishers and chains as fixtures, for whoever tests a client of Bitcoin's ZeroMQ notifications.

Installed with the package and found by pytest itself. Nothing is imported before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from zmqpub import Publisher
    from zmqpub.testing import FaultyPublisher, RegtestChain

__all__ = ["pytest_configure", "zmqpub_chain", "zmqpub_faulty_publisher", "zmqpub_publisher"]

_ANY_PORT: Final = "tcp://127.0.0.1:*"
_LINGER: Final = 5.0


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for --strict-markers and --markers."""
    config.addinivalue_line(
        "markers",
        "zmqpub(options=None, *, seed=0, **settings): what the fixtures of zmqpub are made with: Bitcoin Core's zmqpub options "
        "of the publishers, the seed of the chain, the settings of zmqpub_publisher",
    )


@pytest.fixture
def zmqpub_publisher(request: pytest.FixtureRequest) -> Iterator[Publisher]:
    """A zmqpub.Publisher: by default all five topics at one port of the system's choice, and a replay endpoint at another."""
    from zmqpub import Publisher

    options, settings = _asked_for(request)
    if options is None:
        options = {**_everything(), "zmqpubreplay": _ANY_PORT}
    with Publisher(options, **{"linger": _LINGER, **settings}) as publisher:
        yield publisher


@pytest.fixture
def zmqpub_faulty_publisher(request: pytest.FixtureRequest) -> Iterator[FaultyPublisher]:
    """A zmqpub.testing.FaultyPublisher: by default all five topics at one port of the system's choice."""
    from zmqpub.testing import FaultyPublisher

    options, _ = _asked_for(request)
    with FaultyPublisher(options) as publisher:
        yield publisher


@pytest.fixture
def zmqpub_chain(request: pytest.FixtureRequest) -> RegtestChain:
    """A zmqpub.testing.RegtestChain, told to nobody until its publish_to() is called."""
    from zmqpub.testing import RegtestChain

    marker = request.node.get_closest_marker("zmqpub")
    return RegtestChain(seed=0 if marker is None else marker.kwargs.get("seed", 0))


def _everything() -> dict[str, object]:
    from zmqpub import Topic

    return {topic.option: _ANY_PORT for topic in Topic}


def _asked_for(request: pytest.FixtureRequest) -> tuple[Mapping[str, object] | None, dict[str, Any]]:
    """The marker's options and settings."""
    marker = request.node.get_closest_marker("zmqpub")
    if marker is None:
        return None, {}
    if len(marker.args) > 1:
        raise pytest.UsageError("@pytest.mark.zmqpub takes one mapping of options; settings are keywords")
    settings = {name: value for name, value in marker.kwargs.items() if name not in ("options", "seed")}
    return marker.args[0] if marker.args else marker.kwargs.get("options"), settings
