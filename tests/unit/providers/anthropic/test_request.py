"""From a request to the body that Anthropic's Messages API expects."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Origin, Role, State, Text, Thinking, ToolCall, ToolResult
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
from antiphon.providers.anthropic.request import betas, encode
from antiphon.providers.parameters import Parameters

OLD, NEW, ALWAYS = "claude-sonnet-4-5", "claude-opus-5", "claude-fable-5"
HI = (Message(Role.USER, (Text("hi"),)),)
TOOLS = (Tool("f", "finds", {"type": "object", "properties": {"q": {"type": "string", "maxLength": 3}}}), Tool("g.x"))
F = {
    "name": "f",
    "description": "finds",
    "input_schema": {"type": "object", "properties": {"q": {"type": "string", "maxLength": 3}}},
}
G = {"name": "g_x_b828e349", "input_schema": {"type": "object", "properties": {}}}


def body(
    model: str = OLD, messages: tuple[Message, ...] = HI, *, parameters: Parameters | None = None, **fields: Any
) -> dict[str, Any]:
    request = ChatRequest(model, messages, stream=True, **fields)
    made = json.loads(encode(request, "acme", parameters))
    assert made.pop("model") == model
    assert made.pop("stream") is True
    sent = made.pop("messages")
    assert messages is not HI or sent == [{"role": "user", "content": "hi"}]
    assert isinstance(made, dict)
    return made


def test_limit_and_sampling() -> None:
    """The limit is always sent; a top_p that changes nothing is not sent beside a temperature."""
    assert body() == {"max_tokens": 64_000}
    assert body("claude-3-haiku-20240307") == {"max_tokens": 4096}
    assert body("glm-5") == {"max_tokens": 8192}
    assert body(sampling=Sampling(max_tokens=0)) == {"max_tokens": 0}
    assert body(sampling=Sampling(max_tokens=9, max_completion_tokens=5)) == {"max_tokens": 5}
    sampling = Sampling(0.5, 1.0, 40, 100, stop="x", seed=7, choices=1)
    assert body(sampling=sampling) == {"max_tokens": 100, "temperature": 0.5, "top_k": 40, "stop_sequences": ["x"]}
    assert body(sampling=Sampling(top_p=0.9, max_tokens=1, stop=("a", "b"))) == {
        "max_tokens": 1,
        "top_p": 0.9,
        "stop_sequences": ["a", "b"],
    }


def test_sampling_of_new_models() -> None:
    """They have only the defaults, which are left out."""
    assert body(NEW, sampling=Sampling(temperature=1, top_p=1)) == {"max_tokens": 128_000}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (NEW, "high", {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}}),
        (NEW, "minimal", {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}}),
        (NEW, "none", {"thinking": {"type": "disabled"}}),
        (ALWAYS, "none", {"output_config": {"effort": "low"}}),
        ("claude-sonnet-5-5", "none", {"thinking": {"type": "between_tools"}}),
        ("claude-future-9", "max", {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "max"}}),
        (
            "claude-opus-4-6",
            "xhigh",
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
        ),
        (
            "anthropic/claude-opus-4.5",
            "max",
            {"thinking": {"type": "enabled", "budget_tokens": 32_000}, "output_config": {"effort": "high"}},
        ),
        (OLD, "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (OLD, "none", {}),
        (OLD, "whatever", {}),
        ("claude-3-haiku", "high", {}),
    ],
)
def test_thinking(model: str, effort: str, expected: dict[str, Any]) -> None:
    """An effort is what the model has for it."""
    made = body(model, reasoning=Reasoning(effort))
    del made["max_tokens"]
    assert made == expected


def test_thinking_within_limits() -> None:
    """A budget is part of the limit; the caller's own fields count, and so does a tool that must be called."""
    assert body(sampling=Sampling(max_tokens=2000), reasoning=Reasoning("high"))["thinking"]["budget_tokens"] == 1500
    assert "thinking" not in body(sampling=Sampling(max_tokens=1200), reasoning=Reasoning("high"))
    assert body(reasoning=Reasoning("high"), extra={"thinking": {"type": "disabled"}})["thinking"] == {"type": "disabled"}
    forced = ToolChoice(ToolChoiceMode.REQUIRED)
    assert "thinking" not in body(reasoning=Reasoning("high"), tools=TOOLS, tool_choice=forced)
    assert "thinking" in body(NEW, reasoning=Reasoning("high"), tools=TOOLS, tool_choice=forced)
    native = ToolChoice(ToolChoiceMode.AUTO, native={"type": "any"})
    assert "thinking" not in body(reasoning=Reasoning("high"), tools=TOOLS, tool_choice=native)


def test_thinking_after_calls_without_it() -> None:
    """A model with a budget refuses to continue calls that were made without thinking."""
    call, result = ToolCall("c", "f", "{}"), Message(Role.TOOL, (ToolResult("c", (Text("1"),)),))
    unsigned = (*HI, Message(Role.ASSISTANT, (call,)), result)
    assert "thinking" not in body(messages=unsigned, reasoning=Reasoning("high"))
    assert "thinking" in body(NEW, messages=unsigned, reasoning=Reasoning("high"))
    thought = Thinking("t", state=State("sig", origin=None))
    from_here = Message(Role.ASSISTANT, (thought, call), origin=None)
    assert "thinking" not in body(messages=(*HI, from_here, result), reasoning=Reasoning("high"))


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, {}),
        (ToolChoice(ToolChoiceMode.AUTO), None, {"tool_choice": {"type": "auto"}}),
        (ToolChoice(ToolChoiceMode.NONE), False, {"tool_choice": {"type": "none"}}),
        (ToolChoice(ToolChoiceMode.REQUIRED), None, {"tool_choice": {"type": "any"}}),
        (ToolChoice(ToolChoiceMode.TOOL, "g.x"), None, {"tool_choice": {"type": "tool", "name": "g_x_b828e349"}}),
        (None, False, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        (ToolChoice(ToolChoiceMode.REQUIRED), True, {"tool_choice": {"type": "any", "disable_parallel_tool_use": False}}),
        (ToolChoice(ToolChoiceMode.AUTO, native={"type": "x"}), None, {"tool_choice": {"type": "x"}}),
    ],
)
def test_tools(choice: ToolChoice | None, parallel: bool | None, expected: dict[str, Any]) -> None:
    """Names that the API refuses are replaced, also in the choice."""
    made = body(tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel)
    assert made == {"max_tokens": 64_000, "tools": [F, G], **expected}


def test_fields_of_tools() -> None:
    """Documented fields are sent, wherever the caller put them; a strict schema is reduced; a choice needs tools."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert body(tools=(Tool("f", extra={**mark, "x": 1}),))["tools"] == [
        {"name": "f", "input_schema": {"type": "object", "properties": {}}, **mark}
    ]
    assert body(tools=(Tool("f", extra={"function": mark}),))["tools"][0]["cache_control"] == mark["cache_control"]
    assert body(tools=(Tool("f", parameters={"properties": {"a": {"minimum": 1}}}, strict=True),))["tools"] == [
        {
            "name": "f",
            "input_schema": {
                "type": "object",
                "properties": {"a": {"description": "{minimum: 1}"}},
                "additionalProperties": False,
            },
            "strict": True,
        }
    ]
    assert "strict" not in body("claude-3-haiku", tools=(Tool("f", strict=True),))["tools"][0]
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert body(tools=(NativeTool(search),))["tools"] == [search]
    assert "tool_choice" not in body(tool_choice=ToolChoice(ToolChoiceMode.NONE), parallel_tool_calls=False)


def test_formats_and_the_rest() -> None:
    """A schema goes beside the effort; other fields are sent as they came, and betas are no field."""
    schema = JsonSchemaFormat("n", {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}, "the answer")
    expected = {
        "type": "object",
        "properties": {"a": {"type": "string", "description": '{pattern: "x"}'}},
        "additionalProperties": False,
        "description": "the answer",
    }
    made = body(NEW, response_format=schema, reasoning=Reasoning("low"))
    assert made["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": expected}}
    assert body(response_format=NativeFormat({"type": "x"}))["output_config"] == {"format": {"type": "x"}}
    assert body(response_format=NativeFormat({"type": "text"})) == {"max_tokens": 64_000}
    extra = {"container": "c", "output_config": {"effort": "max", "task_budget": 1}, "betas": ["a-1", "b\r\nx: y", 7, "b-2"]}
    made = body(NEW, end_user="u", extra=extra, reasoning=Reasoning("low"))
    assert made["metadata"] == {"user_id": "u"}
    assert made["container"] == "c"
    assert made["output_config"] == {"effort": "low", "task_budget": 1}
    assert "betas" not in made
    assert betas(ChatRequest(NEW, (), stream=True, extra=extra)) == "a-1,b-2"
    assert betas(ChatRequest(NEW, (), stream=True, extra={"betas": "a"})) is None
    assert betas(ChatRequest(NEW, (), stream=True, extra={"betas": ["\n"]})) is None


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (OLD, {"sampling": Sampling(choices=2)}),
        (OLD, {"sampling": Sampling(logprobs=True)}),
        (OLD, {"sampling": Sampling(top_logprobs=2)}),
        (OLD, {"sampling": Sampling(logit_bias={"1": 1.0})}),
        (OLD, {"sampling": Sampling(presence_penalty=0.5)}),
        (OLD, {"sampling": Sampling(frequency_penalty=0.5)}),
        (OLD, {"modalities": ("text", "audio")}),
        (OLD, {"audio_output": AudioOutput("v", "mp3")}),
        (NEW, {"sampling": Sampling(temperature=0.2)}),
        (NEW, {"sampling": Sampling(top_p=0.2)}),
        (NEW, {"sampling": Sampling(top_k=2)}),
        ("claude-opus-5-5", {"tools": TOOLS, "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)}),
        ("claude-fable-5-1-20261001", {"tools": TOOLS, "tool_choice": ToolChoice(ToolChoiceMode.TOOL, "f")}),
    ],
)
def test_unsupported(model: str, fields: dict[str, Any]) -> None:
    """What the API lacks is refused if the policy says so, and otherwise left out with a warning."""
    with pytest.raises(Unsupported, match="The provider acme does not support "):
        body(model, parameters=Parameters("acme", "refuse"), **fields)
    parameters = Parameters("acme")
    body(model, parameters=parameters, **fields)
    assert [warning.treatment for warning in parameters.warnings] == [Treatment.DROPPED] * len(parameters.warnings) != []


def test_instructions() -> None:
    """They come first: as a string, or as a list if they have marks."""
    mark = {"cache_control": {"type": "ephemeral"}}
    system, more = Message(Role.SYSTEM, (Text("a"),)), Message(Role.DEVELOPER, (Text("b", extra=mark),))
    assert body(messages=(system, *HI))["system"] == "a"
    assert body(messages=(system, more, *HI))["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b", **mark}]


def test_json_without_a_schema() -> None:
    """The API has no such mode, so the model is told, after all other instructions."""
    made = body(messages=(Message(Role.SYSTEM, (Text("Be brief."),)), *HI), response_format=JsonObjectFormat())
    first, last = made["system"]
    assert first == {"type": "text", "text": "Be brief."}
    assert "one JSON object and nothing else" in last["text"]
    assert "output_config" not in made


def test_the_container_of_the_conversation() -> None:
    """It is used again, unless the caller names another."""
    origin = Origin("anthropic", "acme", OLD, "acme")
    reply = Message(Role.ASSISTANT, (Text("x"),), origin=origin, fields={"container": {"id": "c1"}})
    assert body(messages=(*HI, reply, *HI))["container"] == "c1"
    assert body(messages=(*HI, reply, *HI), extra={"container": "c2"})["container"] == "c2"
    assert "container" not in body()


@pytest.mark.parametrize(
    ("extra", "sent", "warned"),
    [
        ({"metadata": {"session": "x"}}, {}, ["metadata"]),
        ({"metadata": {"user_id": "u", "session": "x"}}, {"metadata": {"user_id": "u"}}, ["metadata"]),
        ({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}, []),
        ({"service_tier": "flex"}, {}, ["service_tier"]),
        ({"service_tier": "default"}, {}, []),
        ({"service_tier": "standard_only"}, {"service_tier": "standard_only"}, []),
    ],
)
def test_only_values_of_fields_of_the_same_name_that_the_api_has_are_sent(
    extra: dict[str, Any], sent: dict[str, Any], warned: list[str]
) -> None:
    parameters = Parameters("p")
    request = ChatRequest("claude-sonnet-4-5", (Message(Role.USER, (Text("Hi"),)),), stream=False, extra=extra)
    body = json.loads(encode(request, "p", parameters))
    assert {name: body[name] for name in ("metadata", "service_tier") if name in body} == sent
    assert [warning.path[-1] for warning in parameters.warnings] == warned
