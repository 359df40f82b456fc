"""The OpenAI dialect, without a socket."""

import json
from typing import Any

import pytest

from antiphon import domain
from antiphon.domain.errors import InvalidRequest, ModelNotFound, ProviderRejected, TurnInProgress, Unauthenticated, Violation
from antiphon.domain.reply import Reply
from antiphon.providers.failure import of_status
from antiphon.rest.openai import errors, request
from antiphon.rest.openai import reply as openai_reply
from antiphon.rest.shared.json import DONE
from tests.unit.scripted import START, STOP, USAGE


def parsed(**fields: Any) -> domain.ChatRequest:
    body = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    return request.request_from_body(request.parse(json.dumps(body).encode()), stream=False)


def failing(**fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        parsed(**fields)
    return [(".".join(map(str, v.path)), v.kind) for v in caught.value.violations]


def test_every_documented_parameter_reaches_the_domain() -> None:
    """And what is not known goes along as it is."""
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
    """The document writes every parameter but the messages as nullable."""
    names = "model temperature top_p n stream stop max_tokens presence_penalty frequency_penalty tools tool_choice session_id"
    assert parsed(**dict.fromkeys(names.split())) == parsed()


def test_messages_of_every_role_and_part() -> None:
    """Text, null, parts that are known and parts that are not; tool calls and their results; unknown fields."""
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
            (domain.Text("Hi", {"cache_control": {"type": "x"}}), domain.Image(domain.Media(url="https://x.test/a.png"), "low")),
            name="ann",
            listed=True,
        ),
        domain.Message(
            domain.Role.USER,
            (
                domain.Audio(domain.Media(url="data:audio/wav;base64,AAEC")),
                domain.File(domain.Media(file_id="f1")),
                domain.File(domain.Media(url="data:application/pdf;base64,AA"), "a.pdf"),
                domain.Other({"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}}),
            ),
            listed=True,
        ),
        domain.Message(domain.Role.ASSISTANT, (domain.ToolCall("c1", "f", "{}"),), extra={"reasoning_content": "hm"}),
        domain.Message(domain.Role.TOOL, (domain.ToolResult("c1", (domain.Text("7"),)),)),
        domain.Message(domain.Role.USER, (domain.Text("7"),), name="f", extra={"role": "function"}),
        domain.Message(
            domain.Role.ASSISTANT,
            (),
            extra={"tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
        ),
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
    """A word, a function, or what only the provider knows."""
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
    """The documented ones, or what only the provider knows."""
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
    """As Mistral has them: they go as they are."""
    (message,) = parsed(messages=[{"role": "user", "content": [part]}]).messages
    assert message.parts == (domain.Other(part),)


def test_tools_keep_what_is_not_known() -> None:
    """In a function, and as a tool of another type."""
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
def test_a_bad_body_is_told_field_by_field(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """All that are at fault, by path and kind."""
    assert failing(**fields) == expected


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff"])
def test_what_is_not_a_json_object_is_refused(data: bytes) -> None:
    """As an invalid request, never as a fault of ours."""
    with pytest.raises(InvalidRequest):
        request.parse(data)


def chunks(*batches: domain.Batch, include_usage: bool = False) -> list[dict[str, Any]]:
    writer = openai_reply.ChunkWriter(include_usage=include_usage)
    data = b"".join(map(writer.write, batches)) + writer.end().removesuffix(DONE)
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_chunks_are_those_of_the_api() -> None:
    """A first one with the role, then the deltas, then the reason."""
    found = chunks([START, domain.TextDelta(0, "Hel")], [domain.TextDelta(0, "lo")], [USAGE, STOP])
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "stop"]
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in found} == {
        ("chatcmpl-1", "chat.completion.chunk", 1_700_000_000, "model-1")
    }
    assert all("usage" not in chunk for chunk in found)


def test_thoughts_have_the_name_that_their_provider_gives_them_too() -> None:
    """In a stream and in a whole reply: who knows the provider's own API finds them there."""
    thought = domain.ThinkingDelta(0, "hm", field="reasoning")
    writer = openai_reply.ChunkWriter(include_usage=False)
    assert b'{"reasoning_content":"hm","reasoning":"hm"}' in writer.write([START, thought])
    reply = Reply()
    for event in (START, thought, thought, STOP):
        reply.add(event)
    (choice,) = openai_reply.completion(reply)["choices"]
    assert (choice["message"]["reasoning_content"], choice["message"]["reasoning"]) == ("hmhm", "hmhm")


def test_usage_comes_last_and_only_if_asked_for() -> None:
    """In a chunk without choices; null in all others."""
    found = chunks([START, domain.TextDelta(0, "x")], [USAGE], [STOP], include_usage=True)
    assert [chunk["usage"] is None for chunk in found] == [True, True, True, False]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 5


def test_every_kind_of_delta_has_a_chunk() -> None:
    """Thought, tool calls, refusal, sound, log probabilities, fields that are not known; a second choice of its own."""
    found = chunks(
        [
            domain.Started("id", "model", "p", 1, {"system_fingerprint": "fp"}),
            domain.ThinkingDelta(0, "hm"),
            domain.ToolCallDelta(0, 0, "c1", "f", ""),
            domain.ToolCallDelta(0, 0, arguments="{}"),
            domain.RefusalDelta(1, "no"),
            domain.AudioDelta(1, "a1", "AAEC", "la", 5),
            domain.TextDelta(1, "x", ({"token": "x", "logprob": -1},)),
            domain.ExtraDelta(1, {"annotations": [1]}),
            domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls"),
            domain.Finished(1, domain.FinishReason.OTHER, "eos"),
        ]
    )
    deltas = [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"]) for chunk in found]
    assert deltas == [
        (0, {"role": "assistant", "content": None, "refusal": None}),
        (0, {"reasoning_content": "hm"}),
        (0, {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        (0, {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        (1, {"role": "assistant", "content": None, "refusal": None}),
        (1, {"refusal": "no"}),
        (1, {"audio": {"id": "a1", "data": "AAEC", "transcript": "la", "expires_at": 5}}),
        (1, {"content": "x"}),
        (1, {"annotations": [1]}),
        (0, {}),
        (1, {}),
    ]
    assert found[7]["choices"][0]["logprobs"]["content"] == [{"token": "x", "logprob": -1}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[-2:]] == ["tool_calls", "eos"]
    assert [chunk.get("system_fingerprint") for chunk in found] == ["fp", *[None] * (len(found) - 1)]


def test_what_came_in_one_delta_is_one_chunk() -> None:
    """Text, thought, several calls and fields beside them; every call has a function, whatever it tells."""
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    token = {"token": "x", "logprob": -1}
    found = chunks(
        [
            START,
            domain.DeltaGroup(0, 7),
            domain.ExtraDelta(0, {}, {"found": 1}),
            domain.ThinkingDelta(0, "hm", field="reasoning"),
            domain.TextDelta(0, "x", (token,)),
            domain.TextDelta(0, "y"),
            domain.ToolCallDelta(0, 0, "c1", "f", "{}", extra={"type": "builtin_function", "function": {"a": 1}}),
            domain.ToolCallDelta(0, 1, extra=signed),
            domain.ExtraDelta(
                0, {"tool_calls": [{"index": 2, "id": "c", "custom": {}}], "x": 2}, {"logprobs": {"refusal": [token]}}
            ),
            domain.ToolCallDelta(0, 0, extra=signed),
            STOP,
        ]
    )
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": "", "refusal": None},
        {
            "reasoning_content": "hm",
            "reasoning": "hm",
            "content": "xy",
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "builtin_function", "function": {"name": "f", "arguments": "{}", "a": 1}},
                {"index": 1, "function": {"arguments": ""}, **signed},
                {"index": 2, "id": "c", "custom": {}},
            ],
            "x": 2,
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ""}, **signed}]},
        {},
    ]
    choice = found[1]["choices"][0]
    assert (choice["found"], choice["logprobs"]) == (1, {"content": [token], "refusal": [token]})
    assert found[-1]["choices"][0]["found"] == 1


def test_parts_that_are_not_known_stand_among_the_text() -> None:
    """In a whole reply, in a delta, and in what is stored: in the order in which they came."""
    part, other = {"type": "reasoning", "summary": []}, {"type": "odd"}
    events: domain.Batch = [
        domain.ExtraDelta(0, {"content": [part]}),
        domain.TextDelta(0, "Hi"),
        domain.TextDelta(0, "!"),
        domain.ExtraDelta(0, {"content": [other]}),
    ]
    reply = Reply()
    for event in [START, *events, STOP]:
        reply.add(event)
    content = [part, {"type": "text", "text": "Hi!"}, other]
    assert openai_reply.completion(reply)["choices"][0]["message"]["content"] == content
    assert reply.choices[0].message().parts == (domain.Other(part), domain.Text("Hi!"), domain.Other(other))
    content[1:2] = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]
    assert chunks([START, domain.DeltaGroup(0, 4), *events])[1]["choices"][0]["delta"] == {"content": content}


def test_what_is_told_of_a_reply_is_told_once() -> None:
    """In the next chunk, and in the last where none follows; in every one what the provider tells with every one."""
    found = chunks(
        [domain.Started("id", "model", "p", 1, {"ids": [1, 2], "fp": "a"}), domain.TextDelta(0, "a"), domain.TextDelta(0, "b")],
        [
            domain.ReplyExtra({"fp": "a"}, repeats=True),
            domain.ReplyExtra({"more": 1}),
            domain.TextDelta(0, "c"),
            domain.TextDelta(0, "d"),
        ],
        [domain.ReplyExtra({"more": 2}), domain.ReplyExtra({"fp": "b"}), domain.ReplyExtra({}, repeats=True)],
        [domain.TextDelta(0, "e"), domain.ReplyExtra({"fp": "b"}, repeats=True)],
        [domain.ReplyExtra({"citations": []}), domain.Usage(1, 1, 2), STOP],
        [domain.ReplyExtra({"last": True})],
        include_usage=True,
    )
    assert [{name: chunk[name] for name in ("ids", "fp", "more", "citations", "last") if name in chunk} for chunk in found] == [
        {"ids": [1, 2], "fp": "a"},
        {},
        {},
        {"fp": "a", "more": 1},
        {"fp": "a"},
        {"fp": "b", "more": 2},
        {"fp": "b", "citations": []},
        {"fp": "b", "last": True},
    ]
    assert list(found[0])[4:6] == ["ids", "fp"]


def test_tokens_written_to_a_cache_are_told() -> None:
    """Among the details of the prompt, where the provider told of any."""
    for usage, expected in (
        (domain.Usage(7, 5, 12, cache_write_tokens=6), 6),
        (domain.Usage(7, 5, 12, extra={"prompt_tokens_details": {"cache_write_tokens": 0}}), 0),
        (USAGE, None),
    ):
        details = chunks([START, usage, STOP], include_usage=True)[-1]["usage"]["prompt_tokens_details"]
        assert details.get("cache_write_tokens") == expected


@pytest.mark.parametrize("text", ["\n\ndata: [DONE]\n\n", "\r", "\u2028\u2029\x85\x0b\x0c", "\"'\\", "שלום 🎼", "\ud83d\ude00"])
def test_text_cannot_forge_an_event(text: str) -> None:
    """Whatever the model writes stays inside its JSON string, for readers that split at any kind of line end."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    writer = openai_reply.ChunkWriter(include_usage=False)
    data = writer.write([START, domain.TextDelta(0, text)]).decode()
    lines = [line for line in data.splitlines() if line]
    assert len(lines) == 2
    assert json.loads(lines[1].removeprefix("data: "))["choices"][0]["delta"]["content"] == text


def test_a_whole_reply_is_a_completion_object() -> None:
    """With documented nulls, and with what only the provider knows."""
    reply = Reply()
    events: list[domain.Event] = [
        domain.Started("id", "model", "p", 1, {"service_tier": "default"}),
        domain.ToolCallDelta(0, 0, "c1", "f", "{}"),
        domain.ExtraDelta(0, {"annotations": []}),
        domain.Usage(7, 5, 12, 3, 0, 2, extra={"cost": 1}),
        domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls"),
    ]
    for event in events:
        reply.add(event)
    found = openai_reply.completion(reply)
    assert found["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ]
    assert found["usage"]["prompt_tokens_details"] == {"cached_tokens": 3, "audio_tokens": 0}
    assert (found["object"], found["service_tier"], found["usage"]["cost"]) == ("chat.completion", "default", 1)


def test_errors_have_the_documented_shapes() -> None:
    """A detail, of a 422 a list, and beside it what the SDKs read; a 401 with its header."""
    status, headers, body = errors.render_error(Unauthenticated("No."))
    shown = {"message": "No.", "type": "authentication_error", "param": None, "code": "unauthenticated"}
    assert (status, json.loads(body), headers["www-authenticate"]) == (401, {"detail": "No.", "error": shown}, "Bearer")
    violations = (Violation(("messages", 0, "role"), "is missing", "missing"), Violation(("n",), "is too large", "too_large"))
    status, headers, body = errors.render_error(InvalidRequest("No.", violations))
    shown = {"message": "messages[0].role: is missing; n: is too large", "type": "invalid_request_error"}
    detail = [
        {"loc": ["body", "messages", 0, "role"], "msg": "is missing", "type": "missing"},
        {"loc": ["body", "n"], "msg": "is too large", "type": "too_large"},
    ]
    assert (status, json.loads(body)) == (
        422,
        {"detail": detail, "error": {**shown, "param": "messages[0].role", "code": "invalid_request"}},
    )
    _, _, body = errors.render_error(InvalidRequest("No."))
    assert json.loads(body)["error"] == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_request",
    }
    status, _, body = errors.render_error(ModelNotFound("x"))
    error = json.loads(body)["error"]
    assert (status, error["type"], error["param"], error["code"]) == (404, "invalid_request_error", "model", "model_not_found")
    status, _, body = errors.render_error(TurnInProgress("x"))
    assert (status, json.loads(body)["error"]["type"]) == (409, "conflict_error")


@pytest.mark.parametrize(("explanation", "message"), [("Too long.", "Too long."), (None, "No.")])
def test_a_request_that_the_provider_refuses_is_the_callers_400(explanation: str | None, message: str) -> None:
    """With the provider's code, param and words, or else ours, and without a retry; the same in the middle of a stream."""
    rejected = ProviderRejected("No.", provider="p", status=422, code="context_length_exceeded")
    rejected.param, rejected.explanation = "messages", explanation
    status, headers, body = errors.render_error(rejected)
    shown = {"message": message, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
    assert (status, headers, json.loads(body)) == (400, {"x-should-retry": "false"}, {"detail": message, "error": shown})
    assert json.loads(errors.late(rejected).removeprefix(b"data: ")) == {"error": shown}


@pytest.mark.parametrize("status", [401, 404, 500])
def test_another_failure_of_the_provider_is_a_502(status: int) -> None:
    """In our words."""
    got, _, body = errors.render_error(of_status("p", status, {}, b'{"error": {"message": "secret"}}'))
    assert (got, json.loads(body)["error"]["type"]) == (502, "server_error")
    assert b"secret" not in body


def test_what_only_the_provider_knows_joins_what_is_known() -> None:
    """Of a tool call, and of the content: neither takes the place of the other."""
    reply = Reply()
    events: list[domain.Event] = [
        START,
        domain.TextDelta(0, "Hi"),
        domain.ToolCallDelta(0, 0, "a", "f", "{}"),
        domain.ExtraDelta(0, {"tool_calls": [{"index": 0, "id": "a", "extra_content": 1}, {"index": 1, "id": "b", "custom": {}}]}),
        domain.ExtraDelta(0, {"content": [{"type": "odd"}]}),
        STOP,
    ]
    for event in events:
        reply.add(event)
    message = openai_reply.completion(reply)["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": 1},
        {"id": "b", "custom": {}},
    ]
    assert message["content"] == [{"type": "text", "text": "Hi"}, {"type": "odd"}]


def test_more_messages_than_can_be_looked_at_are_refused_at_once() -> None:
    """Before each of them is looked at."""
    assert failing(messages=[1] * 10_001) == [("messages", "too_long")]
    assert len(failing(messages=[1] * 1000)) == 100
