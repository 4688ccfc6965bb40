"""JSON-RPC's envelopes, as Bitcoin Core's executeRpc answers them (tests/test_node_beside_a_node.py compares with a real one)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpub.errors import RpcError
from zmqpub.rpc.envelope import answer
from zmqpub.rpc.json_text import JsonError, Members, Number, Written, read, to_python, type_name, write


def execute(method: str, params: list[Any] | Members) -> Any:
    if method == "params":
        return params
    if method == "fail":
        raise RpcError(-5, 'not "here"')
    if method == "nothing":
        return None
    raise RpcError(-32601, "Method not found")


@pytest.mark.parametrize(
    ("request_text", "reply"),
    [
        ('{"method":"nothing","id":1}', '{"result":null,"error":null,"id":1}'),
        ('{"method":"nothing","params":[],"jsonrpc":"1.0","id":"a"}', '{"result":null,"error":null,"id":"a"}'),
        ('{"method":"nothing","jsonrpc":"2.0","id":null}', '{"jsonrpc":"2.0","result":null,"id":null}'),
        ('{"method":"nothing","jsonrpc":"2.0"}', "null"),
        ('{"method":"fail","jsonrpc":"2.0"}', "null"),
        ('{"method":"nothing"}', '{"result":null,"error":null}'),
        ('{"method":"params","params":null,"id":0}', '{"result":[],"error":null,"id":0}'),
        ('{"method":"params","params":[1.50,-0,1e2],"id":1.0}', '{"result":[1.50,-0,1e2],"error":null,"id":1.0}'),
        ('{"method":"params","params":{"a":1,"a":2},"id":[1,{"x":true}]}', '{"result":{"a":1,"a":2},"error":null,"id":[1,{"x":true}]}'),
        ('{"method":"fail","id":1}', '{"result":null,"error":{"code":-5,"message":"not \\"here\\""},"id":1}'),
        ('{"method":"fail","id":1,"jsonrpc":"2.0"}', '{"jsonrpc":"2.0","error":{"code":-5,"message":"not \\"here\\""},"id":1}'),
        ('{"method":"x","id":1}', '{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}'),
        ('{"id":1}', '{"result":null,"error":{"code":-32600,"message":"Missing method"},"id":1}'),
        ('{"method":null}', '{"result":null,"error":{"code":-32600,"message":"Missing method"}}'),
        ('{"method":5,"id":1}', '{"result":null,"error":{"code":-32600,"message":"Method must be a string"},"id":1}'),
        (
            '{"method":"x","params":"x","id":1}',
            '{"result":null,"error":{"code":-32600,"message":"Params must be an array or object"},"id":1}',
        ),
        (
            '{"method":"x","jsonrpc":2,"id":1}',
            '{"result":null,"error":{"code":-32600,"message":"jsonrpc field must be a string"},"id":1}',
        ),
        (
            '{"method":"x","jsonrpc":"3.0","id":1}',
            '{"result":null,"error":{"code":-32600,"message":"JSON-RPC version not supported"},"id":1}',
        ),
        (
            '{"jsonrpc":"2.0","method":5,"id":1}',
            '{"jsonrpc":"2.0","error":{"code":-32600,"message":"Method must be a string"},"id":1}',
        ),
        ('{"jsonrpc":"2.0","method":5}', '{"jsonrpc":"2.0","error":{"code":-32600,"message":"Method must be a string"}}'),
        ('[{"jsonrpc":"2.0","method":5}]', "null"),
        ('"text"', '{"result":null,"error":{"code":-32700,"message":"Top-level object parse error"},"id":null}'),
        ("5", '{"result":null,"error":{"code":-32700,"message":"Top-level object parse error"},"id":null}'),
        ("null", '{"result":null,"error":{"code":-32700,"message":"Top-level object parse error"},"id":null}'),
        ("", '{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}'),
        ('{"method":"nothing","id":1', '{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}'),
        ("[]", "[]"),
        ("[5]", '[{"result":null,"error":{"code":-32600,"message":"Invalid Request object"},"id":null}]'),
        ('[{"method":"nothing","jsonrpc":"2.0"}]', "null"),
        (
            '[{"method":"nothing","id":1},{"method":"nothing","jsonrpc":"2.0"},{"method":"fail","id":2,"jsonrpc":"2.0"},7]',
            '[{"result":null,"error":null,"id":1},{"jsonrpc":"2.0","error":{"code":-5,"message":"not \\"here\\""},"id":2},'
            '{"jsonrpc":"2.0","error":{"code":-32600,"message":"Invalid Request object"},"id":2}]',
        ),
    ],
)
def test_answers(request_text: str, reply: str) -> None:
    assert answer(request_text, execute) == reply


def test_notification_is_executed() -> None:
    seen: list[str] = []
    answer('{"method":"note","jsonrpc":"2.0"}', lambda method, params: seen.append(method))
    assert seen == ["note"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        '{"a":1,}',
        "[1 2]",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "'a'",
        '"a',
        '"\n"',
        '"\\x"',
        '"\\ud800"',
        '{"\\udc00":1}',
        '"\ud800"',
        "1 2",
        "[" * 513 + "]" * 513,
        "[" * 100_000,
    ],
)
def test_texts_that_univalue_refuses(text: str) -> None:
    with pytest.raises(JsonError):
        read(text)


def test_what_univalue_takes() -> None:
    assert read(" [1, true\n,null,\t{}] ")[:3] == ["1", True, None]
    assert read("[" * 512 + "]" * 512)
    assert read('"\\ud834\\udd1e"') == "\U0001d11e"
    assert write(read('"a\\u0000\\u007f\\/\u00e9\\u001f\\n"')) == '"a\\u0000\\u007f/\u00e9\\u001f\\n"'
    huge = "1" * 5_000
    assert write(read(huge)) == huge
    assert to_python(read(huge)) == float("inf")
    assert to_python(read("-17")) == -17
    assert to_python(read('{"a":1,"a":2}')) == {"a": 1}


def test_names_of_types() -> None:
    values = read('[null,true,1,"1",[],{}]')
    assert [type_name(value) for value in values] == ["null", "bool", "number", "string", "array", "object"]
    assert [type_name(to_python(value)) for value in values] == ["null", "bool", "number", "string", "array", "object"]


def test_written_numbers() -> None:
    assert write([4.656542373906925e-10, 1.0, Number("1.10"), Written('{"a":1}'), (1, 2)]) == '[4.656542373906925e-10,1,1.10,{"a":1},[1,2]]'
    with pytest.raises(TypeError):
        write(object())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES)
def test_writes_what_others_read(value: Any) -> None:
    assert json.loads(write(value)) == value
    assert to_python(read(json.dumps(value))) == value
    assert write(read(write(value))) == write(value)


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    reply = json.loads(answer(text, execute))
    assert reply is None or reply == [] or isinstance(reply, dict | list)
