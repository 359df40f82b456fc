"""The types of OpenAI's SDK: what is sent in both of its APIs is of them, and none of chat completions is unknown here.

Those of the Responses API's replies are in `tests/unit/providers/responses`.
"""

import json
from typing import Any, get_args

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage, ChatCompletionMessageToolCall
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.completion_usage import CompletionUsage
from openai.types.responses import ResponseError, ResponseStatus
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from openai.types.responses.response_output_text import Annotation

from antiphon.domain.content import (
    Audio,
    Block,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import ProviderError, ProviderProtocolError
from antiphon.domain.events import CitationDelta, FinishReason
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, Reasoning, Sampling, Tool, ToolChoice, ToolChoiceMode
from antiphon.providers.openai.request import encode as encode_chat
from antiphon.providers.openai.response import OpenAIReader
from antiphon.providers.responses.items import citation_json
from antiphon.providers.responses.request import encode as encode_responses
from antiphon.providers.responses.response import ResponsesReader
from tests.odd_upstream import sse
from tests.sdk_types import problems, words

MESSAGE = {"role", "content", "refusal", "annotations", "audio", "function_call", "tool_calls"}
CHUNK = {"id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage"}
CHUNK |= {"moderation", "metadata", "obfuscation"}
"""The fields that are read, or kept in their place."""


def test_every_member_of_a_chat_completion() -> None:
    """A field that the SDK has and nobody has thought of fails here."""
    assert set(ChatCompletionMessage.model_fields) == MESSAGE
    assert set(ChoiceDelta.model_fields) == MESSAGE - {"annotations"}
    assert set(ChatCompletionChunk.model_fields) <= CHUNK
    assert set(ChatCompletion.model_fields) <= CHUNK
    assert set(Choice.model_fields) == {"finish_reason", "index", "logprobs", "message"}
    assert set(ChunkChoice.model_fields) == {"finish_reason", "index", "logprobs", "delta"}
    assert set(CompletionUsage.model_fields) == {
        *("completion_tokens", "prompt_tokens", "total_tokens"),
        *("completion_tokens_details", "prompt_tokens_details"),
    }
    assert set(ChatCompletionMessageToolCall.model_fields) == {"id", "type", "function"}


def test_reasons_of_chat_completions() -> None:
    """Every reason to finish has its own in the domain."""
    reasons = get_args(Choice.model_fields["finish_reason"].annotation)
    assert "stop" in reasons
    for word in reasons:
        reader = OpenAIReader(ChatRequest("m", (), stream=True), "p")
        reader.feed(sse({"id": "x", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": word}]}, "[DONE]"))
        finished = reader.end()[-1]
        assert finished.reason is not FinishReason.OTHER, word  # type: ignore[union-attr]


PNG = Image(Media("data:image/png;base64,AA=="), "high")


def conversation(protocol: str) -> tuple[Message, ...]:
    """Return a conversation with everything that callers and models may send."""
    own = Origin(protocol, "acme", "m", "acme")
    own_blocks: tuple[Block, ...] = (Text("a"), Refusal("no"))
    if protocol == "responses":
        thought = {"item": {"type": "reasoning", "id": "rs_1", "summary": []}}
        said = {"item": {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}}
        own_blocks = (
            RedactedThinking(state=State("E", thought, 0)),
            Text("a", state=State(None, {**said, "annotations": []}, 1)),
            Refusal("no", state=State(item=1)),
        )
    return (
        Message(Role.SYSTEM, (Text("s"),)),
        Message(Role.DEVELOPER, (Text("d"),)),
        Message(
            Role.USER,
            (
                Text("hi"),
                PNG,
                Document(Media("data:application/pdf;base64,AA=="), "a.pdf"),
                Document(Media(file_id="file-1")),
                *(() if protocol == "responses" else (Audio(Media("data:audio/wav;base64,AA==")),)),
            ),
            name="Ann",
        ),
        Message(
            Role.ASSISTANT,
            (
                *own_blocks,
                ToolCall("c1", "f", '{"a": 1}'),
                ToolCall("c2", "h", ""),
                ToolCall("c3", "t", "plain", "custom"),
            ),
            origin=own,
        ),
        Message(Role.TOOL, (ToolResult("c1", (Text("1"), Text("2")), is_error=True),)),
        Message(Role.TOOL, (ToolResult("c2", ()),)),
        Message(Role.TOOL, (ToolResult("c3", (Text("3"),), type="custom"),)),
        Message(
            Role.ASSISTANT,
            (
                Thinking("t", state=State("sig")),
                ServerToolCall("s", "server_tool_use", "web_search", "{}"),
                Text("b"),
                Opaque(state=State(fields={"type": "private"})),
                PNG,
            ),
            origin=Origin("anthropic", "other", "m", "other"),
        ),
        Message(Role.USER, (Text("go on"),)),
    )


def request(protocol: str, mode: ToolChoiceMode | None, effort: str | None) -> ChatRequest:
    return ChatRequest(
        "gpt-5.2",
        conversation(protocol),
        stream=True,
        sampling=Sampling(max_tokens=50),
        tools=(Tool("f", "d", {"type": "object", "properties": {}}, strict=True), Tool("h")),
        tool_choice=None if mode is None else ToolChoice(mode, "f" if mode is ToolChoiceMode.TOOL else None),
        parallel_tool_calls=False,
        response_format=JsonSchemaFormat("n", {"type": "object", "properties": {}}, "d"),
        reasoning=None if effort is None else Reasoning(effort),
        end_user="u",
    )


@pytest.mark.parametrize("mode", [None, *ToolChoiceMode])
@pytest.mark.parametrize("effort", [None, "none", "high"])
def test_requests_of_responses(mode: ToolChoiceMode | None, effort: str | None) -> None:
    """What is sent to the Responses API is what the SDK's types describe, without any other field."""
    body = json.loads(encode_responses(request("responses", mode, effort), "acme"))
    assert problems(body, ResponseCreateParamsStreaming) == []
    assert any(item.get("type") == "reasoning" for item in body["input"])


@pytest.mark.parametrize("mode", [None, *ToolChoiceMode])
@pytest.mark.parametrize("effort", [None, "none", "high"])
def test_requests_of_chat_completions(mode: ToolChoiceMode | None, effort: str | None) -> None:
    """So is what is sent in chat completions."""
    body = json.loads(encode_chat(request("openai-chat", mode, effort), "acme", stream_usage=True))
    assert problems(body, CompletionCreateParamsStreaming) == []


def test_the_checks_find_something() -> None:
    """What is wrong in a body is reported, with its place."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}], "stream": True}
    assert problems(body, CompletionCreateParamsStreaming) == [".messages[0].content[0].text is no <class 'str'>"]
    body["messages"] = [{"role": "tool", "content": "x", "more": 1}]
    assert len(problems(body, CompletionCreateParamsStreaming)) == 2


def answered(status: str, **fields: Any) -> Any:
    """Return the events of a whole reply of the Responses API."""
    part = {"type": "output_text", "text": "x", "annotations": fields.pop("annotations", [])}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    body = {"id": "r", "object": "response", "status": status, "model": "m", "output": [message], "usage": usage, **fields}
    return ResponsesReader(ChatRequest("m", (), stream=False), "acme").read_object(json.dumps(body).encode())


def test_statuses_of_responses() -> None:
    """Every status ends a reply or is a failure, and every reason for an incomplete one has its own in the domain."""
    ends = set()
    for status in get_args(ResponseStatus):
        try:
            ends.add((status, answered(status)[-1].reason))
        except ProviderError:
            ends.add((status, None))
    assert dict(ends) == {
        "completed": FinishReason.STOP,
        "incomplete": FinishReason.OTHER,
        **dict.fromkeys(("failed", "in_progress", "cancelled", "queued")),
    }
    reasons = get_args(get_args(IncompleteDetails.model_fields["reason"].annotation)[0])
    assert "content_filter" in reasons
    for reason in reasons:
        finished = answered("incomplete", incomplete_details={"reason": reason})[-1]
        assert finished.reason is not FinishReason.OTHER, reason


def test_errors_of_responses() -> None:
    """Every code of an error is a failure with its code."""
    codes = get_args(ResponseError.model_fields["code"].annotation)
    assert "rate_limit_exceeded" in codes
    for code in codes:
        with pytest.raises(ProviderError) as caught:
            answered("failed", error={"code": code, "message": "x"})
        assert not isinstance(caught.value, ProviderProtocolError), code


def test_annotations_of_responses() -> None:
    """Every kind of annotation is a citation, and is written back as it was."""
    kinds = words(Annotation)
    assert "url_citation" in kinds
    for kind in kinds:
        given = {"type": kind, "url": "https://x", "title": "t", "start_index": 0, "end_index": 1, "file_id": "f", "filename": "n"}
        (citation,) = [event.citation for event in answered("completed", annotations=[given]) if isinstance(event, CitationDelta)]
        assert citation_json(citation) == given
