"""Tests of encoding a request as JSON of the OpenAI API."""

from types import MappingProxyType
from typing import Any

import orjson
import pytest

from antiphon.domain.content import (
    Audio,
    Block,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.errors import InvalidRequest, Unsupported
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
from antiphon.providers.openai.capabilities import OPENAI
from antiphon.providers.openai.request import encode

HELLO = (Message(Role.USER, (Text("hello"),)),)


def encoded(request: ChatRequest, *, stream_usage: bool = True) -> Any:
    return orjson.loads(encode(request, "acme", stream_usage=stream_usage))


def messages(*sent: Message) -> Any:
    return encoded(ChatRequest("m", sent, stream=False))["messages"]


def content(*parts: Block) -> Any:
    return messages(Message(Role.USER, parts))[0]["content"]


def test_what_is_not_set_is_not_sent() -> None:
    """The smallest request has only the model and the messages."""
    assert encoded(ChatRequest("m", HELLO, stream=False)) == {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def test_every_parameter() -> None:
    """Every parameter is sent under the API's name: both token limits, zeros and `false` included."""
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        max_tokens=10,
        max_completion_tokens=20,
        stop=("a", "b"),
        presence_penalty=0.1,
        frequency_penalty=0.2,
        seed=0,
        choices=2,
        logprobs=False,
        top_logprobs=0,
        logit_bias={"50256": -100},
    )
    request = ChatRequest(
        "m",
        HELLO,
        stream=False,
        sampling=sampling,
        parallel_tool_calls=False,
        reasoning=Reasoning(effort="low"),
        modalities=("text", "audio"),
        audio_output=AudioOutput("alloy", "wav"),
        end_user="u1",
        extra={"store": True, "metadata": {"a": "b"}},
    )
    assert encoded(request) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "max_tokens": 10,
        "max_completion_tokens": 20,
        "stop": ["a", "b"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 0,
        "n": 2,
        "logprobs": False,
        "top_logprobs": 0,
        "logit_bias": {"50256": -100},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "user": "u1",
        "store": True,
        "metadata": {"a": "b"},
    }


def test_stream_asks_for_usage() -> None:
    """A stream asks for usage if the host supports it, and keeps the caller's other stream options."""
    request = ChatRequest("m", HELLO, stream=True, extra={"stream_options": {"include_obfuscation": False, "include_usage": False}})
    assert encoded(request)["stream"] is True
    assert encoded(request)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in encoded(ChatRequest("m", HELLO, stream=True), stream_usage=False)


def test_parts() -> None:
    """Every kind of block has the API's form, with its `extra` fields merged in."""
    assert content() is None
    assert content(Text("")) == ""
    assert content(Text("a"), Text("b")) == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    cached = {"cache_control": {"type": "ephemeral"}}
    assert content(Text("a", extra=cached)) == [{"type": "text", "text": "a", **cached}]
    assert content(Image(Media(url="https://x/y.png"), detail="low", extra={"image_url": {"format": "png"}})) == [
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low", "format": "png"}}
    ]
    assert content(Document(Media(file_id="file-1"))) == [{"type": "file", "file": {"file_id": "file-1"}}]
    assert content(Document(Media(url="data:application/pdf;base64,QQ=="), filename="a.pdf")) == [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ==", "filename": "a.pdf"}}
    ]
    assert content(Opaque({"type": "new", "x": 1})) == [{"type": "new", "x": 1}]


@pytest.mark.parametrize(
    ("media_type", "name"),
    [("audio/wav", "wav"), ("audio/x-wav", "wav"), ("audio/mpeg", "mp3"), ("audio/mp3", "mp3"), ("AUDIO/FLAC;rate=8", "flac")],
)
def test_audio(media_type: str, name: str) -> None:
    """Audio is sent as base64 with the API's name of its format."""
    part = Audio(Media(url=f"data:{media_type};base64,QUJD"), extra={"x": 1})
    assert content(part) == [{"type": "input_audio", "input_audio": {"data": "QUJD", "format": name}, "x": 1}]


@pytest.mark.parametrize(
    "part",
    [
        Video(Media(file_id="file-1")),
        Audio(Media(url="https://x/y.wav")),
        Audio(Media(url="data:audio/wav,raw")),
        Audio(Media(url="data:image/png;base64,QQ==")),
        Audio(Media(file_id="file-1")),
        Image(Media(file_id="file-1")),
        ToolResult("c", (ToolCall("i", "n", "{}"),)),
    ],
)
def test_unsupported_parts(part: Block) -> None:
    """A block that the API has no form for raises `Unsupported`."""
    with pytest.raises(Unsupported, match="acme") as raised:
        content(part)
    assert raised.value.provider == "acme"


def test_assistant_messages() -> None:
    """Thoughts are sent back only beside tool calls, as DeepSeek needs. Calls and refusals have the form of replies."""
    call = ToolCall("c1", "f", '{"a": 1}', extra={"extra_content": 1})
    assert messages(
        Message(Role.ASSISTANT, (Thinking("hm"), Text("let me see"), call), name="bob", extra={"function_call": {}})
    ) == [
        {
            "role": "assistant",
            "name": "bob",
            "content": "let me see",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}, "extra_content": 1}
            ],
            "reasoning_content": "hm",
            "function_call": {},
        }
    ]
    assert messages(Message(Role.ASSISTANT, (Thinking("hm"), Text("a")))) == [{"role": "assistant", "content": "a"}]
    assert messages(Message(Role.ASSISTANT, (call,)))[0]["content"] is None
    assert messages(Message(Role.ASSISTANT, (Refusal("no"),))) == [{"role": "assistant", "content": None, "refusal": "no"}]
    blocks = (Text("a"), Refusal("no"))
    assert messages(Message(Role.ASSISTANT, blocks)) == [{"role": "assistant", "content": "a", "refusal": "no"}]
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    assert messages(Message(Role.ASSISTANT, blocks, listed=True)) == [{"role": "assistant", "content": parts}]


def test_tool_results() -> None:
    """Each tool result is a message of its own, before the rest of its message."""
    results = (ToolResult("c1", (Text("one"),)), ToolResult("c2", (Text("a"), Text("b"))), ToolResult("c3", ()))
    assert messages(Message(Role.TOOL, results, extra={"x": 1})) == [
        {"role": "tool", "tool_call_id": "c1", "content": "one", "x": 1},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "x": 1},
        {"role": "tool", "tool_call_id": "c3", "content": "", "x": 1},
    ]
    assert messages(Message(Role.USER, (*results[:1], Text("and?")))) == [
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "user", "content": "and?"},
    ]


def test_tools() -> None:
    """Functions have the API's form with the fields that are set. Native tools and tool choices are sent unchanged."""
    tools = (
        Tool("f"),
        Tool("g", "d", {"type": "object"}, strict=True, extra={"function": {"x": 1, "parameters": {"y": 2}}}),
        NativeTool({"type": "web_search"}),
    )
    request = ChatRequest("m", HELLO, stream=False, tools=tools, tool_choice=ToolChoice(ToolChoiceMode.TOOL, "f"))
    body = encoded(request)
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f"}},
        {
            "type": "function",
            "function": {"name": "g", "description": "d", "parameters": {"type": "object", "y": 2}, "strict": True, "x": 1},
        },
        {"type": "web_search"},
    ]
    assert tools[1].parameters == {"type": "object"}, "the request itself is not changed"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    for choice, sent in (
        (ToolChoice(ToolChoiceMode.REQUIRED), "required"),
        (ToolChoice(ToolChoiceMode.AUTO, native={"type": "allowed_tools"}), {"type": "allowed_tools"}),
    ):
        assert encoded(ChatRequest("m", HELLO, stream=False, tool_choice=choice))["tool_choice"] == sent


def test_marks_of_tools_for_a_cache() -> None:
    """They reach only hosts that may know them."""
    request = ChatRequest("m", HELLO, stream=False, tools=(Tool("f", extra={"cache_control": {"type": "ephemeral"}}),))
    bare = {"type": "function", "function": {"name": "f"}}
    assert orjson.loads(encode(request, "openai", stream_usage=True, host=OPENAI))["tools"] == [bare]
    assert encoded(request)["tools"] == [{**bare, "cache_control": {"type": "ephemeral"}}]


def test_response_formats() -> None:
    """Each response format has the API's form."""
    for response_format, sent in (
        (JsonObjectFormat(), {"type": "json_object"}),
        (
            JsonSchemaFormat("s", {"type": "object"}, "d", strict=False),
            {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": {"type": "object"}, "description": "d", "strict": False},
            },
        ),
        (NativeFormat({"type": "grammar"}), {"type": "grammar"}),
    ):
        body = encoded(ChatRequest("m", HELLO, stream=False, response_format=response_format))
        assert body["response_format"] == sent


def test_fields_of_the_domain_win_over_extra() -> None:
    """`extra` adds fields and replaces none; it may be any mapping."""
    request = ChatRequest(
        "m", HELLO, stream=True, extra=MappingProxyType({"model": "x", "stream": False, "a": MappingProxyType({})})
    )
    body = encoded(request)
    assert (body["model"], body["stream"], body["a"]) == ("m", True, {})


def test_the_role_of_a_tool_in_2023() -> None:
    """A user's message with the role `function` in `extra` is sent with that role. No other role can be replaced."""
    (sent,) = messages(Message(Role.USER, (Text("4"),), name="add", extra={"role": "function"}))
    assert sent == {"role": "function", "name": "add", "content": "4"}
    assert messages(Message(Role.USER, (Text("a"),), extra={"role": "system"}))[0]["role"] == "user"
    assert messages(Message(Role.ASSISTANT, (Text("a"),), extra={"role": "function"}))[0]["role"] == "assistant"


def test_what_cannot_be_sent_is_refused() -> None:
    """Fields that are nested too deep, or that have half a surrogate pair, raise `InvalidRequest`."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for extra in ({"x": deep}, {"x": "\ud800"}):
        with pytest.raises(InvalidRequest):
            encoded(ChatRequest("m", HELLO, stream=False, extra=extra))


def test_a_tool_message_keeps_its_name() -> None:
    """A tool message keeps its name, which LangChain sends."""
    result = ToolResult("c1", (Text("r"),))
    assert messages(Message(Role.TOOL, (result,), name="f")) == [
        {"role": "tool", "tool_call_id": "c1", "content": "r", "name": "f"}
    ]


def test_of_a_message_only_known_fields_are_sent_where_the_caller_speaks_another_api() -> None:
    """With `known_fields`, only fields of messages that hosts know are sent."""
    known = {"refusal": "No", "audio": {"id": "a"}, "function_call": {"name": "f"}, "reasoning_content": "Hm", "extra_content": {}}
    ours = {"id": "m1", "timestamp": 1, "weight": 0, "cache": None}
    call = ToolCall("c", "f", "{}", extra={"extra_content": {"signature": "s"}, "index": 0, "function": {"strict": True}})
    text = Text("Hi", extra={"cache_control": {"type": "ephemeral"}, "id": "t1"})
    picture = Image(Media(url="https://x/y.png"), extra={"image_url": {"id": 5}, "id": "i1"})
    conversation = (
        Message(Role.USER, (Text("Hi"),), name="ann", extra=ours),
        Message(Role.USER, (text, picture, Opaque({"type": "odd", "id": "o1"}))),
        Message(Role.ASSISTANT, (call,), extra=known | ours),
        Message(Role.TOOL, (ToolResult("c", (Text("42", extra={"id": "t2"}),)),), extra=ours),
    )
    user, parts, assistant, tool = encoded(ChatRequest("m", conversation, stream=False, known_fields=True))["messages"]
    assert user == {"role": "user", "name": "ann", "content": "Hi"}
    assert parts["content"] == [
        {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "odd", "id": "o1"},
    ]
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"signature": "s"}}]
    assert assistant == {"role": "assistant", "content": None, "tool_calls": calls, **known}
    assert tool == {"role": "tool", "tool_call_id": "c", "content": "42"}
    assert messages(*conversation)[0] == {"role": "user", "name": "ann", "content": "Hi", **ours}
