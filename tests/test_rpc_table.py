"""Plain callables behind JSON-RPC: arguments by place and by name, types, help, failures."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from zmqpub.errors import RpcError
from zmqpub.rpc import Command, Kind, Parameter, RpcTable

PARAMETERS = (
    Parameter("first", Kind.STRING),
    Parameter("second|deux", Kind.NUMBER, False),
    Parameter("third", Kind.BOOL, False),
    Parameter("fourth", Kind.ANY, False, "Anything"),
)


def all_arguments(*arguments: Any) -> list[Any]:
    return list(arguments)


@pytest.fixture
def table() -> RpcTable:
    def fail() -> None:
        raise OSError("/a/secret/path")

    return RpcTable(
        [
            Command("take", all_arguments, PARAMETERS, "Tests", "Takes."),
            Command("fail", fail, category="Tests"),
            Command("odd", object, category="Tests"),
        ]
    )


def call(table: RpcTable, method: str, params: Any = ()) -> Any:
    reply = json.loads(table.execute_rpc(json.dumps({"method": method, "params": params, "id": 1, "jsonrpc": "2.0"}), "/wallet/x", "me"))
    assert reply.pop("jsonrpc") == "2.0"
    assert reply.pop("id") == 1
    if "result" in reply:
        return reply["result"]
    return reply["error"]["code"], reply["error"]["message"]


@pytest.mark.parametrize(
    ("params", "arguments"),
    [
        (["a"], ["a"]),
        (["a", 1.5, None, {"x": [1]}], ["a", 1.5, None, {"x": [1]}]),
        ({"first": "a"}, ["a"]),
        ({"first": "a", "deux": 2}, ["a", 2]),
        ({"fourth": None, "first": "a"}, ["a", None, None, None]),
        ({"args": ["a", 1], "third": True}, ["a", 1, True]),
        ({"args": ["a"], "third": True}, ["a", None, True]),
        ({"args": ["a"]}, ["a"]),
        ({"args": 5, "first": "a"}, ["a"]),
    ],
)
def test_arguments(table: RpcTable, params: Any, arguments: list[Any]) -> None:
    assert call(table, "take", params) == arguments


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ({"first": "a", "fifth": 1}, -8, "Unknown named parameter fifth"),
        ({"args": ["a"], "first": "b"}, -8, "Parameter first specified twice both as positional and named argument"),
        ({"args": ["a", 1], "deux": 2}, -8, "Parameter second|deux specified twice both as positional and named argument"),
        ({"first": "a", "second": 1, "deux": 2}, -8, "Unknown named parameter deux"),
        (
            [1, "x", 0],
            -3,
            "Wrong type passed:\n{\n"
            '    "Position 1 (first)": "JSON value of type number is not of expected type string",\n'
            '    "Position 2 (second|deux)": "JSON value of type string is not of expected type number",\n'
            '    "Position 3 (third)": "JSON value of type number is not of expected type bool"\n}',
        ),
        ([None], -3, 'Wrong type passed:\n{\n    "Position 1 (first)": "JSON value of type null is not of expected type string"\n}'),
    ],
)
def test_wrong_arguments(table: RpcTable, params: Any, code: int, message: str) -> None:
    assert call(table, "take", params) == (code, message)


def test_name_given_twice(table: RpcTable) -> None:
    reply = json.loads(table.execute_rpc('{"method":"take","params":{"first":"a","first":"b"},"id":1}'))
    assert reply["error"] == {"code": -8, "message": "Parameter first specified multiple times"}


@pytest.mark.parametrize("params", [[], [1, 2, 3, 4, 5], {}])
def test_wrong_number_of_arguments_is_answered_with_help(table: RpcTable, params: Any) -> None:
    code, message = call(table, "take", params)
    assert code == -1
    assert message.startswith('take "first" ( second third fourth )\n\nTakes.\n\nArguments:\n1. first (string, required)\n')
    assert message == call(table, "help", ["take"]) + "\n"


def test_help(table: RpcTable) -> None:
    assert call(table, "help") == '== Control ==\nhelp ( "command" )\n\n== Tests ==\nfail\nodd\ntake "first" ( second third fourth )'
    assert call(table, "help", ["nobody"]) == "help: unknown command: nobody"
    assert call(table, "help", {"command": "fail"}) == "fail"
    assert call(table, "nobody") == (-32601, "Method not found")


def test_usage_of_an_optional_parameter_before_a_required_one() -> None:
    command = Command("x", all_arguments, [Parameter("a"), Parameter("b", required=False), Parameter("c", Kind.STRING)])
    assert command.usage == 'x a ( b ) "c"'


@pytest.mark.parametrize("method", ["fail", "odd"])
def test_what_fails_inside_stays_inside(table: RpcTable, method: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "zmqpub"):
        assert call(table, method) == (-32603, "Internal error")
    assert f"the command {method} failed" in caplog.text


def test_numbers_that_json_has_not_are_not_answered(table: RpcTable) -> None:
    table.add("give", lambda number: number)
    assert json.loads(table.execute_rpc('{"method": "give", "params": [1e999], "id": 1}'))["error"]["code"] == -32603
    assert json.loads(table.execute_rpc('{"method": "give", "params": [1e300], "id": 1}'))["result"] == 1e300


def test_functions_say_what_they_take() -> None:
    table = RpcTable()

    def add(left: int, right: int = 1) -> int:
        """Adds."""
        return left + right

    table.add("add", add)
    assert call(table, "add", [1]) == 2
    assert call(table, "add", {"right": 2, "left": 3}) == 5
    assert call(table, "help", ["add"]).startswith("add left ( right )\n\nAdds.")
    assert table.call("add", 1, 1) == 2
    with pytest.raises(RpcError) as caught:
        table.call("subtract")
    assert (caught.value.code, caught.value.method) == (-32601, "subtract")
    with pytest.raises(TypeError):
        table.add("print", print)
    with pytest.raises(TypeError):
        table.add("nothing")
