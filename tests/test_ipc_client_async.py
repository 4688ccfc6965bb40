"""The client for asyncio: in the caller's own loop, whatever that is and whatever else runs there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ipc_peers import Peer, run_python

from zmqpub import errors, ipc
from zmqpub.interfaces import BlockRef

TIP = (100).to_bytes(32, "big")


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path / "node.sock") as peer:
        yield peer


async def waiting(echo: ipc.AsyncEcho, count: int) -> None:
    async def until() -> None:
        while await echo.echo("waiting") != str(count):
            await asyncio.sleep(0.01)

    await asyncio.wait_for(until(), 30)


def test_everything(peer: Peer) -> None:
    async def main() -> None:
        async with ipc.connect_async(peer.address, deadline=20) as init:
            assert init.version is ipc.NodeVersion.MASTER
            echo, mining, rpc = await init.make_echo(), await init.make_mining(), await init.make_rpc()
            assert await asyncio.gather(*(echo.echo(str(n)) for n in range(300))) == [str(n) for n in range(300)]
            assert await mining.get_tip() == BlockRef(TIP, 100)
            assert await rpc.execute("any", 1) == [[1], ""]
            assert await rpc.batch(["getblockcount"]) == [100]
            with pytest.raises(errors.RpcError):
                await rpc.execute("unknown")
            with pytest.raises(errors.RemoteError):
                await echo.echo("raise x")
            template = await mining.create_new_block(cooldown=False)
            assert template is not None
            async with template:
                assert await template.wait_next(0.01) is None
                waiter = asyncio.create_task(template.wait_next())
                await waiting(echo, 1)
                await echo.echo("tip")
                following = await waiter
                assert following is not None
            with pytest.raises(errors.DestroyedError):
                await template.get_block()
        with pytest.raises(errors.DisconnectedError, match="was closed"):
            await echo.echo("x")

    asyncio.run(main())
    assert peer.process.poll() is None


def test_cancelling_a_wait_interrupts_it_and_spares_the_next(peer: Peer) -> None:
    async def main() -> None:
        async with ipc.connect_async(peer.address) as init:
            echo, mining = await init.make_echo(), await init.make_mining()
            for _ in range(5):
                waiter = asyncio.create_task(mining.wait_tip_changed(TIP))
                await waiting(echo, 1)
                waiter.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiter
                assert await mining.wait_tip_changed(TIP, 0.05) == BlockRef(TIP, 100)
                await waiting(echo, 0)
            # Given up before it was sent, or just when its answer comes.
            for delay in (0.0, 0.0005, 0.001, 0.002, 0.005):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(mining.wait_tip_changed(TIP, 60), delay)
            assert await mining.wait_tip_changed(TIP, 0.01) is not None
            await waiting(echo, 0)
            assert "Mining.interrupt" in json.loads(await echo.echo("calls"))

    asyncio.run(main())


def test_interrupt(peer: Peer) -> None:
    async def main() -> None:
        async with ipc.connect_async(peer.address) as init:
            echo, mining = await init.make_echo(), await init.make_mining()
            waiters = [asyncio.create_task(mining.wait_tip_changed(TIP)) for _ in range(4)]
            await waiting(echo, 4)
            await mining.interrupt()
            assert await asyncio.gather(*waiters) == [None] * 4
            assert await mining.wait_tip_changed(TIP, 0.01) is not None

    asyncio.run(main())


def test_deadline_and_the_end_of_the_peer(peer: Peer) -> None:
    async def main() -> None:
        async with ipc.connect_async(peer.address) as init:
            echo = await init.make_echo()
            with pytest.raises(errors.IpcTimeoutError, match=r"Echo.echo: no answer within 0.1 s"):
                await echo.echo("slow 3", timeout=0.1)
            assert await echo.echo("x") == "x"
            slow = asyncio.create_task(echo.echo("slow 60"))
            await asyncio.sleep(0.1)
            peer.process.kill()
            with pytest.raises(errors.DisconnectedError):
                await slow
        peer.process.wait()
        with pytest.raises(errors.IpcConnectError):
            await ipc.connect_async(peer.address)

    asyncio.run(main())


def test_reconnect(peer: Peer) -> None:
    async def main() -> None:
        async with ipc.connect_async(peer.address, reconnect=ipc.Reconnect(delay=0.01)) as init:
            echo = await init.make_echo()
            peer.kill()
            with pytest.raises(errors.DisconnectedError):
                await echo.echo("x")
            call = asyncio.create_task(echo.echo("later"))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(peer.start)
            assert await call == "later"
            assert init.reconnects == 1

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_loops_of_every_kind_and_manner(peer: Peer, kind: str) -> None:
    """One after the other, in threads, closed and not closed; Cap'n Proto ends with the last connection of a loop."""
    if kind == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    code = f"""
import asyncio, gc, sys, threading, warnings
import {kind}
from zmqpub import ipc
warnings.simplefilter("ignore", ResourceWarning)
address = sys.argv[1]
async def main():
    loop = asyncio.get_running_loop()
    async with ipc.connect_async(address) as init, ipc.connect_async(address) as other:
        echo, second = await init.make_echo(), await other.make_echo()
        assert await asyncio.gather(echo.echo("a"), second.echo("b")) == ["a", "b"]
    assert not hasattr(loop, "_kj_loop")
    init = await ipc.connect_async(address)
    echo = await init.make_echo()
    assert await echo.echo("c") == "c"
    asyncio.ensure_future(echo.echo("slow 60"))
    await asyncio.sleep(0.05)
    return init, echo  # neither is closed
def run():
    loop = {kind}.new_event_loop()
    try:
        kept.append(loop.run_until_complete(main()))
        if len(kept) % 2:
            for task in asyncio.all_tasks(loop): task.cancel()
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
kept = []
threads = [threading.Thread(target=run) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(kept) == 6
kept.clear(); gc.collect()
run()
kept.clear(); gc.collect()
print("fine")
"""
    done = run_python(code, peer.address)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done
    assert "Fatal" not in done.stderr


def test_a_loop_that_is_left_alone(peer: Peer) -> None:
    """Neither stopped nor closed properly, in a thread that has ended; then garbage collection, then the interpreter's end."""
    done = run_python(
        """
import asyncio, gc, sys, threading, warnings
from zmqpub import ipc
from zmqpub.ipc import loop as loops
warnings.simplefilter("ignore")
async def main():
    init = await ipc.connect_async(sys.argv[1])
    echo = await init.make_echo()
    asyncio.ensure_future(echo.echo("slow 60"))
    await asyncio.sleep(0.05)
def run():
    asyncio.new_event_loop().run_until_complete(main())
for _ in range(3):
    thread = threading.Thread(target=run)
    thread.start(); thread.join()
    loops._loops.clear()  # as another loop of the same identity does
    gc.collect()
print("fine")
""",
        peer.address,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done


def test_a_host_that_runs_capn_proto_itself(peer: Peer) -> None:
    done = run_python(
        """
import asyncio, capnp, sys
from zmqpub import errors, ipc
async def main():
    async with capnp.kj_loop():
        async with ipc.connect_async(sys.argv[1]) as init:
            echo = await init.make_echo()
            assert await echo.echo("x") == "x"
        assert hasattr(asyncio.get_running_loop(), "_kj_loop")  # still the host's
        init = await ipc.connect_async(sys.argv[1])
        echo = await init.make_echo()
    try: await echo.echo("x")
    except errors.ClosedError as error: print(error)
    await init.close()
    async with ipc.connect_async(sys.argv[1]) as init:
        assert await (await init.make_echo()).echo("y") == "y"
asyncio.run(main())
""",
        peer.address,
    )
    assert (done.returncode, done.stdout) == (0, "the event loop of this connection has ended\n"), done


def test_another_loop_is_refused(peer: Peer) -> None:
    async def connect() -> tuple[ipc.AsyncInit, ipc.AsyncEcho]:
        init = await ipc.connect_async(peer.address)
        return init, await init.make_echo()

    loop = asyncio.new_event_loop()
    try:
        init, echo = loop.run_until_complete(connect())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(echo.echo("x"))
        loop.run_until_complete(init.close())
    finally:
        loop.close()


def test_both_clients_side_by_side(peer: Peer) -> None:
    async def main() -> None:
        async with ipc.connect_async(peer.address) as init:
            with ipc.connect(peer.address) as sync:
                ours, theirs = await init.make_echo(), sync.make_echo()
                for turn in range(20):
                    assert await ours.echo("x" * turn) == theirs.echo("x" * turn)

    asyncio.run(main())
