"""What a command takes: names, types, and how named arguments become positional ones, with Bitcoin Core's errors."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zmqpub.errors import RpcError
from zmqpub.rpc.codes import RpcCode
from zmqpub.rpc.json_text import Members, type_name

__all__ = ["Kind", "Parameter", "as_int", "check_types", "positional"]

_MOST = 2**31 - 1


class Kind(enum.Enum):
    """The type of a parameter, by UniValue's name for it."""

    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"
    ARRAY = "array"
    OBJECT = "object"
    ANY = "any"
    """Nothing is checked: the command does."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a command."""

    names: str
    """Its name, and after bars others that are as good: ``verbosity|verbose``."""
    kind: Kind = Kind.ANY
    required: bool = True
    description: str = ""

    @property
    def name(self) -> str:
        """The first one."""
        return self.names.partition("|")[0]

    @property
    def usage(self) -> str:
        """As a command's usage shows it."""
        return f'"{self.name}"' if self.kind is Kind.STRING else self.name


def positional(parameters: Sequence[Parameter], given: Members) -> list[Any]:
    """Named arguments in the order of ``parameters``, with null where one is left out before one that is there.

    The name ``args`` stands for positional ones before them. RpcError as Bitcoin Core's transformNamedArguments.
    """
    waiting: dict[str, Any] = {}
    for name, value in given.items():
        if name in waiting:
            raise _invalid(f"Parameter {name} specified multiple times")
        waiting[name] = value
    arguments: list[Any] = []
    left_out = 0
    leading = 0
    first: str | None = None
    for parameter in parameters:
        found = next((one for one in parameter.names.split("|") if one in waiting), None)
        if found is None:
            left_out += 1
            leading = leading if arguments else left_out
            continue
        arguments += [None] * left_out
        left_out = 0
        first = first or parameter.names
        arguments.append(waiting.pop(found))
    before = waiting.get("args")
    if isinstance(before, list):
        del waiting["args"]
        if leading < len(before) and first is not None:
            raise _invalid(f"Parameter {first} specified twice both as positional and named argument")
        arguments = [*before, *arguments[len(before) :]]
    elif "args" in waiting:  # Bitcoin Core takes the name away, whatever it stands for
        del waiting["args"]
    if waiting:
        raise _invalid(f"Unknown named parameter {next(iter(waiting))}")
    return arguments


def check_types(parameters: Sequence[Parameter], arguments: Sequence[Any]) -> None:
    """RpcError naming every argument that is of another type than its parameter."""
    wrong = []
    for place, parameter in enumerate(parameters):
        value = arguments[place] if place < len(arguments) else None
        if parameter.kind is Kind.ANY or (value is None and not parameter.required) or type_name(value) == parameter.kind.value:
            continue
        message = f"JSON value of type {type_name(value)} is not of expected type {parameter.kind.value}"
        wrong.append(f'    "Position {place + 1} ({parameter.names})": "{message}"')
    if wrong:
        raise RpcError(RpcCode.TYPE_ERROR, "Wrong type passed:\n{\n" + ",\n".join(wrong) + "\n}")


def as_int(value: Any) -> int:
    """A number that a command wants as a 32-bit integer; RpcError in UniValue's words where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RpcError(RpcCode.TYPE_ERROR, f"JSON value of type {type_name(value)} is not of expected type number")
    if isinstance(value, float) or not -_MOST - 1 <= value <= _MOST:
        raise RpcError(RpcCode.MISC_ERROR, "JSON integer out of range")
    return value


def _invalid(message: str) -> RpcError:
    return RpcError(RpcCode.INVALID_PARAMETER, message)
