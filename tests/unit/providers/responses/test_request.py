"""From requests of the domain to bodies of the Responses API."""

import json
from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from antiphon.domain.content import Message, Role, Text, ToolCall
from antiphon.domain.errors import Unsupported
from antiphon.domain.reply import Reply
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
from antiphon.providers.parameters import Parameters
from antiphon.providers.responses.items import NAMES
from antiphon.providers.responses.request import encode
from antiphon.providers.responses.response import ResponsesReader

BODY: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsNonStreaming)
ENCRYPTED = "reasoning.encrypted_content"
MINIMAL = {"model": "gpt-5", "input": [{"role": "user", "content": "hi"}], "store": False, "include": [ENCRYPTED]}
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}


def body(*, model: str = "gpt-5", stream: bool = False, parameters: Parameters | None = None, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        encode(ChatRequest(model, (Message(Role.USER, (Text("hi"),)),), stream, **fields), "acme", parameters)
    )
    BODY.validate_python({name: value for name, value in made.items() if name != "stream"})
    return made


def added(**fields: Any) -> dict[str, Any]:
    made = body(**fields)
    return {name: value for name, value in made.items() if MINIMAL.get(name) != value}


def test_minimal() -> None:
    """Nothing is stored, and the reasoning is asked for."""
    assert body() == MINIMAL
    assert added(stream=True) == {"stream": True}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", None),
        ("gpt-5-chat-latest", None),
        ("ft:gpt-4o:x", None),
        ("o3", [ENCRYPTED]),
        ("gpt-9", [ENCRYPTED]),
        ("x", [ENCRYPTED]),
    ],
)
def test_models_that_do_not_reason(model: str, expected: list[str] | None) -> None:
    """They refuse a request for reasoning. An unknown model counts as a newer one."""
    assert body(model=model).get("include") == expected


def test_sampling() -> None:
    """Each option has the API's name, and log probabilities are included."""
    sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=70, seed=1, logprobs=True, top_logprobs=2, presence_penalty=0)
    extra = {"include": ["file_search_call.results", ENCRYPTED]}
    assert added(model="gpt-5.1", sampling=sampling, end_user="bob", extra=extra) == {
        "model": "gpt-5.1",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 70,
        "top_logprobs": 2,
        "user": "bob",
        "include": ["file_search_call.results", ENCRYPTED, "message.output_text.logprobs"],
    }
    assert added(sampling=sampling, extra=extra).keys() == {"max_output_tokens", "include"}
    assert added(sampling=Sampling(max_tokens=17, max_completion_tokens=18)) == {"max_output_tokens": 18}


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(choices=2)},
        {"sampling": Sampling(stop="x")},
        {"sampling": Sampling(top_k=1)},
        {"sampling": Sampling(presence_penalty=1)},
        {"sampling": Sampling(frequency_penalty=1)},
        {"sampling": Sampling(logit_bias={"1": 1})},
        {"modalities": ("text", "audio")},
        {"audio_output": AudioOutput("a", "wav")},
    ],
)
def test_unsupported(fields: dict[str, Any]) -> None:
    """What the API lacks is refused if the policy says so, and otherwise left out with a warning."""
    with pytest.raises(Unsupported, match="The provider acme does not support "):
        body(parameters=Parameters("acme", "refuse"), **fields)
    parameters = Parameters("acme")
    body(parameters=parameters, **fields)
    assert [warning.treatment for warning in parameters.warnings] == [Treatment.DROPPED] * len(parameters.warnings) != []


def test_tools() -> None:
    """A function is not strict unless the caller says so; tools of chat completions get this API's form, and others stay."""
    grammar = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a"}}
    made = added(
        tools=(
            Tool("f", "finds", SCHEMA, strict=True, extra={"function": {"defer_loading": True}, "cache_control": {}}),
            Tool("g"),
            NativeTool({"type": "custom", "custom": {"name": "s", "format": grammar}}),
            NativeTool({"type": "web_search"}),
        ),
        parallel_tool_calls=False,
        tool_choice=ToolChoice(ToolChoiceMode.REQUIRED),
    )
    assert made == {
        "tools": [
            {"type": "function", "name": "f", "description": "finds", "parameters": SCHEMA, "strict": True, "defer_loading": True},
            {"type": "function", "name": "g", "parameters": {"type": "object", "properties": {}}, "strict": False},
            {"type": "custom", "name": "s", "format": {"type": "grammar", "syntax": "regex", "definition": "a"}},
            {"type": "web_search"},
        ],
        "parallel_tool_calls": False,
        "tool_choice": "required",
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(ToolChoiceMode.NONE), "none"),
        (ToolChoice(ToolChoiceMode.AUTO), "auto"),
        (ToolChoice(ToolChoiceMode.TOOL, "f"), {"type": "function", "name": "f"}),
        (ToolChoice(ToolChoiceMode.AUTO, native={"type": "custom", "custom": {"name": "s"}}), {"type": "custom", "name": "s"}),
        (ToolChoice(ToolChoiceMode.AUTO, native={"type": "web_search_preview"}), {"type": "web_search_preview"}),
        (
            ToolChoice(
                ToolChoiceMode.AUTO,
                native={
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
                },
            ),
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        ),
    ],
)
def test_tool_choice(choice: ToolChoice, expected: object) -> None:
    """A choice has the tool's fields beside its type."""
    assert added(tool_choice=choice) == {"tool_choice": expected}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (JsonObjectFormat(), {"type": "json_object"}),
        (JsonSchemaFormat("n", SCHEMA, strict=True), {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}),
        (JsonSchemaFormat("n", SCHEMA, "d"), {"type": "json_schema", "name": "n", "schema": SCHEMA, "description": "d"}),
        (NativeFormat({"type": "text"}), {"type": "text"}),
    ],
)
def test_structured_output(given: Any, expected: dict[str, Any]) -> None:
    """The format is part of the settings of the text, beside those of the caller."""
    assert added(response_format=given) == {"text": {"format": expected}}
    assert added(response_format=given, extra={"verbosity": "low"}) == {"text": {"format": expected, "verbosity": "low"}}


def test_fields_of_chat_completions() -> None:
    """They are moved, or left out if they change nothing."""
    chat = {
        "response_format": {"type": "text"},
        "logit_bias": {},
        "modalities": [],
        "prediction": {"type": "content", "content": "x"},
    }
    assert added(extra=chat) == {}
    place = {"type": "approximate", "approximate": {"city": "Oslo"}}
    assert added(extra={"web_search_options": {"search_context_size": "low", "user_location": place}}) == {
        "tools": [{"type": "web_search", "search_context_size": "low", "user_location": {"type": "approximate", "city": "Oslo"}}]
    }
    assert added(extra={"web_search_options": {}}) == {"tools": [{"type": "web_search"}]}


def test_extra() -> None:
    """The caller's fields are sent, beside those of the domain in the same object; he may have the reply stored."""
    extra = {"reasoning": {"summary": "auto"}, "store": True, "prompt_cache_key": "k", "truncation": "auto"}
    assert added(reasoning=Reasoning("high"), extra=extra) == {**extra, "reasoning": {"effort": "high", "summary": "auto"}}
    assert added(extra={"store": None, "verbosity": "low", "text": {"verbosity": "high"}}) == {"text": {"verbosity": "high"}}


def test_names_that_the_api_refuses() -> None:
    """They are replaced in tools, choices and calls, the same everywhere, and put back in the reply."""
    sent = NAMES.sent("server/find")
    choice = ToolChoice(ToolChoiceMode.TOOL, "server/find")
    messages = (Message(Role.ASSISTANT, (ToolCall("c", "server/find", "{}"),)),)
    request = ChatRequest("gpt-5", messages, stream=True, tools=(Tool("server/find"),), tool_choice=choice)
    body = json.loads(encode(request, "acme"))
    assert (body["tools"][0]["name"], body["tool_choice"]["name"], body["input"][0]["name"]) == (sent, sent, sent)
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": sent, "arguments": "{}"}
    reader = ResponsesReader(request, "acme")
    reply = Reply()
    for event in reader.read_object(json.dumps({"id": "r", "status": "completed", "output": [item]}).encode()):
        reply.add(event)
    message = reply.message()
    (call,) = message.blocks
    assert isinstance(call, ToolCall)
    assert call.name == "server/find"
    again = ChatRequest("gpt-5", (message,), stream=True, tools=request.tools)
    assert json.loads(encode(again, "acme"))["input"] == [item]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_that_is_too_low(name: str) -> None:
    """The API refuses less than 16 tokens, which is the nearest to it."""
    parameters = Parameters("acme")
    sampling = Sampling(**{name: 5})
    request = ChatRequest("gpt-9", (Message(Role.USER, (Text("hi"),)),), stream=True, sampling=sampling)
    assert json.loads(encode(request, "acme", parameters))["max_output_tokens"] == 16
    assert [(warning.path, warning.replacement) for warning in parameters.warnings] == [
        (("sampling", name), "max_output_tokens 16")
    ]
    assert "max_output_tokens" not in json.loads(encode(request, "acme", Parameters("acme", "drop")))


@pytest.mark.parametrize("schema", [{}, {"properties": {}}, {"type": ["object", "null"]}, {"oneOf": [{"type": "object"}]}])
def test_the_input_of_a_tool(schema: dict[str, Any]) -> None:
    """It is an object, whatever its schema leaves open."""
    (tool,) = body(tools=(Tool("f", parameters=schema),))["tools"]
    assert tool["parameters"] == {**(schema or {"properties": {}}), "type": "object"}


def test_the_name_of_a_schema() -> None:
    """One that the API refuses is replaced."""
    name = body(response_format=JsonSchemaFormat("my form", {"type": "object"}))["text"]["format"]["name"]
    assert NAMES.accepts(name)
