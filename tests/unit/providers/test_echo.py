"""Tests of the provider that repeats its input."""

import json
from typing import Any

import pytest

from antiphon.config import ProviderConfig
from antiphon.domain.content import JsonObject, Message, Role, Text, Thinking, ToolCall
from antiphon.domain.events import Batch, BlockFinished, BlockStarted, Finished, FinishReason, InputDelta, Started, TextDelta, Usage
from antiphon.domain.request import ChatRequest, JsonObjectFormat, JsonSchemaFormat, Sampling, Tool, ToolChoice, ToolChoiceMode
from antiphon.providers.echo import EchoProvider, example
from tests.unit.other_calls import other_call

ECHO = EchoProvider("echo", ProviderConfig(protocol="echo", token_delay=0))
TOOLS = (Tool("f"), Tool("g", parameters={"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}))


async def ask(*texts: str, stream: bool = True, **fields: Any) -> list[Batch]:
    messages = tuple(Message(Role.USER, (Text(text),)) for text in texts)
    return [batch async for batch in ECHO.stream(ChatRequest("m", messages, stream=stream, **fields))]


def text_of(batches: list[Batch], choice: int = 0) -> str:
    return "".join(e.text for batch in batches for e in batch if isinstance(e, TextDelta) and e.block == choice)


def arguments(batches: list[Batch]) -> Any:
    return json.loads("".join(e.text for batch in batches for e in batch if isinstance(e, InputDelta)))


async def test_one_batch_a_word() -> None:
    """The reply starts, sends one word in each batch, and ends with its usage."""
    batches = await ask("hello there")
    started, begun = batches[0]
    assert isinstance(started, Started)
    assert (started.model, started.origin.provider, started.origin.model) == ("m", "echo", "m")
    assert begun == BlockStarted(0, 0, Text(""))
    assert batches[1:] == [
        [TextDelta(0, "You")],
        [TextDelta(0, " said:")],
        [TextDelta(0, " hello")],
        [TextDelta(0, " there")],
        [BlockFinished(0), Usage(2, 4, 6), Finished(0, FinishReason.STOP, "stop")],
    ]


@pytest.mark.parametrize("text", ["", " ", "a", "  a  b\n\nc\t", "\n", "größe 🦀 \u00a0 x", "a" * 10000])
async def test_every_text_comes_back_exactly(text: str) -> None:
    """The text comes back exactly, white space included, streamed or not."""
    assert text_of(await ask("first", text)) == f"You said: {text}"
    (whole,) = await ask(text, stream=False)
    assert text_of([whole]) == f"You said: {text}"


async def test_last_user_message() -> None:
    """The text parts of the user's last message are repeated; without one it is the empty text."""
    messages = (
        Message(Role.USER, (Text("one"),)),
        Message(Role.USER, (Text("two"), Thinking("hm"), Text("three"))),
        Message(Role.ASSISTANT, (Text("no"),)),
    )
    (whole,) = [batch async for batch in ECHO.stream(ChatRequest("m", messages, stream=False))]
    assert text_of([whole]) == "You said: twothree"
    assert text_of(await ask()) == "You said: "


async def test_limit_of_tokens() -> None:
    """A token limit cuts the reply after so many words, with the reason LENGTH."""
    for sampling in (Sampling(max_tokens=3), Sampling(max_completion_tokens=3)):
        batches = await ask("a b c", sampling=sampling)
        assert text_of(batches) == "You said: a"
        assert batches[-1] == [BlockFinished(0), Usage(3, 3, 6), Finished(0, FinishReason.LENGTH, "length")]
    assert (await ask("a", sampling=Sampling(max_tokens=3)))[-1][-1] == Finished(0, FinishReason.STOP, "stop")


async def test_choices() -> None:
    """Every requested choice has the same text, and all finish in order."""
    batches = await ask("a", sampling=Sampling(choices=3))
    assert [text_of(batches, choice) for choice in range(4)] == ["You said: a"] * 3 + [""]
    ends = [Finished(choice, FinishReason.STOP, "stop") for choice in range(3)]
    assert batches[-1] == [*map(BlockFinished, range(3)), Usage(1, 9, 10), *ends]


async def test_tools() -> None:
    """The tool that must be called is called, the first one if any must be, and none if the choice is free."""
    batches = await ask("hi", tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.TOOL, "g"))
    call = next(e.value for e in batches[0] if isinstance(e, BlockStarted))
    assert isinstance(call, ToolCall)
    assert (call.name, call.id[:5]) == ("g", "call_")
    assert arguments(batches) == {"q": "hi"}
    assert batches[-1][-1] == Finished(0, FinishReason.TOOL_CALLS, "tool_calls")
    required = await ask("hi", tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED), stream=False)
    assert arguments(required) == {}
    for choice in (None, ToolChoice(ToolChoiceMode.AUTO), ToolChoice(ToolChoiceMode.NONE)):
        assert text_of(await ask("hi", tools=TOOLS, tool_choice=choice)) == "You said: hi"


async def test_json() -> None:
    """A JSON reply is an object with the text, or an example of the schema."""
    assert json.loads(text_of(await ask("hi", response_format=JsonObjectFormat()))) == {"echo": "hi"}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert json.loads(text_of(await ask("hi", response_format=JsonSchemaFormat("s", schema)))) == {"a": 0}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {}),
        ({"type": "string"}, "hi"),
        ({"type": ["null", "number"]}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["hi", "hi"]),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 7}, 7),
        ({"anyOf": [{"type": "boolean"}, {"type": "string"}]}, False),
        ({"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"], "$defs": {"A": {"const": 1}}}, {"a": 1}),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": "hi"}),
        ({"required": ["a"]}, {"a": {}}),
    ],
)
def test_examples(schema: JsonObject, value: object) -> None:
    """`example` returns the smallest value that the schema allows."""
    assert example(schema, "hi") == value


def test_schema_without_end() -> None:
    """A schema that contains itself ends."""
    assert example({"$ref": "#"}, "hi") is None
    assert "next" in example({"required": ["next"], "properties": {"next": {"$ref": "#"}}}, "hi")


async def test_a_long_text_yields_to_other_calls() -> None:
    """A long text yields to other calls after every 1,000 words that are read or sent."""
    async with other_call() as other:
        text = "word " * 20_000
        assert text_of(await ask(text, stream=False)) == f"You said: {text}"
        assert other.turns >= 60
