"""Tests of prices: configured prices come before those of the library, and an unknown price is None."""

import genai_prices
import pytest

from antiphon.chat.prices import Prices
from antiphon.config import PriceConfig
from antiphon.domain.events import Usage, UsagePart
from antiphon.providers.hosts import HOSTS

PRICES = Prices({}, {host.name: host.base_url for host in HOSTS})

USAGES = (
    Usage(1000, 500, 1500),
    Usage(0, 0, 0),
    Usage(1000, 500, 1500, cached_tokens=400),
    Usage(1000, 500, 1500, cached_tokens=100, cache_write_tokens=300),
    Usage(1000, 500, 1500, cache_write_tokens=300, cache_write_1h_tokens=200),
    Usage(1000, 500, 1500, server_tools={"web_search": 2, "web_fetch": 1}),
    Usage(300_000, 500, 300_500, cached_tokens=100),
    Usage(1000, 500, 1500, audio_input_tokens=200, audio_output_tokens=50),
)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("openai", "openai", "gpt-4o"),
        ("openai", "openai", "gpt-4o-audio-preview"),
        ("openai", "openai", "gpt-5-mini"),
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("gemini", "google", "gemini-2.5-pro"),
        ("gemini", "google", "gemini-2.5-flash"),
        ("mistral", "mistral", "mistral-small-latest"),
        ("xai", "x-ai", "grok-4"),
        ("groq", "groq", "llama-3.3-70b-versatile"),
    ],
)
@pytest.mark.parametrize("usage", USAGES)
def test_prices_are_those_of_the_library(name: str, provider: str, model: str, usage: Usage) -> None:
    """A cost equals that of the library genai-prices, also for cached, cache-writing and audio tokens and price tiers."""
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        web_searches=usage.server_tools.get("web_search"),
        input_audio_tokens=usage.audio_input_tokens,
        output_audio_tokens=usage.audio_output_tokens,
    )
    expected = float(genai_prices.calc_price(counted, model, provider_id=provider).total_price)
    assert PRICES.cost(name, model, usage) == pytest.approx(expected, rel=1e-9)


def test_inner_calls_are_priced_by_their_models() -> None:
    """The cost is that of the parts and of the searches; None if one of the models is not known."""
    parts = (UsagePart("claude-opus-5", "message", 1000, 10, 100, 200), UsagePart("claude-opus-4-8", "advisor_message", 500, 20))
    usage = Usage(1500, 30, 1530, cached_tokens=100, cache_write_tokens=200, server_tools={"web_search": 1}, parts=parts)
    costs = (
        PRICES.cost("anthropic", "claude-opus-5", Usage(1000, 10, 1010, cached_tokens=100, cache_write_tokens=200)),
        PRICES.cost("anthropic", "claude-opus-4-8", Usage(500, 20, 520)),
    )
    assert PRICES.cost("anthropic", "claude-opus-5", usage) == pytest.approx(sum(filter(None, costs)) + 0.01)
    assert PRICES.cost("anthropic", "claude-opus-5", Usage(1, 1, 2, parts=(UsagePart("no-such-model"),))) is None


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "no-such-model"), ("echo", "gpt-4o"), ("ollama", "gpt-4o"), ("nobody", "gpt-4o")]
)
def test_an_unknown_model_has_no_cost(provider: str, model: str) -> None:
    """An unknown model has no cost, also if another provider has a model of the same name."""
    assert PRICES.cost(provider, model, USAGES[0]) is None


def test_counts_that_do_not_fit_together_cost_none() -> None:
    """Usage that contradicts itself, such as more cached tokens than prompt tokens, has no cost."""
    assert PRICES.cost("openai", "gpt-4o", Usage(10, 5, 15, cached_tokens=11)) is None


def test_the_operators_price_comes_first() -> None:
    """A configured price is found by provider and model, then by model.

    Cached tokens cost the input price unless `cached_input` is set.
    """
    prices = Prices(
        {
            "gpt-4o": PriceConfig(input=1, output=2),
            "mine/gpt-4o": PriceConfig(input=10, output=20, cached_input=0),
            "free": PriceConfig(input=0, output=0),
        },
        {},
    )
    usage = Usage(1_000_000, 1_000_000, 2_000_000, cached_tokens=500_000)
    assert prices.cost("openai", "gpt-4o", usage) == 3
    assert prices.cost("mine", "gpt-4o", usage) == 25
    assert prices.cost("mine", "free", usage) == 0


def test_a_host_is_known_by_its_address_too() -> None:
    """A provider gets the prices of the host at its base URL, whatever the operator has named it."""
    prices = Prices({}, {"main": "https://api.openai.com/v1", "local": "http://127.0.0.1:8000/v1", "odd": None})
    assert prices.cost("main", "gpt-4o", USAGES[0]) == PRICES.cost("openai", "gpt-4o", USAGES[0])
    assert prices.cost("local", "gpt-4o", USAGES[0]) is None
    assert prices.cost("odd", "gpt-4o", USAGES[0]) is None


def test_what_is_billed_has_the_price() -> None:
    """A reply costs the tokens that its provider bills, not those that it counts."""
    counted = Usage(30, 4, 34)
    billed = Usage(30, 4, 34, parts=(UsagePart("gpt-4o", "billed_units", 3, 2),))
    cost = PRICES.cost("openai", "gpt-4o", billed)
    assert cost == PRICES.cost("openai", "gpt-4o", Usage(3, 2, 5))
    assert cost != PRICES.cost("openai", "gpt-4o", counted)
