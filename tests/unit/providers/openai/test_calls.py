"""Tool calls of the OpenAI API, as the many hosts that speak it stream them."""

from typing import Any

import pytest

from antiphon.domain.events import ToolCallDelta
from antiphon.providers.openai.calls import ReadCall, ToolCalls

Json = dict[str, Any]

TOOLS = frozenset({"f", "g", "get_weather", "get_time", "edit_existing_file"})
OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'


def call(index: int | None = None, call_id: str | None = None, name: str | None = None, arguments: Any = None) -> Json:
    fields: Json = {"function": {}}
    if index is not None:
        fields["index"] = index
    if call_id is not None:
        fields |= {"id": call_id, "type": "function"}
    if name is not None:
        fields["function"]["name"] = name
    if arguments is not None:
        fields["function"]["arguments"] = arguments
    return fields


def read(*deltas: Json, tools: frozenset[str] = TOOLS, whole: bool = False) -> list[ReadCall]:
    calls = ToolCalls(0, tools, whole=whole)
    found = [told for delta in deltas if (told := calls.read(delta)) is not None]
    calls.end()
    return found


def joined(*deltas: Json, tools: frozenset[str] = TOOLS) -> list[tuple[str, str]]:
    """Names and arguments as a client puts them together; all ids are there, and differ."""
    ids: dict[int, str] = {}
    made: dict[int, tuple[str, str]] = {}
    for told in read(*deltas, tools=tools):
        assert isinstance(told, ToolCallDelta)
        name, arguments = made.get(told.index, ("", ""))
        made[told.index] = name + (told.name or ""), arguments + told.arguments
        if told.index not in ids:
            assert told.id
            ids[told.index] = told.id
    assert len(set(ids.values())) == len(ids)
    return list(made.values())


def test_as_openai_streams_them() -> None:
    """The first delta of a call has id and name, the others pieces of arguments."""
    assert read(call(0, "c1", "f", ""), call(0, arguments='{"a'), call(0, arguments='": 1}'), call(1, "c2", "g", "{}")) == [
        ToolCallDelta(0, 0, "c1", "f", ""),
        ToolCallDelta(0, 0, arguments='{"a'),
        ToolCallDelta(0, 0, arguments='": 1}'),
        ToolCallDelta(0, 1, "c2", "g", "{}"),
    ]


def test_id_and_name_that_are_repeated() -> None:
    """They are told once, also if the host tells them every time, or a new id every time."""
    expected = [ToolCallDelta(0, 0, "c1", "f", "{"), ToolCallDelta(0, 0, arguments="}")]
    assert read(call(0, "c1", "f", "{"), call(0, "c1", "f", "}")) == expected
    assert read(call(0, "c1", "f", "{"), call(0, "c9", None, "}")) == expected
    assert read(call(0, "c1", "f", "{"), call(0, "", "", "}")) == expected
    assert read(call(0, "c1", "f", "{"), call(0, None, "f", "}")) == expected
    assert read(call(None, "c1", "f", "{"), call(None, "c9", None, "}")) == expected
    assert read(call(None, "c1", "f", "{"), call(None, None, "f", "}")) == expected


@pytest.mark.parametrize(
    "repeated", [call(0, "c1", "f", OSLO), call(0, "c1", None, OSLO), call(0, None, "f", OSLO), call(0, "c1", "f")]
)
def test_a_call_that_is_told_again_whole(repeated: Json) -> None:
    """It is a repetition, and told once."""
    assert joined(call(0, "c1", "f", OSLO[:5]), call(0, arguments=OSLO[5:]), repeated) == [("f", OSLO)]


def test_whole_calls_without_index() -> None:
    """They are told apart by their ids, or by each being whole; arguments may be an object."""
    assert read(call(None, "c1", "f", "{}"), call(None, "c2", "f", {"a": 1})) == [
        ToolCallDelta(0, 0, "c1", "f", "{}"),
        ToolCallDelta(0, 1, "c2", "f", '{"a":1}'),
    ]
    assert joined(call(None, None, "f", "{}"), call(None, None, "f", "{}")) == [("f", "{}"), ("f", "{}")]
    assert joined(call(None, None, "f", ""), call(None, None, "f", "")) == [("f", ""), ("f", "")]
    (first, _) = read(call(None, None, "f", "{}"), call(None, None, "f", "{}"))
    assert isinstance(first, ToolCallDelta)
    assert first.id is not None
    assert first.id.startswith("call_")
    assert read(call(None, "c1", "f", "{"), call(None, None, None, "}"))[1] == ToolCallDelta(0, 0, arguments="}")


def test_one_index_for_all_calls() -> None:
    """Calls that all have index 0 are told apart by their ids, and by their arguments being whole."""
    assert read(call(0, "c1", "f", "{}"), call(0, "c2", "g", "{}"), call(0, arguments=" ")) == [
        ToolCallDelta(0, 0, "c1", "f", "{}"),
        ToolCallDelta(0, 1, "c2", "g", "{}"),
        ToolCallDelta(0, 1, arguments=" "),
    ]
    expected = [("get_weather", OSLO), ("get_weather", ROME)]
    for given in ("", None, "null"):
        assert joined(call(0, given, "get_weather", OSLO), call(0, given, "get_weather", ROME)) == expected
        assert joined(call(0, given, "get_weather", {"city": "Oslo"}), call(0, given, "get_weather", {"city": "Rome"})) == expected
        pieces = [
            call(0, given, "get_weather", OSLO[:4]),
            call(0, given, "get_weather", OSLO[4:]),
            call(0, given, "get_weather", ROME[:4]),
            call(0, given, None, ROME[4:]),
        ]
        assert joined(*pieces) == expected
    assert joined(call(0, "", "f", "{}"), call(0, "", "f", "{}")) == [("f", "{}"), ("f", "{}")]
    assert joined(call(0, "", "f", "{}"), call(0, "", "g", ""), call(0, "", "", "[]")) == [("f", "{}"), ("g", "[]")]
    assert joined(call(0, "", "f", ""), call(0, "", "g", "")) == [("f", ""), ("g", "")]
    assert joined(call(0, "a", "f", ""), call(0, "b", "f", "{}")) == [("f", ""), ("f", "{}")]


def test_one_id_for_all_calls() -> None:
    """Calls of one id are told apart by their index, and get ids of their own, as callers tell results apart by them."""
    assert joined(call(0, "null", "f", "{}"), call(1, "null", "g", "[]")) == [("f", "{}"), ("g", "[]")]
    first, second = read(call(0, "null", "f", "{}"), call(0, "null", "f", "[]"), whole=True)
    assert isinstance(first, ToolCallDelta)
    assert isinstance(second, ToolCallDelta)
    assert (first.id, second.index, second.arguments) == ("null", 1, "[]")
    assert second.id != "null"


def test_deltas_in_turns() -> None:
    """Indices may begin anywhere; an id finds its call without an index, or behind one of another call."""
    assert joined(call(1, "c1", "f", "a"), call(0, "c0", "g", "b"), call(1, arguments="c")) == [("f", "ac"), ("g", "b")]
    assert joined(call(None, "a", "f", "1"), call(None, "b", "f", "2"), call(None, "a", None, "3")) == [("f", "13"), ("f", "2")]
    assert joined(call(0, "a", "f", "1"), call(0, "b", "f", "2"), call(0, "a", None, "3")) == [("f", "13"), ("f", "2")]


def test_an_index_that_counts_deltas() -> None:
    """It is no other call without a name: the id tells, or there is only the last."""
    for given in ("c1", None):
        pieces = [call(1, given, None, OSLO[2:7]), call(2, given, None, OSLO[7:])]
        assert joined(call(0, "c1", "f", OSLO[:2]), *pieces) == [("f", OSLO)]
    assert joined(call(0, "a", "f", "1"), call(1, "b", "f", "2"), call(2, "a", None, "3")) == [("f", "13"), ("f", "2")]
    with pytest.raises(ValueError, match="name"):
        read(call(0, "c1", "f", "{}"), call(1, None, None, "{}"))


def test_a_name_in_pieces() -> None:
    """Each piece is told as it comes, with the arguments begun or not, and a name that is the same again is not told."""
    assert read(call(0, "c1", "get_", '{"ci'), call(0, None, "weather", 'ty":"Oslo"}')) == [
        ToolCallDelta(0, 0, "c1", "get_", '{"ci'),
        ToolCallDelta(0, 0, name="weather", arguments='ty":"Oslo"}'),
    ]
    for tools in (TOOLS, frozenset[str]()):
        assert joined(call(0, "c1", "edit_ex"), call(0, "c1", "isting_file", ""), call(0, None, None, "{}"), tools=tools) == [
            ("edit_existing_file", "{}")
        ]
        assert joined(call(0, "", "get_"), call(0, "", "weather"), call(0, "", "get_weather", "{}"), tools=tools) == [
            ("get_weather", "{}")
        ]
        assert joined(call(0, "c1", "get_weather", ""), call(0, "c1", "get_weather", OSLO), tools=tools) == [("get_weather", OSLO)]
    assert joined(call(None, None, "get_"), call(None, None, "weather", "{}")) == [("get_weather", "{}")]
    assert joined(call(0, "c1", "ha"), call(0, "c1", "ha"), tools=frozenset({"haha"})) == [("haha", "")]


def test_fields_that_are_not_known() -> None:
    """What a call has besides a function comes with it, in the same delta, in whichever order the host tells both."""
    signed = {**call(0, "c1", "f", "{}"), "extra_content": {"google": {"thought_signature": "s"}}}
    builtin = {"index": 1, "id": "c2", "type": "builtin_function", "function": {"name": "$search", "arguments": "{}", "x": 1}}
    early = {"index": 2, "id": "c3", "extra_content": {"google": 1}}
    late = {"index": 0, "extra_content": {"google": 2}, "nothing": None}
    assert read(signed, builtin, early, call(2, None, "g", "[]"), {"index": 1, "type": "function", "id": "c2"}, late) == [
        ToolCallDelta(0, 0, "c1", "f", "{}", extra={"extra_content": {"google": {"thought_signature": "s"}}}),
        ToolCallDelta(0, 1, "c2", "$search", "{}", extra={"type": "builtin_function", "function": {"x": 1}}),
        ToolCallDelta(0, 2, "c3", extra={"extra_content": {"google": 1}}),
        ToolCallDelta(0, 2, name="g", arguments="[]"),
        ToolCallDelta(0, 0, extra={"extra_content": {"google": 2}}),
    ]


def test_a_call_that_is_none_of_a_function() -> None:
    """It is handed on as it came, with our index."""
    custom = {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "n", "input": "i"}}
    assert read(custom, {"index": 1, "custom": {"input": "j"}}) == [
        {"index": 0, "id": "c2", "type": "custom", "custom": {"name": "n", "input": "i"}},
        {"index": 0, "custom": {"input": "j"}},
    ]
    other = {**custom, "id": "c3"}
    assert [told["index"] for told in read(custom, other) if isinstance(told, dict)] == [0, 1]


@pytest.mark.parametrize("delta", [{"id": "a"}, {"id": "a", "type": "function"}, call(0, "a", None, "{}"), call(0, "a", "")])
def test_a_call_without_a_name(delta: Json) -> None:
    """It is no call."""
    with pytest.raises(ValueError, match="name"):
        read(delta)


def test_a_whole_message_after_the_stream() -> None:
    """Of its calls only what did not stream is told: none, the rest of the last, or more of them."""
    whole = [call(0, "c1", "f", OSLO), call(1, "c2", "g", ROME)]
    for streamed, expected in (
        (whole, []),
        ([whole[0]], [ToolCallDelta(0, 1, "c2", "g", ROME)]),
        ([whole[0], call(1, "c2", "g", ROME[:5])], [ToolCallDelta(0, 1, arguments=ROME[5:])]),
        ([call(0, "c1", "f", ROME), whole[1]], []),
    ):
        calls = ToolCalls(0, TOOLS)
        for delta in streamed:
            calls.read(delta)
        assert list(calls.conclude(whole)) == expected
