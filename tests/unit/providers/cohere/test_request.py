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
from antiphon.providers.cohere.request import encode

TOOLS = (Tool("f", "finds", {"type": "object"}), Tool("g", strict=True))
F = {"type": "function", "function": {"name": "f", "description": "finds", "parameters": {"type": "object"}}}
G = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}


def body(*, stream: bool = False, **fields: Any) -> dict[str, Any]:
    made = json.loads(encode(ChatRequest("m", (Message(Role.USER, (Text("hi"),)),), stream=stream, **fields), "acme"))
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
        {"parallel_tool_calls": False, "tools": TOOLS},
        {"modalities": ("text", "audio")},
        {"audio_output": AudioOutput("v", "mp3")},
    ],
)
def test_unsupported(fields: dict[str, Any]) -> None:
    """What would change the reply and cannot be expressed is refused."""
    with pytest.raises(Unsupported):
        body(**fields)
