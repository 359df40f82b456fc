"""From a request to the body that the Gemini API expects."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Origin, Role, Text
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
from antiphon.providers.gemini.names import NAMES
from antiphon.providers.gemini.request import encode
from antiphon.providers.parameters import Parameters

TOOLS = (Tool("f", "finds", {"type": "object"}), Tool("look up"))
LOOK_UP = NAMES.sent("look up")
FUNCTIONS = {
    "functionDeclarations": [{"name": "f", "description": "finds", "parametersJsonSchema": {"type": "object"}}, {"name": LOOK_UP}]
}


def body(model: str = "gemini-3-flash", *, parameters: Parameters | None = None, **fields: Any) -> dict[str, Any]:
    made = json.loads(encode(ChatRequest(model, (Message(Role.USER, (Text("hi"),)),), stream=True, **fields), "acme", parameters))
    assert made.pop("contents") == [{"role": "user", "parts": [{"text": "hi"}]}]
    assert isinstance(made, dict)
    return made


def config(model: str = "gemini-3-flash", **fields: Any) -> Any:
    made = body(model, **fields)
    found = made.pop("generationConfig", {})
    assert made == {}
    return found


def test_sampling() -> None:
    """Each field has the API's name."""
    assert body() == {}
    sampling = Sampling(
        0.5, 0.9, 40, 100, stop="x", presence_penalty=0.1, frequency_penalty=0.2, seed=7, choices=2, logprobs=True, top_logprobs=3
    )
    assert config(sampling=sampling) == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "maxOutputTokens": 100,
        "stopSequences": ["x"],
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "seed": 7,
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
    }
    sampling = Sampling(max_tokens=9, max_completion_tokens=5, stop=("a", "b"), choices=1)
    assert config(sampling=sampling) == {"maxOutputTokens": 5, "stopSequences": ["a", "b"]}


def test_instructions() -> None:
    """They have a field of their own."""
    request = ChatRequest("m", (Message(Role.SYSTEM, (Text("s"),)), Message(Role.USER, (Text("hi"),))), stream=True)
    assert json.loads(encode(request, "acme")) == {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        (ToolChoice(ToolChoiceMode.AUTO), {"mode": "AUTO"}),
        (ToolChoice(ToolChoiceMode.NONE), {"mode": "NONE"}),
        (ToolChoice(ToolChoiceMode.REQUIRED), {"mode": "ANY"}),
        (ToolChoice(ToolChoiceMode.TOOL, "look up"), {"mode": "ANY", "allowedFunctionNames": [LOOK_UP]}),
    ],
)
def test_tools(choice: ToolChoice | None, expected: dict[str, Any] | None) -> None:
    """Schemas are JSON Schema; names are those that the API accepts."""
    made = body(tools=TOOLS, tool_choice=choice)
    assert made == {"tools": [FUNCTIONS], **({"toolConfig": {"functionCallingConfig": expected}} if expected else {})}


def test_strict_and_native_tools() -> None:
    """All strict is a mode, where the model has it; a native tool and choice are sent as they came."""
    strict = (Tool("f", strict=True), Tool("g", strict=True))
    assert body(tools=strict)["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    required = body(tools=strict, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED))
    assert required["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    parameters = Parameters("acme")
    assert body(tools=(*strict, Tool("h")), parameters=parameters)["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert parameters.warnings[0].replacement == "functionCallingConfig.mode VALIDATED"
    parameters = Parameters("acme", "drop")
    assert "toolConfig" not in body(tools=(*strict, Tool("h")), parameters=parameters)
    assert "toolConfig" not in body("gemini-2.0-flash", tools=strict, parameters=parameters)
    assert [warning.treatment for warning in parameters.warnings] == [Treatment.DROPPED] * 2
    search = NativeTool({"googleSearch": {}})
    assert body(tools=(search,), tool_choice=ToolChoice(ToolChoiceMode.AUTO)) == {"tools": [{"googleSearch": {}}]}
    native = ToolChoice(ToolChoiceMode.AUTO, native={"includeServerSideToolInvocations": True})
    assert body(tools=(search, *TOOLS), tool_choice=native) == {
        "tools": [FUNCTIONS, {"googleSearch": {}}],
        "toolConfig": {"includeServerSideToolInvocations": True},
    }


def test_formats() -> None:
    """JSON, with or without a schema, text, or the API's own fields."""
    assert config(response_format=JsonObjectFormat()) == {"responseMimeType": "application/json"}
    schema = JsonSchemaFormat("n", {"$schema": "x", "type": "object"})
    assert config(response_format=schema) == {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}
    assert config(response_format=NativeFormat({"type": "text"})) == {}
    assert config(response_format=NativeFormat({"responseMimeType": "text/x.enum"})) == {"responseMimeType": "text/x.enum"}
    assert config(modalities=("text", "image")) == {"responseModalities": ["TEXT", "IMAGE"]}
    assert config(modalities=("text",)) == {}
    assert config(modalities=("audio",), audio_output=AudioOutput("Kore", "pcm16")) == {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gemini-3-flash", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash", "high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "xhigh", {"thinkingBudget": 32768, "includeThoughts": True}),
        ("gemini-2.0-flash", "high", None),
        ("gemini-3-flash", None, None),
    ],
)
def test_effort(model: str, effort: str | None, expected: dict[str, Any] | None) -> None:
    """It is a level or a budget, as the model has it, and the thoughts are asked for."""
    assert config(model, reasoning=Reasoning(effort)) == ({} if expected is None else {"thinkingConfig": expected})


def test_fields_of_the_api_itself() -> None:
    """They are sent as they came, beside those of the domain; a level and a budget are never sent together."""
    extra = {
        "safetySettings": [{"category": "c"}],
        "cachedContent": "cachedContents/x",
        "generationConfig": {"mediaResolution": "m"},
    }
    assert body(extra=extra, sampling=Sampling(0.5)) == {**extra, "generationConfig": {"mediaResolution": "m", "temperature": 0.5}}
    own = {"generationConfig": {"thinkingConfig": {"thinkingBudget": 5}}}
    assert body(extra=own, reasoning=Reasoning("high")) == own
    assert body(extra={"service_tier": "priority"}) == {"serviceTier": "priority"}
    assert body(extra={"service_tier": "default"}) == {}
    assert body(end_user="u") == {}


def test_a_paused_reply_goes_on() -> None:
    """The token is sent in its place."""
    paused = Message(Role.ASSISTANT, (Text("x"),), origin=Origin("gemini", "acme", "m"), fields={"continuationToken": "t"})
    request = ChatRequest("m", (Message(Role.USER, (Text("hi"),)), paused), stream=True)
    assert json.loads(encode(request, "acme"))["generationConfig"] == {"continuationToken": "t"}


def test_limits_of_the_api() -> None:
    """It has neither a limit of nothing nor more than five stop sequences, and refuses empty ones."""
    assert config(sampling=Sampling(stop=("", "a"))) == {"stopSequences": ["a"]}
    assert config(sampling=Sampling(stop=())) == config(sampling=Sampling(stop="")) == {}
    parameters = Parameters("acme")
    made = body(parameters=parameters, sampling=Sampling(max_tokens=0, stop=("", *"abcdef")))
    assert made["generationConfig"] == {"maxOutputTokens": 1, "stopSequences": list("abcde")}
    assert [warning.path for warning in parameters.warnings] == [("sampling", "max_tokens"), ("sampling", "stop")]
    made = body(parameters=Parameters("acme", "drop"), sampling=Sampling(max_completion_tokens=0))
    assert made == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(logit_bias={"1": 1.0})},
        {"parallel_tool_calls": False, "tools": TOOLS},
        {"modalities": ("audio",), "audio_output": AudioOutput("v", "mp3")},
        {"response_format": NativeFormat({"type": "grammar"})},
        {"reasoning": Reasoning("extreme")},
        {"tools": (NativeTool({"type": "web_search"}),)},
        {"tools": TOOLS, "tool_choice": ToolChoice(ToolChoiceMode.AUTO, native={"type": "allowed_tools"})},
    ],
)
def test_unsupported(fields: dict[str, Any]) -> None:
    """What the API lacks is refused if the policy says so, and otherwise left out with a warning."""
    with pytest.raises(Unsupported, match="The provider acme does not support "):
        body(parameters=Parameters("acme", "refuse"), **fields)
    parameters = Parameters("acme")
    body(parameters=parameters, **fields)
    assert [warning.treatment for warning in parameters.warnings] == [Treatment.DROPPED] * len(parameters.warnings) != []


@pytest.mark.parametrize("form", [JsonObjectFormat(), JsonSchemaFormat("n", {"type": "object"}, "A form.")])
def test_a_format_beside_tools(form: JsonObjectFormat | JsonSchemaFormat) -> None:
    """A model before Gemini 3 has none, so that it is told."""
    parameters = Parameters("acme")
    made = body("gemini-2.5-flash", parameters=parameters, tools=TOOLS, response_format=form)
    assert "generationConfig" not in made
    assert "JSON" in made["systemInstruction"]["parts"][0]["text"]
    assert [(warning.path, warning.replacement) for warning in parameters.warnings] == [(("response_format",), "systemInstruction")]
    dropped = body("gemini-2.5-flash", parameters=Parameters("acme", "drop"), tools=TOOLS, response_format=form)
    assert dropped.keys() == {"tools"}
    for model, fields in (("gemini-2.5-flash", {}), ("gemini-3-flash", {"tools": TOOLS})):
        strict = Parameters("acme", "refuse")
        made = body(model, parameters=strict, response_format=form, **fields)
        assert made["generationConfig"]["responseMimeType"] == "application/json"
        assert "systemInstruction" not in made


def test_penalties() -> None:
    """The API has them below 2."""
    parameters = Parameters("acme")
    sampling = Sampling(presence_penalty=2, frequency_penalty=-2)
    assert config(sampling=sampling, parameters=parameters) == {"presencePenalty": 1.99, "frequencyPenalty": -2}
    assert [warning.path for warning in parameters.warnings] == [("sampling", "presence_penalty")]
