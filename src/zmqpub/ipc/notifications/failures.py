"""Errors as the schema's Failure, and back. Cap'n Proto's own exceptions carry no more than a text."""

from __future__ import annotations

from typing import Any

from zmqpub.errors import BindError, ClosedError, ConfigError, ConfigProblem, DecodeError, JournalError, ZmqPubError

__all__ = ["read_failure", "write_failure"]


def write_failure(failure: Any, error: Exception) -> None:
    """Fill a Failure's builder."""
    if isinstance(error, ConfigError):
        problems = failure.init("config", len(error.problems))
        for problem, written in zip(problems, error.problems, strict=True):
            problem.option = _text(written.option)
            problem.message = _text(written.message)
            if written.value is not None:
                problem.value = _text(written.value)
    elif isinstance(error, BindError):
        bind = failure.init("bind")
        bind.option, bind.address = _text(error.option), _text(error.address)
        bind.errno, bind.cause = error.errno or 0, _text(error.cause)
    elif isinstance(error, JournalError):
        journal = failure.init("journal")
        journal.path, journal.offset, journal.errno = _text(error.path), error.offset, error.errno
        journal.expected, journal.got, journal.hint = _text(error.expected), _text(error.got), _text(error.hint)
    elif isinstance(error, DecodeError):
        decode = failure.init("decode")
        decode.what, decode.offset = error.what, error.offset
        decode.expected, decode.got = error.expected, error.got
    elif isinstance(error, ClosedError):
        failure.closed = _text(str(error))
    else:
        failure.other = _text(f"{type(error).__name__}: {error}")


def read_failure(failure: Any) -> Exception | None:
    """The error in a Failure's reader; None where there is none."""
    kind = failure.which()
    if kind == "none":
        return None
    if kind == "config":
        return ConfigError(
            *(ConfigProblem(str(one.option), str(one.value) if one._has("value") else None, str(one.message)) for one in failure.config)
        )
    if kind == "bind":
        bind = failure.bind
        return BindError(str(bind.option), str(bind.address), int(bind.errno), str(bind.cause))
    if kind == "journal":
        journal = failure.journal
        got = (str(journal.expected), str(journal.got), str(journal.hint))
        return JournalError(str(journal.path), int(journal.offset), *got, int(journal.errno))
    if kind == "decode":
        decode = failure.decode
        return DecodeError(str(decode.what), int(decode.offset), str(decode.expected), str(decode.got))
    if kind == "closed":
        return ClosedError(str(failure.closed))
    return ZmqPubError(str(failure.other))


def _text(text: str) -> str:
    """What was read from a file's name need not be UTF-8."""
    return text.encode(errors="backslashreplace").decode()
