"""From a request to the body that Cohere's chat API expects."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text, ToolCall
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import (
    AudioOutput,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    Reasoning,
    Sampling,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.domain.warnings import Treatment
from antiphon.providers.cohere.names import NAMES
from antiphon.providers.cohere.request import encode
from antiphon.providers.parameters import Parameters

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
TOOLS = (Tool("f", "finds", SCHEMA), Tool("g", parameters=SCHEMA, strict=True))
F = {"type": "function", "function": {"name": "f", "description": "finds", "parameters": SCHEMA}}
G = {"type": "function", "function": {"name": "g", "parameters": SCHEMA}}


def body(*, stream: bool = False, parameters: Parameters | None = None, **fields: Any) -> dict[str, Any]:
    made = json.loads(encode(ChatRequest("m", (Message(Role.USER, (Text("hi"),)),), stream=stream, **fields), "acme", parameters))
    assert made.pop("model") == "m"
    assert made.pop("messages") == [{"role": "user", "content": "hi"}]
    assert isinstance(made, dict)
    return made


def test_sampling() -> None:
    """Each field has the API's name."""
    assert body() == {}
    assert body(stream=True) == {"stream": True}
    sampling = Sampling(0.5, 0.9, 40, 100, stop="x", presence_penalty=0.1, frequency_penalty=0.2, seed=7, choices=1)
    assert body(sampling=sampling) == {
        "temperature": 0.5,
        "p": 0.9,
        "k": 40,
        "max_tokens": 100,
        "stop_sequences": ["x"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 7,
    }
    assert body(sampling=Sampling(max_completion_tokens=5, stop=("a", "b"))) == {"max_tokens": 5, "stop_sequences": ["a", "b"]}


def test_limits_of_sampling() -> None:
    """The API takes five stop sequences, none of them empty, and a k up to 500."""
    parameters = Parameters("acme")
    assert body(sampling=Sampling(stop=("", *"abcdef")), parameters=parameters) == {"stop_sequences": list("abcde")}
    assert [warning.path for warning in parameters.warnings] == [("sampling", "stop")]
    assert body(sampling=Sampling(stop="")) == {}
    parameters = Parameters("acme")
    assert body(sampling=Sampling(top_k=1000), parameters=parameters) == {"k": 500}
    assert [warning.treatment for warning in parameters.warnings] == [Treatment.MAPPED]


def test_a_call_without_a_result() -> None:
    """It is left out, as the API does not accept it."""
    hello = Message(Role.USER, (Text("hi"),))
    messages = (hello, Message(Role.ASSISTANT, (Text("a"), ToolCall("c", "f", "{}"))), hello)
    sent = json.loads(encode(ChatRequest("m", messages, stream=False), "acme"))["messages"]
    assert sent[1] == {"role": "assistant", "content": [{"type": "text", "text": "a"}]}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {"tools": [F, G], "strict_tools": True}),
        (ToolChoice(ToolChoiceMode.AUTO), {"tools": [F, G], "strict_tools": True}),
        (ToolChoice(ToolChoiceMode.NONE), {"tools": [F, G], "strict_tools": True, "tool_choice": "NONE"}),
        (ToolChoice(ToolChoiceMode.REQUIRED), {"tools": [F, G], "strict_tools": True, "tool_choice": "REQUIRED"}),
        (ToolChoice(ToolChoiceMode.TOOL, "f"), {"tools": [F], "tool_choice": "REQUIRED"}),
        (
            ToolChoice(ToolChoiceMode.AUTO, native={"type": "x"}),
            {"tools": [F, G], "strict_tools": True, "tool_choice": {"type": "x"}},
        ),
    ],
)
def test_tools(choice: ToolChoice | None, expected: dict[str, Any]) -> None:
    """The tool that must be called is the only one that is offered, as the API cannot name it."""
    assert body(tools=TOOLS, tool_choice=choice) == expected


def test_formats_and_the_rest() -> None:
    """Formats are JSON, with or without a schema; other fields are sent as they came."""
    assert body(response_format=JsonObjectFormat()) == {"response_format": {"type": "json_object"}}
    schema = JsonSchemaFormat("n", SCHEMA)
    assert body(response_format=schema) == {"response_format": {"type": "json_object", "json_schema": SCHEMA}}
    assert body(response_format=NativeFormat({"type": "text"})) == {"response_format": {"type": "text"}}
    assert body(tools=(NativeTool({"type": "x"}),)) == {"tools": [{"type": "x"}]}
    assert body(reasoning=Reasoning("none")) == {"thinking": {"type": "disabled"}}
    assert body(reasoning=Reasoning("high"), extra={"thinking": {"token_budget": 5}}) == {"thinking": {"token_budget": 5}}
    assert body(end_user="u", extra={"safety_mode": "OFF"}) == {"safety_mode": "OFF"}


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(choices=2)},
        {"sampling": Sampling(logprobs=True)},
        {"sampling": Sampling(top_logprobs=2)},
        {"sampling": Sampling(logit_bias={"1": 1.0})},
        {"parallel_tool_calls": False, "tools": TOOLS[:1]},
        {"modalities": ("text", "audio")},
        {"audio_output": AudioOutput("v", "mp3")},
    ],
)
def test_unsupported(fields: dict[str, Any]) -> None:
    """What the API lacks is refused if the policy says so, and otherwise left out with a warning."""
    with pytest.raises(Unsupported, match="The provider acme does not support "):
        body(parameters=Parameters("acme", "refuse"), **fields)
    parameters = Parameters("acme")
    body(parameters=parameters, **fields)
    assert [warning.treatment for warning in parameters.warnings] == [Treatment.DROPPED] * len(parameters.warnings) != []


def test_penalties_have_another_range() -> None:
    """A penalty out of the API's range becomes the nearest one, and is left out under `drop`; one within it is sent as it is."""
    sampling = Sampling(presence_penalty=-1.5, frequency_penalty=0.5)
    parameters = Parameters("acme")
    assert body(sampling=sampling, parameters=parameters) == {"presence_penalty": 0, "frequency_penalty": 0.5}
    (warning,) = parameters.warnings
    assert (warning.path, warning.replacement) == (("sampling", "presence_penalty"), "presence_penalty 0")
    assert body(sampling=sampling, parameters=Parameters("acme", "drop")) == {"frequency_penalty": 0.5}
    with pytest.raises(Unsupported):
        body(sampling=sampling, parameters=Parameters("acme", "refuse"))


def test_strictness_is_for_all_tools_together() -> None:
    """If only some tools are strict, all of them become so, or none under `drop`."""
    tools = (Tool("f", parameters=SCHEMA, strict=True), Tool("g", parameters=SCHEMA))
    parameters = Parameters("acme")
    assert body(tools=tools, parameters=parameters)["strict_tools"] is True
    assert parameters.warnings[0].replacement == "strict_tools"
    assert "strict_tools" not in body(tools=tools, parameters=Parameters("acme", "drop"))
    assert body(tools=tools[:1], parameters=Parameters("acme", "refuse"))["strict_tools"] is True


def test_strictness_that_cannot_be() -> None:
    """A tool without a required parameter, or with a schema of others, cannot be strict."""
    for schema in (None, {**SCHEMA, "required": []}, {**SCHEMA, "allOf": [{}]}):
        parameters = Parameters("acme")
        assert "strict_tools" not in body(tools=(*TOOLS, Tool("h", parameters=schema)), parameters=parameters)
        assert [(warning.path, warning.treatment.value) for warning in parameters.warnings] == [(("tools", "strict"), "dropped")]


def told(**fields: Any) -> tuple[dict[str, Any], list[tuple[tuple[str, ...], str]]]:
    """Return the body of a request for JSON, and its warnings."""
    parameters = Parameters("acme")
    request = ChatRequest("m", (Message(Role.USER, (Text("hi"),)),), stream=False, **fields)
    made = json.loads(encode(request, "acme", parameters))
    return made, [(warning.path, warning.treatment.value) for warning in parameters.warnings]


def test_a_format_beside_tools() -> None:
    """The API has none there, so that the model is told."""
    for form in (JsonObjectFormat(), JsonSchemaFormat("n", SCHEMA)):
        made, warnings = told(response_format=form, tools=TOOLS[:1])
        assert "response_format" not in made
        assert made["messages"][-1]["role"] == "system"
        assert warnings == [(("response_format",), "mapped")]


def test_a_schema_that_cannot_be_enforced() -> None:
    """The model is told of it, and held to JSON."""
    for schema in ({"type": "array"}, {"type": "object", "properties": {}}, {**SCHEMA, "properties": {"q": {"oneOf": []}}}):
        made, warnings = told(response_format=JsonSchemaFormat("n", schema))
        assert made["response_format"] == {"type": "json_object"}
        assert made["messages"][-1]["role"] == "system"
        assert warnings == [(("response_format",), "mapped")]


def test_limits_of_a_schema() -> None:
    """Those that the API does not know are in the description."""
    inner = {"type": "string", "description": "A name.", "minLength": 1, "pattern": "^a", "format": "email"}
    other = {"type": "string", "pattern": "a+", "format": "date", "additionalProperties": False}
    properties = {"a": inner, "b": other, "c": {"type": "array", "items": inner}, "d": {"anyOf": [{"type": "null"}, inner]}}
    made = body(response_format=JsonSchemaFormat("n", {"type": "object", "properties": properties, "required": ["a"]}))
    described = {"type": "string", "description": 'A name.\n\n{minLength: 1, pattern: "^a", format: "email"}'}
    assert made["response_format"]["json_schema"]["properties"] == {
        "a": described,
        "b": {"type": "string", "pattern": "a+", "format": "date"},
        "c": {"type": "array", "items": described},
        "d": {"anyOf": [{"type": "null"}, described]},
    }


def test_top_p() -> None:
    """The API has it from 0.01 to 0.99."""
    for given, sent in ((0, 0.01), (0.5, 0.5), (1, 0.99)):
        parameters = Parameters("acme")
        assert body(sampling=Sampling(top_p=given), parameters=parameters) == {"p": sent}
        assert len(parameters.warnings) == (given != sent)


def test_names() -> None:
    """A name that the API refuses is replaced."""
    made = body(tools=(Tool("files.read", parameters=SCHEMA), Tool("get-it", parameters=SCHEMA)))
    names = [tool["function"]["name"] for tool in made["tools"]]
    assert names == [NAMES.sent("files.read"), "get-it"]
    assert NAMES.accepts(names[0])
