"""Long conversations with the Gemini API over a real socket: what it signed comes back to it, and to nobody else."""

import itertools
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from google.genai import types

from antiphon import domain
from antiphon.config import ProviderConfig
from antiphon.domain.content import Message, Origin, Role, State, Text, ToolCall, ToolResult
from antiphon.domain.reply import Reply, collect
from antiphon.providers.base import Provider
from antiphon.providers.gemini.capabilities import SENTINEL
from antiphon.providers.gemini.ending import FAILURES, REASONS, UNSPECIFIED
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.registry import build
from antiphon.rest.openai.reply import completion
from antiphon.rest.openai.request import ChatCompletionBody, request_from_body
from tests.odd_upstream import LAST, OddUpstream, chunk, head, sse

MODEL = "gemini-3-pro"
TOOLS = (domain.Tool("look up", "finds", {"type": "object"}, strict=True), domain.Tool("f"))


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: OddUpstream) -> AsyncIterator[Provider]:
    config = ProviderConfig(protocol="gemini", base_url=upstream.base_url)
    made = build("acme", config, {})
    yield made
    await made.close()


def signed(kind: str, number: int) -> str:
    """Return a signature in base64, with all of its characters."""
    return b64encode(f"{kind} {number} ".encode() + bytes(range(240, 256))).decode()


def turn(number: int) -> list[list[dict[str, Any]]]:
    """Return the parts of a reply, in chunks: a thought, a signed text, and a call or two, with and without ids."""
    calls: list[dict[str, Any]] = [
        {"functionCall": {"name": "f", "args": {"n": number}}, "thoughtSignature": signed("call", number)}
    ]
    if number % 2:
        calls[0]["functionCall"]["id"] = f"id-{number}"
        calls.append({"functionCall": {"name": "f", "args": {}, "id": f"more-{number}"}})
    if number % 3 == 0:
        calls.append({"functionCall": {"name": "f", "args": {"z": [number]}}})
    return [
        [
            {"text": f"Hm {number}. ", "thought": True},
            {"text": "So.", "thought": True, "thoughtSignature": signed("thought", number)},
        ],
        [{"text": f"Step {number}", "thoughtSignature": signed("text", number)}],
        calls,
        [{"text": "", "thoughtSignature": signed("last", number)}],
    ]


def answer(parts: list[list[dict[str, Any]]], number: int) -> list[bytes]:
    """Return an answer with these parts."""
    made = [{"candidates": [{"content": {"parts": one, "role": "model"}}], "responseId": f"r{number}"} for one in parts]
    made[-1]["candidates"][0]["finishReason"] = "STOP"  # type: ignore[index]
    return [head(), chunk(sse(*made)), LAST]


def validated(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Assert what the API asserts of the contents, with the types of its SDK, and return them."""
    contents: list[dict[str, Any]] = body["contents"]
    for content in contents:
        types.Content.model_validate(content)
        assert content["parts"]
    assert contents[0]["role"] == "user"
    for before, content, after in itertools.zip_longest([None, *contents], contents, contents[1:]):
        if content is None:
            continue
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        if calls:
            assert before is not None
            assert before["role"] == "user", "calls follow a question or results"
            first = next(part for part in content["parts"] if "functionCall" in part)
            assert first.get("thoughtSignature"), "the first call of a step is signed"
            results = [part["functionResponse"] for part in after["parts"]]
            assert [(one["name"], one.get("id")) for one in results] == [(one["name"], one.get("id")) for one in calls]
            assert all(isinstance(one["response"], dict) for one in results)
        elif any("functionResponse" in part for part in content["parts"]):
            assert before is not None
            assert any("functionCall" in part for part in before["parts"])
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))
    types.ToolConfig.model_validate(body.get("toolConfig", {}))
    for tool in body.get("tools", ()):
        types.Tool.model_validate(tool)
    types.Content.model_validate(body.get("systemInstruction", {}))
    return contents


async def ask(provider: Provider, messages: list[Message], model: str = MODEL) -> Reply:
    request = domain.ChatRequest(
        model, tuple(messages), stream=True, tools=TOOLS, reasoning=domain.Reasoning("high"), sampling=domain.Sampling(0.5)
    )
    return await collect(provider.stream(request))


async def test_twenty_turns_of_calls(upstream: OddUpstream, provider: Provider) -> None:
    """Each part comes back as it came, in its place, also after it was stored."""
    messages = [Message(Role.SYSTEM, (Text("s"),)), Message(Role.USER, (Text("go"),))]
    for number in range(20):
        upstream.default = answer(turn(number), number)
        stored = msgspec.json.decode(msgspec.json.encode((await ask(provider, messages)).message()), type=Message)
        calls = [block for block in stored.blocks if isinstance(block, ToolCall)]
        results = [Message(Role.TOOL, (ToolResult(call.id, (Text(f"result of {call.id}"),)),)) for call in calls]
        messages += [stored, *reversed(results)]
    upstream.default = answer([[{"text": "done"}]], 20)
    await ask(provider, messages)
    contents = validated(upstream.requests[-1].json)
    replies = [content["parts"] for content in contents if content["role"] == "model"]
    expected = [[part for parts in turn(number) for part in parts if part.get("text") != f"Hm {number}. "] for number in range(20)]
    assert replies == expected
    answers = [part["functionResponse"] for content in contents for part in content["parts"] if "functionResponse" in part]
    assert len(answers) == sum(len(turn(number)[2]) for number in range(20))
    assert len({one["response"]["output"] for one in answers}) == len(answers)


async def test_a_client_of_another_api(upstream: OddUpstream, provider: Provider) -> None:
    """The signatures of calls come back byte for byte from a client that knows chat completions only."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": "go"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]

    async def ask_as_client() -> dict[str, Any]:
        body = ChatCompletionBody.model_validate({"model": MODEL, "messages": messages, "tools": tools})
        reply = await collect(provider.stream(request_from_body(body, stream=True)))
        answered: dict[str, Any] = json.loads(json.dumps(completion(reply)))["choices"][0]["message"]
        return answered

    for number in range(20):
        upstream.default = answer(turn(number), number)
        message = await ask_as_client()
        results = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"]} for call in message["tool_calls"]]
        messages += [message, *reversed(results)]
    upstream.default = answer([[{"text": "done"}]], 20)
    await ask_as_client()
    sent = upstream.requests[-1]
    calls = [[part for part in content["parts"] if "functionCall" in part] for content in validated(sent.json)]
    expected = [turn(number)[2] for number in range(20)]
    assert [[(one["functionCall"]["args"], one.get("thoughtSignature")) for one in step] for step in calls if step] == [
        [(one["functionCall"]["args"], one.get("thoughtSignature")) for one in step] for step in expected
    ]
    assert b"ap1." not in sent.body


async def test_the_provider_changes(upstream: OddUpstream, provider: Provider) -> None:
    """What another made goes on without its state, and what this one made is not sent to another model."""
    other = Origin("anthropic", "other", MODEL, "other")
    foreign = Message(
        Role.ASSISTANT,
        (
            domain.Thinking("t", state=State("secret-1")),
            Text("I look.", state=State("secret-2", {"private": 1})),
            ToolCall("toolu_1", "look up", '{"q": 1}', state=State("secret-3")),
            domain.ServerToolCall("srv", "server_tool_use", "web_search", "{}", state=State("secret-4")),
            domain.Opaque(state=State(fields={"type": "private"})),
        ),
        origin=other,
        fields={"private": 2},
    )
    messages = [Message(Role.USER, (Text("go"),)), foreign, Message(Role.TOOL, (ToolResult("toolu_1", (Text("42"),)),))]
    upstream.default = answer(turn(1), 1)
    mine = (await ask(provider, messages)).message()
    sent = upstream.requests[-1]
    contents = validated(sent.json)
    assert not any(word in sent.body for word in (b"secret", b"private", b"toolu_1", b"srv"))
    assert contents[1]["parts"][1]["thoughtSignature"] == SENTINEL
    calls = [block for block in mine.blocks if isinstance(block, ToolCall)]
    messages += [mine, Message(Role.TOOL, tuple(ToolResult(call.id, ()) for call in calls))]
    await ask(provider, messages, "gemini-2.5-flash")
    elsewhere = upstream.requests[-1]
    validated_parts = json.dumps(elsewhere.json["contents"])
    assert "thoughtSignature" not in validated_parts
    assert "id-1" not in validated_parts


HANDLED = {"text", "thought", "thought_signature", "function_call", "executable_code", "code_execution_result", "inline_data"}
HANDLED |= {"tool_call", "tool_response"}
KEPT = {"media_resolution", "file_data", "function_response", "video_metadata", "part_metadata", "audio_transcription"}
KEPT |= {"media_processing", "speech_metadata", "document_metadata", "spreadsheet_metadata", "audio_metadata"}
CHOICE = {"content", "citation_metadata", "finish_message", "token_count", "finish_reason", "grounding_metadata", "avg_logprobs"}
CHOICE |= {"index", "logprobs_result", "safety_ratings", "url_context_metadata", "continuation_token"}
REPLY = {"sdk_http_response", "candidates", "create_time", "model_version", "prompt_feedback", "response_id", "usage_metadata"}
REPLY |= {"model_status", "automatic_function_calling_history", "parsed"}
CALL = {"id", "args", "name", "partial_args", "will_continue"}
PIECE = {"json_path", "will_continue", "string_value", "number_value", "bool_value", "null_value"}
USAGE = {"cache_tokens_details", "cached_content_token_count", "candidates_token_count", "candidates_tokens_details"}
USAGE |= {"prompt_token_count", "prompt_tokens_details", "thoughts_token_count", "tool_use_prompt_token_count"}
USAGE |= {"tool_use_prompt_tokens_details", "total_token_count", "traffic_type"}


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (types.Part, HANDLED | KEPT),
        (types.Candidate, CHOICE),
        (types.GenerateContentResponse, REPLY),
        (types.FunctionCall, CALL),
        (types.PartialArg, PIECE),
        (types.GenerateContentResponseUsageMetadata, USAGE),
        (types.Content, {"parts", "role"}),
    ],
)
def test_members_of_the_types(kind: Any, known: set[str]) -> None:
    """A member that the SDK has and nobody has thought of fails here."""
    assert set(kind.model_fields) - known == set()


def test_finish_reasons_of_the_types() -> None:
    """Each finish reason of the SDK has a meaning."""
    assert {reason.value for reason in types.FinishReason} - {*REASONS, *FAILURES, UNSPECIFIED} == set()


def test_reasons_to_block_of_the_types() -> None:
    """Each reason to block a prompt is an end by a content filter."""
    reasons = [reason.value for reason in types.BlockedReason if reason.value != "BLOCKED_REASON_UNSPECIFIED"]
    assert "SAFETY" in reasons
    for reason in reasons:
        reader = GeminiReader(domain.ChatRequest(MODEL, (), stream=True), "acme")
        reader.feed(sse({"promptFeedback": {"blockReason": reason}, "responseId": "r"}))
        finished = reader.end()[-1]
        assert isinstance(finished, domain.Finished)
        assert (finished.reason, finished.provider_reason) == (domain.FinishReason.CONTENT_FILTER, reason)
