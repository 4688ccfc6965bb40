"""The cimport interface: a Cython module that publishes through it is compiled, without any header of zmqpub, and run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from listening import address_of, everything, receive, subscriber, wait_wanted
from synthetic import block, transaction

import zmqpub
from zmqpub import Publisher

EXAMPLE = Path(__file__).parents[1] / "examples" / "cython_node" / "node.pyx"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("cython_node")
    shutil.copy(EXAMPLE, folder)
    (folder / "setup.py").write_text(
        textwrap.dedent("""
        from Cython.Build import cythonize
        from setuptools import setup
        setup(name="node", ext_modules=cythonize("node.pyx", language_level=3))
        """)
    )
    # Wherever zmqpub was imported from, an installed package or a checkout, Cython finds its .pxd files there.
    where = str(Path(zmqpub.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [where, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stdout + built.stderr
    (extension,) = folder.glob("node.*.so")
    spec = importlib.util.spec_from_file_location("node", extension)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_cython_node_publishes(node: ModuleType) -> None:
    one, tx = block(1, 20), transaction(7)
    with Publisher(everything()) as publisher, subscriber(address_of(publisher)) as sub:
        wait_wanted(publisher)
        assert node.run(publisher, one, bytes(tx), 1000) == 0
        messages = receive(sub, 43 + 3000)
        assert messages[:2] == [(b"hashtx", one.txids[0], bytes(4)), (b"rawtx", bytes(one[0]), bytes(4))]
        assert messages[41] == (b"hashblock", one.hash, bytes(4))
        assert messages[-1][:2] == (b"sequence", tx.txid + b"A" + (999).to_bytes(8, "little"))


def test_a_refusal_is_a_number_not_a_crash(node: ModuleType) -> None:
    publisher = Publisher(everything())
    assert node.run(publisher, block(1, 1), b"\xff" * 10, 5) == 5
    publisher.close()
    with pytest.raises(Exception, match="closed"):
        node.run(publisher, block(1, 1), b"\xff" * 10, 5)
