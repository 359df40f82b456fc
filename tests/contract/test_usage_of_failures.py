"""The tokens that a provider tells together with its failure, in all protocols: they are billed."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderError
from antiphon.domain.events import Batch, Usage
from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.providers.cohere.response import CohereReader
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.openai.response import OpenAIReader
from antiphon.providers.responses.response import ResponsesReader

REQUEST = ChatRequest("m", (Message(Role.USER, (Text("Hello"),)),), stream=True)
ERROR = {"type": "server_error", "message": "It broke."}

OPENAI = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
ANTHROPIC = {"input_tokens": 7, "output_tokens": 5}
GEMINI = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
RESPONSES = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
COHERE = {"tokens": {"input_tokens": 7, "output_tokens": 5}}

A_TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}
BEGUN = {"type": "message_start", "message": {"id": "r", "model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}}
ENDS = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": ANTHROPIC}
FAILED = {"id": "r", "status": "failed", "error": ERROR, "output": [], "usage": RESPONSES}

STREAMS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "openai: error and usage in a chunk": (OpenAIReader, [{"error": ERROR, "usage": OPENAI}]),
    "openai: usage, then an error": (OpenAIReader, [{"id": "r", "choices": [], "usage": OPENAI}, {"error": ERROR}]),
    "openai: the end is a failure": (
        OpenAIReader,
        [{"id": "r", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "error"}], "usage": OPENAI}],
    ),
    "openai: the end of a choice is a failure": (
        OpenAIReader,
        [{"id": "r", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "error", "usage": OPENAI}]}],
    ),
    "anthropic: usage of the end, then an error": (AnthropicReader, [BEGUN, A_TEXT, ENDS, {"type": "error", "error": ERROR}]),
    "anthropic: error and usage in an event": (AnthropicReader, [{"type": "error", "error": ERROR, "usage": ANTHROPIC}]),
    "gemini: error and usage in a chunk": (GeminiReader, [{"error": {"code": 500, "message": "x"}, "usageMetadata": GEMINI}]),
    "gemini: the end is a failure": (
        GeminiReader,
        [{"candidates": [{"content": {}, "finishReason": "MALFORMED_FUNCTION_CALL"}], "usageMetadata": GEMINI}],
    ),
    "responses: failed": (ResponsesReader, [{"type": "response.failed", "response": FAILED}]),
    "cohere: the end is a failure": (
        CohereReader,
        [{"type": "message-end", "delta": {"finish_reason": "ERROR", "usage": COHERE}}],
    ),
}

OBJECTS: dict[str, tuple[Any, Any]] = {
    "openai": (OpenAIReader, {"error": ERROR, "usage": OPENAI}),
    "anthropic": (AnthropicReader, {"type": "error", "error": ERROR, "usage": ANTHROPIC}),
    "gemini": (GeminiReader, STREAMS["gemini: the end is a failure"][1][0]),
    "gemini: array": (GeminiReader, [{"error": {"code": 500, "message": "x"}, "usageMetadata": GEMINI}]),
    "responses": (ResponsesReader, FAILED),
    "cohere": (CohereReader, {"id": "r", "message": {"role": "assistant"}, "finish_reason": "ERROR", "usage": COHERE}),
}


def used(batch: Batch) -> tuple[int, int] | None:
    """Return the tokens of a batch's last usage."""
    found = [event for event in batch if type(event) is Usage]
    return (found[-1].input_tokens, found[-1].output_tokens) if found else None


@pytest.mark.parametrize(("reader", "events"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("together", [True, False], ids=["one read", "a read each"])
def test_a_stream_that_fails(reader: Any, events: list[dict[str, Any]], together: bool) -> None:
    """The usage is known at the failure, whether it came with it or in a read before."""
    reading = reader(REQUEST, "acme")
    pieces = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    seen: Batch = []
    try:
        for piece in [b"".join(pieces)] if together else pieces:
            seen += reading.feed(piece)
    except ProviderError:
        pass
    else:
        assert reading.failure is not None
    seen += reading.break_off()
    assert used(seen) == (7, 5)


@pytest.mark.parametrize(("reader", "body"), OBJECTS.values(), ids=OBJECTS)
def test_a_whole_reply_that_fails(reader: Any, body: Any) -> None:
    """The usage beside the error, or of a reply that ended as a failure."""
    reading = reader(REQUEST, "acme")
    with pytest.raises(ProviderError):
        reading.read_object(json.dumps(body).encode())
    assert used(reading.break_off()) == (7, 5)


BAD: dict[str, tuple[Any, Any]] = {
    "openai": (OpenAIReader, {"error": ERROR, "usage": {"prompt_tokens": {}, "completion_tokens": "x"}}),
    "anthropic": (AnthropicReader, {"type": "error", "error": ERROR, "usage": {"input_tokens": [], "output_tokens": "x"}}),
    "gemini": (GeminiReader, {"error": {"code": 500}, "usageMetadata": {"promptTokenCount": [], "candidatesTokenCount": "x"}}),
    "no object": (GeminiReader, {"error": {"code": 500}, "usageMetadata": [1]}),
}


@pytest.mark.parametrize(("reader", "body"), BAD.values(), ids=BAD)
def test_usage_that_cannot_be_read_hides_no_failure(reader: Any, body: Any) -> None:
    """Whatever a provider says of its tokens, what reaches the caller is a provider's error."""
    reading = reader(REQUEST, "acme")
    with pytest.raises(ProviderError):
        reading.feed(f"data: {json.dumps(body)}\n\n".encode())
    reading.break_off()
