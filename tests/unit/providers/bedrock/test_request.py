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
from antiphon.domain.warnings import Treatment
from antiphon.providers.bedrock.names import NAMES
from antiphon.providers.bedrock.request import encode
from antiphon.providers.parameters import Parameters

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


def body(model: str = SONNET, *messages: Message, parameters: Parameters | None = None, **fields: Any) -> dict[str, Any]:
    request = ChatRequest(model, messages or (Message(Role.USER, (Text("hi"),)),), stream=True, **fields)
    made: dict[str, Any] = json.loads(encode(request, "acme", parameters))
    if not messages:
        assert made.pop("messages") == [{"role": "user", "content": [{"text": "hi"}]}]
    return made


def test_sampling() -> None:
    """Each field has the API's name, and top_k the place that the model's maker gave it."""
    assert body() == {}
    sampling = Sampling(0.5, None, 40, 100, stop="x", seed=7, choices=1)
    config: dict[str, Any] = {"maxTokens": 100, "temperature": 0.5, "stopSequences": ["x"]}
    assert body(LLAMA, sampling=Sampling(0.5, 0.9)) == {"inferenceConfig": {"temperature": 0.5, "topP": 0.9}}
    assert body(sampling=Sampling(0.5, 0.9)) == {"inferenceConfig": {"temperature": 0.5}}
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
    made = body("mistral.mistral-large-2407-v1:0", tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.TOOL, "h"))
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
    tools = (Tool("h"),)
    parameters = Parameters("acme")
    assert body(NOVA, parameters=parameters, tools=tools, parallel_tool_calls=False) == body(NOVA, tools=tools)
    assert [warning.path for warning in parameters.warnings] == [("parallel_tool_calls",)]


def test_formats() -> None:
    """A schema is text, with the keywords that the API accepts; JSON without one is an instruction."""
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
    own = {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}"}}}
    assert body(response_format=NativeFormat(own)) == {"outputConfig": {"textFormat": own}}
    (instruction,) = body(response_format=JsonObjectFormat())["system"]
    assert "one JSON object" in instruction["text"]


def test_the_service() -> None:
    """The tier of chat completions is Bedrock's, if it has that; a caller's own field counts more."""
    parameters = Parameters("acme")
    assert body(extra={"service_tier": "flex"}, parameters=parameters) == {"serviceTier": {"type": "flex"}}
    assert parameters.warnings == ()
    own = {"serviceTier": {"type": "reserved"}}
    assert body(extra={**own, "service_tier": "flex"}, parameters=parameters) == own
    assert body(extra={"service_tier": "scale"}, parameters=parameters) == {}
    assert [warning.path for warning in parameters.warnings] == [("extra", "service_tier")]


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


FORCED = {"tools": TOOLS, "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)}
FABLE = "anthropic.claude-fable-5-1-v1:0"
SCHEMA = JsonSchemaFormat("n", {"type": "object"})


@pytest.mark.parametrize(
    ("model", "fields", "path"),
    [
        (SONNET, {"sampling": Sampling(choices=2)}, "sampling.choices"),
        (SONNET, {"sampling": Sampling(logprobs=True)}, "sampling.logprobs"),
        (SONNET, {"sampling": Sampling(logit_bias={"1": 1})}, "sampling.logit_bias"),
        (SONNET, {"sampling": Sampling(presence_penalty=1)}, "sampling.presence_penalty"),
        (SONNET, {"sampling": Sampling(frequency_penalty=1)}, "sampling.frequency_penalty"),
        (SONNET, {"sampling": Sampling(seed=4)}, "sampling.seed"),
        (SONNET, {"modalities": ("text", "audio")}, "modalities"),
        (SONNET, {"audio_output": AudioOutput("v", "wav")}, "audio_output"),
        (SONNET, {"end_user": "u"}, "end_user"),
        (SONNET, {"extra": {"verbosity": "low"}}, "extra.verbosity"),
        (SONNET, {"tools": (NativeTool({"type": "web_search"}),)}, "tools"),
        (SONNET, {"response_format": NativeFormat({"type": "grammar"})}, "response_format"),
        (OPUS, {"sampling": Sampling(temperature=0.5)}, "sampling.temperature"),
        (OPUS, {"sampling": Sampling(top_p=0.5)}, "sampling.top_p"),
        (OPUS, {"sampling": Sampling(top_k=5)}, "sampling.top_k"),
        (LLAMA, {"sampling": Sampling(top_k=5)}, "sampling.top_k"),
    ],
)
def test_what_is_left_out(model: str, fields: dict[str, Any], path: str) -> None:
    """What the API or the model does not have is left out with a warning, or refused."""
    parameters = Parameters("acme")
    assert body(model, parameters=parameters, **fields) == {}
    (warning,) = parameters.warnings
    assert (".".join(warning.path), warning.treatment) == (path, Treatment.DROPPED)
    with pytest.raises(Unsupported, match=f"The provider acme does not support {path}"):
        body(model, parameters=Parameters("acme", "refuse"), **fields)


@pytest.mark.parametrize("model", [FABLE, LLAMA])
def test_a_choice_that_the_model_has_itself(model: str) -> None:
    """Where a call cannot be demanded, all tools are offered, with a warning."""
    parameters = Parameters("acme")
    tools = (Tool("h"),)
    assert body(model, parameters=parameters, **{**FORCED, "tools": tools}) == body(model, tools=tools)
    assert [(warning.path, warning.treatment) for warning in parameters.warnings] == [(("tool_choice",), Treatment.DROPPED)]


def test_what_changes_nothing_is_left_out_silently() -> None:
    """Values that ask for what the API does anyway have no warning, and are not refused."""
    neutral = Sampling(temperature=1, top_p=1, presence_penalty=0, frequency_penalty=0, choices=1, logprobs=False, logit_bias={})
    schema = JsonSchemaFormat("n", {"type": "object", "properties": {}}, strict=True)
    parameters = Parameters("acme", "refuse")
    made = body(OPUS, parameters=parameters, sampling=neutral, response_format=schema, extra={"store": False})
    assert made.keys() == {"outputConfig"}
    assert parameters.warnings == ()


def test_a_temperature_above_the_range() -> None:
    """The API has it up to 1."""
    parameters = Parameters("acme")
    assert body(parameters=parameters, sampling=Sampling(temperature=1.5)) == {"inferenceConfig": {"temperature": 1}}
    assert [(warning.path, warning.replacement) for warning in parameters.warnings] == [
        (("sampling", "temperature"), "temperature 1")
    ]


def test_sampling_while_it_thinks() -> None:
    """A Claude model that thinks accepts none, also if the caller's own fields tell it to think."""
    sampling = Sampling(temperature=0.5, top_k=3, max_tokens=4000)
    own = {"additionalModelRequestFields": {THINKING: {"type": "enabled", "budget_tokens": 3000}}}
    asked: tuple[dict[str, Any], ...] = ({"reasoning": Reasoning("high")}, {"extra": own})
    for fields in asked:
        parameters = Parameters("acme")
        made = body(parameters=parameters, sampling=sampling, **fields)
        assert made == {"inferenceConfig": {"maxTokens": 4000}, **own}
        dropped = [warning.path[-1] for warning in parameters.warnings if warning.treatment is Treatment.DROPPED]
        assert dropped == ["temperature", "top_k"]


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=9), Sampling(temperature=0.5), Sampling(top_p=0.5)])
def test_the_highest_effort_of_nova(sampling: Sampling) -> None:
    """It excludes a limit and sampling, which are what the caller can count on: the effort gives way."""
    parameters = Parameters("acme")
    made = body(NOVA, parameters=parameters, reasoning=Reasoning("high"), sampling=sampling)
    assert made["additionalModelRequestFields"] == {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}
    assert made["inferenceConfig"] == body(NOVA, sampling=sampling)["inferenceConfig"]
    assert [warning.replacement for warning in parameters.warnings] == ["reasoningConfig.maxReasoningEffort medium"]


@pytest.mark.parametrize(
    ("model", "effort", "fields", "reason"),
    [
        (LLAMA, "high", {}, "cannot be told"),
        (SONNET, "extreme", {}, "does not know"),
        (NOVA, "extreme", {}, "does not know"),
        (SONNET, "high", FORCED, "must call a tool"),
        (SONNET, "high", {"sampling": Sampling(max_tokens=100)}, "no room"),
        (NOVA, "high", {"extra": {"additionalModelRequestFields": {"reasoningConfig": {"type": "disabled"}}}}, "own parameter"),
    ],
)
def test_an_effort_that_cannot_be_sent(model: str, effort: str, fields: dict[str, Any], reason: str) -> None:
    """The body is that without an effort, and the warning says why."""
    parameters = Parameters("acme")
    assert body(model, parameters=parameters, reasoning=Reasoning(effort), **fields) == body(model, **fields)
    (warning,) = parameters.warnings
    assert (warning.path, warning.treatment) == (("reasoning", "effort"), Treatment.DROPPED)
    assert reason in warning.reason


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
        ("anthropic.claude-fable-5-1-v1:0", "none", {"outputConfig": {"effort": "low"}}),
        (NOVA, "xhigh", {"additional": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}}),
        (NOVA, "none", {"additional": {"reasoningConfig": {"type": "disabled"}}}),
        ("amazon.nova-pro-v1:0", "high", {}),
        ("openai.gpt-oss-120b-1:0", "minimal", {"additional": {"reasoning_effort": "low"}}),
        ("openai.gpt-oss-120b-1:0", "none", {"additional": {"reasoning_effort": "low"}}),
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


@pytest.mark.parametrize("model", [NOVA, LLAMA, "anthropic.claude-sonnet-4-v1:0"])
def test_a_schema_that_a_model_is_told(model: str) -> None:
    """A model that cannot be held to a schema is told to follow it."""
    parameters = Parameters("acme")
    made = body(model, parameters=parameters, response_format=SCHEMA)
    assert "outputConfig" not in made
    assert json.dumps(SCHEMA.schema, separators=(",", ":")) in made["system"][0]["text"]
    assert [(warning.path, warning.replacement) for warning in parameters.warnings] == [(("response_format",), "system")]
    assert "system" not in body(model, parameters=Parameters("acme", "drop"), response_format=SCHEMA)


def test_what_claude_alone_refuses() -> None:
    """A union at the top of a tool's schema, and stop sequences of white space, are Claude's limits."""
    schema = {"anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {}}}]}
    fields: dict[str, Any] = {"tools": (Tool("f", parameters=schema),), "sampling": Sampling(stop=("\n", "x"))}
    told = body(SONNET, **fields)
    sent = told["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]
    assert (sent["type"], sent["properties"]) == ("object", {"a": {"type": "string"}, "b": {}})
    assert told["inferenceConfig"] == {"stopSequences": ["x"]}
    other = body(LLAMA, **fields)
    assert other["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"] == {"type": "object", **schema}
    assert other["inferenceConfig"] == {"stopSequences": ["\n", "x"]}


def test_limits_of_the_api() -> None:
    """It has no limit of nothing, and refuses empty stop sequences."""
    parameters = Parameters("acme")
    made = body("meta.llama3-1-8b-instruct-v1:0", parameters=parameters, sampling=Sampling(max_tokens=0, stop=("", "a")))
    assert made == {"inferenceConfig": {"maxTokens": 1, "stopSequences": ["a"]}}
    assert [warning.path for warning in parameters.warnings] == [("sampling", "max_tokens")]
    assert body("meta.llama3-1-8b-instruct-v1:0", sampling=Sampling(stop="")) == {}


def test_fields_of_anthropics_own_api() -> None:
    """Claude gets them among the fields of the model, other models do not; a caller's field in its place counts."""
    extra: dict[str, Any] = {"thinking": {"type": "adaptive"}, "betas": ["b"], "speed": "fast"}
    parameters = Parameters("acme")
    made = body(SONNET, parameters=parameters, extra=extra, sampling=Sampling(temperature=0.3))
    assert made == {"additionalModelRequestFields": {"thinking": {"type": "adaptive"}, "anthropic_beta": ["b"]}}
    assert [warning.path[-1] for warning in parameters.warnings] == ["temperature", "speed"]
    own = {"thinking": {"type": "disabled"}, "a": 1}
    made = body(SONNET, extra={**extra, "additionalModelRequestFields": own})
    assert made["additionalModelRequestFields"] == {**own, "anthropic_beta": ["b"]}
    assert body("meta.llama3-1-8b-instruct-v1:0", extra=extra) == {}
