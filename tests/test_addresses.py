"""Addresses: what is accepted and what it means, what is refused and what is suggested instead."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpub.addresses import IPC_PATH_LIMIT, conflict, obstacle, parse_address

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets")


@pytest.mark.parametrize(
    ("text", "endpoint", "ipv6", "wildcard"),
    [
        ("tcp://127.0.0.1:28332", "tcp://127.0.0.1:28332", False, False),
        ("tcp://127.0.0.1:028332", "tcp://127.0.0.1:28332", False, False),
        ("tcp://*:28332", "tcp://*:28332", False, False),
        ("tcp://localhost:1", "tcp://localhost:1", False, False),
        ("tcp://br-lan0.100:65535", "tcp://br-lan0.100:65535", False, False),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", False, True),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", False, True),
        ("tcp://[::1]:28332", "tcp://[::1]:28332", True, False),
        ("tcp://[0:0:0:0:0:0:0:1]:28332", "tcp://[::1]:28332", True, False),
        ("tcp://[FE80::1%eth0]:28332", "tcp://[fe80::1%eth0]:28332", True, False),
        ("tcp://[::]:*", "tcp://[::]:*", True, True),
        ("unix:/tmp/a b=c", "ipc:///tmp/a b=c", False, False),
        ("unix:relative", "ipc://relative", False, False),
        ("unix:///tmp/x", "ipc:///tmp/x", False, False),
        ("ipc:///tmp/x", "ipc:///tmp/x", False, False),
        ("ipc://*", "ipc://*", False, True),
        ("inproc://any thing", "inproc://any thing", False, False),
        pytest.param("ipc://@name", "ipc://@name", False, False, marks=linux_only),
        pytest.param("unix:@name", "ipc://@name", False, False, marks=linux_only),
    ],
)
def test_accepted(text: str, endpoint: str, ipv6: bool, wildcard: bool) -> None:
    address = parse_address(text)
    assert (address.text, address.endpoint, address.ipv6, address.wildcard) == (text, endpoint, ipv6, wildcard)
    # An endpoint is an address, too, and means the same.
    assert parse_address(address.endpoint).endpoint == endpoint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an address is missing"),
        (" tcp://127.0.0.1:1", "spaces"),
        ("tcp://127.0.0.1:1\n", "spaces"),
        ("unix:/tmp/a\0b", "control characters"),
        ("unix:/tmp/\ud800", "cannot|can have"),
        ('"tcp://127.0.0.1:1"', "quotes are taken literally"),
        ("127.0.0.1:28332", r"did you mean tcp://127\.0\.0\.1:28332\?"),
        ("[::1]:28332", r"did you mean tcp://\[::1\]:28332\?"),
        ("*:28332", r"did you mean tcp://\*:28332\?"),
        ("28332", r"did you mean tcp://127\.0\.0\.1:28332\?"),
        ("/tmp/x", r"did you mean unix:/tmp/x\?"),
        ("tcp:127.0.0.1:28332", r"did you mean tcp://127\.0\.0\.1:28332\?"),
        ("tcp:/127.0.0.1:28332", r"did you mean tcp://127\.0\.0\.1:28332\?"),
        ("ipc:/tmp/x", r"did you mean ipc:///tmp/x\?"),
        ("foo", "no address.*tcp://host:port, unix:path, ipc://path or inproc://name"),
        ("TCP://127.0.0.1:1", r"TCP:// is not supported \(did you mean tcp\?\); use tcp://host:port"),
        ("http://127.0.0.1:1", "http:// is not supported.*inproc://name"),
        ("pgm://eth0;239.192.1.1:5555", "pgm:// is not supported"),
        ("udp://127.0.0.1:1", "udp:// is not supported"),
        ("tcp://", "a port is missing"),
        ("tcp://127.0.0.1", r"a port is missing: tcp://127\.0\.0\.1:port"),
        ("tcp://[::1]", r"a port is missing: tcp://\[::1\]:port"),
        ("tcp://127.0.0.1:", "nothing is no port"),
        ("tcp://127.0.0.1:65536", "65536 is no port: a number from 0 to 65535"),
        ("tcp://127.0.0.1:-1", "-1 is no port"),
        ("tcp://127.0.0.1:28332x", "28332x is no port"),
        ("tcp://127.0.0.1:\uff12", "is no port"),
        ("tcp://127.0.0.1:" + "9" * 5000, "is no port"),
        ("tcp://127.0.0.1:28332/", "ends with its port"),
        ("tcp://:28332", r"a host is missing: tcp://127\.0\.0\.1:28332"),
        ("tcp://127.0.0.256:1", r"127\.0\.0\.256 is no IPv4 address"),
        ("tcp://::1:28332", r"in brackets: tcp://\[::1\]:28332"),
        ("tcp://::1", r"in brackets, and a port follows: tcp://\[::1\]:port"),
        ("tcp://[127.0.0.1]:1", r"127\.0\.0\.1 is no IPv6 address"),
        ("tcp://[*]:1", "is no IPv6 address"),
        ("tcp://[]:1", "nothing is no IPv6 address"),
        ("tcp://eth0;127.0.0.1:1", "no host name"),
        ("tcp://a b:1", "no host name"),
        ("tcp://-a:1", "no host name"),
        ("unix:", "a path is missing"),
        ("unix://", "a path is missing"),
        ("ipc://", "a path is missing"),
        ("ipc://*x", r"begins with \*"),
        ("ipc:///tmp/", "does not end with a /"),
        pytest.param("ipc://@", "a name after the @", marks=linux_only),
        ("inproc://", "needs a name"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_address(text)


def test_the_longest_path_is_counted_in_bytes() -> None:
    longest = "/tmp/" + "x" * (IPC_PATH_LIMIT - 5)
    assert parse_address(f"unix:{longest}").path == longest
    for path in (longest + "x", longest[:-1] + "é"):
        with pytest.raises(ValueError, match=rf"{IPC_PATH_LIMIT + 1} bytes, but .* at most {IPC_PATH_LIMIT}"):
            parse_address(f"ipc://{path}")


def test_the_limit_is_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as fits:
        fits.bind("x" * IPC_PATH_LIMIT)
    # Python, unlike libzmq, does without the NUL that ends the path; beyond that nobody can bind.
    with socket.socket(socket.AF_UNIX) as too_long, pytest.raises(OSError, match="too long"):
        too_long.bind("x" * (IPC_PATH_LIMIT + 2))


@given(st.text(max_size=40) | st.from_regex(r"(tcp|ipc|unix|inproc):(//)?[\[\]:.%*@0-9a-f/]*", fullmatch=True))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        address = parse_address(text)
        assert address.text == text
        assert parse_address(address.endpoint).endpoint == address.endpoint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp://*:1", "tcp://127.0.0.1:1"),
        ("tcp://*:1", "tcp://0.0.0.0:1"),
        ("tcp://*:1", "tcp://eth0:1"),
        ("tcp://[::]:1", "tcp://127.0.0.1:1"),
        ("tcp://[::]:1", "tcp://[::1]:1"),
        ("tcp://[::]:1", "tcp://*:1"),
        ("unix:/tmp/x", "unix:/tmp/../tmp/x"),
        ("unix:/tmp/x", "unix://" + "//tmp/x"),
    ],
)
def test_conflicts(one: str, other: str) -> None:
    assert conflict(parse_address(one), parse_address(other))
    assert conflict(parse_address(other), parse_address(one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp://*:1", "tcp://*:1"),
        ("tcp://*:1", "tcp://127.0.0.1:2"),
        ("tcp://*:1", "tcp://[::1]:1"),
        ("tcp://*:*", "tcp://127.0.0.1:0"),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.2:1"),
        ("tcp://127.0.0.1:1", "tcp://[::1]:1"),
        ("unix:/tmp/x", "ipc:///tmp/x"),
        ("unix:/tmp/x", "unix:/tmp/y"),
        ("unix:*", "unix:/tmp/y"),
        ("inproc://x", "unix:x"),
        pytest.param("unix:@x", "unix:x", marks=linux_only),
    ],
)
def test_no_conflict(one: str, other: str) -> None:
    assert conflict(parse_address(one), parse_address(other)) is None
    assert conflict(parse_address(other), parse_address(one)) is None


def test_a_linked_folder_does_not_hide_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert conflict(parse_address(f"unix:{tmp_path}/real/x"), parse_address(f"unix:{tmp_path}/link/x"))


def test_obstacles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wallet.dat").write_text("coins")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind("stale")
    assert "binding would delete it" in (obstacle(parse_address("unix:wallet.dat")) or "")
    assert "is a directory" in (obstacle(parse_address("unix:folder")) or "")
    for harmless in ("unix:stale", "unix:absent", "unix:*", "tcp://127.0.0.1:1", "inproc://wallet.dat"):
        assert obstacle(parse_address(harmless)) is None
