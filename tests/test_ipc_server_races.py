"""Servers where two things come together: an end and a timer, a disconnect and a call, a fork and a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

from ipc_peers import run_python
from ipc_rig import EchoInit, serving, until

from zmqpub import errors, ipc
from zmqpub.ipc import handling
from zmqpub.ipc import schema as schemas


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


class Sleeper:
    """An Echo that takes as many seconds as the text says."""

    def make_echo(self) -> Sleeper:
        return self

    def echo(self, echo: str) -> str:
        time.sleep(float(echo))
        return echo


def test_the_grace_of_the_end_is_longer_than_what_is_left_of_the_handshakes_time(path: Path) -> None:
    answers: list[Any] = []
    with serving(path, Sleeper(), handshake_timeout=0.4) as listener, ipc.connect(f"unix:{path}") as init:
        echo = init.make_echo()
        calling = threading.Thread(target=lambda: answers.append(echo.echo("0.8")))
        calling.start()
        time.sleep(0.1)
        listener.close(grace=10)
        calling.join()
    assert answers == ["0.8"]


class Templates:
    """A Mining, and the one template that it makes again and again."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.destroyed = 0

    def make_mining(self) -> Templates:
        return self

    def create_new_block(self, options: Any, *, cooldown: bool) -> Any:
        return Template(self)


class Template:
    def __init__(self, templates: Templates) -> None:
        self.templates = templates

    def get_block_header(self) -> bytes:
        self.templates.asked.release()
        time.sleep(0.3)
        return bytes(80)

    def destroy(self) -> None:
        self.templates.destroyed += 1


def test_an_object_that_is_called_as_its_connection_ends_is_destroyed_and_leaves_no_thread(path: Path) -> None:
    templates = Templates()
    with serving(path, templates):
        before = {thread.name for thread in threading.enumerate()}
        for _ in range(3):
            init = ipc.connect(f"unix:{path}")
            template = init.make_mining().create_new_block()
            assert template is not None
            calling = threading.Thread(target=_until_disconnected, args=(template.get_block_header,))
            calling.start()
            assert templates.asked.acquire(timeout=10)
            init.close()
            calling.join()
        until(lambda: templates.destroyed == 3, "templates are not destroyed")
        until(lambda: {thread.name for thread in threading.enumerate()} <= before, "threads are left")


def _until_disconnected(call: Any) -> None:
    with pytest.raises(errors.DisconnectedError):
        call()


def test_a_thread_that_cannot_be_started_is_an_error_of_one_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(self: object, name: str) -> None:
        raise RuntimeError("can't start new thread")

    with serving(path, EchoInit()), ipc.connect(f"unix:{path}", deadline=10) as init:
        with monkeypatch.context() as patch:
            patch.setattr(handling._Worker, "__init__", no_more)
            with pytest.raises(errors.RemoteError, match="can't start new thread") as caught:
                init.make_echo()
            assert "Traceback" not in str(caught.value)
        assert init.make_echo().echo("x") == "x"


@pytest.mark.parametrize(
    ("said", "instead"),
    [("getName @0 () -> (result :Text)", "getName @0 () -> (result :Data)"), ("thread @0 :Thread;", "thread @0 :Data;")],
    ids=["a name that is no UTF-8", "data"],
)
def test_a_thread_that_is_none_is_a_clean_error(path: Path, said: str, instead: str) -> None:
    import capnp

    text = Path(schemas.__file__).with_name("zmqpub.capnp").read_text()
    assert said in text
    odd = path.with_name("odd.capnp")
    odd.write_text(text.replace(said, instead))
    schema = schemas.load_file(odd)

    async def call() -> str:
        client = capnp.TwoPartyClient(await capnp.AsyncIoStream.create_unix_connection(str(path)))
        init = client.bootstrap().cast_as(schema.Init)
        threads = (await init.construct()).threadMap
        held = [await threads.makeThread(name) for name in ("a", "b")]  # with one there would be no other that could be meant
        context = schema.Context.new_message()
        if "getName" in said:

            class Foreign(schema.Thread.Server):  # type: ignore[misc, name-defined]
                async def getName_context(self, context: Any) -> None:
                    context.results.result = b"\xff\xfe\0"

            context.thread = Foreign()
        else:
            context.thread = b"no thread"
        try:
            await init.makeEcho(context)
        except capnp.KjException as error:
            return str(error.description)
        finally:
            del held
        return "no error"

    with serving(path, EchoInit()):
        text = asyncio.run(capnp.run(call()))
    assert "parameters that cannot be read" in text
    assert "Traceback" not in text


def test_a_forked_child_does_not_keep_the_address_alive(path: Path) -> None:
    """Its parent is killed: nobody answers at the socket any more, and another takes it over."""
    done = run_python(
        """
import os, sys, time
from ipc_rig import EchoInit
from zmqpub import ipc
server = ipc.Ipc("first", EchoInit())
server.listen_address(sys.argv[1])
child = os.fork()
if not child:
    os.close(1); os.close(2)
    time.sleep(30)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), 9)
""",
        f"unix:{path}",
    )
    assert done.returncode == -signal.SIGKILL, done
    try:
        with pytest.raises(errors.IpcConnectError, match="whoever made the socket has ended"):
            ipc.connect(f"unix:{path}", deadline=10)
        with ipc.Ipc("second", EchoInit()) as server:
            server.listen_address(f"unix:{path}")
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_a_child_that_is_forked_as_a_connection_ends_closes_nothing_of_others(path: Path) -> None:
    """The number of a socket that was closed a moment ago is another file's."""
    done = run_python(
        """
import os, sys
from pathlib import Path
from ipc_rig import EchoInit, serving
from zmqpub import ipc
from zmqpub.ipc.incoming import Connection
from zmqpub.ipc.loop import LoopThread
async def fork():
    (connection,) = (one for one in LoopThread.shared().kj.connections.values() if isinstance(one, Connection))
    number = connection._transport._socket.fileno()
    connection.abort()
    pipe = os.pipe()
    assert number in pipe
    child = os.fork()
    if not child:
        try: os.fstat(number)
        except OSError: os._exit(1)
        os._exit(0)
    for end in pipe: os.close(end)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with serving(Path(sys.argv[1]), EchoInit()), ipc.connect("unix:" + sys.argv[1]):
    assert LoopThread.shared().call(fork) == 0
print("fine")
""",
        str(path),
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done


# ---- handlers that fail in odd ways ----


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("there is no text")


class Failing:
    def make_echo(self) -> Failing:
        return self

    def echo(self, echo: str) -> str:
        if echo == "unspeakable":
            raise Unspeakable
        if echo == "import":
            from zmqpub.ipc import there_is_no_such_thing

            return str(there_is_no_such_thing)
        if echo == "exit":
            raise SystemExit(3)
        return echo


class InlineFailing(Failing):
    @ipc.inline
    def echo(self, echo: str) -> str:
        return super().echo(echo)


class AsyncFailing(Failing):
    async def echo(self, echo: str) -> str:  # type: ignore[override]
        return super().echo(echo)


@pytest.mark.parametrize("handler", [Failing, InlineFailing, AsyncFailing])
def test_a_handler_may_fail_in_any_way(path: Path, handler: type[Failing]) -> None:
    with serving(path, handler()), ipc.connect(f"unix:{path}", deadline=10) as init:
        echo = init.make_echo()
        for how, text in (("unspeakable", "Unspeakable"), ("import", "cannot import name"), ("exit", "3")):
            with pytest.raises(errors.RemoteError) as caught:
                echo.echo(how)
            assert text in caught.value.message
            assert "Traceback" not in caught.value.message
            assert "/" not in caught.value.message
        assert echo.echo("x") == "x"


class Interrupted(Failing):
    """A Mining."""

    def __init__(self) -> None:
        self.waiting = threading.Event()

    def make_mining(self) -> Interrupted:
        return self

    def wait_tip_changed(self, current_tip: bytes, timeout: float | None) -> None:
        ipc.on_cancel(lambda: sys.exit(4))
        self.waiting.set()
        time.sleep(0.2)

    def interrupt(self) -> None:
        sys.exit(5)


def test_what_is_called_in_the_loop_does_not_end_it(path: Path) -> None:
    served = Interrupted()
    with serving(path, served) as listener:
        init = ipc.connect(f"unix:{path}")
        mining = init.make_mining()
        waiting = threading.Thread(target=_until_disconnected, args=(lambda: mining.wait_tip_changed(bytes(32)),))
        waiting.start()
        assert served.waiting.wait(10)
        mining.interrupt()
        init.close()
        waiting.join()
        until(lambda: not listener.connections, "it is still connected")
        with ipc.connect(f"unix:{path}") as init:
            assert init.make_echo().echo("x") == "x"


class Euros(Sleeper):
    def echo(self, echo: str) -> str:
        return "€" * 30_000


def test_the_size_of_an_answer_is_that_of_its_bytes(path: Path) -> None:
    with serving(path, Euros(), max_message_bytes=65_536), ipc.connect(f"unix:{path}", deadline=10) as init:
        with pytest.raises(errors.RemoteError, match="an answer of 90000 bytes is larger than the limit"):
            init.make_echo().echo("x")
