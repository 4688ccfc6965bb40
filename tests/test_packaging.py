"""What is shipped: the sdist builds, the wheel holds what it needs and no more, and works where it is installed."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import zmqpub

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

# What may lie in a checkout and is no part of the project.
LITTER = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "*.so", "*.egg-info", "_fast.c", "_build.c")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    # The developer's own switches and paths are not what is tested here.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ZMQPUB_", "PYTHON"))}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m build`` makes: the sdist from a copy of the checkout, the wheel from the sdist."""
    for module in ("build", "setuptools", "Cython"):
        pytest.importorskip(module)
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "checkout", ignore=LITTER)
    shutil.copytree(ROOT / ".ci", folder / "checkout" / ".ci")
    # Left behind by earlier builds, and not to be shipped:
    (folder / "checkout" / "build" / "release").mkdir(parents=True)
    (folder / "checkout" / "build" / "release" / "stale.py").touch()
    (folder / "checkout" / "src" / "zmqpub" / "_fast.c").write_text("#error stale")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", cwd=folder / "checkout", ZMQPUB_WERROR="1")
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def expected_in_wheel() -> set[str]:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    python = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    interface = {"zmqpub/py.typed", "zmqpub/_fast.pyi", "zmqpub/_build.pyi", "zmqpub/_fast.pxd", "zmqpub/_opaque.pxd"}
    schemas = {"zmqpub/ipc/zmqpub.capnp", "zmqpub/ipc/zmqpub_v30.capnp"}
    return python | interface | schemas | {f"zmqpub/_fast{suffix}", f"zmqpub/_build{suffix}"}


def test_wheel_holds_what_it_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected_in_wheel()


def test_wheel_is_for_this_interpreter(wheel: Path) -> None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.startswith(f"zmqpub-{zmqpub.__version__}-{tag}-{tag}-")


def test_metadata(metadata: Message) -> None:
    assert metadata["Name"] == "zmqpub"
    assert metadata["Version"] == zmqpub.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).startswith("# zmqpub")


def test_pyzmq_is_the_only_dependency(metadata: Message) -> None:
    requirements = metadata.get_all("Requires-Dist") or []
    core = [line for line in requirements if "extra ==" not in line]
    assert [line.split(">")[0] for line in core] == ["pyzmq"]
    assert {"cli", "testing"} <= set(metadata.get_all("Provides-Extra") or [])


def test_command_and_pytest_plugin_are_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        entry_points = archive.read(name).decode()
    assert "[console_scripts]\nzmqpub = zmqpub.cli:main" in entry_points
    assert "[pytest11]\nzmqpub = zmqpub.pytest_plugin" in entry_points


def test_sdist_builds_tests_and_documents_itself(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", ".ci/run"):
        assert name in names
    for folder, pattern in (
        ("src", "*.py*"),
        ("src", "*.px[di]"),
        ("src", "*.[ch]"),
        ("src", "*.capnp"),
        ("tests", "*.py"),
        ("tests", "*.jsonl"),
    ):
        for path in (ROOT / folder).rglob(pattern):
            if path.suffix not in {".pyc", ".pyd"} and path.name not in {"_fast.c", "_build.c"}:
                assert path.relative_to(ROOT).as_posix() in names
    assert {path.name for path in (ROOT / "tests/fuzz/corpus").iterdir()} <= {name.rpartition("/")[2] for name in names}
    generated = {name for name in names if name.startswith("build") or name.endswith((".so", ".pyc", "/_fast.c", "/_build.c"))}
    assert not generated


PROBE = """
import sys
from pathlib import Path
import zmq, zmqpub

assert Path(zmqpub.__file__).is_relative_to(sys.prefix), zmqpub.__file__
assert not [name for name in ("click", "rich", "pytest", "Cython") if name in sys.modules]
with zmqpub.Publisher({"zmqpubrawtx": "tcp://127.0.0.1:*"}) as publisher:
    with publisher.context.socket(zmq.SUB) as sub:
        sub.subscribe("rawtx")
        sub.rcvtimeo = 10_000
        sub.connect(publisher.active_notifiers()[0].address)
        while not publisher.stats().notifiers[0].wanted:
            pass
        tx = zmqpub.build_transaction([zmqpub.TxIn(bytes(32), 0)], [])
        publisher.transaction_added_to_mempool(tx, 1)
        assert sub.recv_multipart() == [b"rawtx", bytes(tx), bytes(4)]
print("works")
"""


def test_installed_wheel_works_with_pyzmq_alone(wheel: Path, tmp_path: Path) -> None:
    """In an environment where nothing but this wheel and the pyzmq of the tests can be imported."""
    import zmq

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))", cwd=tmp_path).strip())
    for installed in Path(zmq.__file__).parents[1].glob("*zmq*"):
        if not installed.name.startswith(("zmqpub", "__editable__")):
            (site / installed.name).symlink_to(installed)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    assert run(python, "-W", "error", "-c", PROBE, cwd=tmp_path) == "works\n"


def test_typed(wheel: Path, tmp_path: Path) -> None:
    """A client is checked against what the wheel says of its types."""
    pytest.importorskip("mypy")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    client = tmp_path / "client.py"
    client.write_text("import zmqpub\nreveal_type(zmqpub.Block(b'')[0].txid)\nreveal_type(zmqpub.Publisher().stats().sent)\n")
    command = (sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", client)
    told = run(*command, cwd=tmp_path, MYPYPATH=str(site))
    assert 'note: Revealed type is "bytes"' in told.replace("builtins.", "")
    assert 'note: Revealed type is "int"' in told.replace("builtins.", "")
