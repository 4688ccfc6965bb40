"""Exceptions on the wire, corrected in messages of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("capnp")

import capnp

from zmqpub.ipc.errors_out import DISCONNECTED, FAILED, OVERLOADED, UNIMPLEMENTED, Refusal, rewrite_exception

KINDS = {FAILED: "failed", OVERLOADED: "overloaded", DISCONNECTED: "disconnected", UNIMPLEMENTED: "unimplemented"}


@pytest.fixture(scope="module")
def rpc() -> Any:
    folder = Path(capnp.__path__[0])
    return capnp.SchemaParser().load(str(folder / "rpc.capnp"), imports=[str(folder.parent)])


def _text(refusal: Refusal) -> str:
    """As pycapnp makes one of the exception."""
    return f"zmqpub.ipc.errors_out.WireError: {refusal.error()}\n"


def _message(rpc: Any, kind: str, text: str) -> Any:
    message = rpc.Message.new_message()
    if kind == "abort":
        message.init("abort").reason = text
    else:
        message.init(kind)
        getattr(message, kind).init("exception").reason = text
    if kind == "return":
        getattr(message, kind).answerId = 77
    return message


@pytest.mark.parametrize("kind", ["return", "resolve", "abort"])
@pytest.mark.parametrize("type", KINDS)
@pytest.mark.parametrize("text", ["", "x", "größer", "y" * 3_000, "z" * 100_000])
def test_type_and_text(rpc: Any, kind: str, type: int, text: str) -> None:
    message = _message(rpc, kind, _text(Refusal(type, text)))
    with rpc.Message.from_bytes(rewrite_exception(message.to_bytes())) as read:
        exception = read.abort if kind == "abort" else getattr(read, kind).exception
        assert exception.type == KINDS[type]
        assert exception.reason == (text if len(text) <= 4_000 else text[:4_000] + "…")
        assert kind != "return" or getattr(read, kind).answerId == 77


def test_other_messages_stay_as_they_are(rpc: Any) -> None:
    for message in (_message(rpc, "return", "a text of somebody else's"), rpc.Message.new_message()):
        data = message.to_bytes()
        assert rewrite_exception(data) == data


def test_marks_where_they_are_not_expected_do_not_get_out(rpc: Any, caplog: pytest.LogCaptureFixture) -> None:
    marked = _text(Refusal(FAILED, "a text"))
    mark = str(Refusal(FAILED, "").error())[:24]
    message = rpc.Message.new_message()
    message.init("call").init("params").content.set_as_text(marked)
    whole = message.to_bytes()
    for data in (whole, marked.encode(), b"\1\0\0\0" + whole[4:], mark.encode()):
        rewritten = rewrite_exception(data)
        assert mark.encode() not in rewritten
        assert len(rewritten) == len(data)
    assert "not laid out as expected" in caplog.text


def test_any_cut_or_changed_message_is_survived(rpc: Any) -> None:
    data = _message(rpc, "return", _text(Refusal(OVERLOADED, "a text"))).to_bytes()
    for length in range(len(data)):
        assert len(rewrite_exception(data[:length])) == length
    for at in range(len(data)):
        for value in (0, 1, 3, 0x7F, 0x80, 0xFF):
            changed = bytearray(data)
            changed[at] = value
            assert len(rewrite_exception(bytes(changed))) == len(data)
