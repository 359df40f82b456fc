"""Requests and replies in the OpenAI dialect and protocol cross the gateway unchanged."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon import domain
from antiphon.domain.reply import Reply
from antiphon.providers.openai.request import encode
from antiphon.providers.openai.response import OpenAIReader
from antiphon.rest.openai import request as openai
from antiphon.rest.openai.chunks import ChunkWriter
from antiphon.rest.openai.reply import completion
from antiphon.rest.shared.body import parse
from antiphon.rest.shared.json import DONE
from antiphon.rest.shared.message_json import message_json

Json = dict[str, Any]

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
EXTRA = st.dictionaries(st.sampled_from(["x_one", "x_two", "cache_control", "weight"]), VALUES, max_size=2)


@st.composite
def objects(draw: st.DrawFn, needed: Json, optional: Json | None = None) -> Json:
    """Draw a JSON object with these fields and some unknown ones."""
    known = draw(st.fixed_dictionaries(needed, optional=optional or {}))
    return {**draw(EXTRA), **known}


def inner(kind: str, **needed: Any) -> st.SearchStrategy[Json]:
    return objects({"type": st.just(kind), kind: objects(needed)})


TEXT = objects({"type": st.just("text"), "text": WORDS})
IMAGE = objects({"type": st.just("image_url"), "image_url": objects({"url": WORDS}, {"detail": st.none() | WORDS})})
AUDIO = inner("input_audio", data=WORDS, format=st.sampled_from(["wav", "mp3", "MP3", "mpeg", "x-wav", "a;b", ""]))
FILE = objects({"type": st.just("file"), "file": objects({"file_id": WORDS}, {"filename": st.none() | WORDS})})
DATA = objects({"type": st.just("file"), "file": objects({"file_data": WORDS}, {"file_id": st.none()})})
ODD = objects({"type": st.sampled_from(["video_url", "refusal", "new"])})
CONTENT = WORDS | st.lists(TEXT | IMAGE | AUDIO | FILE | DATA | ODD, max_size=3)
FUNCTION_CALL = objects(
    {"id": WORDS, "type": st.just("function"), "function": objects({"name": WORDS, "arguments": WORDS})}, {"index": st.just(0)}
)
CUSTOM_CALL = objects({"id": WORDS, "type": st.just("custom"), "custom": objects({"name": WORDS, "input": WORDS})})
SPOKEN: Json = {
    "name": WORDS,
    "tool_calls": st.lists(FUNCTION_CALL, max_size=2) | st.lists(FUNCTION_CALL | CUSTOM_CALL, max_size=3),
    "function_call": st.fixed_dictionaries({"name": WORDS, "arguments": WORDS}),
    "reasoning_content": WORDS,
    "refusal": st.none() | WORDS,
    "audio": st.none() | objects({"id": WORDS}),
    "annotations": st.lists(VALUES, max_size=2),
}
MESSAGES = st.one_of(
    objects({"role": st.sampled_from(["system", "developer", "user"]), "content": CONTENT}, {"name": WORDS}),
    objects({"role": st.just("assistant"), "content": st.none() | CONTENT}, SPOKEN),
    objects({"role": st.just("tool"), "tool_call_id": WORDS.filter(bool), "content": CONTENT}, {"name": WORDS}),
    objects({"role": st.just("function"), "name": WORDS, "content": WORDS}),
)
FUNCTION = objects(
    {"name": WORDS}, {"description": st.none() | WORDS, "parameters": EXTRA, "strict": st.none() | st.booleans() | st.just(1)}
)
TOOLS = objects({"type": st.just("function"), "function": FUNCTION}) | objects({"type": st.just("web_search")})
SCHEMA = objects({"name": WORDS, "schema": EXTRA}, {"description": st.none() | WORDS, "strict": st.none() | st.booleans()})
REQUESTS = objects(
    {"model": st.just("m"), "messages": st.lists(MESSAGES, min_size=1, max_size=3)},
    {
        "temperature": st.sampled_from([0, 1, 0.5]),
        "stop": WORDS | st.lists(WORDS, max_size=2),
        "seed": st.integers(-(10**30), 10**30),
        "logit_bias": st.dictionaries(WORDS, st.integers(-100, 100), max_size=2),
        "tools": st.lists(TOOLS, max_size=2),
        "tool_choice": st.sampled_from(["auto", "none", "required"])
        | objects({"type": st.just("function"), "function": objects({"name": WORDS})})
        | objects({"type": st.just("allowed_tools")}),
        "response_format": st.just({"type": "text"})
        | objects({"type": st.sampled_from(["json_object", "text", "grammar"])})
        | objects({"type": st.just("json_schema"), "json_schema": SCHEMA}),
        "audio": objects({"voice": WORDS | objects({"id": WORDS}), "format": WORDS}),
        "modalities": st.lists(WORDS, max_size=2),
        "reasoning_effort": WORDS,
        "stream": st.booleans(),
        "stream_options": objects({}, {"include_obfuscation": st.booleans()}),
        "user": WORDS,
    },
)


def sent(body: Json) -> Any:
    """Return what the provider is sent for a body."""
    parsed = parse(json.dumps(body).encode(), openai.ChatCompletionBody)
    request = openai.request_from_body(parsed, stream=bool(parsed.stream))
    return json.loads(encode(request, "p", stream_usage=True))


def returned_message(message: Json) -> Json:
    """Return a message without what the gateway adds to replies, and without reasoning unless it led to a tool call.

    For an unknown host it is not known whether it accepts reasoning. Arguments of a function that are an empty text become `{}`:
    hosts that parse them refuse the text.
    """
    if message["role"] != "assistant":
        return message
    rest = {name: value for name, value in message.items() if not (name in ADDED and value == ADDED[name])}
    if rest.get("tool_calls"):
        rest["tool_calls"] = list(map(returned_call, rest["tool_calls"]))
    elif isinstance(rest.get("reasoning_content"), str):
        del rest["reasoning_content"]
    return rest


def returned_call(call: Json) -> Json:
    """Return a call of such a message."""
    rest = {name: value for name, value in call.items() if name != "index"}
    if rest["type"] == "function" and not rest["function"]["arguments"]:
        rest["function"] = {**rest["function"], "arguments": "{}"}
    return rest


ADDED: Json = {"refusal": None, "audio": None, "annotations": []}


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_a_request_reaches_the_provider_as_it_was_sent(body: Json) -> None:
    """Every field of a request reaches the provider unchanged, but for what `returned_message` tells. Usage is requested."""
    if not body.get("stream_options", True):
        del body["stream_options"]
    body = {**body, "messages": list(map(returned_message, body["messages"]))} if "messages" in body else body
    expected = {**body, "stream_options": {**body.get("stream_options", {}), "include_usage": True}} if body.get("stream") else body
    assert sent(body) == expected


@settings(max_examples=200, deadline=None)
@given(MESSAGES)
def test_a_message_that_is_stored_comes_back_as_it_was_sent(body: Json) -> None:
    """A stored message is returned as it was sent, except for fields that the gateway adds to replies."""
    expected = {
        name: value for name, value in body.items() if body["role"] != "assistant" or name not in ADDED or value != ADDED[name]
    }
    if body["role"] == "assistant" and body.get("tool_calls"):
        expected["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in body["tool_calls"]]
    parsed = parse(json.dumps({"messages": [body]}).encode(), openai.ChatCompletionBody)
    (message,) = openai.request_from_body(parsed, stream=False).messages
    assert json.loads(json.dumps(message_json(message))) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "x": 1}, "cache_control": {"type": "ephemeral"}}]},
        {"messages": [{"role": "user", "content": []}]},
        {"seed": 2**70, "x": [2**70, {"y": -(2**70)}]},
        {"audio": {"voice": {"id": "voice_1"}, "format": "wav"}, "modalities": ["text", "audio"]},
        {"stop": "x", "tools": [], "modalities": []},
    ],
)
def test_unusual_values_are_not_changed(fields: Json) -> None:
    """Unknown fields on two levels, empty lists, long integers and custom voices are not changed."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    assert sent(body) == body


# Replies.


def read(*chunks: Json) -> list[domain.Event]:
    tools = (domain.Tool("f"), domain.NativeTool({"type": "custom", "custom": {"name": "g"}}))
    reader = OpenAIReader(domain.ChatRequest("m", (), stream=True, tools=tools), "p")
    batch = reader.feed("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode())
    if reader.failure is not None:
        raise reader.failure
    return [*batch, *reader.end()]


def put_together(events: list[domain.Event]) -> Reply:
    reply = Reply()
    for event in events:
        reply.add(event)
    return reply


def answered(body: Json) -> Json:
    events = OpenAIReader(domain.ChatRequest("m", (), stream=False), "p").read_object(json.dumps(body).encode())
    return completion(put_together(events))


def chunk(delta: Json, **fields: Any) -> Json:
    beside = {"finish_reason": None, **{name: fields.pop(name) for name in ("finish_reason", "x_found") if name in fields}}
    choices = [{"index": 0, "delta": delta, **beside}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **fields}


def streamed_chunks(events: list[domain.Event]) -> Iterator[Json]:
    """Yield the chunks that a caller receives."""
    writer = ChunkWriter(include_usage=False)
    data = writer.write(events) + writer.end().removesuffix(DONE)
    for line in data.decode().split("\n\n"):
        if line:
            yield json.loads(line.removeprefix("data: "))


WHOLE = objects(
    {
        "id": st.just("c"),
        "object": st.just("chat.completion"),
        "created": st.just(1),
        "model": st.just("m"),
        "usage": st.none(),
        "choices": objects(
            {
                "index": st.just(0),
                "message": objects(
                    {"role": st.just("assistant"), "content": st.none() | WORDS, "refusal": st.none() | WORDS.filter(bool)},
                    {
                        "tool_calls": st.lists(
                            objects(
                                {
                                    "id": WORDS.filter(bool),
                                    "type": st.just("function"),
                                    "function": objects({"name": WORDS.filter(bool), "arguments": WORDS}),
                                }
                            )
                            | CUSTOM_CALL.filter(lambda call: call["id"]),
                            min_size=1,
                            max_size=3,
                            unique_by=lambda call: call["id"],
                        ),
                        "function_call": st.fixed_dictionaries({"name": WORDS.filter(bool), "arguments": WORDS}),
                        "reasoning_content": st.none() | WORDS.filter(bool),
                        "annotations": st.lists(VALUES, max_size=2),
                    },
                ),
                "logprobs": st.none(),
                "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "function_call", None, "odd"]),
            }
        ).map(lambda choice: [choice]),
    }
)


def without_nulls_in_calls(body: Json) -> Json:
    """Remove nulls from tool calls, where null means the same as no field."""
    for call in body["choices"][0]["message"].get("tool_calls", ()):
        for name in [name for name, value in call.items() if value is None]:
            del call[name]
    return body


@settings(max_examples=300, deadline=None)
@given(WHOLE)
def test_an_answer_reaches_the_caller_as_it_was_answered(body: Json) -> None:
    """Every field of a reply reaches the caller unchanged; null and "" stay different."""
    assert answered(body) == without_nulls_in_calls(body)


@settings(max_examples=200, deadline=None)
@given(WHOLE)
def test_a_reply_goes_back_to_the_provider_as_it_was_answered(body: Json) -> None:
    """A reply goes back to the provider unchanged, from a caller and from the history; reasoning only with tool calls."""
    message = without_nulls_in_calls(body)["choices"][0]["message"]
    left = {name for name, value in returned_message(message).items() if value is not None or name not in ("content", "refusal")}
    if isinstance(message.get("reasoning_content"), str) and left == {"role"}:
        assert sent({"model": "m", "messages": [message]})["messages"] == []
        return
    assert sent({"model": "m", "messages": [message]})["messages"] == [returned_message(message)]
    events = OpenAIReader(domain.ChatRequest("m", (), stream=False), "p").read_object(json.dumps(body).encode())
    stored = put_together(events).message()
    messages = json.loads(encode(domain.ChatRequest("m", (stored,), stream=False), "p", stream_usage=True))["messages"]
    if stored.blocks and all(isinstance(block, domain.Thinking) for block in stored.blocks) and not messages:
        return
    (again,) = messages
    known = {name: value for name, value in message.items() if value is not None}
    if known.get("tool_calls"):
        known["tool_calls"] = list(map(returned_call, known["tool_calls"]))
    else:
        known.pop("reasoning_content", None)
    if known.get("content") == "" and again["content"] is None:  # an empty reply
        del known["content"]
    assert {name: value for name, value in again.items() if value is not None} == known


DELTAS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"content": WORDS}),
        st.fixed_dictionaries({"x_text": WORDS}),
        st.fixed_dictionaries({"x_number": st.integers() | st.booleans()}),
        st.fixed_dictionaries({"annotations": st.lists(st.fixed_dictionaries({"type": WORDS}), max_size=2)}),
        st.fixed_dictionaries(
            {
                "reasoning_details": st.fixed_dictionaries(
                    {"index": st.integers(0, 2), "type": st.just("reasoning.text"), "text": WORDS.filter(bool)}
                ).map(lambda detail: [detail])
            }
        ),
        st.fixed_dictionaries({"function_call": st.fixed_dictionaries({"arguments": WORDS, "name": st.just("f")})}),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(DELTAS)
def test_a_stream_adds_up(deltas: list[Json]) -> None:
    """A stream's deltas and the chunks for the caller add up to the same object."""
    text: dict[str, str] = {}
    expected: Json = {}
    details: dict[int, Json] = {}
    thought = ""
    for delta in deltas:
        ((name, value),) = delta.items()
        match name:
            case "content" | "x_text":
                text[name] = text.get(name, "") + value
            case "x_number":
                expected[name] = value
            case "annotations":
                expected[name] = expected.get(name, []) + value
            case "reasoning_details":
                detail = details.setdefault(value[0]["index"], {**value[0], "text": ""})
                detail["text"] += value[0]["text"]
                thought += value[0]["text"]
                expected[name] = list(details.values())
            case _:
                call = expected.setdefault(name, {"arguments": ""})
                call["arguments"] += value["arguments"]
                call |= {"name": "f"} if "name" in value else {}
    expected |= {
        "role": "assistant",
        "content": None,
        "refusal": None,
        **text,
        **({"reasoning_content": thought} if thought else {}),
    }
    called = any("function_call" in delta for delta in deltas)
    if expected["content"] == "" and called:
        expected["content"] = None
    events = read(*map(chunk, deltas), chunk({}, finish_reason="stop"))
    assert completion(put_together(events))["choices"][0]["message"] == expected
    again = read(*streamed_chunks(events))
    assert completion(put_together(again))["choices"][0]["message"] == {**expected, "content": expected["content"] or None} | (
        {"content": ""} if expected["content"] == "" else {}
    )


def test_a_custom_tool_call_that_is_streamed() -> None:
    """A streamed custom tool call is one call, named once, without `index`, and stored and sent back like that."""
    deltas = [
        {"role": "assistant", "content": None, "tool_calls": [{"index": 0, "id": "c1", "type": "custom", "custom": {"name": "g"}}]},
        {"tool_calls": [{"index": 0, "type": "custom", "custom": {"input": "pri"}}]},
        {"tool_calls": [{"index": 0, "id": "c1", "custom": {"name": "g", "input": "nt()"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}, "extra_content": {"google": 1}}]},
    ]
    events = read(*map(chunk, deltas), chunk({}, finish_reason="tool_calls"))
    reply = put_together(events)
    calls = [
        {"id": "c1", "type": "custom", "custom": {"name": "g", "input": "print()"}},
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"google": 1}},
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    assert completion(reply)["choices"][0]["message"] == {**message, "refusal": None}
    stored = reply.message()
    assert message_json(stored) == message
    assert json.loads(encode(domain.ChatRequest("m", (stored,), stream=False), "p", stream_usage=True))["messages"] == [message]
    streamed = [call for one in streamed_chunks(events) for call in one["choices"][0]["delta"].get("tool_calls", ())]
    assert streamed == [
        {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "g", "input": ""}},
        {"index": 0, "custom": {"input": "pri"}},
        {"index": 0, "custom": {"input": "nt()"}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
        {"index": 1, "function": {"arguments": ""}, "extra_content": {"google": 1}},  # sent when the call is complete
    ]


def test_a_function_call_of_2023() -> None:
    """An old-style function call keeps its form, whole and in pieces, with its own finish reason and no text."""
    deltas = [{"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": ""}}]
    deltas += [{"function_call": {"arguments": piece}} for piece in ('{"a"', ": 1}")]
    events = read(*map(chunk, deltas), chunk({}, finish_reason="function_call"))
    (choice,) = completion(put_together(events))["choices"]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a": 1}'}
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "function_call")
    assert [one["choices"][0]["finish_reason"] for one in streamed_chunks(events)][-1] == "function_call"


def test_fields_beside_the_message_and_beside_the_choices() -> None:
    """The last value of other fields wins, wherever it is in the stream. Chunks have each field once."""
    events = read(
        chunk({"content": "a"}, x_found={"hate": {"filtered": False, "severity": "safe"}}),
        chunk({"content": "b"}, x_found={"hate": {"filtered": False, "severity": "safe"}}, citations=["u"]),
        chunk({}, x_found={"hate": {"severity": "low"}, "tokens": 2}, finish_reason="stop", service_tier="flex"),
        {**chunk({}), "choices": [], "citations": ["u", "v"], "system_fingerprint": "fp"},
    )
    whole = completion(put_together(events))
    assert whole["choices"][0]["x_found"] == {"hate": {"filtered": False, "severity": "low"}, "tokens": 2}
    top = {"citations": ["u", "v"], "service_tier": "flex", "system_fingerprint": "fp"}
    assert {name: whole[name] for name in top} == top
    chunks = list(streamed_chunks(events))
    assert [{name: one[name] for name in top if name in one} for one in chunks] == [
        {},
        {},
        {"citations": ["u"]},
        {"service_tier": "flex"},
        {"citations": ["u", "v"], "system_fingerprint": "fp"},
    ]
    assert chunks[-1]["choices"][0]["x_found"] == {"hate": {"severity": "low"}, "tokens": 2}
    body = {**chunk({}), "object": "chat.completion", "usage": None, "citations": [1]}
    choice = {"message": {"role": "assistant", "content": "x", "refusal": None}, "logprobs": None, "stop_reason": 7}
    body["choices"] = [{"index": 0, "finish_reason": "stop", **choice}]
    assert answered(body) == body


def test_content_that_is_null_and_content_that_is_empty() -> None:
    """Null and empty content stay as the provider sent them; a streamed tool call has null instead of ""."""
    finish = chunk({}, finish_reason="stop")
    call = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    for deltas, content in (
        ([{"role": "assistant", "content": None}], None),
        ([{"role": "assistant", "content": ""}], ""),
        ([{"role": "assistant", "content": ""}, call, {"content": ""}], None),
        ([{"content": ""}, {"content": "x"}], "x"),
    ):
        events = read(*map(chunk, deltas), finish)
        assert completion(put_together(events))["choices"][0]["message"]["content"] == content
        assert "".join(e.text for e in events if isinstance(e, domain.TextDelta)) == (content or "")
