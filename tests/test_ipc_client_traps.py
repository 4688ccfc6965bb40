"""What would end the interpreter, hang it, or mislead it: each in the way that users come to it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from ipc_peers import Peer, eventually, raw_peer, run_python

from zmqpub import errors, ipc

GARBAGE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    "absurd header": b"\xff" * 64,
    "a message that is none": bytes([0, 0, 0, 0, 2, 0, 0, 0]) + b"\xfe" * 16,
}


# ---- connecting ----


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(errors.IpcConnectError, match="nobody listens there") as caught:
        ipc.connect(f"unix:{tmp_path}/none.sock", deadline=5)
    assert caught.value.errno == errno.ENOENT
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale.sock"))
    with pytest.raises(errors.IpcConnectError, match="whoever made the socket has ended") as caught:
        ipc.connect("unix:stale.sock", data_dir=tmp_path, deadline=5)
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_path_that_is_too_long() -> None:
    with pytest.raises(errors.IpcAddressError, match=r"at most 10[37]"):
        ipc.connect("unix:/" + "x" * 120)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket away")
def test_a_socket_of_another_user(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer:
        os.chown(peer.path, 12345, -1)
        with pytest.raises(errors.IpcConnectError, match="belongs to user 12345"):
            ipc.connect(peer.address)
        with ipc.connect(peer.address, allow_other_owner=True) as init:
            assert init.make_echo().echo("x") == "x"


@pytest.mark.parametrize("says", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("hang_up", [False, True])
def test_a_peer_that_speaks_something_else(tmp_path: Path, says: bytes, hang_up: bool) -> None:
    with raw_peer(tmp_path / "s", says, hang_up=hang_up) as address:
        start = time.monotonic()
        with pytest.raises((errors.IpcProtocolError, errors.DisconnectedError, errors.IpcTimeoutError)) as caught:
            ipc.connect(address, deadline=3)
        assert time.monotonic() - start < 30
        assert str(caught.value).startswith(f"{address}: Init.")
        if not hang_up:
            assert not isinstance(caught.value, errors.DisconnectedError)


def test_a_peer_that_says_nothing(tmp_path: Path) -> None:
    with raw_peer(tmp_path / "s", None) as address:
        with pytest.raises(errors.IpcTimeoutError, match=r"within 0.3 s; is it Cap'n Proto that it speaks\?"):
            ipc.connect(address, deadline=0.3)
    with raw_peer(tmp_path / "t", None, hang_up=True) as address, pytest.raises(errors.DisconnectedError):
        ipc.connect(address, deadline=10)


def test_a_peer_that_does_not_accept(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        fillers = []
        while True:
            filler = socket.socket(socket.AF_UNIX)
            fillers.append(filler)
            filler.setblocking(False)
            try:
                filler.connect(str(tmp_path / "s"))
            except BlockingIOError:
                break
        with pytest.raises(errors.IpcTimeoutError, match="too busy"):
            ipc.connect(f"unix:{tmp_path}/s", deadline=0.3)
        for filler in fillers:
            filler.close()


# ---- the end of a connection ----


def test_kill_in_the_middle_of_calls(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer, ipc.connect(peer.address) as init:
        echo, mining = init.make_echo(), init.make_mining()
        failures: list[BaseException] = []

        def call(function: object, *args: object) -> None:
            try:
                function(*args)  # type: ignore[operator]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=call, args=(mining.wait_tip_changed, (100).to_bytes(32, "big"))) for _ in range(4)]
        threads += [threading.Thread(target=call, args=(echo.echo, "slow 60")) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(threading.enumerate()) >= 8)
        time.sleep(0.2)
        os.kill(peer.process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert len(failures) == 8
        assert {type(failure) for failure in failures} == {errors.DisconnectedError}
        with pytest.raises(errors.DisconnectedError, match="the connection was lost"):
            init.make_echo()
        with pytest.raises(errors.DisconnectedError):
            echo.echo("x")


def test_close_while_others_call(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer:
        init = ipc.connect(peer.address)
        mining = init.make_mining()
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                mining.wait_tip_changed((100).to_bytes(32, "big"))
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        init.close()
        init.close()
        thread.join(20)
        assert isinstance(caught[0], errors.DisconnectedError)
        with pytest.raises(errors.DisconnectedError, match="the connection was closed"):
            mining.get_tip()
        assert init.closed


def test_an_answer_that_never_comes(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer, ipc.connect(peer.address, deadline=0.5) as init:
        echo, mining = init.make_echo(), init.make_mining()
        os.kill(peer.process.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(errors.IpcTimeoutError, match=r"Echo.echo: no answer within 0.5 s"):
            echo.echo("x")
        with pytest.raises(errors.IpcTimeoutError):
            mining.wait_tip_changed(bytes(32), 0.1)
        with pytest.raises(errors.IpcTimeoutError):
            init.make_rpc()
        assert time.monotonic() - start < 20
        os.kill(peer.process.pid, signal.SIGCONT)
        eventually(lambda: _echoes(echo))


def _echoes(echo: ipc.Echo) -> bool:
    try:
        return echo.echo("x") == "x"
    except errors.IpcTimeoutError:
        return False


def test_an_answer_larger_than_the_limit(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer, ipc.connect(peer.address, max_message_bytes=1 << 20) as init:
        echo = init.make_echo()
        assert len(echo.echo("large 500000")) == 500_000
        with pytest.raises((errors.IpcProtocolError, errors.DisconnectedError)):
            echo.echo("large 3000000")
    with Peer(tmp_path / "t") as peer, ipc.connect(peer.address) as init:
        assert len(init.make_echo().echo("large 30000000")) == 30_000_000


# ---- connecting again ----


def test_reconnect(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer, ipc.connect(peer.address, reconnect=ipc.Reconnect(delay=0.01, max_delay=0.1)) as init:
        echo, mining = init.make_echo(), init.make_mining()
        template = mining.create_new_block(cooldown=False)
        assert template is not None
        for turn in range(1, 4):
            peer.kill()
            restart = threading.Timer(0.3, peer.start)
            restart.start()
            eventually(lambda: _works(mining))
            restart.join()
            assert echo.echo("again") == "again"
            assert init.reconnects == turn
        with pytest.raises(errors.DisconnectedError, match="the object was lost with an earlier connection"):
            template.get_block_header()
        peer.kill()
        eventually(lambda: not _works_at_once(echo))
        with pytest.raises(errors.IpcTimeoutError, match=r"connecting again failed: nobody listens there"):
            echo.echo("x", timeout=0.5)


def _works(mining: ipc.Mining) -> bool:
    try:
        return mining.get_tip() is not None
    except errors.DisconnectedError:
        return False


def _works_at_once(echo: ipc.Echo) -> bool:
    try:
        echo.echo("x", timeout=0.2)
    except errors.IpcError:
        return False
    return True


def test_the_first_connection_can_be_waited_for(tmp_path: Path) -> None:
    made: list[Peer] = []
    thread = threading.Timer(0.3, lambda: made.append(Peer(tmp_path / "s")))
    thread.start()
    with ipc.connect(f"unix:{tmp_path}/s", reconnect=ipc.Reconnect(delay=0.01, first=True)) as init:
        assert init.make_echo().echo("x") == "x"
    thread.join()
    made[0].kill()
    with pytest.raises(errors.IpcTimeoutError, match=r"could not connect within 0.3 s: nobody listens there"):
        ipc.connect(f"unix:{tmp_path}/none", reconnect=ipc.Reconnect(first=True), deadline=0.3)


# ---- what would end the interpreter ----

PREAMBLE = """
import gc, os, sys, threading, time
from zmqpub import errors, ipc
address = sys.argv[1]
"""


def survives(tmp_path: Path, code: str) -> None:
    with Peer(tmp_path / "s") as peer:
        done = run_python(PREAMBLE + code, peer.address)
        assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", ""), done


def test_objects_dropped_in_other_threads(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
init = ipc.connect(address)
def one(mining):
    template = mining.create_new_block(cooldown=False)
    following = template.wait_next(0)
    echo = init.make_echo()
    try:
        echo.echo("raise x")
    except errors.RemoteError as error:
        kept.append(error)
    kept.append((template, echo))
kept = []
mining = init.make_mining()
for turn in range(20):
    threads = [threading.Thread(target=one, args=(mining,)) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    thread = threading.Thread(target=kept.clear)
    thread.start(); thread.join()
init.close()
print("fine")
""",
    )


@pytest.mark.slow
def test_cycles_collected_in_other_threads(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
stop = threading.Event()
def collect():
    while not stop.is_set():
        gc.collect(0); gc.collect()
collectors = [threading.Thread(target=collect) for _ in range(2)]
for thread in collectors: thread.start()
for turn in range(6):
    init = ipc.connect(address)
    echo, mining = init.make_echo(), init.make_mining()
    for _ in range(5):
        cycle = [mining.create_new_block(cooldown=False), echo]; cycle.append(cycle)
        for call in (lambda: echo.echo("raise x"), lambda: echo.echo("slow 1", timeout=0), lambda: mining._call(
                ipc.codec.OPERATIONS["Mining.waitTipChanged"], {"currentTip": (100).to_bytes(32, "little"), "timeout": 1e9}, 0.01)):
            try: call()
            except errors.IpcError as error:
                error.itself = error
    init.close()
    del init, echo, mining, cycle
stop.set()
for thread in collectors: thread.join()
print("fine")
""",
    )


def test_nothing_of_pycapnp_is_reachable_from_what_users_have(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
import asyncio, types
def reachable(*roots):
    # Not through modules, classes and what runs in the loop: those are not let go with the object.
    kj = ipc.loop.LoopThread.shared().kj
    modules = [id(vars(module)) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    seen, pending = {id(kj), id(kj.loop), *modules}, list(roots)
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, (types.ModuleType, type, types.FunctionType, threading.Thread)): continue
        seen.add(id(one))
        assert not type(one).__module__.startswith("capnp") or "Schema" in type(one).__name__, type(one)
        pending += gc.get_referents(one)
        if isinstance(one, types.TracebackType): pending.append(one.tb_frame); pending.extend(one.tb_frame.f_locals.values())
init = ipc.connect(address)
echo, mining = init.make_echo(), init.make_mining()
template = mining.create_new_block(cooldown=False)
caught = []
for call in (lambda: echo.echo("raise x"), lambda: echo.echo("slow 9", timeout=0.05), lambda: init.make_rpc().execute("garbage")):
    try: call()
    except errors.IpcError as error: caught.append(error)
assert len(caught) == 3
reachable(init, echo, mining, template, *caught)
init.close()
print("fine")
""",
    )


def test_exit_with_calls_under_way(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
init = ipc.connect(address)
mining, echo = init.make_mining(), init.make_echo()
def wait():
    try: mining.wait_tip_changed((100).to_bytes(32, "big"))
    except errors.ZmqPubError: pass
def slow():
    try: echo.echo("slow 60", timeout=60)
    except errors.ZmqPubError: pass
for target in (wait, slow, wait, slow):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.5)
init._session.closed = True  # silences the warning, closes nothing
print("fine", flush=True)
""",
    )


def test_exit_without_close_warns(tmp_path: Path) -> None:
    with Peer(tmp_path / "s") as peer:
        done = run_python(
            PREAMBLE + "init = ipc.connect(address); echo = init.make_echo(); del init, echo; gc.collect(); print('fine')", peer.address
        )
    assert (done.returncode, done.stdout) == (0, "fine\n")
    assert f"the connection to {peer.address} was not closed" in done.stderr


def test_fork(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
init = ipc.connect(address)
echo, mining = init.make_echo(), init.make_mining()
template = mining.create_new_block(cooldown=False)
pid = os.fork()
if pid == 0:
    try:
        for call in (lambda: echo.echo("x"), template.destroy, mining.interrupt, init.make_rpc):
            try: call()
            except errors.ForkedError as error: assert "forked" in str(error)
            else: os._exit(1)
        del echo, mining, template
        gc.collect()
        with ipc.connect(address) as own:
            assert own.make_echo().echo("child") == "child"
        init.close()
        del init
        gc.collect()
    except BaseException as error:
        print(repr(error), flush=True); os._exit(2)
    sys.exit(7)  # the interpreter's whole exit
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert echo.echo("parent") == "parent"
init.close()
print("fine")
""",
    )


def test_the_thread_cannot_wait_for_itself(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
init = ipc.connect(address)
echo = init.make_echo()
async def within():
    echo.echo("x")
try: ipc.loop.LoopThread.shared().call(within)
except RuntimeError as error: assert "cannot wait for itself" in str(error)
init.close()
print("fine")
""",
    )


def test_keyboard_interrupt_ends_a_wait(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
init = ipc.connect(address)
mining, echo = init.make_mining(), init.make_echo()
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try: mining.wait_tip_changed((100).to_bytes(32, "big"))
except KeyboardInterrupt: pass
else: raise SystemExit("no interrupt")
assert mining.wait_tip_changed((100).to_bytes(32, "big"), 0.05).height == 100
while echo.echo("waiting") != "0": time.sleep(0.01)
init.close()
print("fine")
""",
    )


def test_bitcoin_cores_schema_in_the_global_parser_is_no_clash(tmp_path: Path) -> None:
    survives(
        tmp_path,
        """
import capnp
from pathlib import Path
capnp.load(str(Path(ipc.__file__).parent / "zmqpub.capnp"))  # the same IDs
with ipc.connect(address) as init:
    assert init.make_echo().echo("x") == "x"
print("fine")
""",
    )


def test_without_pycapnp() -> None:
    done = run_python(
        """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "capnp": raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "capnp" else real(name, *rest)
import zmqpub
try: import zmqpub.ipc
except zmqpub.UnsupportedError as error: print(error)
"""
    )
    assert "pip install 'zmqpub[ipc]'" in done.stdout
