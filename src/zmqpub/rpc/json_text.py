"""JSON as Bitcoin Core's UniValue reads and writes it: numbers keep their spelling, objects their order and repeated names.

A value is None, a bool, a str, a list, a `Number`, or `Members`; for writing also an int, a float, a dict, and what is `Written`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any, NoReturn

__all__ = ["JsonError", "Members", "Number", "Written", "read", "to_python", "type_name", "write"]

_MAX_DEPTH = 512
_MAX_INTEGER_DIGITS = 4_000  # beyond, Python refuses to convert


class JsonError(ValueError):
    """A text that is no JSON, or that UniValue does not take."""


class Number(str):
    """A number, as it was written."""

    __slots__ = ()


class Written(str):
    """The text of a value, as write() gives it."""

    __slots__ = ()


class Members:
    """An object as it was written: of members with the same name the first counts."""

    __slots__ = ("_first", "names", "values")

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.names = [name for name, _ in pairs]
        self.values = [value for _, value in pairs]
        self._first: dict[str, Any] = {}
        for name, value in pairs:
            self._first.setdefault(name, value)

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def get(self, name: str) -> Any:
        """None where there is none, as for null."""
        return self._first.get(name)

    def items(self) -> Iterator[tuple[str, Any]]:
        return zip(self.names, self.values, strict=True)


def read(text: str) -> Any:
    """The value of a JSON text; JsonError where UniValue would refuse it."""
    try:
        value = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None
    _check(value)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_decoder = json.JSONDecoder(object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=_refuse)


def _check(value: Any) -> None:
    """What Python's parser lets pass and UniValue does not: too deep, or half of a surrogate pair."""
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, list | Members):
            if depth > _MAX_DEPTH:
                raise JsonError(f"nested more than {_MAX_DEPTH} deep")
            if isinstance(value, Members):
                for name in value.names:
                    _check_text(name)
                value = value.values
            waiting.extend((item, depth + 1) for item in value)


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise JsonError("half of a surrogate pair") from None


def type_name(value: Any) -> str:
    """What UniValue calls the type of a value that was read, or converted with to_python()."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Number | int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def to_python(value: Any) -> Any:
    """A value that was read, as json.loads() would give it, for a plain callable."""
    if isinstance(value, Number):
        digits = value.lstrip("-")
        return int(value) if digits.isdecimal() and len(digits) <= _MAX_INTEGER_DIGITS else float(value)
    if isinstance(value, list):
        return [to_python(item) for item in value]
    if isinstance(value, Members):
        return {name: to_python(item) for name, item in reversed(list(value.items()))}
    return value


def write(value: Any) -> str:
    """The text of a value, without spaces and on one line, as UniValue writes it."""
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts)


def _write(value: Any, put: Any) -> None:
    if value is None:
        put("null")
    elif isinstance(value, bool):
        put("true" if value else "false")
    elif isinstance(value, Number | Written):
        put(value)
    elif isinstance(value, str):
        put(_quoted(value))
    elif isinstance(value, int):
        put(str(value))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in JSON")
        put(f"{value:.16g}")
    elif isinstance(value, Mapping | Members):
        separator = "{"
        for name, item in value.items():
            put(f"{separator}{_quoted(name)}:")
            _write(item, put)
            separator = ","
        put("}" if separator == "," else "{}")
    elif isinstance(value, list | tuple):
        separator = "["
        for item in value:
            put(separator)
            _write(item, put)
            separator = ","
        put("]" if separator == "," else "[]")
    else:
        raise TypeError(f"{type(value).__name__} has no place in JSON")


def _quoted(text: str) -> str:
    quoted: str = encode_basestring(text)
    return quoted.replace("\x7f", "\\u007f")
