"""Options from Python to notifiers and endpoints."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zmqpub.config import NotifierConfig, PublisherConfig, make_notifier, parse_options
from zmqpub.errors import ConfigError, ConfigProblem
from zmqpub.wire import Topic

A = "tcp://127.0.0.1:28332"
B = "tcp://127.0.0.1:28333"
ANY = "tcp://127.0.0.1:*"


def shown(config: PublisherConfig) -> list[tuple[str, str, int]]:
    return [(notifier.topic.value, notifier.endpoint, notifier.hwm) for notifier in config.notifiers]


def problems(options: Mapping[Any, Any]) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        parse_options(options)
    assert str(caught.value) == "; ".join(map(str, caught.value.problems))
    return list(caught.value.problems)


def problem(options: Mapping[Any, Any]) -> ConfigProblem:
    (only,) = problems(options)
    return only


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="zmqpub")
    return caplog


class TestNames:
    def test_nothing(self) -> None:
        config = parse_options({})
        assert config == PublisherConfig((), None)
        assert config.endpoints() == ()

    @pytest.mark.parametrize("dashes", ["", "-", "--"])
    def test_dashes(self, dashes: str) -> None:
        config = parse_options({f"{dashes}zmqpubrawtx": A, f"{dashes}zmqpubrawtxhwm": 5})
        assert shown(config) == [("rawtx", A, 5)]

    @pytest.mark.parametrize("topic", list(Topic))
    def test_each_topic(self, topic: Topic) -> None:
        assert shown(parse_options({topic.option: A, topic.hwm_option: 7})) == [(topic.value, A, 7)]

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("zmqpubrawtxs", "did you mean zmqpubrawtx?"),
            ("-zmqpubrawtxs", "did you mean zmqpubrawtx?"),
            ("zmqpubrawblok", "did you mean zmqpubrawblock?"),
            ("zmqpubhashblockhw", "did you mean zmqpubhashblockhwm?"),
            ("ZMQPubRawTx", "did you mean zmqpubrawtx?"),
            ("nozmqpubrawtxs", "did you mean nozmqpubrawtx?"),
            ("---zmqpubrawtx", "did you mean zmqpubrawtx?"),
            ("rawtx", "no known option"),
            ("server", "these are known: zmqpubhashblock, zmqpubhashtx,"),
            ("regtest.zmqpubrawtx", "sections are for bitcoin.conf; use zmqpubrawtx here"),
            ("stall_timeout", "pass it as stall_timeout=…"),
        ],
    )
    def test_unknown(self, name: str, said: str) -> None:
        found = problem({name: A})
        assert found.option == (name[2:] if name.startswith("---") else name.lstrip("-"))
        assert said in found.message
        assert found.value is None

    def test_a_name_that_is_no_text(self) -> None:
        assert problem({Topic: A}).message == "the name of an option is a str"

    def test_no_secret_is_printed(self) -> None:
        found = problems({"rpcpassword": "hunter2", "rpcauth": ["u:hunter2"], "rpcpassword=hunter2": 1})
        assert len(found) == 3
        assert "hunter2" not in str(ConfigError(*found))


class TestValues:
    @pytest.mark.parametrize("several", [[A, B], (A, B)])
    def test_several_addresses(self, several: object) -> None:
        config = parse_options({"zmqpubrawtx": several, "zmqpubrawtxhwm": "10"})
        assert shown(config) == [("rawtx", A, 10), ("rawtx", B, 10)]

    def test_none_at_all(self) -> None:
        assert parse_options({"zmqpubrawtx": []}).notifiers == ()

    @pytest.mark.parametrize("value", [None, True, 28332, b"tcp://127.0.0.1:1", {A}, {A: 1}, [None]])
    def test_no_address(self, value: object) -> None:
        found = problem({"zmqpubrawtx": value})
        assert found.option == "zmqpubrawtx"
        assert "a str" in found.message

    @pytest.mark.parametrize(("value", "hwm"), [(0, 0), (2**31 - 1, 2**31 - 1), ("10000", 10000), (" +7 ", 7)])
    def test_marks(self, value: object, hwm: int) -> None:
        assert parse_options({"zmqpubrawtx": A, "zmqpubrawtxhwm": value}).notifiers[0].hwm == hwm

    def test_default_mark(self) -> None:
        assert parse_options({"zmqpubrawtx": A}).notifiers[0].hwm == 1000

    @pytest.mark.parametrize("value", [-1, 2**31, "", "x", "1_000", "1e3", "10k", "9" * 5000, 1.0, True, None, b"1"])
    def test_bad_marks(self, value: object) -> None:
        found = problem({"zmqpubrawtx": A, "zmqpubrawtxhwm": value})
        assert found.option == "zmqpubrawtxhwm"
        assert found.message.startswith("expected a number of messages")

    def test_a_mark_that_python_would_not_print(self) -> None:
        found = problem({"zmqpubrawtx": A, "zmqpubrawtxhwm": 10**5000})
        assert (found.value or "").startswith("0x")

    def test_the_address_as_given_and_as_libzmq_wants_it(self) -> None:
        (notifier,) = parse_options({"zmqpubrawtx": "unix:/tmp/zmqpub-no"}).notifiers
        assert (notifier.address, notifier.endpoint) == ("unix:/tmp/zmqpub-no", "ipc:///tmp/zmqpub-no")
        assert (notifier.option, notifier.where, str(notifier)) == ("zmqpubrawtx", None, "zmqpubrawtx=unix:/tmp/zmqpub-no")

    def test_frozen(self) -> None:
        (notifier,) = parse_options({"zmqpubrawtx": A}).notifiers
        with pytest.raises(dataclasses.FrozenInstanceError):
            notifier.hwm = 1  # type: ignore[misc]

    @pytest.mark.parametrize("value", ["0", "1"])
    def test_a_switch_is_no_address(self, value: str) -> None:
        found = problem({"zmqpubrawtx": value})
        assert found.value == value
        assert ("nozmqpubrawtx=1" in found.message) == (value == "0")

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "wallet.dat").touch()
        assert "binding would delete it" in problem({"zmqpubrawtx": f"unix:{tmp_path}/wallet.dat"}).message

    def test_everything_that_is_wrong_at_once(self) -> None:
        found = problems(
            {
                "zmqpubhashtx": ["localhost:1", A, "http://x"],
                "zmqpubhashtxhwm": -1,
                "zmqpubtxraw": A,
                "zmqpubrawtx": "",
                "rpcuser": "me",
            }
        )
        assert sorted((each.option, each.value) for each in found if each.value is not None) == [
            ("zmqpubhashtx", "http://x"),
            ("zmqpubhashtx", "localhost:1"),
            ("zmqpubhashtxhwm", "-1"),
            ("zmqpubrawtx", ""),
        ]
        assert [each.option for each in found if each.value is None] == ["zmqpubtxraw", "rpcuser"]
        text = str(ConfigError(*found))
        assert "zmqpubhashtx=localhost:1: the scheme is missing: did you mean tcp://localhost:1?" in text


class TestNegation:
    @pytest.mark.parametrize("value", [1, True, "1", "", "2"])
    def test_takes_back_what_stands_before_it(self, value: object) -> None:
        options = {"zmqpubrawtx": A, "nozmqpubrawtx": value, "--zmqpubrawtx": B, "zmqpubhashtx": A}
        assert shown(parse_options(options)) == [("hashtx", A, 1000), ("rawtx", B, 1000)]

    def test_at_the_end_nothing_is_left(self) -> None:
        assert parse_options({"zmqpubrawtx": "nonsense", "-nozmqpubrawtx": "1"}).notifiers == ()

    @pytest.mark.parametrize("value", [0, False, "0", "yes"])
    def test_a_double_negation_is_refused(self, value: object) -> None:
        found = problem({"nozmqpubrawtx": value})
        assert found.option == "nozmqpubrawtx"
        assert "give zmqpubrawtx a value" in found.message

    def test_of_a_mark_is_no_limit_as_in_bitcoin_core(self) -> None:
        assert shown(parse_options({"zmqpubrawtx": A, "zmqpubrawtxhwm": 5, "nozmqpubrawtxhwm": 1})) == [("rawtx", A, 0)]

    def test_takes_a_switch_only(self) -> None:
        assert problem({"nozmqpubrawtx": [A]}).message == "expected 1 or True"


class TestOrder:
    def test_by_topic_then_as_configured(self) -> None:
        config = parse_options({"zmqpubsequence": A, "zmqpubrawtx": [B, A], "zmqpubhashblock": B, "-zmqpubrawtx": ANY})
        assert [(notifier.topic.value, notifier.address) for notifier in config.notifiers] == [
            ("hashblock", B),
            ("rawtx", B),
            ("rawtx", A),
            ("rawtx", ANY),
            ("sequence", A),
        ]

    def test_the_last_mark_holds(self, warnings: pytest.LogCaptureFixture) -> None:
        config = parse_options({"zmqpubrawtx": A, "zmqpubrawtxhwm": [1, 2], "-zmqpubrawtxhwm": 3})
        assert config.notifiers[0].hwm == 3
        assert "zmqpubrawtxhwm=1: has no effect, as zmqpubrawtxhwm=3 holds" in warnings.text

    def test_duplicates_collapse(self, warnings: pytest.LogCaptureFixture) -> None:
        config = parse_options({"zmqpubrawtx": ["unix:/tmp/zmqpub-no", A, "ipc:///tmp/zmqpub-no"], "zmqpubhashtx": A})
        assert shown(config) == [("hashtx", A, 1000), ("rawtx", "ipc:///tmp/zmqpub-no", 1000), ("rawtx", A, 1000)]
        (record,) = warnings.records
        assert record.name == "zmqpub"
        message = record.getMessage()
        assert "zmqpubrawtx=ipc:///tmp/zmqpub-no" in message
        assert "zmqpubrawtx=unix:/tmp/zmqpub-no" in message


class TestEndpoints:
    def test_one_address_one_socket(self) -> None:
        options = {"zmqpubrawtx": [B, A], "zmqpubhashblock": A, "zmqpubrawtxhwm": 7, "zmqpubhashblockhwm": 8}
        config = parse_options(options)
        first, second = config.endpoints()
        assert (first.endpoint, first.address, first.option, first.hwm, first.ipv6) == (
            A,
            A,
            "zmqpubhashblock",
            8,
            False,
        )
        assert [notifier.topic.value for notifier in first.notifiers] == ["hashblock", "rawtx"]
        assert (second.endpoint, second.option, second.hwm) == (B, "zmqpubrawtx", 7)
        assert sorted(first.notifiers + second.notifiers, key=config.notifiers.index) == list(config.notifiers)

    def test_spellings_of_one_endpoint_share_it(self) -> None:
        (endpoint,) = parse_options({"zmqpubrawtx": "unix://" + "/tmp/zmqpub-no", "zmqpubhashtx": "unix:/tmp/zmqpub-no"}).endpoints()
        assert (endpoint.endpoint, endpoint.address) == ("ipc:///tmp/zmqpub-no", "unix:/tmp/zmqpub-no")

    def test_ipv6(self) -> None:
        config = parse_options({"zmqpubrawtx": "tcp://[0::1]:1", "zmqpubhashtx": "tcp://[::1]:1", "zmqpubrawblock": A})
        assert [(each.endpoint, each.ipv6) for each in config.endpoints()] == [("tcp://[::1]:1", True), (A, False)]

    def test_chosen_ports_are_shared_between_topics_if_spelled_alike(self) -> None:
        (endpoint,) = parse_options({"zmqpubrawblock": ANY, "zmqpubrawtx": ANY}).endpoints()
        assert [notifier.topic.value for notifier in endpoint.notifiers] == ["rawblock", "rawtx"]
        assert len(parse_options({"zmqpubrawblock": ANY, "zmqpubrawtx": "tcp://127.0.0.1:0"}).endpoints()) == 2

    def test_chosen_ports_are_never_duplicates_within_a_topic(self, warnings: pytest.LogCaptureFixture) -> None:
        config = parse_options({"zmqpubrawtx": [ANY, ANY], "zmqpubsequence": [ANY, A, ANY]})
        assert [(endpoint.endpoint, [notifier.topic.value for notifier in endpoint.notifiers]) for endpoint in config.endpoints()] == [
            (ANY, ["rawtx", "sequence"]),
            (ANY, ["rawtx", "sequence"]),
            (A, ["sequence"]),
        ]
        assert not warnings.records

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("tcp://*:28332", A),
            ("tcp://[::]:28332", A),
            ("tcp://0.0.0.0:28332", "tcp://*:28332"),
            ("unix:/tmp/zmqpub-no", "unix:/tmp/./zmqpub-no"),
        ],
    )
    def test_addresses_that_exclude_each_other(self, one: str, other: str) -> None:
        found = problem({"zmqpubhashtx": [B, one], "zmqpubrawtx": other, "zmqpubsequence": [one, other]})
        assert (found.option, found.value) == ("zmqpubrawtx", other)
        assert f"conflicts with zmqpubhashtx={one}: " in found.message


class TestWarnings:
    def test_a_mark_without_addresses(self, warnings: pytest.LogCaptureFixture) -> None:
        assert parse_options({"zmqpubrawtxhwm": 5}).notifiers == ()
        assert "zmqpubrawtxhwm=5: has no effect, as no zmqpubrawtx is given" in warnings.text

    def test_a_mark_that_the_shared_socket_does_not_take(self, warnings: pytest.LogCaptureFixture) -> None:
        config = parse_options({"zmqpubhashtx": A, "zmqpubrawtx": A, "zmqpubsequence": A, "zmqpubrawtxhwm": 10000})
        assert [notifier.hwm for notifier in config.notifiers] == [1000, 10000, 1000]
        (record,) = warnings.records
        assert record.getMessage() == (
            f"zmqpubrawtxhwm=10000: has no effect at {A}, as the socket there has the mark of zmqpubhashtx, 1000"
        )

    def test_a_relative_path_after_two_slashes(self, warnings: pytest.LogCaptureFixture) -> None:
        assert parse_options({"zmqpubrawtx": "unix://tmp/zmqpub-no"}).notifiers[0].endpoint == "ipc://tmp/zmqpub-no"
        assert "Bitcoin Core would take it for /tmp/zmqpub-no" in warnings.text

    def test_none_for_what_is_plain(self, warnings: pytest.LogCaptureFixture) -> None:
        parse_options({topic.option: [A, "unix:/tmp/zmqpub-no"] for topic in Topic} | {"zmqpubrawtxhwm": 1000})
        assert not warnings.records


class TestMakeNotifier:
    def test_is_what_options_make(self) -> None:
        made = make_notifier("rawtx", "unix:/tmp/zmqpub-no", 5)
        assert (made,) == parse_options({"zmqpubrawtx": "unix:/tmp/zmqpub-no", "zmqpubrawtxhwm": 5}).notifiers
        assert make_notifier(Topic.RAWTX, A).hwm == 1000

    @pytest.mark.parametrize(
        ("topic", "address", "hwm", "options"),
        [
            ("rawty", A, 1, ["topic"]),
            ("rawtx", "nowhere", -1, ["zmqpubrawtx", "zmqpubrawtxhwm"]),
            ("rawtx", None, "x", ["zmqpubrawtx", "zmqpubrawtxhwm"]),
        ],
    )
    def test_refused(self, topic: Any, address: Any, hwm: Any, options: list[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            make_notifier(topic, address, hwm)
        assert sorted(each.option for each in caught.value.problems) == options

    def test_beside_others(self) -> None:
        running = parse_options({"zmqpubrawtx": [A, ANY, ANY], "zmqpubhashtx": "tcp://*:1"}).notifiers
        assert make_notifier("hashtx", A, beside=running).endpoint == A
        with pytest.raises(ConfigError, match=rf"there already is zmqpubrawtx={A}"):
            make_notifier("rawtx", A, beside=running)
        with pytest.raises(ConfigError, match=r"conflicts with zmqpubhashtx=tcp://\*:1"):
            make_notifier("rawtx", "tcp://127.0.0.1:1", beside=running)

    def test_the_instance_is_a_free_one(self) -> None:
        running: tuple[NotifierConfig, ...] = parse_options({"zmqpubrawtx": [ANY, ANY, ANY]}).notifiers
        assert [notifier.instance for notifier in running] == [0, 1, 2]
        assert make_notifier("rawtx", ANY, beside=running).instance == 3
        assert make_notifier("rawtx", ANY, beside=running[::2]).instance == 1
        assert make_notifier("hashtx", ANY, beside=running).instance == 0
