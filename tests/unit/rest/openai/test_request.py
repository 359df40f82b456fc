"""Tests of requests in the OpenAI dialect."""

import json
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.errors import InvalidRequest
from antiphon.rest.openai import request
from antiphon.rest.shared.body import parse


def parsed(**fields: Any) -> domain.ChatRequest:
    body = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    return request.request_from_body(parse(json.dumps(body).encode(), request.ChatCompletionBody), stream=False)


def failing(**fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        parsed(**fields)
    return [(".".join(map(str, v.path)), v.kind) for v in caught.value.violations]


def test_every_documented_parameter_reaches_the_domain() -> None:
    """Every documented parameter is read, and unknown ones are kept unchanged in `extra`."""
    request = parsed(
        model="gpt-4o",
        temperature=1,
        top_p=1,
        n=1,
        stop="x",
        max_tokens=0,
        max_completion_tokens=9,
        presence_penalty=0,
        frequency_penalty=0,
        seed=7,
        logprobs=True,
        top_logprobs=2,
        logit_bias={"5": -1},
        parallel_tool_calls=False,
        reasoning_effort="low",
        modalities=["text"],
        audio={"voice": "alloy", "format": "wav"},
        user="u",
        session_id="s",
        stream_options={"include_usage": True, "include_obfuscation": False},
        store=True,
        metadata=None,
    )
    assert request == domain.ChatRequest(
        model="gpt-4o",
        messages=(domain.Message(domain.Role.USER, (domain.Text("Hi"),)),),
        stream=False,
        sampling=domain.Sampling(1, 1, None, 0, 9, "x", 0, 0, 7, 1, logprobs=True, top_logprobs=2, logit_bias={"5": -1}),
        parallel_tool_calls=False,
        reasoning=domain.Reasoning("low"),
        modalities=("text",),
        audio_output=domain.AudioOutput("alloy", "wav"),
        end_user="u",
        extra={"store": True, "metadata": None, "stream_options": {"include_obfuscation": False}},
    )


def test_documented_nulls_are_the_same_as_nothing() -> None:
    """Null is the same as unset for every parameter that the API documents as nullable."""
    names = "model temperature top_p n stream stop max_tokens presence_penalty frequency_penalty tools tool_choice session_id"
    assert parsed(**dict.fromkeys(names.split())) == parsed()


def test_messages_of_every_role_and_part() -> None:
    """Messages of all roles are read, with known and unknown parts, tool calls, results and unknown fields."""
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}}
    request = parsed(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "x"}}, image]},
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "f1"}},
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
                    {"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "7"},
            {"role": "function", "name": "f", "content": "7"},
            {"role": "assistant", "tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
        ]
    )
    assert request.messages == (
        domain.Message(domain.Role.DEVELOPER, (domain.Text("Be brief."),)),
        domain.Message(
            domain.Role.USER,
            (
                domain.Text("Hi", extra={"cache_control": {"type": "x"}}),
                domain.Image(domain.Media(url="https://x.test/a.png"), "low"),
            ),
            name="ann",
            listed=True,
        ),
        domain.Message(
            domain.Role.USER,
            (
                domain.Audio(domain.Media(url="data:audio/wav;base64,AAEC")),
                domain.Document(domain.Media(file_id="f1")),
                domain.Document(domain.Media(url="data:application/pdf;base64,AA"), "a.pdf"),
                domain.Video(domain.Media(url="https://x.test/a.mp4")),
            ),
            listed=True,
        ),
        domain.Message(domain.Role.ASSISTANT, (domain.Thinking("hm"), domain.ToolCall("c1", "f", "{}"))),
        domain.Message(domain.Role.TOOL, (domain.ToolResult("c1", (domain.Text("7"),)),)),
        domain.Message(domain.Role.TOOL, (domain.ToolResult("", (domain.Text("7"),), type="function_call"),), name="f"),
        domain.Message(domain.Role.ASSISTANT, (domain.ToolCall("c2", "g", "x", "custom"),)),
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", domain.ToolChoice(domain.ToolChoiceMode.REQUIRED)),
        ("any", domain.ToolChoice(domain.ToolChoiceMode.REQUIRED)),
        ({"type": "function", "function": {"name": "f"}}, domain.ToolChoice(domain.ToolChoiceMode.TOOL, "f")),
        (
            {"type": "allowed_tools", "x": 1},
            domain.ToolChoice(domain.ToolChoiceMode.AUTO, native={"type": "allowed_tools", "x": 1}),
        ),
    ],
)
def test_tool_choices(choice: Any, expected: domain.ToolChoice) -> None:
    """A tool choice is a word, a function, or an object that is passed on unchanged."""
    assert parsed(tool_choice=choice).tool_choice == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, domain.JsonObjectFormat()),
        (
            {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}},
            domain.JsonSchemaFormat("s", {"type": "object"}, None, strict=True),
        ),
        *(
            (form, domain.NativeFormat(form))
            for form in (
                {"type": "grammar", "grammar": "x"},
                {"type": "json_schema", "json_schema": {"name": "s"}},
                {"type": "json_schema", "json_schema": {"schema": {}}},
                {"type": "json_schema", "schema": {}},
            )
        ),
    ],
)
def test_response_formats(form: Any, expected: domain.ResponseFormat | None) -> None:
    """Documented response formats are read; others are passed on unchanged."""
    assert parsed(response_format=form).response_format == expected


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": "https://example.com/a.png"},
        {"type": "input_audio", "input_audio": "QUJD"},
        {"type": "file", "file_id": "f1"},
    ],
)
def test_parts_that_a_provider_has_in_a_form_of_its_own(part: Any) -> None:
    """Content parts in Mistral's form are passed on unchanged."""
    (message,) = parsed(messages=[{"role": "user", "content": [part]}]).messages
    assert message.blocks == (domain.Opaque(part),)


def test_tools_keep_unknown_fields() -> None:
    """Unknown fields of a function and tools of other types are kept."""
    tools = parsed(
        tools=[
            {"type": "function", "function": {"name": "f", "parameters": {}, "cache": 1}},
            {"type": "web_search", "region": "eu"},
        ]
    ).tools
    assert tools == (
        domain.Tool("f", None, {}, None, {"function": {"cache": 1}}),
        domain.NativeTool({"type": "web_search", "region": "eu"}),
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": []}, [("messages", "too_short")]),
        ({"messages": None}, [("messages", "list_type")]),
        ({"messages": [{"content": "x"}]}, [("messages.0.role", "missing")]),
        ({"messages": [{"role": "king", "content": "x"}]}, [("messages.0.role", "literal_error")]),
        ({"messages": [{"role": "tool", "content": "x"}]}, [("messages.0.tool_call_id", "missing")]),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, [("messages.0.content.0.type", "missing")]),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}]},
            [("messages.0.content.0.image_url", "object_type")],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
            [("messages.0.content.0.file", "value_error")],
        ),
        ({"temperature": "0.5", "stream": 1}, [("temperature", "float_type"), ("stream", "bool_type")]),
        ({"temperature": 3, "n": 0}, [("temperature", "less_than_equal"), ("n", "greater_than_equal")]),
        ({"logit_bias": dict.fromkeys(map(str, range(10_001)), "x")}, [("logit_bias", "too_long")]),
        ({"tools": [{"type": "function"}]}, [("tools.0.function", "missing")]),
        ({"tool_choice": "perhaps"}, [("tool_choice", "value_error")]),
        ({"response_format": {"type": "json_schema"}}, [("response_format", "value_error")]),
        ({"audio": {"voice": "x"}}, [("audio.format", "missing")]),
    ],
)
def test_every_wrong_field_is_reported(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """Every wrong field is reported by path and kind."""
    assert failing(**fields) == expected


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff"])
def test_what_is_not_a_json_object_is_refused(data: bytes) -> None:
    """A body that is not a JSON object raises `InvalidRequest`."""
    with pytest.raises(InvalidRequest):
        parse(data, request.ChatCompletionBody)


def test_too_many_messages_are_refused_before_they_are_checked() -> None:
    """More than 10,000 messages are refused before any of them is checked. At most 100 faults are reported."""
    assert failing(messages=[1] * 10_001) == [("messages", "too_long")]
    assert len(failing(messages=[1] * 1000)) == 100
