"""bitcoin.conf, read as Bitcoin Core reads it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmqpub.conf_file import interpret_bool
from zmqpub.config import PublisherConfig, read_conf
from zmqpub.errors import ConfigError, ConfigProblem

A, B, C, D = (f"tcp://127.0.0.1:{port}" for port in (28332, 28333, 28334, 28335))

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "bitcoin.conf") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="zmqpub")
    return caplog


def addresses(config: PublisherConfig) -> list[str]:
    return [notifier.address for notifier in config.notifiers]


def problems(path: Path, chain: str | None = None) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        read_conf(path, chain)
    return list(caught.value.problems)


def problem(path: Path, chain: str | None = None) -> ConfigProblem:
    (only,) = problems(path, chain)
    return only


class TestGrammar:
    def test_a_file_as_people_have_it(self, write: Write) -> None:
        path = write(f"""\
# my node
server=1
rpcauth=me:0123$4567
dbcache = 4096   # megabytes
zmqpubrawblock={A}
 zmqpubrawtx\t=  {A}  # both on one port
zmqpubrawtxhwm=10000
zmqpubsequence=unix:/tmp/a=b
addnode=1.2.3.4

[regtest]
zmqpubhashtx={B}
""")
        config = read_conf(path)
        assert config.chain == "main"
        assert [(each.topic.value, each.address, each.endpoint, each.hwm, each.where) for each in config.notifiers] == [
            ("rawblock", A, A, 1000, f"{path}:5"),
            ("rawtx", A, A, 10000, f"{path}:6"),
            ("sequence", "unix:/tmp/a=b", "ipc:///tmp/a=b", 1000, f"{path}:8"),
        ]

    @pytest.mark.parametrize("text", ["", "\n\n", "# zmqpubrawtx=x", "server=1", "[main]"])
    def test_nothing_asked_for(self, write: Write, text: str) -> None:
        assert read_conf(write(text)).notifiers == ()

    def test_line_ends_of_windows(self, write: Write) -> None:
        config = read_conf(write(f"server=1\r\n[main]\r\nzmqpubrawtx={A}\r\n"))
        assert addresses(config) == [A]
        assert (config.notifiers[0].where or "").endswith(":3")

    def test_byte_order_mark(self, write: Write, warnings: pytest.LogCaptureFixture) -> None:
        path = write(b"\xef\xbb\xbfzmqpubrawtx=" + A.encode())
        assert addresses(read_conf(path)) == [A]
        assert f"{path}:1: skipping a byte order mark" in warnings.text

    def test_utf16(self, write: Write) -> None:
        path = write(f"zmqpubrawtx={A}".encode("utf-16"))
        assert str(problem(path)) == f"{path}:1: conf: the file is UTF-16; save it as UTF-8"

    def test_bytes_that_are_not_utf8_are_named_where_they_matter(self, write: Write) -> None:
        path = write(b"# caf\xe9\nwallet=caf\xe9\nrpcpassword=\xff\nzmqpubrawtx=unix:/tmp/caf\xe9\nzmq\xff=1\n[\xfe]\n")
        found = problems(path)
        assert [(each.option, each.value, each.where) for each in found] == [
            ("zmqpubrawtx", None, f"{path}:4"),
            ("conf", None, f"{path}:5"),
            ("conf", None, f"{path}:6"),
        ]
        assert "byte 0xe9 in column 26 is not UTF-8" in found[0].message

    def test_other_lines_that_are_wrong(self, write: Write) -> None:
        path = write("""\
-server=1
--zmqpubrawtx=tcp://127.0.0.1:1
rpcpassword hunter2
hunter2
[regtest
nozmqpubrawtx
-hunter2
rpcpassword=hunt#er2
-rpcpassword=hunter2
conf=other.conf
= 1
""")
        found = problems(path)
        assert [(each.option, each.value, each.where) for each in found] == [
            ("server", None, f"{path}:1"),
            ("zmqpubrawtx", None, f"{path}:2"),
            ("conf", None, f"{path}:3"),
            ("conf", None, f"{path}:4"),
            ("conf", None, f"{path}:5"),
            ("nozmqpubrawtx", None, f"{path}:6"),
            ("conf", None, f"{path}:7"),
            ("rpcpassword", None, f"{path}:8"),
            ("rpcpassword", None, f"{path}:9"),
            ("conf", None, f"{path}:10"),
        ]
        assert "did you mean nozmqpubrawtx=1?" in found[5].message
        assert "hunt" not in str(ConfigError(*found))

    def test_a_password_without_hash_sign_is_nobodys_business(self, write: Write) -> None:
        assert read_conf(write("rpcpassword=hunter2\nmain.rpcpassword=hunter2\n")).notifiers == ()

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.binary(max_size=20)
            | st.sampled_from([b"[regtest]", b"regtest=1", b"nozmqpubrawtx=1", b"zmqpubrawtx=unix:x", b"zmqpubrawtxhwm=1", b"chain="]),
            max_size=6,
        )
    )
    def test_any_bytes_are_a_configuration_or_a_config_error(self, tmp_path: Path, lines: list[bytes]) -> None:
        path = tmp_path / "bitcoin.conf"
        path.write_bytes(b"\n".join(lines))
        try:
            config = read_conf(path)
        except ConfigError as error:
            assert all((each.where or "").startswith(f"{path}:") for each in error.problems)  # noqa: PT017
        else:
            assert set(addresses(config)) <= {"unix:x"}


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "none.conf"
        assert str(problem(path)) == f"conf={path}: cannot read the configuration file: No such file or directory"

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "Is a directory" in problem(tmp_path).message

    def test_no_name_of_a_file(self) -> None:
        assert "no name of a file" in problem(Path("a\0b")).message

    def test_the_cause_is_kept(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            read_conf(tmp_path / "none.conf")
        assert isinstance(caught.value.__cause__, FileNotFoundError)


class TestOptions:
    def test_unknown_names_of_ours_only(self, write: Write) -> None:
        text = f"zmqpubrawblok={A}\nregtest.zmqpubtxraw={A}\nnozmqpubrawt=1\nrawtx={A}\nzmqfoo=1\nZMQPUBRAWTX={A}\n"
        path = write(text)
        assert [(each.option, each.message.partition("mean ")[2], each.where) for each in problems(path)] == [
            ("zmqpubrawblok", "zmqpubrawblock?", f"{path}:1"),
            ("regtest.zmqpubtxraw", "zmqpubrawtx?", f"{path}:2"),
            ("nozmqpubrawt", "nozmqpubrawtx?", f"{path}:3"),
            ("ZMQPUBRAWTX", "zmqpubrawtx?", f"{path}:6"),
        ]

    def test_grammar_and_values_are_reported_together(self, write: Write) -> None:
        path = write("-x=1\nzmqpubrawtx=127.0.0.1:28332\nzmqpubrawtxhwm=many\nchain=testnet\n")
        assert {each.where: each.option for each in problems(path)} == {
            f"{path}:1": "x",
            f"{path}:2": "zmqpubrawtx",
            f"{path}:3": "zmqpubrawtxhwm",
            f"{path}:4": "chain",
        }

    def test_both_sides_of_a_conflict_are_named(self, write: Write) -> None:
        path = write(f"zmqpubrawtx=tcp://*:28332\n[main]\nzmqpubhashtx={A}\n")
        found = problem(path)
        assert (found.option, found.where) == ("zmqpubrawtx", f"{path}:1")
        assert f"conflicts with zmqpubhashtx={A} ({path}:3)" in found.message

    def test_values_of_other_chains_are_not_looked_at(self, write: Write) -> None:
        path = write("[test]\nzmqpubrawtx=nonsense\nzmqpubrawtxhwm=many\n")
        assert read_conf(path).notifiers == ()
        assert len(problems(path, "test")) == 2

    def test_0_does_not_negate(self, write: Write) -> None:
        found = problem(write("zmqpubrawtx=0"))
        assert found.value == "0"
        assert "write nozmqpubrawtx=1" in found.message

    def test_a_double_negation_is_refused(self, write: Write) -> None:
        for value in ("0", "x"):
            assert "says twice" in problem(write(f"nozmqpubrawtx={value}")).message

    def test_quotes(self, write: Write) -> None:
        assert "quotes are taken literally" in problem(write(f'zmqpubrawtx="{A}"')).message

    def test_duplicates_name_both_places(self, write: Write, warnings: pytest.LogCaptureFixture) -> None:
        path = write(f"zmqpubrawtx={A}\nzmqpubrawtx={A}\n")
        assert addresses(read_conf(path)) == [A]
        assert f"({path}:2): ignored" in warnings.text
        assert f"({path}:1)" in warnings.text


class TestSections:
    """The expected results follow from common::GetSettingsList and GetSetting of Bitcoin Core 31."""

    TEXT = f"zmqpubrawtx={A}\n[regtest]\nzmqpubrawtx={B}\n[main]\nzmqpubrawtx={C}\n[regtest]\nzmqpubrawtx={D}\n"

    @pytest.mark.parametrize(
        ("chain", "expected"),
        [(None, [C, A]), ("main", [C, A]), ("regtest", [B, D, A]), ("signet", [A]), ("test", [A]), ("testnet4", [A])],
    )
    def test_the_chains_section_first_then_outside(self, write: Write, chain: str | None, expected: list[str]) -> None:
        config = read_conf(write(self.TEXT), chain)
        assert addresses(config) == expected
        assert config.chain == (chain or "main")

    def test_dotted_names(self, write: Write) -> None:
        path = write(f"regtest.zmqpubrawtx={A}\nzmqpubrawtx={B}\nregtest.nozmqpubhashtx=1\nzmqpubhashtx={C}\n")
        assert addresses(read_conf(path)) == [C, B]
        assert addresses(read_conf(path, "regtest")) == [A, B]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            # A negation takes back what stands before it in its own section.
            (f"zmqpubrawtx={A}\nnozmqpubrawtx=1\nzmqpubrawtx={B}", [B]),
            (f"zmqpubrawtx={A}\nnozmqpubrawtx=1", []),
            (f"zmqpubrawtx={A}\nnozmqpubrawtx=", []),
            # At the end of the chain's section it takes back what stands outside, too, wherever that is written …
            (f"zmqpubrawtx={A}\n[regtest]\nzmqpubrawtx={B}\nnozmqpubrawtx=1", []),
            (f"regtest.nozmqpubrawtx=1\nzmqpubrawtx={A}", []),
            # … but not if something follows it in that section.
            (f"zmqpubrawtx={A}\n[regtest]\nnozmqpubrawtx=1\nzmqpubrawtx={B}", [B, A]),
            # Outside, it does not reach into the section.
            (f"zmqpubrawtx={A}\nnozmqpubrawtx=1\n[regtest]\nzmqpubrawtx={B}", [B]),
            # Another chain's does nothing.
            (f"zmqpubrawtx={A}\n[main]\nnozmqpubrawtx=1", [A]),
        ],
    )
    def test_negation(self, write: Write, text: str, expected: list[str]) -> None:
        assert addresses(read_conf(write(text), "regtest")) == expected

    @pytest.mark.parametrize(
        ("text", "hwm"),
        [
            ("zmqpubrawtxhwm=1\nzmqpubrawtxhwm=2", 1),  # in a file the first one holds
            ("zmqpubrawtxhwm=1\n[regtest]\nzmqpubrawtxhwm=2\nzmqpubrawtxhwm=3", 2),
            ("zmqpubrawtxhwm=1\n[main]\nzmqpubrawtxhwm=2", 1),
            ("zmqpubrawtxhwm=1\nnozmqpubrawtxhwm=1\nzmqpubrawtxhwm=2", 2),
            ("zmqpubrawtxhwm=1\nregtest.nozmqpubrawtxhwm=1", 0),
            ("nozmqpubrawtxhwm=1\nregtest.zmqpubrawtxhwm=5", 5),
            ("zmqpubrawtxhwm=0", 0),
            ("", 1000),
        ],
    )
    def test_marks(self, write: Write, text: str, hwm: int) -> None:
        config = read_conf(write(f"zmqpubrawtx={A}\n{text}"), "regtest")
        assert [notifier.hwm for notifier in config.notifiers] == [hwm]

    def test_a_mark_that_is_outdone_is_told(self, write: Write, warnings: pytest.LogCaptureFixture) -> None:
        path = write(f"zmqpubrawtx={A}\nzmqpubrawtxhwm=1\nzmqpubrawtxhwm=2\n")
        read_conf(path)
        assert f"zmqpubrawtxhwm=2 ({path}:3): has no effect, as zmqpubrawtxhwm=1 ({path}:2) holds" in warnings.text

    @pytest.mark.parametrize(
        ("section", "guess"),
        [
            ("testnet", "[test]"),
            ("mainnet", "[main]"),
            ("regtst", "[regtest]"),
            (" test ", "[test]"),
            ("x", "main, test"),
        ],
    )
    def test_our_options_in_a_section_that_is_none(self, write: Write, section: str, guess: str) -> None:
        path = write(f"[{section}]\nserver=1\nzmqpubrawtx={A}\n")
        found = problem(path)
        assert found.where == f"{path}:3"
        assert f"there is no section [{section}]" in found.message
        assert guess in found.message

    def test_a_section_within_a_section(self, write: Write) -> None:
        path = write(f"[main]\nregtest.zmqpubrawtx={A}\n")
        assert "a section within section [main]" in problem(path).message

    def test_other_sections_without_our_options_are_bitcoins_business(self, write: Write) -> None:
        assert read_conf(write("[liquidv1]\nserver=1\nfoo.bar=1\n")).notifiers == ()


class TestChain:
    @pytest.mark.parametrize(
        ("text", "chain"),
        [
            ("", "main"),
            ("chain=signet", "signet"),
            ("chain=test", "test"),
            ("regtest=1", "regtest"),
            ("testnet=1", "test"),
            ("testnet4=1", "testnet4"),
            ("signet=1", "signet"),
            ("regtest=", "regtest"),
            ("regtest=0", "main"),
            ("regtest=2x", "regtest"),
            ("noregtest=0", "regtest"),
            ("noregtest=1", "main"),
            ("regtest=1\nregtest=0", "main"),  # of these the last one holds …
            ("regtest=0\nregtest=1", "regtest"),
            ("chain=test\nchain=signet", "test"),  # … of this the first
            ("regtest=0\nchain=test", "test"),
            ("[signet]\nregtest=1\nchain=test", "main"),  # chosen outside sections only
            ("[]\nregtest=1", "regtest"),
        ],
    )
    def test_chosen_by_the_file(self, write: Write, text: str, chain: str) -> None:
        assert read_conf(write(text)).chain == chain

    def test_chooses_the_section(self, write: Write) -> None:
        assert addresses(read_conf(write(f"regtest=1\n[regtest]\nzmqpubrawtx={A}\n[main]\nzmqpubrawtx={B}\n"))) == [A]

    def test_the_caller_overrules_the_file(self, write: Write) -> None:
        config = read_conf(write(f"regtest=1\n[regtest]\nzmqpubrawtx={A}\n[main]\nzmqpubrawtx={B}\n"), "main")
        assert (config.chain, addresses(config)) == ("main", [B])

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("chain=main", "regtest=1"),
            ("regtest=1", "signet=1"),
            ("chain=regtest", "regtest=1"),
            ("testnet=1", "testnet4=1"),
        ],
    )
    def test_conflicts_name_both(self, write: Write, one: str, other: str) -> None:
        path = write(f"{other}\n{one}\n")
        (found,) = problems(path)
        assert str(found) == f"{path}:1: {other}: conflicts with {one} ({path}:2): the chain can be chosen once only"

    @pytest.mark.parametrize(("name", "hint"), [("testnet", "test"), ("mainnet", "main"), ("regtst", "regtest"), ("", None), ("0", None)])
    def test_unknown(self, write: Write, name: str, hint: str | None) -> None:
        path = write(f"chain={name}")
        found = problem(path)
        assert (found.option, found.value, found.where) == ("chain", name, f"{path}:1")
        assert found.message.endswith(f"; did you mean {hint}?" if hint else "main, test, testnet4, signet, regtest")

    def test_unknown_from_the_caller(self, write: Write) -> None:
        found = problem(write(""), "testnet")
        assert (found.option, found.value, found.where) == ("chain", "testnet", None)
        assert "did you mean test?" in found.message

    def test_words_do_not_turn_a_chain_on(self, write: Write, warnings: pytest.LogCaptureFixture) -> None:
        assert read_conf(write("regtest=true")).chain == "main"
        assert "only a number turns this on, as in regtest=1" in warnings.text

    def test_a_choice_within_a_section_is_told(self, write: Write, warnings: pytest.LogCaptureFixture) -> None:
        path = write("[main]\nregtest=1\n")
        assert read_conf(path).chain == "main"
        assert f"regtest=1 ({path}:2): has no effect in section [main]" in warnings.text

    @pytest.mark.parametrize(
        ("value", "meant"),
        [
            ("", True),
            ("1", True),
            ("-1", True),
            ("+1", True),
            (" 007", True),
            ("9" * 5000, True),
            ("0", False),
            ("-0", False),
            ("+-1", False),
            ("true", False),
            ("x1", False),
            ("00", False),
        ],
    )
    def test_flags(self, value: str, meant: bool) -> None:
        assert interpret_bool(value) is meant


class TestInclude:
    def test_what_is_included_follows(self, write: Write, tmp_path: Path) -> None:
        path = write(f"includeconf=extra.conf\nzmqpubrawtx={A}\n")
        extra = write(f"zmqpubrawtx={B}\n[regtest]\nzmqpubrawtx={C}\n", "extra.conf")
        config = read_conf(path)
        assert [(each.address, each.where) for each in config.notifiers] == [(A, f"{path}:2"), (B, f"{extra}:1")]
        assert addresses(read_conf(path, "regtest")) == [C, A, B]

    def test_sections_do_not_reach_into_included_files(self, write: Write) -> None:
        path = write("[regtest]\nincludeconf=extra.conf\n")
        write(f"zmqpubrawtx={B}\n", "extra.conf")
        assert addresses(read_conf(path)) == []
        assert addresses(read_conf(path, "regtest")) == [B]

    def test_the_chains_section_includes_first(self, write: Write) -> None:
        path = write("includeconf=a.conf\nregtest=1\n[regtest]\nincludeconf=b.conf\n[main]\nincludeconf=absent.conf\n")
        write(f"zmqpubrawtx={A}", "a.conf")
        write(f"zmqpubrawtx={B}", "b.conf")
        assert addresses(read_conf(path)) == [B, A]

    def test_negation_reaches_back_into_the_file(self, write: Write) -> None:
        path = write(f"zmqpubrawtx={A}\nincludeconf=extra.conf\n")
        write(f"nozmqpubrawtx=1\nzmqpubrawtx={B}", "extra.conf")
        assert addresses(read_conf(path)) == [B]

    def test_negated(self, write: Write) -> None:
        path = write("includeconf=absent.conf\nnoincludeconf=1\nincludeconf=extra.conf\n")
        write(f"zmqpubrawtx={B}", "extra.conf")
        assert addresses(read_conf(path)) == [B]

    @pytest.mark.parametrize("absolute", [False, True])
    def test_relative_to_the_data_directory(self, write: Write, tmp_path: Path, absolute: bool) -> None:
        folder = tmp_path / "data"
        path = write(f"includeconf={folder}/extra.conf" if absolute else "includeconf=extra.conf")
        write(f"zmqpubrawtx={B}", "data/extra.conf")
        assert addresses(read_conf(path, datadir=tmp_path / ("elsewhere" if absolute else "data"))) == [B]

    def test_relative_to_the_files_folder_not_to_the_working_directory(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write("includeconf=extra.conf", "data/bitcoin.conf")
        write(f"zmqpubrawtx={B}", "data/extra.conf")
        monkeypatch.chdir(tmp_path)
        assert addresses(read_conf("data/bitcoin.conf")) == [B]
        monkeypatch.chdir(tmp_path / "data")
        assert addresses(read_conf("bitcoin.conf")) == [B]

    def test_nested_ones_are_ignored_and_told(self, write: Write, warnings: pytest.LogCaptureFixture) -> None:
        path = write("includeconf=extra.conf\n")
        extra = write(f"includeconf=more.conf\nzmqpubrawtx={B}\n", "extra.conf")
        write(f"zmqpubrawtx={C}", "more.conf")
        assert addresses(read_conf(path)) == [B]
        assert f"includeconf=more.conf ({extra}:1): ignored" in warnings.text

    def test_an_included_file_may_choose_the_chain(self, write: Write) -> None:
        path = write(f"includeconf=extra.conf\n[regtest]\nzmqpubrawtx={A}\n[main]\nzmqpubrawtx={B}\n")
        write("regtest=1", "extra.conf")
        config = read_conf(path)
        assert (config.chain, addresses(config)) == ("regtest", [A])

    def test_conflicting_choices_in_two_files(self, write: Write) -> None:
        path = write("includeconf=extra.conf\nsignet=1\n")
        extra = write("regtest=1", "extra.conf")
        found = problem(path)
        assert (found.where, f"{extra}:1" in found.message) == (f"{path}:2", True)

    @pytest.mark.parametrize("value", ["absent.conf", ".", "a\0b"])
    def test_unreadable(self, write: Write, value: str) -> None:
        path = write(f"includeconf={value}\nserver=1\n-x=1\n")
        found = problems(path)
        assert {each.where for each in found} == {f"{path}:1", f"{path}:3"}
        (unread,) = (each for each in found if each.option == "includeconf")
        assert unread.message.startswith(f"cannot read {os.path.join(path.parent, value)}: ")

    @pytest.mark.parametrize("text", ["includeconf=", "noincludeconf=0"])
    def test_names_nothing(self, write: Write, text: str) -> None:
        assert problem(write(text)).message == "names no file to include"

    def test_errors_in_included_files_are_placed_there(self, write: Write) -> None:
        path = write("includeconf=extra.conf\nzmqpubrawtxx=1\n")
        extra = write("\n\nzmqpubrawtx=nowhere\nrpcpassword=a#b\n", "extra.conf")
        assert {each.where for each in problems(path)} == {f"{path}:2", f"{extra}:3", f"{extra}:4"}
