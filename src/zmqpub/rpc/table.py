"""Plain callables behind JSON-RPC: an object that `zmqpub.ipc` serves as Bitcoin Core's Rpc interface."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zmqpub.errors import RpcError
from zmqpub.rpc.codes import RpcCode
from zmqpub.rpc.envelope import answer
from zmqpub.rpc.json_text import Members, Written, to_python, write
from zmqpub.rpc.parameters import Kind, Parameter, check_types, positional

__all__ = ["Command", "RpcTable"]

logger = logging.getLogger("zmqpub")


@dataclass(frozen=True, slots=True)
class Command:
    """A method, as a client sees it."""

    name: str
    function: Callable[..., Any]
    """Called with the arguments in order, as json.loads() would give them; those left out at the end are left out. What it returns is
    written as JSON; RpcError is answered as it is, anything else that it raises is logged and answered as an internal error."""
    parameters: Sequence[Parameter] = ()
    category: str = "Other"
    description: str = ""

    @property
    def usage(self) -> str:
        """One line: required parameters, then the optional ones in parentheses."""
        text = self.name
        optional = False
        for parameter in self.parameters:
            if parameter.required and optional:
                text += " )"
                optional = False
            elif not parameter.required and not optional:
                text += " ("
                optional = True
            text += f" {parameter.usage}"
        return f"{text} )" if optional else text

    @property
    def help(self) -> str:
        """What `help` answers for it."""
        lines = [self.usage]
        if self.description:
            lines += ["", self.description]
        if self.parameters:
            lines += ["", "Arguments:"]
        for place, parameter in enumerate(self.parameters, start=1):
            kind = "" if parameter.kind is Kind.ANY else f"{parameter.kind.value}, "
            need = "required" if parameter.required else "optional"
            lines.append(f"{place}. {parameter.name} ({kind}{need}) {parameter.description}".rstrip())
        return "\n".join(lines) + "\n"


class RpcTable:
    """Commands by name. It has the command ``help``, and whatever else was added.

    An `zmqpub.interfaces.Rpc`: `execute_rpc()` may be called from several threads at once.
    """

    def __init__(self, commands: Iterable[Command] = ()) -> None:
        self._commands: dict[str, Command] = {}
        description = "Lists the commands, or tells of one."
        self.add(Command("help", self._help, [Parameter("command", Kind.STRING, False, "Which one")], "Control", description))
        for command in commands:
            self.add(command)

    @property
    def commands(self) -> list[Command]:
        """By category, then by name."""
        return sorted(self._commands.values(), key=lambda command: (command.category.lower(), command.name))

    def add(self, command: Command | str, function: Callable[..., Any] | None = None) -> None:
        """A command, or a name and a function whose parameters and docstring say the rest. One of the same name is replaced."""
        if isinstance(command, str):
            if function is None:
                raise TypeError("a name needs a function")
            command = Command(command, function, _parameters_of(function), description=inspect.getdoc(function) or "")
        self._commands[command.name] = command

    def execute_rpc(self, request: str, uri: str = "", user: str = "") -> str:
        """Answer a JSON-RPC request or batch. ``uri`` and ``user`` change nothing: there are no wallets and no users here."""
        return answer(request, self._execute)

    def call(self, method: str, *arguments: Any) -> Any:
        """What a client would get as the result, without JSON; RpcError."""
        command = self._commands.get(method)
        if command is None:
            raise RpcError(RpcCode.METHOD_NOT_FOUND, "Method not found", method)
        return command.function(*arguments)

    def _execute(self, method: str, params: list[Any] | Members) -> Any:
        command = self._commands.get(method)
        if command is None:
            raise RpcError(RpcCode.METHOD_NOT_FOUND, "Method not found", method)
        parameters = command.parameters
        arguments = positional(parameters, params) if isinstance(params, Members) else params
        least = max((place for place, parameter in enumerate(parameters, start=1) if parameter.required), default=0)
        if not least <= len(arguments) <= len(parameters):
            raise RpcError(RpcCode.MISC_ERROR, command.help, method)
        check_types(parameters, arguments)
        try:
            return Written(write(command.function(*map(to_python, arguments))))
        except RpcError:
            raise
        except Exception:
            # What it says may tell of files and memory: that is for the log of this side.
            logger.exception("the command %s failed", method)
            raise RpcError(RpcCode.INTERNAL_ERROR, "Internal error", method) from None

    def _help(self, command: str | None = None) -> str:
        if command:
            known = self._commands.get(command)
            return f"help: unknown command: {command}" if known is None else known.help.removesuffix("\n")
        lines: list[str] = []
        category = None
        for known in self.commands:
            if known.category != category:
                lines += ["", f"== {known.category} =="] if lines else [f"== {known.category} =="]
                category = known.category
            lines.append(known.usage)
        return "\n".join(lines)


def _parameters_of(function: Callable[..., Any]) -> list[Parameter]:
    parameters = []
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # of some that are built in, nobody knows
        raise TypeError(f"{function!r}: {error}") from None
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"{parameter}: a command takes positional parameters only")
        parameters.append(Parameter(parameter.name, required=parameter.default is parameter.empty))
    return parameters
