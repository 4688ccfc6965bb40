"""`zmqpub run`: real processes, real sockets, real signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from block_samples import chain, hash_of, offsets, record, records, write_core, write_raw
from programs import ANY_PORT, TOPICS, Program, connected_listener, everything, free_port, on_terminal, once, stopped

from zmqpub.sources.events import BlockConnected, Event, TransactionAdded, UpdatedBlockTip
from zmqpub.sources.simulated import Simulated
from zmqpub.testing import Relay

pytest.importorskip("click")
pytest.importorskip("rich")

ERROR = "zmqpub: error: "
QUICK = ("--blocks=2", "--flat-out", "--block-interval=2", "--seed=7")


def sent_by(program: Program) -> int:
    """Messages, as the last line says."""
    match = re.search(r"ended: .*; ([\d,]+) messages? sent;", program.seen[-1])
    assert match
    return int(match[1].replace(",", ""))


def unheard_by(program: Program) -> int:
    """Messages that nobody had subscribed to, as the last line says."""
    match = re.search(r"; ([\d,]+) that nobody had subscribed to;", program.seen[-1])
    assert match
    return int(match[1].replace(",", ""))


def test_a_simulated_chain_arrives_whole_and_the_program_ends_by_itself() -> None:
    with Program("run", *everything(), *QUICK, "--wait-subscribers=1") as publisher:
        with connected_listener(publisher.address()) as listener:
            assert publisher.end() == 0
            assert listener.end(signal.SIGTERM) == 0
        assert publisher.errors == []
    events = list(Simulated(7, blocks=2, block_interval=2.0))
    *lines, summary = listener.objects()
    messages = [line for line in lines if line["event"] == "message"]
    assert summary["event"] == "summary"
    assert summary["messages"] == len(messages) == sent_by(publisher)
    assert summary["missed"] == 0
    of_topic = {
        topic: [message for message in messages if message["topic"] == topic] for topic in ("hashblock", "hashtx", "rawtx", "rawblock")
    }
    for topic in of_topic:
        assert [message["counter"] for message in of_topic[topic]] == list(range(len(of_topic[topic])))
    assert [m["hash"] for m in of_topic["hashblock"]] == [e.block.hash.hex() for e in events if isinstance(e, UpdatedBlockTip)]
    assert [m["hash"] for m in of_topic["rawblock"]] == [m["hash"] for m in of_topic["hashblock"]]
    assert [m["hash"] for m in of_topic["rawtx"]] == [m["hash"] for m in of_topic["hashtx"]] == txids(events)


def txids(events: list[Event]) -> list[str]:
    """In the order in which they are announced."""
    result = []
    for event in events:
        if isinstance(event, TransactionAdded):
            result.append(event.transaction.txid.hex())
        elif hasattr(event, "block") and not isinstance(event, UpdatedBlockTip):
            result += [txid.hex() for txid in event.block.txids]
    return result


def test_each_notifier_is_named_with_its_real_port_and_mark() -> None:
    port = free_port()
    options = (f"-zmqpubrawtx=tcp://127.0.0.1:{port}", "-zmqpubrawtxhwm=7", "--zmqpubhashblock", ANY_PORT, "-zmqpubhashblock", ANY_PORT)
    program = once("run", *options, *QUICK)
    assert program.process.returncode == 0
    bound = [re.fullmatch(r"bound (\w+) tcp://127\.0\.0\.1:(\d+) \(hwm (\d+)\)", line) for line in program.seen[:3]]
    assert [match and match[1] for match in bound] == ["pubhashblock", "pubhashblock", "pubrawtx"]
    assert [match and match[3] for match in bound] == ["1000", "1000", "7"]
    ports = [int(match[2]) for match in bound if match]
    assert ports[2] == port
    assert len({0, *ports}) == 4


def test_marks_alone_belong_to_the_default_address() -> None:
    """Not run, as that port may be taken: looked at where options become notifiers."""
    from zmqpub.cli.app import program
    from zmqpub.cli.options import make_plan

    context = program.commands["run"].make_context("run", ["-zmqpubrawtxhwm=5"])
    plan = make_plan(context.params, lambda done, total, unit: None)
    assert [(notifier.topic.value, notifier.address, notifier.hwm) for notifier in plan.config.notifiers] == [
        (topic, "tcp://127.0.0.1:28332", 5 if topic == "rawtx" else 1000)
        for topic in ("hashblock", "hashtx", "rawblock", "rawtx", "sequence")
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    program = Program("run", *everything(), "--speed=20")  # under nohup, too, it starts as from a terminal
    signal.signal(number, before)
    with program as publisher:
        with connected_listener(publisher.address()) as listener:
            listener.line('"event": "message"')
            begun = time.monotonic()
            assert publisher.end(number) == 0
            assert time.monotonic() - begun < 20
            listener.line('"event": "disconnected"')
            assert listener.end(signal.SIGINT) == 0
        assert publisher.errors == []
        assert publisher.seen[-2].endswith(f"{number.name}: ending")
        summary = listener.objects()[-1]
        # Whatever was sent since the listener came has arrived, the last bytes in the sockets included: its last counters are the
        # publisher's. (What was sent while its subscriptions were still on their way counts as sent, too.)
        assert summary["missed"] == 0
        assert 0 < summary["messages"] <= sent_by(publisher)
        counters = [row["counter"] for row in summary["notifiers"]]
        if None not in counters:
            assert sum(counter + 1 for counter in counters) == sent_by(publisher) + unheard_by(publisher)


def test_nohup_is_respected() -> None:
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    code = f"{ignore}; os.execv(sys.executable, [sys.executable, '-m', 'zmqpub', *sys.argv[1:]])"
    with Program(command=[sys.executable, "-c", code, "run", *everything()]) as publisher:
        publisher.line("publishing")
        publisher.send(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            publisher.process.wait(1.0)
        assert publisher.end(signal.SIGTERM) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    patient = ("--slow-subscriber=wait", "--linger=forever", "--flat-out", "--wait-subscribers=1", "--journal-bytes=1M")
    with Program("run", *everything(), *patient) as publisher, connected_listener(publisher.address()) as listener, stopped(listener):
        publisher.line("publishing")
        time.sleep(2)  # until its pipe and the journal are full
        publisher.send(signal.SIGTERM)
        publisher.line("SIGTERM: ending")
        with pytest.raises(subprocess.TimeoutExpired):
            publisher.process.wait(2.0)
        begun = time.monotonic()
        assert publisher.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert time.monotonic() - begun < 20  # it would have waited for ever
        assert publisher.errors == []


def test_a_full_journal_does_not_keep_it_from_ending() -> None:
    patient = ("--slow-subscriber=wait", "--linger=0.5", "--flat-out", "--wait-subscribers=1", "--journal-bytes=1M")
    with Program("run", *everything(), *patient) as publisher, connected_listener(publisher.address()) as listener, stopped(listener):
        publisher.line("publishing")
        time.sleep(2)
        begun = time.monotonic()
        assert publisher.end(signal.SIGINT) == 0
        assert time.monotonic() - begun < 20


def test_who_takes_nothing_is_disconnected_named_and_counted() -> None:
    with Program("run", *everything(), "--stall-timeout=0.3", "--flat-out", "--blocks=30", "--wait-subscribers=1") as publisher:
        with connected_listener(publisher.address()) as listener, stopped(listener):
            assert publisher.end() == 6
        assert any(
            "zmqpub: warning: tcp://127.0.0.1:" in line and "disconnected subscriber 127.0.0.1:" in line for line in publisher.errors
        )
        assert publisher.errors[-1].startswith(f"{ERROR}not everything arrived: ")
        assert "1 subscriber disconnected as too slow" in publisher.seen[-1]


def test_what_was_dropped_is_counted_and_has_its_exit_code() -> None:
    dropping = ("--on-full=drop", "--journal-bytes=100K", "--slow-subscriber=wait", "--flat-out", "--blocks=40", "--linger=0")
    with (
        Program("run", *everything(), *dropping, "--wait-subscribers=1") as publisher,
        connected_listener(publisher.address()) as listener,
    ):
        with stopped(listener):
            publisher.line("publishing")
            time.sleep(3)
        assert publisher.end() == 6
        match = re.fullmatch(rf"{ERROR}not everything arrived: ([\d,]+) messages dropped, 0 subscribers .*", publisher.errors[-1])
        assert match
        dropped = int(match[1].replace(",", ""))
        assert dropped > 0
        assert listener.end(signal.SIGTERM) == 6
        # The gaps that the listener saw are those that the publisher counted, but for what came after its last message.
        assert 0 < listener.objects()[-1]["missed"] <= dropped


def test_block_files_in_chain_order_then_the_end(tmp_path: Path) -> None:
    blocks = chain(60)
    directory = write_core(tmp_path / "blocks", [records(blocks[:20] + blocks[40:]), records(blocks[20:40])], key=bytes(range(8)))
    with Program("run", f"--source=blocks:{directory}", *everything(), "--wait-subscribers=1", "--start=5", "--stop=54") as publisher:
        with connected_listener(publisher.address(), "--topic=hashblock", "--topic=rawblock", "--bodies") as listener:
            assert publisher.end() == 0
            assert listener.end(signal.SIGTERM) == 0
        assert any(line.endswith("waiting for 1 subscriber") for line in publisher.seen)
        assert any("publishing blk*.dat blocks of" in line and "(regtest): 50 blocks, heights 5 to 54" in line for line in publisher.seen)
    messages = [line for line in listener.objects() if line["event"] == "message"]
    assert [line["hash"] for line in messages if line["topic"] == "hashblock"] == [hash_of(block).hex() for block in blocks[5:55]]
    assert [line["body"] for line in messages if line["topic"] == "rawblock"] == [block.hex() for block in blocks[5:55]]


def test_it_waits_for_as_many_subscribers_as_it_was_told(tmp_path: Path) -> None:
    directory = write_raw(tmp_path / "blocks", chain(3))
    with Program("run", f"--source=blocks:{directory}", *everything(), "--wait-subscribers=2") as publisher:
        address = publisher.address()
        publisher.line("waiting for 2 subscribers")
        with connected_listener(address) as first:
            with pytest.raises(subprocess.TimeoutExpired):
                publisher.process.wait(1.5)
            with connected_listener(address) as second:
                assert publisher.end() == 0
                for listener in (first, second):
                    assert listener.end(signal.SIGTERM) == 0
                    assert listener.objects()[-1]["messages"] == sent_by(publisher) == 3 * 5


def test_waiting_ends_with_a_signal(tmp_path: Path) -> None:
    with Program("run", *everything(), "--wait-subscribers=1") as publisher:
        publisher.line("waiting for 1 subscriber")
        assert publisher.end(signal.SIGTERM) == 0


def damaged_directory(tmp_path: Path) -> tuple[Path, int]:
    """Six blocks, of which the fourth has a broken inside; and where that begins."""
    blocks = chain(6)
    places = list(offsets(blocks))
    broken = bytearray(blocks[3])
    broken[80] = 0xFF  # the number of transactions
    data = records(blocks[:3]) + record(bytes(broken)) + records(blocks[4:])
    return write_core(tmp_path / "blocks", [data]), places[3]


def test_a_damaged_record_is_named_and_passed_over(tmp_path: Path) -> None:
    directory, offset = damaged_directory(tmp_path)
    program = once("run", f"--source=blocks:{directory}", *everything())
    assert program.process.returncode == 0
    (warning,) = program.errors
    match = re.search(r"zmqpub: warning: damaged record passed over: (\S+): at offset (\d+): ", warning)
    assert match
    assert match[1] == str(directory / "blk00000.dat")
    assert offset <= int(match[2]) <= offset + 8 + 81
    assert "ended: 10 events (5 blocks)" in program.seen[-1]


def test_a_damaged_record_is_the_end_when_asked(tmp_path: Path) -> None:
    directory, _ = damaged_directory(tmp_path)
    program = once("run", f"--source=blocks:{directory}", *everything(), "--on-damage=fail")
    assert program.process.returncode == 4
    assert len(program.errors) == 1
    assert program.errors[0].startswith(f"{ERROR}{directory / 'blk00000.dat'}: at offset ")
    assert "ended: 6 events (3 blocks)" in program.seen[-1]


def test_a_directory_without_blocks(tmp_path: Path) -> None:
    program = once("run", f"--source=blocks:{tmp_path}", *everything())
    assert program.process.returncode == 4
    assert program.errors == [f"{ERROR}{tmp_path}: no block files: neither blk*.dat nor files of one raw block each"]


def test_the_notifiers_of_a_bitcoin_conf(tmp_path: Path) -> None:
    conf = tmp_path / "bitcoin.conf"
    conf.write_text(
        f"rpcpassword=secret\nzmqpubrawtx={ANY_PORT}\n[regtest]\nzmqpubhashblock={ANY_PORT}\nzmqpubhashblockhwm=12\n"
        f"[signet]\nzmqpubsequence={ANY_PORT}\n"
    )
    program = once("run", f"--conf={conf}", "-chain=regtest", *QUICK)
    assert program.process.returncode == 0
    assert [line.split()[1] for line in program.seen[:2]] == ["pubhashblock", "pubrawtx"]
    assert program.seen[0].endswith("(hwm 12)")
    assert "secret" not in "".join(program.seen + program.errors)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("zmqpubrawtx=nonsense\nzmqpubrawtxs=x\n", [], "{conf}:1: zmqpubrawtx=nonsense: "),
        (
            "server=1\n[signet]\nzmqpubrawtx=tcp://127.0.0.1:0\n",
            [],
            "-conf={conf}: has no zmqpub option for chain main: nothing to publish",
        ),
        ("zmqpubrawtx=tcp://127.0.0.1:0\n", ["-zmqpubhashtx=tcp://127.0.0.1:0"], "-zmqpubhashtx: the file of -conf has the notifiers"),
    ],
)
def test_a_bitcoin_conf_that_does_not_do(tmp_path: Path, text: str, options: list[str], message: str) -> None:
    conf = tmp_path / "bitcoin.conf"
    conf.write_text(text)
    program = once("run", f"-conf={conf}", *options)
    assert program.process.returncode == 2
    assert any(message.format(conf=conf) in line for line in program.errors)
    assert all(line.startswith(ERROR) for line in program.errors)


def test_a_reader_that_is_gone_ends_it_quietly(tmp_path: Path) -> None:
    """As `zmqpub run | head -1` does: no traceback, nothing left running."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as stdout, Program("run", *everything(), "--wait-subscribers=1", stdout=stdout) as publisher:
        stdout.close()
        said = b""
        while b"waiting for 1 subscriber\n" not in said:
            more = os.read(reader, 4096)
            assert more, said
            said += more
        os.close(reader)
        address = re.search(rb"^bound pub\w+ (\S+) ", said)
        assert address
        # The next line is written when somebody comes.
        with connected_listener(address[1].decode()):
            assert publisher.end() == 128 + signal.SIGPIPE
        assert publisher.errors == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_its_log_does_not_end_a_publisher() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with open("/dev/full", "wb") as full, Program("run", *everything(address), "--speed=10", stdout=full) as publisher:
        with connected_listener(address) as listener:
            listener.line('"event": "message"')
            assert publisher.process.poll() is None
        assert publisher.end(signal.SIGTERM) == 0
        assert publisher.errors == []


def test_closed_standard_streams() -> None:
    code = "import os, sys; os.close(1); os.close(2); os.execv(sys.executable, [sys.executable, '-m', 'zmqpub', *sys.argv[1:]])"
    with Program(command=[sys.executable, "-c", code, "run", *everything(), *QUICK]) as publisher:
        assert publisher.end() == 0


def test_a_status_line_on_a_terminal() -> None:
    code, output = on_terminal("run", *everything(), "--speed=5", until=r"[1-9]\d* events \(\d", number=signal.SIGINT)
    assert code == 0
    assert "SIGINT: ending" in output
    assert "0 dropped" in output
    assert "\x1b[?25h" in output  # the cursor is there again


def test_a_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    directory = write_raw(tmp_path / "blocks", chain(12))
    code, output = on_terminal("run", f"--source=blocks:{directory}", "--rate=8", *everything(), until=r"[1-9]\d* of 12 blocks")
    assert code == 0
    assert "publishing (height " in output or re.search(r"publishing \d+ of 12 blocks \(height", output)


@pytest.mark.slow
def test_a_status_line_every_ten_seconds_without_a_terminal() -> None:
    begun = time.monotonic()
    with Program("run", *everything()) as publisher:
        publisher.line("publishing a simulated")
        publisher.line(r"Z publishing \(height \d+\); |Z publishing; ", 30)
        assert 10 <= time.monotonic() - begun < 30
        assert publisher.end(signal.SIGTERM) == 0


def test_blocks_connected_are_counted() -> None:
    connected = sum(isinstance(event, BlockConnected) for event in Simulated(7, blocks=2, block_interval=2.0))
    program = once("run", *everything(), *QUICK)
    assert f"({connected} blocks)" in program.seen[-1]
    assert sent_by(program) == 0


def test_what_a_killed_publisher_had_sent_is_replayed_by_the_next(tmp_path: Path) -> None:
    """One that had not heard the last of it, as its connection was cut, asks for it after the restart."""
    address, replay = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    options = [*everything(address), f"-zmqpubreplay={replay}", f"--journal-path={tmp_path}/journal", "--journal-bytes=64M"]
    with Relay(to=address) as relay, Program("run", *options, "--rate=200", "--speed=20", "--block-interval=20") as publisher:
        assert publisher.line("^bound replay (.*)$")[1] == replay
        with connected_listener(relay.address, "--replay", replay) as listener:
            listener.line('"topic": "rawblock"')
            relay.refuse()
            relay.cut()
            listener.line('"event": "disconnected"')
            time.sleep(0.5)
            publisher.send(signal.SIGKILL)
            publisher.process.wait()
            with Program("run", *options, "--rate=0.001", "--block-interval=1e6", "--seed=1"):
                relay.refuse(False)
                listener.line('"event": "repaired"')
                assert listener.end(signal.SIGTERM) == 0
        *lines, summary = listener.objects()
        assert summary["lost"] == 0
        assert summary["repaired"] > 100
        for topic in TOPICS:
            counters = [line["counter"] for line in lines if line["event"] == "message" and line["topic"] == topic]
            assert counters == list(range(counters[0], counters[0] + len(counters)))


def test_a_journal_file_that_is_in_use(tmp_path: Path) -> None:
    options = [*everything(), f"--journal-path={tmp_path}/journal", "--journal-bytes=16M", "--journal-sync=event"]
    with Program("run", *options) as first:
        first.address()
        second = once("run", *options)
        assert second.process.returncode == 10
        assert second.errors[0].startswith(f"{ERROR}{tmp_path}/journal: ")


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--journal-sync=often", "--journal-sync='often': expected 'none', 'event' or seconds"),
        ("--journal-restart=later", "--journal-restart='later': expected "),
        ("--journal-sync=-1", "--journal-sync=-1.0: expected 'none', 'event' or seconds"),
    ],
)
def test_journal_options_that_make_no_sense(option: str, problem: str) -> None:
    program = once("run", option)
    assert program.process.returncode == 2
    assert problem in program.errors[0]
