"""The client for threads against peers of each version of Bitcoin Core's, in other processes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ipc_peers import SHAPES, Peer, eventually

from zmqpub import errors, ipc
from zmqpub.interfaces import BlockCheckOptions, BlockCreateOptions, BlockRef, CheckResult, CoinbaseTx
from zmqpub.ipc.codec import OPERATIONS


def tip_hash(height: int) -> bytes:
    return height.to_bytes(32, "big")


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path / "node.sock") as peer:
        yield peer


@pytest.fixture
def init(peer: Peer) -> Iterator[ipc.Init]:
    with ipc.connect(peer.address, deadline=20) as init:
        yield init


@pytest.fixture(params=SHAPES)
def versioned(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ipc.Init]:
    with Peer(tmp_path / "node.sock", request.param) as peer, ipc.connect(peer.address, deadline=20) as init:
        assert str(init.version) == request.param
        yield init


def calls(echo: ipc.Echo) -> list[str]:
    seen: list[str] = json.loads(echo.echo("calls"))
    return seen


class Waiter:
    """A thread that is in a call."""

    def __init__(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None

        def run() -> None:
            try:
                self.result = function(*args, **kwargs)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def join(self) -> Any:
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def waiting(echo: ipc.Echo, count: int) -> None:
    eventually(lambda: echo.echo("waiting") == str(count))


# ---- values ----


def test_echo(init: ipc.Init) -> None:
    echo = init.make_echo()
    for text in ("", "hello", "grüße, 世界", "a\0b", "x" * 1_000_000):
        assert echo.echo(text) == text


def test_text_that_is_none_is_refused_before_it_is_sent(init: ipc.Init) -> None:
    echo = init.make_echo()
    with pytest.raises(UnicodeEncodeError):
        echo.echo("\ud800")
    with pytest.raises(TypeError, match="echo: expected a str, got bytes"):
        echo.echo(b"x")  # type: ignore[arg-type]
    assert not any("\ud800" in call for call in calls(echo))


def test_mining_in_every_version(versioned: ipc.Init) -> None:
    mining = versioned.make_mining()
    assert mining.is_test_chain()
    assert not mining.is_initial_block_download()
    assert mining.get_tip() == BlockRef(tip_hash(100), 100)
    versioned.make_echo().echo("tip")
    assert mining.wait_tip_changed(tip_hash(100)) == BlockRef(tip_hash(101), 101)
    assert mining.check_block(b"block") == CheckResult(False, "high-hash", "True")
    assert mining.check_block(b"block", BlockCheckOptions(check_pow=False)).debug == "False"


def test_templates_in_every_version(versioned: ipc.Init) -> None:
    mining, echo = versioned.make_mining(), versioned.make_echo()
    with mining.create_new_block(cooldown=False) as template:  # type: ignore[union-attr]
        assert template.get_block_header()[4:36] == tip_hash(100)[::-1]
        assert template.get_block() == bytes(80)
        assert template.get_tx_fees() == (1, 2, -3)
        assert template.get_tx_sigops() == (4,)
        assert template.get_coinbase_merkle_path() == (bytes(31) + b"\1",)
        assert template.wait_next(0.05) is None
        echo.echo("tip")
        following = template.wait_next()
        assert following is not None
        assert following.get_block_header()[4:36] == tip_hash(101)[::-1]
        following.destroy()
        verdict = template.submit_solution(-1, 1, 7, b"coinbase")
        assert bool(verdict) is (versioned.version is not ipc.NodeVersion.MASTER)
        assert verdict.reason == ("bad" if versioned.version is ipc.NodeVersion.MASTER else "")
        if versioned.version is ipc.NodeVersion.V30:
            with pytest.raises(errors.UnimplementedError, match=r"the peer \(v30\) lacks it; Bitcoin Core has it since v31"):
                template.get_coinbase_tx()
        else:
            assert template.get_coinbase_tx() == CoinbaseTx(2, 0xFFFFFFFE, b"\x01\x65", None, 50, (b"o",), 0)
    assert calls(echo).count("BlockTemplate.destroy") == 2


def test_what_a_version_lacks(versioned: ipc.Init) -> None:
    if versioned.version is ipc.NodeVersion.MASTER:
        assert versioned.make_rpc().execute("getblockcount") == 100
        mining = versioned.make_mining()
        assert mining.submit_block(b"x") == CheckResult(False, "duplicate", "")
        assert mining.get_transactions_by_txid([bytes(31) + b"\7", bytes(32)]) == (b"\7\0", None)
        assert mining.get_transactions_by_witness_id([]) == ()
        return
    with pytest.raises(errors.UnimplementedError, match=r"Init.makeRpc: the peer .* lacks it; Bitcoin Core has it since master") as caught:
        versioned.make_rpc()
    assert caught.value.peer == str(versioned.version)
    with pytest.raises(errors.UnimplementedError, match=r"Mining.submitBlock"):
        versioned.make_mining().submit_block(b"x")


def test_nulls_are_none(init: ipc.Init) -> None:
    mining = init.make_mining()
    assert mining.create_new_block(BlockCreateOptions(coinbase_output_max_additional_sigops=1), cooldown=False) is None
    template = mining.create_new_block(cooldown=False)
    assert template is not None
    assert template.wait_next(0) is None


def test_hashes_are_checked_here(init: ipc.Init) -> None:
    mining = init.make_mining()
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="current_tip: expected 32 bytes"):
            mining.wait_tip_changed(wrong)
        with pytest.raises(ValueError, match=r"txids\[1\]: expected 32 bytes"):
            mining.get_transactions_by_txid([bytes(32), wrong])
    for wrong_time in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="expected a number of seconds"):
            mining.wait_tip_changed(bytes(32), wrong_time)


def test_rpc(init: ipc.Init) -> None:
    rpc = init.make_rpc()
    assert rpc.execute("any", 1, "two", [3]) == [[1, "two", [3]], ""]
    assert rpc.execute("any", verbose=True, wallet="a b/c") == [{"verbose": True}, "/wallet/a%20b%2Fc"]
    assert rpc.execute("any", 1, verbose=True) == [{"args": [1], "verbose": True}, ""]
    with pytest.raises(errors.RpcError, match="unknown: Method not found") as caught:
        rpc.execute("unknown")
    assert caught.value.code == -32601
    first, second, third = rpc.batch(["getblockcount", ("unknown", 1), ("any", 1, {"x": 2})])
    assert (first, second.code, third) == (100, -32601, [{"x": 2, "args": [1]}, ""])
    with pytest.raises(errors.IpcProtocolError, match=r"Rpc.garbage: the answer is no JSON"):
        rpc.execute("garbage")


def test_an_exception_of_the_peer(init: ipc.Init) -> None:
    echo = init.make_echo()
    with pytest.raises(errors.RemoteError) as caught:
        echo.echo("raise what: went wrong")
    assert (caught.value.type, caught.value.message) == ("std::exception", "what: went wrong")
    assert (caught.value.interface, caught.value.method) == ("Echo", "echo")
    assert echo.echo("still there") == "still there"


# ---- waits ----


def test_waits_do_not_hold_up_other_calls(init: ipc.Init) -> None:
    mining, echo = init.make_mining(), init.make_echo()
    waiters = [Waiter(mining.wait_tip_changed, tip_hash(100)) for _ in range(20)]
    waiting(echo, 20)
    echo.echo("tip")
    assert {waiter.join() for waiter in waiters} == {BlockRef(tip_hash(101), 101)}
    again = [Waiter(mining.wait_tip_changed, tip_hash(100)) for _ in range(8)]
    assert {waiter.join().height for waiter in again} == {101}
    # The threads are used again, and those too many let go.
    eventually(lambda: int(echo.echo("threads")) <= 10)


def test_a_deadline_interrupts_the_wait_and_spares_the_next(init: ipc.Init) -> None:
    mining, echo = init.make_mining(), init.make_echo()
    start = time.monotonic()
    with pytest.raises(errors.IpcTimeoutError, match=r"Mining.waitTipChanged: no answer within 0.3 s"):
        mining._call(OPERATIONS["Mining.waitTipChanged"], {"currentTip": tip_hash(100)[::-1], "timeout": 60_000.0}, 0.3)
    assert time.monotonic() - start < 10
    waiting(echo, 0)
    assert mining.wait_tip_changed(tip_hash(100), 0.1) == BlockRef(tip_hash(100), 100)
    assert mining.wait_tip_changed(tip_hash(100), 0.1) == BlockRef(tip_hash(100), 100)
    assert "Mining.interrupt" in calls(echo)


def test_an_interrupt_that_comes_too_late_does_not_stick(init: ipc.Init) -> None:
    mining, echo = init.make_mining(), init.make_echo()
    echo.echo("lazy")
    operation = OPERATIONS["Mining.waitTipChanged"]
    with pytest.raises(errors.IpcTimeoutError):
        mining._call(operation, {"currentTip": tip_hash(100)[::-1], "timeout": 60_000.0}, 0.2)
    eventually(lambda: "Mining.interrupt" in calls(echo))
    assert mining.wait_tip_changed(tip_hash(101), 0.05) == BlockRef(tip_hash(101), 101)


def test_interrupt_ends_what_waits_and_nothing_later(init: ipc.Init) -> None:
    mining, other, echo = init.make_mining(), init.make_mining(), init.make_echo()
    mining.interrupt()  # nobody waits: nothing sticks
    assert mining.wait_tip_changed(tip_hash(100), 0.05) is not None
    waiters = [Waiter(mining.wait_tip_changed, tip_hash(100)) for _ in range(5)]
    bystander = Waiter(other.wait_tip_changed, tip_hash(100))
    waiting(echo, 6)
    mining.interrupt()
    assert [waiter.join() for waiter in waiters] == [None] * 5
    waiting(echo, 1)
    assert mining.wait_tip_changed(tip_hash(100), 0.05) == BlockRef(tip_hash(100), 100)
    echo.echo("tip")
    assert bystander.join().height == 101


def test_another_wait_on_the_same_object_is_not_disturbed(init: ipc.Init) -> None:
    """Bitcoin Core's flag may end any wait on the object: here the one that is given up is the last in line for it."""
    mining, echo = init.make_mining(), init.make_echo()
    steady = Waiter(mining.wait_tip_changed, tip_hash(100))
    waiting(echo, 1)
    operation = OPERATIONS["Mining.waitTipChanged"]
    hasty = Waiter(mining._call, operation, {"currentTip": tip_hash(100)[::-1], "timeout": 1e300}, 0.2)
    with pytest.raises(errors.IpcTimeoutError):
        hasty.join()
    waiting(echo, 1)
    assert steady.thread.is_alive()
    echo.echo("tip")
    assert steady.join() == BlockRef(tip_hash(101), 101)


def test_wait_next_is_interrupted(init: ipc.Init) -> None:
    mining, echo = init.make_mining(), init.make_echo()
    template = mining.create_new_block(cooldown=False)
    assert template is not None
    waiter = Waiter(template.wait_next)
    waiting(echo, 1)
    template.interrupt_wait()
    assert waiter.join() is None
    echo.echo("tip")
    following = template.wait_next(20)
    assert following is not None


def test_waits_of_v30_end_in_time_though_nothing_interrupts_them(tmp_path: Path) -> None:
    with Peer(tmp_path / "s", "v30") as peer, ipc.connect(peer.address, deadline=10) as init:
        mining, echo = init.make_mining(), init.make_echo()
        waiter = Waiter(mining.wait_tip_changed, tip_hash(100), 2.5)
        waiting(echo, 1)
        waiter2 = Waiter(mining.wait_tip_changed, tip_hash(100))
        waiting(echo, 2)
        mining.interrupt()
        assert waiter2.join() is None or waiter2.join().height == 100
        waiter.join()
        waiting(echo, 0)


def test_destroy_ends_the_wait_first_and_then_refuses(peer: Peer, init: ipc.Init) -> None:
    """A node crashes on a call on what it has destroyed; so does the peer of this test."""
    mining, echo = init.make_mining(), init.make_echo()
    template = mining.create_new_block(cooldown=False)
    assert template is not None
    waiter = Waiter(template.wait_next)
    waiting(echo, 1)
    template.destroy()
    assert waiter.join() is None
    template.destroy()
    with pytest.raises(errors.DestroyedError, match=r"BlockTemplate.getBlockHeader: the object was destroyed"):
        template.get_block_header()
    with pytest.raises(errors.DestroyedError):
        template.wait_next(0)
    with pytest.raises(errors.DestroyedError):
        template.interrupt_wait()
    assert calls(echo)[-2:] == ["BlockTemplate.destroy", "Echo.echo calls"]
    other = init.make_echo()
    other.destroy()
    with pytest.raises(errors.DestroyedError):
        other.echo("x")
    assert peer.process.poll() is None


def test_destroy_while_many_threads_call(peer: Peer, init: ipc.Init) -> None:
    for _ in range(10):
        echo = init.make_echo()

        def hammer(echo: ipc.Echo = echo) -> None:
            while True:
                try:
                    echo.echo("x")
                except errors.DestroyedError:
                    return

        threads = [Waiter(hammer) for _ in range(6)]
        time.sleep(0.02)
        echo.destroy()
        for thread in threads:
            thread.join()
    assert peer.process.poll() is None


def test_what_nobody_uses_is_released(init: ipc.Init) -> None:
    echo, mining = init.make_echo(), init.make_mining()
    before = int(echo.echo("objects"))
    templates = [mining.create_new_block(cooldown=False) for _ in range(50)]
    assert int(echo.echo("objects")) == before + 50
    del templates
    eventually(lambda: int(echo.echo("objects")) == before)


def test_a_call_that_is_given_up_does_not_hold_up_the_next(init: ipc.Init) -> None:
    echo = init.make_echo()
    with pytest.raises(errors.IpcTimeoutError, match=r"Echo.echo: no answer within 0.2 s"):
        echo.echo("slow 5", timeout=0.2)
    start = time.monotonic()
    assert echo.echo("quick") == "quick"
    assert time.monotonic() - start < 3


def test_many_threads_at_once(init: ipc.Init) -> None:
    echo, rpc, mining = init.make_echo(), init.make_rpc(), init.make_mining()

    def work(number: int) -> None:
        for turn in range(30):
            assert echo.echo(f"{number} {turn}") == f"{number} {turn}"
            assert rpc.execute("any", number, turn) == [[number, turn], ""]
            if turn % 10 == 0:
                assert mining.wait_tip_changed(tip_hash(100), 0.01) is not None

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
