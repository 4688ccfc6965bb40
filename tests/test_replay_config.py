"""The option zmqpubreplay: where it comes from, and which addresses it cannot have."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmqpub.config import ReplayConfig, make_notifier, parse_options, read_conf
from zmqpub.errors import ConfigError, ConfigProblem

A = "tcp://127.0.0.1:28332"
B = "tcp://127.0.0.1:28339"
ANY = "tcp://127.0.0.1:*"


def problem(options: dict[str, object]) -> ConfigProblem:
    with pytest.raises(ConfigError) as caught:
        parse_options(options)
    (only,) = caught.value.problems
    return only


def conf(path: Path, text: str, chain: str | None = None) -> ReplayConfig | None:
    file = path / "bitcoin.conf"
    file.write_text(text)
    return read_conf(file, chain).replay


def test_without_the_option_there_is_none() -> None:
    assert parse_options({"zmqpubrawtx": A}).replay is None


@pytest.mark.parametrize("name", ["zmqpubreplay", "-zmqpubreplay", "--zmqpubreplay"])
def test_an_address_in_any_scheme(name: str) -> None:
    config = parse_options({"zmqpubrawtx": A, name: "unix:/tmp/replay.sock"})
    assert config.replay == ReplayConfig("unix:/tmp/replay.sock", "ipc:///tmp/replay.sock")
    assert len(config.notifiers) == len(config.endpoints()) == 1
    assert str(config.replay) == "zmqpubreplay=unix:/tmp/replay.sock"
    six = parse_options({name: "tcp://[::1]:28339"}).replay
    assert six is not None
    assert six.ipv6


def test_it_may_be_taken_back() -> None:
    assert parse_options({"zmqpubreplay": B, "nozmqpubreplay": 1}).replay is None


def test_there_is_only_one() -> None:
    assert parse_options({"zmqpubreplay": [B, B]}).replay == ReplayConfig(B, B)
    found = problem({"zmqpubreplay": [B, "tcp://127.0.0.1:28340"]})
    assert (found.option, found.value) == ("zmqpubreplay", "tcp://127.0.0.1:28340")
    assert found.message == f"a publisher has one replay endpoint; conflicts with zmqpubreplay={B}"


@pytest.mark.parametrize("bad", ["", "0", "1", "127.0.0.1:28339", "tcp://127.0.0.1:65536", "pgm://x"])
def test_what_is_no_address(bad: str) -> None:
    found = problem({"zmqpubreplay": bad})
    assert (found.option, found.value) == ("zmqpubreplay", bad)


def test_an_address_with_a_topic_is_no_place_for_it() -> None:
    found = problem({"zmqpubrawtx": A, "zmqpubreplay": A})
    assert (found.option, found.value) == ("zmqpubreplay", A)
    assert found.message == f"conflicts with zmqpubrawtx={A}: the replay endpoint needs an address of its own"
    assert "every interface" in problem({"zmqpubrawtx": A, "zmqpubreplay": "tcp://*:28332"}).message


def test_ports_left_to_the_system_differ() -> None:
    assert parse_options({"zmqpubrawtx": ANY, "zmqpubreplay": ANY}).replay == ReplayConfig(ANY, ANY)


def test_a_notifier_added_later_cannot_have_its_address() -> None:
    replay = ReplayConfig(A, A)
    with pytest.raises(ConfigError, match="needs an address of its own"):
        make_notifier("rawtx", A, replay=replay)
    assert make_notifier("rawtx", B, replay=replay).endpoint == B


def test_a_mistyped_name_is_answered_with_the_right_one() -> None:
    assert "did you mean zmqpubreplay?" in problem({"zmqpubrelay": B}).message


def test_a_bitcoin_conf_names_it_with_its_line(tmp_path: Path) -> None:
    replay = conf(tmp_path, f"zmqpubreplay={B}\n")
    assert replay is not None
    assert (replay.endpoint, replay.where) == (B, f"{tmp_path / 'bitcoin.conf'}:1")
    with pytest.raises(ConfigError, match=r"bitcoin.conf:2: zmqpubreplay=.*conflicts with zmqpubrawtx=.*bitcoin.conf:1"):
        conf(tmp_path, f"zmqpubrawtx={A}\nzmqpubreplay={A}\n")


def test_the_section_of_the_chain_overrules_what_stands_outside(tmp_path: Path) -> None:
    text = f"zmqpubreplay={A}\n[regtest]\nzmqpubreplay={B}\n[signet]\nnozmqpubreplay=1\n"
    for chain, expected in (("main", A), ("regtest", B), ("signet", None)):
        replay = conf(tmp_path, text, chain)
        assert (replay and replay.endpoint) == expected
