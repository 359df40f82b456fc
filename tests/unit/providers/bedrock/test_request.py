"""From a request to the body that the Converse API expects."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text, ToolCall, ToolResult
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
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.bedrock.request import encode

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS = "anthropic.claude-opus-5-v1:0"
NOVA = "amazon.nova-2-lite-v1:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"
TOOLS = (Tool("f.g", "finds", {"type": "object"}, extra={"cache_control": {"type": "ephemeral"}}), Tool("h", strict=True))
F_G = NAMES.sent("f.g")
F = {"toolSpec": {"name": F_G, "description": "finds", "inputSchema": {"json": {"type": "object"}}}}
H = {
    "toolSpec": {
        "name": "h",
        "inputSchema": {"json": {"type": "object", "properties": {}, "additionalProperties": False}},
        "strict": True,
    }
}
POINT = {"cachePoint": {"type": "default"}}


def body(model: str = SONNET, *messages: Message, **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model, messages or (Message(Role.USER, (Text("hi"),)),), stream=True, **fields)
    made: dict[str, Any] = json.loads(encode(request, "acme"))
    if not messages:
        assert made.pop("messages") == [{"role": "user", "content": [{"text": "hi"}]}]
    return made


def test_sampling() -> None:
    """Each field has the API's name, and top_k the place that the model's maker gave it."""
    assert body() == {}
    sampling = Sampling(0.5, 0.9, 40, 100, stop="x", seed=7, choices=1)
    config = {"maxTokens": 100, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]}
    assert body(sampling=sampling) == {"inferenceConfig": config, "additionalModelRequestFields": {"top_k": 40}}
    assert body(NOVA, sampling=Sampling(top_k=4)) == {"additionalModelRequestFields": {"inferenceConfig": {"topK": 4}}}
    assert body("cohere.command-r-v1:0", sampling=Sampling(top_k=4)) == {"additionalModelRequestFields": {"k": 4}}
    assert body(sampling=Sampling(0.5, 1, max_tokens=1, max_completion_tokens=2)) == {
        "inferenceConfig": {"maxTokens": 2, "temperature": 0.5}
    }
    assert body(OPUS, sampling=Sampling(1, 1)) == {}


def test_tools() -> None:
    """Names are mapped, marks of caches follow their tools, and strict schemas have what the API accepts."""
    assert body(tools=TOOLS) == {"toolConfig": {"tools": [F, POINT, H]}}
    native = NativeTool({"type": "systemTool", "systemTool": {"name": "nova_grounding"}})
    assert body(NOVA, tools=(native,)) == {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(ToolChoiceMode.AUTO), {"auto": {}}),
        (ToolChoice(ToolChoiceMode.REQUIRED), {"any": {}}),
        (ToolChoice(ToolChoiceMode.TOOL, "f.g"), {"tool": {"name": F_G}}),
        (ToolChoice(ToolChoiceMode.AUTO, native={"any": {}}), {"any": {}}),
    ],
)
def test_tool_choices(choice: ToolChoice, expected: dict[str, Any]) -> None:
    """Each choice is one of the API's."""
    assert body(tools=TOOLS, tool_choice=choice)["toolConfig"]["toolChoice"] == expected


def test_no_tool() -> None:
    """The API has no word for it: none are offered, and earlier calls are text."""
    none = ToolChoice(ToolChoiceMode.NONE)
    assert body(tools=TOOLS, tool_choice=none) == {}
    messages = (
        Message(Role.USER, (Text("hi"),)),
        Message(Role.ASSISTANT, (ToolCall("c", "h", "{}"),)),
        Message(Role.TOOL, (ToolResult("c", (Text("r"),)),)),
    )
    for made in (body(SONNET, *messages, tools=TOOLS, tool_choice=none), body(SONNET, *messages)):
        assert made.keys() == {"messages"}
        assert "toolUse" not in json.dumps(made)
    assert "toolUse" in json.dumps(body(SONNET, *messages, tools=TOOLS))


def test_a_certain_tool() -> None:
    """Where it cannot be named, it alone is offered."""
    made = body(LLAMA, tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.TOOL, "h"))
    assert made == {"toolConfig": {"tools": [H], "toolChoice": {"any": {}}}}


def test_one_call_at_a_time() -> None:
    """Claude's own API has it; other models do not."""
    own = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    assert body(tools=TOOLS, parallel_tool_calls=False)["additionalModelRequestFields"] == own
    chosen = body(tools=TOOLS, parallel_tool_calls=False, tool_choice=ToolChoice(ToolChoiceMode.TOOL, "h"))
    assert chosen["additionalModelRequestFields"] == {
        "tool_choice": {"type": "tool", "name": "h", "disable_parallel_tool_use": True}
    }
    assert body(parallel_tool_calls=False) == {}
    assert "additionalModelRequestFields" not in body(tools=TOOLS, parallel_tool_calls=True)
    with pytest.raises(Unsupported, match="one tool call"):
        body(NOVA, tools=TOOLS, parallel_tool_calls=False)


def test_formats() -> None:
    """A schema is text, with the keywords that the API accepts; JSON without one is refused."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}}
    made = body(response_format=JsonSchemaFormat("n", schema, "d"))["outputConfig"]["textFormat"]
    inner = made["structure"]["jsonSchema"]
    assert (made["type"], inner["name"], inner["description"]) == ("json_schema", "n", "d")
    assert json.loads(inner["schema"]) == {
        "type": "object",
        "properties": {"n": {"type": "integer", "description": "{maximum: 3}"}},
        "additionalProperties": False,
    }
    assert body(response_format=NativeFormat({"type": "text"})) == {}
    assert body(response_format=NativeFormat({"type": "x"})) == {"outputConfig": {"textFormat": {"type": "x"}}}
    (instruction,) = body(response_format=JsonObjectFormat())["system"]
    assert "one JSON object" in instruction["text"]


def test_extra() -> None:
    """Fields of the API are sent as they are, beside ours."""
    extra = {
        "guardrailConfig": {"guardrailIdentifier": "g"},
        "additionalModelRequestFields": {"anthropic_beta": ["x"], "top_k": 1},
        "inferenceConfig": {"maxTokens": 9},
    }
    assert body(extra=extra, sampling=Sampling(temperature=0.5, top_k=4)) == {
        "guardrailConfig": {"guardrailIdentifier": "g"},
        "additionalModelRequestFields": {"anthropic_beta": ["x"], "top_k": 4},
        "inferenceConfig": {"temperature": 0.5, "maxTokens": 9},
    }


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (SONNET, {"sampling": Sampling(choices=2)}),
        (SONNET, {"sampling": Sampling(logprobs=True)}),
        (SONNET, {"sampling": Sampling(logit_bias={"1": 1})}),
        (SONNET, {"sampling": Sampling(presence_penalty=1)}),
        (SONNET, {"sampling": Sampling(frequency_penalty=1)}),
        (SONNET, {"modalities": ("text", "audio")}),
        (SONNET, {"audio_output": AudioOutput("v", "wav")}),
        (OPUS, {"sampling": Sampling(temperature=0.5)}),
        (OPUS, {"sampling": Sampling(top_p=0.5)}),
        (OPUS, {"sampling": Sampling(top_k=5)}),
        (LLAMA, {"sampling": Sampling(top_k=5)}),
        ("anthropic.claude-fable-5-v1:0", {"tools": TOOLS, "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)}),
    ],
)
def test_what_is_refused(model: str, fields: dict[str, Any]) -> None:
    """What the API or the model cannot do, and would change the reply, is refused."""
    with pytest.raises(Unsupported, match="The provider acme does not support"):
        body(model, **fields)


THINKING = "thinking"


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (
            SONNET,
            "low",
            {"inferenceConfig": {"maxTokens": 64_000}, "additional": {THINKING: {"type": "enabled", "budget_tokens": 2048}}},
        ),
        (SONNET, "none", {}),
        (OPUS, "max", {"outputConfig": {"effort": "max"}, "additional": {THINKING: {"type": "adaptive", "display": "summarized"}}}),
        (
            "anthropic.claude-opus-4-6-v1",
            "xhigh",
            {"outputConfig": {"effort": "high"}, "additional": {THINKING: {"type": "adaptive", "display": "summarized"}}},
        ),
        ("anthropic.claude-opus-4-6-v1", "none", {"additional": {THINKING: {"type": "disabled"}}}),
        ("anthropic.claude-sonnet-5-5", "none", {"additional": {THINKING: {"type": "between_tools"}}}),
        ("anthropic.claude-fable-5-v1:0", "none", {"outputConfig": {"effort": "low"}}),
        (NOVA, "xhigh", {"additional": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}}),
        (NOVA, "none", {"additional": {"reasoningConfig": {"type": "disabled"}}}),
        ("amazon.nova-pro-v1:0", "high", {}),
        ("openai.gpt-oss-120b-1:0", "minimal", {"additional": {"reasoning_effort": "low"}}),
        ("openai.gpt-oss-120b-1:0", "none", {}),
        ("qwen.qwen3-32b-v1:0", "medium", {"additional": {"reasoning_config": "high"}}),
        (LLAMA, "high", {}),
        (SONNET, "unheard-of", {}),
    ],
)
def test_thinking(model: str, effort: str, expected: dict[str, Any]) -> None:
    """An effort is told in the way of the model's maker, or not at all."""
    additional = expected.pop("additional", None)
    wanted = expected if additional is None else {**expected, "additionalModelRequestFields": additional}
    assert body(model, reasoning=Reasoning(effort)) == wanted


def test_limits_of_thinking() -> None:
    """A budget leaves a quarter of the limit, and gives way to a forced call and to the caller's own fields."""
    high = Reasoning("high")
    assert body(reasoning=high, sampling=Sampling(max_tokens=4000))["additionalModelRequestFields"] == {
        THINKING: {"type": "enabled", "budget_tokens": 3000}
    }
    assert body(reasoning=high, sampling=Sampling(max_tokens=1000)) == {"inferenceConfig": {"maxTokens": 1000}}
    forced = body(reasoning=high, tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED))
    assert "additionalModelRequestFields" not in forced
    own = {"additionalModelRequestFields": {THINKING: {"type": "enabled", "budget_tokens": 1}}}
    assert body(reasoning=high, extra=own) == own
    messages = (
        Message(Role.USER, (Text("hi"),)),
        Message(Role.ASSISTANT, (ToolCall("c", "h", "{}"),)),
        Message(Role.TOOL, (ToolResult("c", (Text("r"),)),)),
    )
    assert "additionalModelRequestFields" not in body(SONNET, *messages, tools=TOOLS, reasoning=high)
