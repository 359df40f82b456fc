"""From a request to the body that Cohere's chat API expects."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
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
from antiphon.providers.cohere.request import encode
from antiphon.providers.parameters import Parameters

TOOLS = (Tool("f", "finds", {"type": "object"}), Tool("g", strict=True))
F = {"type": "function", "function": {"name": "f", "description": "finds", "parameters": {"type": "object"}}}
G = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}


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
    schema = JsonSchemaFormat("n", {"type": "object"})
    assert body(response_format=schema) == {"response_format": {"type": "json_object", "json_schema": {"type": "object"}}}
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
    tools = (Tool("f", strict=True), Tool("g"))
    parameters = Parameters("acme")
    assert body(tools=tools, parameters=parameters)["strict_tools"] is True
    assert parameters.warnings[0].replacement == "strict_tools"
    assert "strict_tools" not in body(tools=tools, parameters=Parameters("acme", "drop"))
    assert body(tools=tools[:1], parameters=Parameters("acme", "refuse"))["strict_tools"] is True
