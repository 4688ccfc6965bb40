"""The pytest plugin, as another project's test suite meets it: in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import zmqpub
from zmqpub import pytest_plugin

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]

USES = """
import pytest
import zmq

import zmqpub
from zmqpub.testing import FaultyPublisher, RegtestChain


def connected(address, context):
    sub = context.socket(zmq.SUB)
    sub.linger, sub.rcvtimeo = 0, 10_000
    sub.subscribe("hashblock")
    sub.connect(address)
    return sub


def test_publisher(zmqpub_publisher, zmqpub_chain):
    notifiers = zmqpub_publisher.active_notifiers()
    assert [notifier.type for notifier in notifiers] == ["pubhashblock", "pubhashtx", "pubrawblock", "pubrawtx", "pubsequence"]
    zmqpub_chain.publish_to(zmqpub_publisher)
    with zmq.Context() as context, connected(notifiers[0].address, context) as sub:
        while not zmqpub_publisher.stats().notifiers[0].wanted:
            pass
        (block,) = zmqpub_chain.mine()
        assert sub.recv_multipart() == [b"hashblock", block.hash, bytes(4)]


def test_faulty_publisher(zmqpub_faulty_publisher):
    assert isinstance(zmqpub_faulty_publisher, FaultyPublisher)
    with zmq.Context() as context, connected(zmqpub_faulty_publisher.address, context) as sub:
        zmqpub_faulty_publisher.wait_for_subscribers(topics=["hashblock"])
        zmqpub_faulty_publisher.gap("hashblock", 2)
        zmqpub_faulty_publisher.publish("hashblock")
        assert sub.recv_multipart()[2] == b"\\2\\0\\0\\0"


@pytest.mark.zmqpub({"zmqpubrawtx": "tcp://127.0.0.1:*"}, seed=5, journal_bytes=1 << 20, linger=0.5)
class TestMarked:
    def test_publisher(self, zmqpub_publisher):
        assert [notifier.type for notifier in zmqpub_publisher.active_notifiers()] == ["pubrawtx"]
        assert zmqpub_publisher.settings.journal_bytes == 1 << 20
        assert zmqpub_publisher.settings.linger == 0.5

    @pytest.mark.zmqpub(options={"zmqpubhashtx": "tcp://127.0.0.1:*"})
    def test_nearest_counts(self, zmqpub_faulty_publisher):
        assert list(zmqpub_faulty_publisher.addresses) == ["hashtx"]

    def test_chain(self, zmqpub_chain):
        assert zmqpub_chain.mine() == RegtestChain(seed=5).mine()
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package under test, wherever a checkout or an environment has it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(Path(zmqpub.__file__).parents[1]), os.environ.get("PYTHONPATH")))))


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    # By name and not by its entry point, which an environment may have of another checkout.
    return pytester.runpytest_subprocess("-p", "no:zmqpub", "-p", "zmqpub.pytest_plugin", "-W", "error", "--strict-markers", *arguments)


def test_fixtures_and_marker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USES)
    run(pytester).assert_outcomes(passed=5)


def test_it_is_found_where_the_package_is_installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its entry point: with metadata beside the package, as an installation has it."""
    metadata = pytester.mkdir("site") / "installed_zmqpub-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-zmqpub\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[pytest11]\nzmqpub = {pytest_plugin.__name__}\n")
    (metadata / "RECORD").write_text("zmqpub/__init__.py,,\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(metadata.parent), os.environ["PYTHONPATH"])))
    pytester.makepyfile(USES)
    pytester.runpytest_subprocess("-W", "error", "--strict-markers").assert_outcomes(passed=5)


def test_it_describes_itself(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("")
    fixtures = run(pytester, "--fixtures").stdout.str()
    for name in ("zmqpub_publisher", "zmqpub_faulty_publisher", "zmqpub_chain"):
        assert f"{name} -- " in fixtures
    run(pytester, "--markers").stdout.fnmatch_lines(["@pytest.mark.zmqpub(options=None, *, seed=0, **settings): *"])


def test_wrong_use_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.zmqpub({}, {})
        def test_two_mappings(zmqpub_publisher): ...

        @pytest.mark.zmqpub({"zmqpubrawblok": "tcp://127.0.0.1:*"})
        def test_unknown_option(zmqpub_faulty_publisher): ...
        """
    )
    result = run(pytester)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*takes one mapping of options*", "*zmqpubrawblok*did you mean zmqpubrawblock?*"])


def test_a_publisher_is_closed_when_its_test_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        made = []

        def test_fails(zmqpub_publisher):
            made.append(zmqpub_publisher)
            raise RuntimeError

        def test_afterwards():
            assert made[0].closed
        """
    )
    run(pytester).assert_outcomes(passed=1, failed=1)


def test_a_suite_that_does_not_use_it_pays_nothing() -> None:
    """pytest imports it at every start: no testing kit, no sources come along."""
    program = "import sys, zmqpub, pytest; before = set(sys.modules); import zmqpub.pytest_plugin; print(*set(sys.modules) - before)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["zmqpub.pytest_plugin"]


def test_it_is_declared() -> None:
    tomllib = pytest.importorskip("tomllib")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert declared["entry-points"]["pytest11"] == {"zmqpub": pytest_plugin.__name__}
    assert any(requirement.startswith("pytest") for requirement in declared["optional-dependencies"]["testing"])
    assert not any(requirement.startswith("pytest") for requirement in declared["dependencies"])
