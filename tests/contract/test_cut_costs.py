"""What a stream costs that breaks off, or that its caller leaves, with real protocols over a real socket."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from antiphon.chat.prices import Prices
from antiphon.chat.service import ChatService
from antiphon.config import ProviderConfig
from antiphon.domain.call import Call
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.events import TextDelta, Usage
from antiphon.domain.request import ChatRequest
from antiphon.history.recorder import Recorder
from antiphon.providers.base import Provider
from antiphon.providers.registry import build
from antiphon.routing.router import Router
from tests.odd_upstream import CUT, HANG, OddUpstream, Step, chunk, delta, head, sse
from tests.unit.scripted import NO_STORE

CACHED = {
    "input_tokens": 1000,
    "cache_read_input_tokens": 50_000,
    "cache_creation_input_tokens": 20_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 20_000},
    "output_tokens": 1,
}
"""A prompt whose cost an estimate of its text would miss by far."""

MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-pro", "openai": "gpt-4.1"}
PROMPTS = {
    "openai": 1000 * 2e-6 + 50_000 * 0.5e-6,
    "anthropic": 1000 * 3e-6 + 50_000 * 0.3e-6 + 20_000 * 6e-6,
    "gemini": 1000 * 1.25e-6 + 50_000 * 0.125e-6,
}
"""The cost of each prompt in USD, by the published prices."""


def events(protocol: str) -> list[dict[str, Any]]:
    """Return the beginning of a stream, with the text "Hello there" of 11 characters: 3 tokens."""
    if protocol == "openai":  # a host that counts in every chunk
        used = {"prompt_tokens": 51_000, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 50_000}}
        return [{**delta(text), "usage": used} for text in ("Hello", " there")]
    if protocol == "gemini":
        counts = {
            "promptTokenCount": 51_000,
            "cachedContentTokenCount": 50_000,
            "totalTokenCount": 51_001,
            "candidatesTokenCount": 1,
        }
        return [
            {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}], "usageMetadata": counts}
            for text in ("Hello", " there")
        ]
    message = {"id": "m", "type": "message", "role": "assistant", "model": MODELS[protocol], "content": [], "usage": CACHED}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            for text in ("Hello", " there")
        ),
    ]


def named(event: dict[str, Any]) -> bytes:
    return f"event: {event.get('type', '')}\ndata: {json.dumps(event)}\n\n".encode()


def stream(protocol: str, *end: Step) -> list[Step]:
    data = [sse(event) if protocol == "openai" else named(event) for event in events(protocol)]
    return [head(), *map(chunk, data), *end]


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


def provider(protocol: str, upstream: OddUpstream) -> Provider:
    base_url = upstream.base_url if protocol == "openai" else upstream.base_url.removesuffix("/v1")
    return build(protocol, ProviderConfig(protocol=protocol, base_url=base_url, api_key_env="KEY"), {"KEY": "sk-test"})


def service(made: Provider) -> ChatService:
    return ChatService(Router([(made, [MODELS[made.name]])]), Recorder(NO_STORE), Prices({}, {made.name: None}), timeout=60)


REQUEST = ChatRequest("", (Message(Role.USER, (Text("Hello"),)),), stream=True)


@pytest.mark.parametrize("protocol", MODELS)
async def test_a_stream_that_breaks_off_costs_what_it_used(protocol: str, upstream: OddUpstream) -> None:
    """The prompt costs what the provider reported of it, with its cached tokens, and the reply what has come of it."""
    upstream.default = stream(protocol, CUT)
    made, call = provider(protocol, upstream), Call()
    with pytest.raises(ProviderProtocolError):
        async for _ in service(made).stream(call, REQUEST):
            pass
    # Anthropic counts the reply at its end, Gemini and some hosts of the OpenAI protocol in each chunk.
    output, tokens, estimated = {
        "anthropic": (15e-6, 3, True),
        "gemini": (10e-6, 1, False),
        "openai": (8e-6, 3, True),
    }[protocol]
    assert call.usage is not None
    assert (call.usage.output_tokens, call.usage.estimated) == (tokens, estimated)
    assert call.cost_usd == pytest.approx(PROMPTS[protocol] + tokens * output)
    await made.close()


@pytest.mark.parametrize("protocol", MODELS)
async def test_a_caller_that_leaves_pays_for_the_prompt(protocol: str, upstream: OddUpstream) -> None:
    """Where the protocol reports the prompt's tokens at the beginning, a caller that leaves pays for those."""
    upstream.default = stream(protocol, HANG)
    made, call = provider(protocol, upstream), Call()
    async with aclosing(service(made).stream(call, REQUEST)) as batches:
        seen = ""
        async for batch in batches:
            seen += "".join(event.text for event in batch if isinstance(event, TextDelta))
            if seen == "Hello there":
                break
    assert call.usage is not None
    assert call.usage.cached_tokens == 50_000
    assert call.cost_usd == pytest.approx(PROMPTS[protocol], abs=1e-4)
    await made.close()


async def test_a_whole_stream_is_not_estimated(upstream: OddUpstream) -> None:
    """The last report counts, and not those before it or an estimate."""
    end = [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    data = list(map(named, end))
    upstream.default = stream("anthropic", *map(chunk, data), b"0\r\n\r\n")
    made, call = provider("anthropic", upstream), Call()
    found = [event async for batch in service(made).stream(call, REQUEST) for event in batch if isinstance(event, Usage)]
    assert call.usage == found[-1]
    assert (found[-1].output_tokens, found[-1].estimated) == (2, False)
    assert call.cost_usd == pytest.approx(PROMPTS["anthropic"] + 2 * 15e-6)
    await made.close()
