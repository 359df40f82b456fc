"""OpenAI by the protocol that a model has."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.config import ProviderConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.events import TextDelta
from antiphon.domain.request import ChatRequest
from antiphon.providers import hosts
from antiphon.providers.openai_by_model import needs_responses
from antiphon.providers.registry import build
from tests.odd_upstream import OddUpstream, answer

CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "by "}, "finish_reason": "stop"}],
}
ITEM = {
    "type": "message",
    "id": "m",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "by "}],
}
ONLY_RESPONSES = ["gpt-5-pro", "gpt-5.2-pro-2026-01-01", "o1-pro", "o3-pro", "gpt-5.1-codex-max", "codex-mini-latest"]
WITH_CHAT = ["gpt-5", "gpt-5.2-chat-latest", "o1", "o3-mini", "gpt-4o", "ft:gpt-4o:acme", "chatgpt-4o-latest"]
RESPONSE = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": [ITEM]}


@pytest.mark.parametrize("model", ONLY_RESPONSES)
def test_models_that_have_the_responses_api_alone(model: str) -> None:
    assert needs_responses(model)


@pytest.mark.parametrize("model", WITH_CHAT)
def test_models_that_have_chat_completions(model: str) -> None:
    assert not needs_responses(model)


@pytest.mark.parametrize(("model", "text"), [("gpt-4o", "by /v1/chat/completions"), ("gpt-5-pro", "by /v1/responses")])
async def test_a_model_is_asked_by_its_protocol(model: str, text: str) -> None:
    async with OddUpstream() as upstream:
        upstream.script("gpt-4o", [answer(CHAT)])
        upstream.script("gpt-5-pro", [answer(RESPONSE)])
        config = ProviderConfig(protocol="openai-by-model", base_url=upstream.base_url, api_key_env="KEY")
        provider = build("openai", config, {"KEY": "sk-test"})
        request = ChatRequest(model=model, messages=(Message(Role.USER, (Text("Hi"),)),), stream=False)
        events = [event async for batch in provider.stream(request) for event in batch]
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) + upstream.requests[-1].path == text
        await provider.close()


@pytest.mark.parametrize(
    ("settings", "environment", "protocol"),
    [
        ({}, {"OPENAI_API_KEY": "k"}, "openai-by-model"),
        ({"base_url": "https://api.openai.com/v1"}, {}, "openai-by-model"),
        ({"protocol": "openai"}, {"OPENAI_API_KEY": "k"}, "openai"),
        ({"protocol": "openai-responses"}, {"OPENAI_API_KEY": "k"}, "openai-responses"),
        ({}, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:4000/v1"}, "openai"),
    ],
)
def test_it_is_the_default_at_openais_own_address(settings: dict[str, Any], environment: dict[str, str], protocol: str) -> None:
    """Whoever names a protocol gets that one, and another host behind the usual variable has chat completions."""
    assert hosts.complete("openai", ProviderConfig(**settings), environment).protocol == protocol
