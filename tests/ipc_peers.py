"""Peers of the IPC client, in processes of their own: bare pycapnp servers shaped like Bitcoin Core's versions, with its manners.

``python ipc_peers.py <shape> <path>``. Like a node: the flag of interrupt() stays until a wait takes it, a thread runs one call at a time
to its end, cancelled or not, and a call on a destroyed object is the end of the process. What it saw is asked for through Echo:
``calls``, ``threads``, ``objects``; ``tip`` mines a block, ``lazy`` lets interrupts come too late, ``slow 2`` takes two seconds,
``raise …`` fails, ``die`` ends the process.
"""

# mypy: disable-error-code="misc,name-defined"

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import capnp

import zmqpub
from zmqpub.ipc import schema

PATIENCE = 30.0
SHAPES = ("master", "v31", "v30")
SEGFAULT = 139


def files() -> Path:
    return Path(schema.__file__).parent


def reduced(shape: str) -> Any:
    """The schema of a version: what others have is not in it at all."""
    text = (files() / "zmqpub.capnp").read_text().partition("# ---- ")[0]
    if shape == "v31":
        for gone in ("makeRpc", "makePool", "submitBlock", "getTransactionsByTxID", "getTransactionsByWitnessID"):
            text = re.sub(rf"  {gone} @\d+ [^;]*;\n", "", text)
        text = re.sub(r"  submitSolution @10 [^;]*;\n", "", text)
    elif shape == "v30":
        for name in (
            "Mining",
            "BlockTemplate",
            "Thread",
            "Context",
            "BlockRef",
            "BlockCreateOptions",
            "BlockWaitOptions",
            "BlockCheckOptions",
        ):
            text = re.sub(rf"(interface|struct) {name} @0x[^\n]*\n(.*\n)*?}}\n", "", text)
        for gone in ("makeRpc", "makePool", "makeMining"):
            text = re.sub(rf"  {gone} @\d+ [^;]*;\n", "", text)
        text += (files() / "zmqpub_v30.capnp").read_text().partition(";\n")[2]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "reduced.capnp"
        path.write_text(text)
        return schema.load_file(path)


class World:
    """What the peer knows."""

    def __init__(self, shape: str) -> None:
        self.shape = shape
        self.module = reduced(shape)
        self.height = 100
        self.changed = asyncio.Condition()
        self.calls: list[str] = []
        self.threads = 0
        self.locks: dict[str, asyncio.Lock] = {}
        self.objects = 0
        self.waiting = 0
        self.lazy = False
        """An interrupt comes too late: the tip has changed before."""
        self.background: set[asyncio.Task[Any]] = set()

    def tip(self) -> bytes:
        return self.height.to_bytes(32, "little")

    async def mine(self) -> None:
        async with self.changed:
            self.height += 1
            self.changed.notify_all()

    async def run(self, what: str, context: Any, body: Any) -> Any:
        """In the thread that the caller names, to its end, though it be cancelled."""
        if not context._has("thread"):
            raise ValueError("no thread specified")
        name = (await context.thread.getName()).result
        self.calls.append(what)
        lock = self.locks.setdefault(name, asyncio.Lock())

        async def alone() -> Any:
            async with lock:
                return await body

        task = asyncio.ensure_future(alone())
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return await asyncio.shield(task)


def build(world: World) -> Any:
    """The Init of that shape."""
    module = world.module

    class Counted:
        def __init__(self) -> None:
            world.objects += 1
            self.destroyed = False

        def __del__(self) -> None:
            world.objects -= 1

        def alive(self) -> None:
            if self.destroyed:
                os._exit(SEGFAULT)

    class Thread(module.Thread.Server):
        def __init__(self, name: str) -> None:
            self.name = name
            world.threads += 1

        def __del__(self) -> None:
            world.threads -= 1

        async def getName(self, **_: Any) -> str:
            return self.name

    class ThreadMap(module.ThreadMap.Server):
        async def makeThread(self, name: str, **_: Any) -> Any:
            return Thread(f"{name}-{time.monotonic_ns()}")

    class Interruptible(Counted):
        def __init__(self) -> None:
            super().__init__()
            self.flag = False

        async def set_flag(self) -> None:
            async with world.changed:
                self.flag = True
                world.changed.notify_all()

        async def wait(self, current: bytes, milliseconds: float) -> bool:
            """False when interrupted: who sees the flag first takes it back."""
            world.waiting += 1
            try:
                async with world.changed:
                    with contextlib.suppress(asyncio.TimeoutError):
                        over = self.flag or world.tip() != current
                        if not over and milliseconds > 0:
                            await self._until(current, min(milliseconds / 1000, 1e6))
                    if self.flag:
                        self.flag = False
                        return False
                return True
            finally:
                world.waiting -= 1

        async def _until(self, current: bytes, seconds: float) -> None:
            end = asyncio.get_running_loop().time() + seconds
            while not self.flag and world.tip() == current:
                left = end - asyncio.get_running_loop().time()
                if left <= 0:
                    return
                handle = asyncio.get_running_loop().call_later(left, lambda: asyncio.ensure_future(self._wake()))
                await world.changed.wait()
                handle.cancel()

        async def _wake(self) -> None:
            async with world.changed:
                world.changed.notify_all()

    class Echo(Counted, module.Echo.Server):
        async def destroy(self, context: Any, **_: Any) -> None:
            await world.run("Echo.destroy", context, asyncio.sleep(0))
            self.destroyed = True

        async def echo(self, context: Any, echo: str, **_: Any) -> str:
            self.alive()
            return str(await world.run(f"Echo.echo {echo[:20]}", context, self.answer(echo)))

        async def answer(self, echo: str) -> str:
            word, _, rest = echo.partition(" ")
            if word == "calls":
                return json.dumps(world.calls)
            if word == "threads":
                return str(world.threads)
            if word == "objects":
                return str(world.objects)
            if word == "waiting":
                return str(world.waiting)
            if word == "tip":
                await world.mine()
            elif word == "lazy":
                world.lazy = True
            elif word == "slow":
                await asyncio.sleep(float(rest))
            elif word == "raise":
                raise _clean(rest)
            elif word == "die":
                os._exit(3)
            elif word == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif word == "large":
                return "x" * int(rest)
            return echo

    class BlockTemplate(Interruptible, module.BlockTemplate.Server):
        def __init__(self) -> None:
            super().__init__()
            self.base = world.tip()

        async def destroy(self, context: Any, **_: Any) -> None:
            await world.run("BlockTemplate.destroy", context, asyncio.sleep(0))
            self.alive()
            self.destroyed = True

        async def getBlockHeader(self, context: Any, **_: Any) -> bytes:
            self.alive()
            await world.run("BlockTemplate.getBlockHeader", context, asyncio.sleep(0))
            return bytes(4) + self.base + bytes(44)

        async def getBlock(self, context: Any, **_: Any) -> bytes:
            return bytes(80)

        async def getTxFees(self, context: Any, **_: Any) -> list[int]:
            return [1, 2, -3]

        async def getTxSigops(self, context: Any, **_: Any) -> list[int]:
            return [4]

        async def getCoinbaseTx(self, context: Any, **_: Any) -> Any:
            if world.shape == "v30":
                return bytes(60)
            return {
                "version": 2,
                "sequence": 0xFFFFFFFE,
                "scriptSigPrefix": b"\x01\x65",
                "blockRewardRemaining": 50,
                "requiredOutputs": [b"o"],
            }

        async def getCoinbaseMerklePath(self, context: Any, **_: Any) -> list[bytes]:
            return [bytes([1]) + bytes(31)]

        async def submitSolution(self, context: Any, version: int, timestamp: int, nonce: int, coinbase: bytes, **_: Any) -> Any:
            world.calls.append("BlockTemplate.submitSolution")
            return ("bad", "worse", False) if world.shape == "master" else nonce == 7

        async def submitSolutionOld7(self, context: Any, version: int, timestamp: int, nonce: int, coinbase: bytes, **_: Any) -> bool:
            world.calls.append("BlockTemplate.submitSolutionOld7")
            return nonce == 7

        async def waitNext(self, context: Any, options: Any, **_: Any) -> Any:
            self.alive()
            milliseconds = options.timeout
            changed = await world.run("BlockTemplate.waitNext", context, self.wait(self.base, milliseconds))
            return BlockTemplate() if changed and world.tip() != self.base else None

        async def interruptWait(self, **_: Any) -> None:
            self.alive()
            world.calls.append("BlockTemplate.interruptWait")
            await self.set_flag()

    class Mining(Interruptible, module.Mining.Server):
        async def isTestChain(self, context: Any, **_: Any) -> bool:
            return bool(await world.run("Mining.isTestChain", context, asyncio.sleep(0, True)))

        async def isInitialBlockDownload(self, context: Any, **_: Any) -> bool:
            return False

        async def getTip(self, context: Any, **_: Any) -> Any:
            return {"hash": world.tip(), "height": world.height}, True

        async def waitTipChanged(self, context: Any, currentTip: bytes, timeout: float, **_: Any) -> Any:
            current = bytes(currentTip)
            if not await world.run("Mining.waitTipChanged", context, self.wait(current, timeout)):
                return None
            return {"hash": world.tip(), "height": world.height}

        async def createNewBlock(self, options: Any, context: Any = None, cooldown: bool = False, **_: Any) -> Any:
            world.calls.append("Mining.createNewBlock")
            if world.shape != "v30" and not await world.run("…", context, self.wait(bytes(32), 0)):
                return None
            if options.coinbaseOutputMaxAdditionalSigops == 1:  # a node that shuts down
                return None
            return BlockTemplate()

        async def checkBlock(self, block: bytes, options: Any, **_: Any) -> Any:
            return "high-hash", f"{options.checkPow}", False

        async def interrupt(self, **_: Any) -> None:
            world.calls.append("Mining.interrupt")
            if world.lazy:
                await world.mine()
                while world.waiting:
                    await asyncio.sleep(0.01)
            await self.set_flag()

        async def submitBlock(self, context: Any, block: bytes, **_: Any) -> Any:
            return "duplicate", "", False

        async def getTransactionsByTxID(self, context: Any, txids: Any, **_: Any) -> list[bytes]:
            return [bytes(txid)[:2] if txid[0] else b"" for txid in txids]

        async def getTransactionsByWitnessID(self, context: Any, wtxids: Any, **_: Any) -> list[bytes]:
            return []

    class Rpc(Counted, module.Rpc.Server):
        async def executeRpc(self, context: Any, request: str, uri: str, user: str, **_: Any) -> str:
            loaded = json.loads(request)
            if isinstance(loaded, list):
                return json.dumps([self.one(call, uri) for call in reversed(loaded)])
            if loaded["method"] == "garbage":
                return "no JSON"
            return json.dumps(self.one(loaded, uri))

        def one(self, call: dict[str, Any], uri: str) -> dict[str, Any]:
            if call["method"] == "unknown":
                return {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": call["id"]}
            if call["method"] == "getblockcount":
                return {"jsonrpc": "2.0", "result": world.height, "id": call["id"]}
            return {"jsonrpc": "2.0", "result": [call["params"], uri], "id": call["id"]}

    class Init(module.Init.Server):
        async def construct(self, **_: Any) -> Any:
            return ThreadMap()

        async def makeEcho(self, context: Any, **_: Any) -> Any:
            return Echo()

        async def makeMiningOld2(self, context: Any, **_: Any) -> Any:
            if world.shape != "v30":
                raise _clean("Old mining interface (@2) not supported. Please update your client!")
            return Mining()

        async def makeMining(self, context: Any, **_: Any) -> Any:
            if not context._has("thread"):
                raise _clean("no thread specified and no pool configured")
            return Mining()

        async def makeRpc(self, context: Any, **_: Any) -> Any:
            if not context._has("thread"):
                raise _clean("no thread specified and no pool configured")
            return Rpc()

    return Init()


class _Clean(Exception):
    """Looks on the wire as an exception of C++."""

    __traceback__ = property(lambda self: None)


_Clean.__module__, _Clean.__qualname__ = "builtins", "std::exception"


def _clean(message: str) -> Exception:
    return _Clean(message)


async def serve(shape: str, path: str) -> None:
    world = World(shape)

    async def greet(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=build(world)).on_disconnect()

    server = await capnp.AsyncIoStream.create_unix_server(greet, path)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


# ---- for tests ----


class Peer:
    """A peer in a process of its own, killed at the end of a with statement."""

    def __init__(self, path: Path, shape: str = "master") -> None:
        self.path = path
        self.shape = shape
        self.start()

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        paths = [str(Path(zmqpub.__file__).parents[1]), str(Path(__file__).parent)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, self.shape, str(self.path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


@contextlib.contextmanager
def raw_peer(path: Path, says: bytes | None, *, hang_up: bool = False) -> Iterator[str]:
    """A listener in this process that answers every connection with ``says`` and, maybe, its end; None: with nothing at all."""
    import threading

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    connections: list[socket.socket] = []

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            with contextlib.suppress(OSError):
                if says:
                    connection.sendall(says)
                if hang_up:
                    connection.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield f"unix:{path}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in connections:
            connection.close()


def eventually(condition: Any, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.01)


def run_python(code: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, as what goes wrong there ends the process."""
    paths = [str(Path(zmqpub.__file__).parents[1]), str(Path(__file__).parent)]
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


if __name__ == "__main__":
    asyncio.run(capnp.run(serve(*sys.argv[1:3])))
