"""What recorded replies cost, against the library's own reading of the same usage, where `ANTIPHON_RECORDED` names their folder."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from msgspec.structs import replace

from antiphon import domain
from antiphon.chat.prices import Prices
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.providers.client import Reader
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.openai.response import OpenAIReader
from antiphon.providers.responses.response import ResponsesReader

FOLDER = os.environ.get("ANTIPHON_RECORDED")
REQUEST = domain.ChatRequest("m", (), stream=False)
PRICES = Prices({}, dict.fromkeys(("anthropic", "google", "openai")))
KINDS: dict[str, tuple[str, str, str, Callable[..., Reader]]] = {
    "anthropic": ("anthropic", "default", "claude-sonnet-4-5", AnthropicReader),
    "google": ("google", "default", "gemini-2.5-flash", GeminiReader),
    "openai/chat": ("openai", "chat", "gpt-4o", OpenAIReader),
    "openai/responses": ("openai", "responses", "gpt-5", ResponsesReader),
}
"""By folder: the library's names of the provider and of the API, a model for replies that name none it knows, and our reader."""


def recorded() -> Iterator[Any]:
    """Whole replies that report their usage."""
    for folder, kind in KINDS.items():
        for path in sorted(Path(FOLDER, folder).glob("*.json")) if FOLDER else ():
            body = json.loads(path.read_text())
            if isinstance(body, dict) and (body.get("usage") or body.get("usageMetadata")) and not _has_inner_calls(body):
                yield pytest.param(kind, body, id=f"{folder}/{path.name}")


def _has_inner_calls(body: dict[str, Any]) -> bool:
    """Return whether the library, which does not know inner calls, would leave some out."""
    iterations = (body.get("usage") or {}).get("iterations") or ()
    return any(one.get("type") != "message" for one in iterations)


@pytest.mark.skipif(not FOLDER, reason="ANTIPHON_RECORDED is not set")
@pytest.mark.parametrize(("kind", "body"), list(recorded()))
def test_a_recorded_reply_costs_what_the_library_says(kind: tuple[str, str, str, Callable[..., Reader]], body: Any) -> None:
    """Each class of tokens is priced as the library prices it from the provider's own usage."""
    provider, flavor, usual, make = kind
    events = make(REQUEST, provider).read_object(json.dumps(body).encode())
    (used,) = [event for event in events if isinstance(event, domain.Usage)]
    model = body.get("model") or body.get("modelVersion") or usual
    try:
        extracted = genai_prices.extract_usage(body, provider_id=provider, api_flavor=flavor)
    except LookupError:  # a model of another host, or of the future
        model, body = usual, {**body, "model": usual}
        extracted = genai_prices.extract_usage(body, provider_id=provider, api_flavor=flavor)
    expected = genai_prices.calc_price(extracted.usage, model, provider_id=provider)
    cost = PRICES.cost(provider, model, used)
    searches = used.server_tools.get("web_search", 0)
    if provider == "openai" and searches and cost is not None:  # the library's reader of this API does not count searches
        cost = PRICES.cost(provider, model, replace(used, server_tools={}))
    assert cost == pytest.approx(float(expected.total_price))
