"""Tests of tool calls as the many OpenAI-compatible hosts stream them."""

from typing import Any

import pytest

from antiphon.domain.content import State, ToolCall
from antiphon.domain.events import Batch, BlockFinished, BlockStarted, Event, InputDelta
from antiphon.providers.codec.blocks import BlockNumbers
from antiphon.providers.openai.calls import ToolCalls

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


def read(*deltas: Json, tools: frozenset[str] = TOOLS, whole: bool = False) -> Batch:
    calls = ToolCalls(0, tools, BlockNumbers(), whole=whole)
    events: Batch = []
    for delta in deltas:
        calls.read(delta, events)
    calls.end(events)
    return events


def begun(block: int, call_id: str, name: str, kind: str = "function", state: State | None = None) -> Event:
    return BlockStarted(block, 0, ToolCall(call_id, name, "", kind, state=state))


def ends(*blocks: int) -> Batch:
    return [BlockFinished(block) for block in blocks]


def made(*deltas: Json, tools: frozenset[str] = TOOLS, whole: bool = False) -> list[ToolCall]:
    """Return the calls that a client puts together from the events."""
    calls: dict[int, ToolCall] = {}
    arguments: dict[int, str] = {}
    for event in read(*deltas, tools=tools, whole=whole):
        if isinstance(event, BlockStarted):
            assert isinstance(event.value, ToolCall)
            calls[event.block], arguments[event.block] = event.value, ""
        elif isinstance(event, InputDelta):
            arguments[event.block] += event.text
    return [ToolCall(call.id, call.name, arguments[block], call.type) for block, call in calls.items()]


def joined(*deltas: Json, tools: frozenset[str] = TOOLS) -> list[tuple[str, str]]:
    """Return the names and arguments of the calls. Assert that all ids are there and differ."""
    calls = made(*deltas, tools=tools)
    assert all(call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.name, call.arguments) for call in calls]


def test_as_openai_streams_them() -> None:
    """The first delta of a call has id and name, and the others have pieces of arguments."""
    assert read(call(0, "c1", "f", ""), call(0, arguments='{"a'), call(0, arguments='": 1}'), call(1, "c2", "g", "{}")) == [
        begun(0, "c1", "f"),
        InputDelta(0, '{"a'),
        InputDelta(0, '": 1}'),
        begun(1, "c2", "g"),
        InputDelta(1, "{}"),
        *ends(0, 1),
    ]


def test_id_and_name_that_are_repeated() -> None:
    """A call is one call if the host repeats its id and name, or sends a new id, with every delta."""
    expected = [begun(0, "c1", "f"), InputDelta(0, "{"), InputDelta(0, "}"), *ends(0)]
    assert read(call(0, "c1", "f", "{"), call(0, "c1", "f", "}")) == expected
    assert read(call(0, "c1", "f", "{"), call(0, "c9", None, "}")) == expected
    assert read(call(0, "c1", "f", "{"), call(0, "", "", "}")) == expected
    assert read(call(0, "c1", "f", "{"), call(0, None, "f", "}")) == expected
    assert read(call(None, "c1", "f", "{"), call(None, "c9", None, "}")) == expected
    assert read(call(None, "c1", "f", "{"), call(None, None, "f", "}")) == expected


@pytest.mark.parametrize(
    "repeated", [call(0, "c1", "f", OSLO), call(0, "c1", None, OSLO), call(0, None, "f", OSLO), call(0, "c1", "f")]
)
def test_a_complete_call_after_its_pieces_is_ignored(repeated: Json) -> None:
    """A complete call after its pieces is a repetition and is ignored."""
    assert joined(call(0, "c1", "f", OSLO[:5]), call(0, arguments=OSLO[5:]), repeated) == [("f", OSLO)]


def test_whole_calls_without_index() -> None:
    """Calls without an index are told apart by their ids, or because each is complete. Arguments may be an object."""
    assert made(call(None, "c1", "f", "{}"), call(None, "c2", "f", {"a": 1})) == [
        ToolCall("c1", "f", "{}"),
        ToolCall("c2", "f", '{"a":1}'),
    ]
    assert joined(call(None, None, "f", "{}"), call(None, None, "f", "{}")) == [("f", "{}"), ("f", "{}")]
    assert joined(call(None, None, "f", ""), call(None, None, "f", "")) == [("f", ""), ("f", "")]
    (first, _) = made(call(None, None, "f", "{}"), call(None, None, "f", "{}"))
    assert first.id.startswith("call_")
    assert made(call(None, "c1", "f", "{"), call(None, None, None, "}")) == [ToolCall("c1", "f", "{}")]


def test_one_index_for_all_calls() -> None:
    """Calls that all have index 0 are told apart by their ids, or because the arguments of the earlier one are complete."""
    assert made(call(0, "c1", "f", "{}"), call(0, "c2", "g", "{}"), call(0, arguments=" ")) == [
        ToolCall("c1", "f", "{}"),
        ToolCall("c2", "g", "{} "),
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
    """Calls with the same id are told apart by their index, and get new ids so that results can be assigned."""
    assert joined(call(0, "null", "f", "{}"), call(1, "null", "g", "[]")) == [("f", "{}"), ("g", "[]")]
    first, second = made(call(0, "null", "f", "{}"), call(0, "null", "f", "[]"), whole=True)
    assert (first.id, second.arguments) == ("null", "[]")
    assert second.id != "null"


def test_deltas_in_turns() -> None:
    """Indices may begin at any number, and an id finds its call without an index or with another call's index."""
    assert joined(call(1, "c1", "f", "a"), call(0, "c0", "g", "b"), call(1, arguments="c")) == [("f", "ac"), ("g", "b")]
    assert joined(call(None, "a", "f", "1"), call(None, "b", "f", "2"), call(None, "a", None, "3")) == [("f", "13"), ("f", "2")]
    assert joined(call(0, "a", "f", "1"), call(0, "b", "f", "2"), call(0, "a", None, "3")) == [("f", "13"), ("f", "2")]


def test_an_index_that_counts_deltas() -> None:
    """A new index without a name is not a new call: the id decides, or else there must be only one call."""
    for given in ("c1", None):
        pieces = [call(1, given, None, OSLO[2:7]), call(2, given, None, OSLO[7:])]
        assert joined(call(0, "c1", "f", OSLO[:2]), *pieces) == [("f", OSLO)]
    assert joined(call(0, "a", "f", "1"), call(1, "b", "f", "2"), call(2, "a", None, "3")) == [("f", "13"), ("f", "2")]
    with pytest.raises(ValueError, match="name"):
        read(call(0, "c1", "f", "{}"), call(1, None, None, "{}"))


def test_a_name_in_pieces() -> None:
    """A call begins when its name is complete, with the arguments so far. A repeated name is not appended."""
    assert read(call(0, "c1", "get_", '{"ci'), call(0, None, "weather", 'ty":"Oslo"}')) == [
        begun(0, "c1", "get_weather"),
        InputDelta(0, '{"city":"Oslo"}'),
        *ends(0),
    ]
    for tools in (TOOLS, frozenset[str]()):
        pieces = (call(0, "c1", "get_", '{"ci'), call(0, None, "weather", 'ty":"Oslo"}'))
        assert joined(*pieces, tools=tools) == [("get_weather", OSLO)]
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
    """Unknown fields of a call become its state, in whatever order the host sends them."""
    signed = {**call(0, "c1", "f", "{}"), "extra_content": {"google": {"thought_signature": "s"}}}
    builtin = {"index": 1, "id": "c2", "type": "builtin_function", "function": {"name": "$search", "arguments": "{}", "x": 1}}
    early = {"index": 2, "id": "c3", "extra_content": {"google": 1}}
    late = {"index": 0, "extra_content": {"google": 2}, "nothing": None}
    assert read(signed, builtin, early, call(2, None, "g", "[]"), {"index": 1, "type": "function", "id": "c2"}, late) == [
        begun(0, "c1", "f", state=State("s")),
        InputDelta(0, "{}"),
        begun(1, "c2", "$search", "builtin_function", State(fields={"function": {"x": 1}})),
        InputDelta(1, "{}"),
        begun(2, "c3", "g", state=State(fields={"extra_content": {"google": 1}})),
        InputDelta(2, "[]"),
        BlockFinished(0, State("s", {"extra_content": {"google": 2}})),
        *ends(1, 2),
    ]


def test_a_tool_that_takes_plain_text() -> None:
    """The input of a custom tool streams as arguments do."""
    custom = {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "n", "input": "i"}}
    assert read(custom, {"index": 1, "custom": {"input": "j"}}, tools=frozenset({"n"})) == [
        begun(0, "c2", "n", "custom"),
        InputDelta(0, "i"),
        InputDelta(0, "j"),
        *ends(0),
    ]
    assert [call.id for call in made(custom, {**custom, "id": "c3"})] == ["c2", "c3"]


def test_a_call_of_a_kind_that_is_not_known() -> None:
    """A call of an unknown type comes when it is complete. The field named as its type is its input, and other fields its state."""
    odd = {"index": 1, "id": "c2", "type": "odd", "odd": {"a": "x"}, "note": "y"}
    assert read(odd, {"index": 1, "odd": {"a": "z"}}) == [
        begun(0, "c2", "", "odd"),
        InputDelta(0, '{"a":"xz"}'),
        BlockFinished(0, State(fields={"note": "y"})),
    ]


@pytest.mark.parametrize("delta", [{"id": "a"}, {"id": "a", "type": "function"}, call(0, "a", None, "{}"), call(0, "a", "")])
def test_a_call_without_a_name(delta: Json) -> None:
    """A call without a name raises `ValueError`."""
    with pytest.raises(ValueError, match="name"):
        read(delta)


def test_a_whole_message_after_the_stream() -> None:
    """A complete message after a stream adds only what did not stream: nothing, the rest of the last call, or more calls."""
    whole = [call(0, "c1", "f", OSLO), call(1, "c2", "g", ROME)]
    for streamed, expected in (
        (whole, []),
        ([whole[0]], [begun(1, "c2", "g"), InputDelta(1, ROME)]),
        ([whole[0], call(1, "c2", "g", ROME[:5])], [InputDelta(1, ROME[5:])]),
        ([call(0, "c1", "f", ROME), whole[1]], []),
    ):
        calls = ToolCalls(0, TOOLS, BlockNumbers())
        for delta in streamed:
            calls.read(delta, [])
        events: Batch = []
        calls.finish_from_message(whole, events)
        assert events == expected


def test_the_one_function_call_of_2023() -> None:
    """The function call of 2023 has no id, and its name may be repeated in every piece."""
    calls = ToolCalls(0, TOOLS, BlockNumbers())
    events: Batch = []
    for delta in ({"name": "f", "arguments": ""}, {"name": "f", "arguments": "{"}, {"arguments": "}"}):
        calls.read_function_call(delta, events)
    calls.end(events)
    assert events == [begun(0, "", "f", "function_call"), InputDelta(0, "{"), InputDelta(0, "}"), *ends(0)]
