"""Tests of prices: configured prices come before those of the library, and an unknown price is None."""

from datetime import UTC, datetime
from typing import Any

import genai_prices
import pytest

from antiphon.chat import price_data
from antiphon.chat.prices import Prices
from antiphon.config import PriceConfig
from antiphon.config.prices import TierPriceConfig
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


def library(provider: str, model: str, at: datetime | None = None, context: Any = None, **counts: int) -> float:
    """Return the cost that the library itself computes."""
    found = genai_prices.calc_price(
        genai_prices.Usage(**counts), model, provider_id=provider, genai_request_timestamp=at, price_context=context
    )
    return float(found.total_price)


def test_long_prompts_cost_more() -> None:
    """All tokens of a call with a long prompt have the prices of its tier: cached ones, both kinds of writes, and the reply."""
    for name, provider, model in (
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("gemini", "google", "gemini-3-pro-preview"),
        ("gemini", "google", "gemini-2.5-pro"),
    ):
        for prompt in (200_000, 200_001):
            usage = Usage(prompt, 500, prompt + 500, cached_tokens=1000, cache_write_tokens=3000, cache_write_1h_tokens=2000)
            expected = library(
                provider,
                model,
                input_tokens=prompt,
                output_tokens=500,
                cache_read_tokens=1000,
                cache_write_tokens=3000,
                cache_write_1h_tokens=2000,
            )
            assert PRICES.cost(name, model, usage) == pytest.approx(expected)
    assert PRICES.cost("anthropic", "claude-sonnet-4-5", Usage(200_000, 0, 200_000)) == pytest.approx(0.6)
    assert PRICES.cost("anthropic", "claude-sonnet-4-5", Usage(200_001, 0, 200_001)) == pytest.approx(1.200006)


def test_both_kinds_of_cache_writes() -> None:
    """Tokens written for five minutes cost 1.25 times an input token, for an hour twice, and read ones a tenth."""
    cost = PRICES.cost("anthropic", "claude-haiku-4-5", Usage(1_000_000, 0, 1_000_000, cache_write_tokens=1_000_000))
    assert cost == pytest.approx(1.25)
    hour = Usage(1_000_000, 0, 1_000_000, cache_write_tokens=1_000_000, cache_write_1h_tokens=1_000_000)
    assert PRICES.cost("anthropic", "claude-haiku-4-5", hour) == pytest.approx(2)
    both = Usage(1_000_000, 0, 1_000_000, cached_tokens=500_000, cache_write_tokens=500_000, cache_write_1h_tokens=250_000)
    assert PRICES.cost("anthropic", "claude-haiku-4-5", both) == pytest.approx(0.05 + 0.3125 + 0.5)
    part = UsagePart("claude-haiku-4-5", "message", 1_000_000, 0, 0, 1_000_000, 1_000_000)
    assert PRICES.cost("anthropic", "claude-haiku-4-5", Usage(1_000_000, 0, 1_000_000, parts=(part,))) == pytest.approx(2)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (Usage(1000, 10, 1010, audio_input_tokens=200), {"input_audio_tokens": 200}),
        (
            Usage(1000, 10, 1010, audio_input_tokens=200, cached_tokens=300),
            {"input_audio_tokens": 200, "cache_read_tokens": 300, "cache_audio_read_tokens": 0},
        ),
        (
            Usage(1000, 10, 1010, audio_input_tokens=200, cached_tokens=300, audio_cached_tokens=150),
            {"input_audio_tokens": 200, "cache_read_tokens": 300, "cache_audio_read_tokens": 150},
        ),
        # At least 100 of the cached tokens are audio, as there are only 700 others.
        (
            Usage(1000, 10, 1010, audio_input_tokens=800, cached_tokens=300),
            {"input_audio_tokens": 800, "cache_read_tokens": 300, "cache_audio_read_tokens": 100},
        ),
    ],
    ids=["plain", "text cached", "audio cached", "overlap"],
)
def test_audio_and_cached_audio(usage: Usage, counts: dict[str, int]) -> None:
    """Audio has its own price, and another one where it was read from a cache."""
    expected = library("google", "gemini-2.5-flash", input_tokens=1000, output_tokens=10, **counts)
    assert PRICES.cost("gemini", "gemini-2.5-flash", usage) == pytest.approx(expected)


def test_images_of_a_reply_have_their_own_price() -> None:
    """Tokens of images in a reply cost what the model's images cost."""
    expected = library("google", "gemini-2.5-flash-image", input_tokens=10, output_tokens=1300, output_image_tokens=1290)
    usage = Usage(10, 1300, 1310, image_output_tokens=1290)
    assert PRICES.cost("gemini", "gemini-2.5-flash-image", usage) == pytest.approx(expected)
    assert expected > 0.038


def test_reasoning_costs_what_the_reply_does() -> None:
    """Reasoning is part of the reply; only where it has its own price does it cost another one."""
    with_reasoning, without = Usage(10, 1000, 1010, reasoning_tokens=900), Usage(10, 1000, 1010)
    assert PRICES.cost("openai", "gpt-5", with_reasoning) == PRICES.cost("openai", "gpt-5", without)
    expected = library("perplexity", "sonar-deep-research", input_tokens=10, output_tokens=1000, output_reasoning_tokens=900)
    assert PRICES.cost("perplexity", "sonar-deep-research", with_reasoning) == pytest.approx(expected)


def test_a_call_itself_may_cost() -> None:
    """A price by the call is charged once for each call."""
    expected = library("perplexity", "sonar", input_tokens=100, output_tokens=10)
    assert PRICES.cost("perplexity", "sonar", Usage(100, 10, 110)) == pytest.approx(expected)
    assert expected > 0.005


def test_prices_change_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The price is that of the moment of the call, also if another one was used before: by the hour, and from a day on."""

    class Clock:
        moment = datetime(2026, 1, 1, 3, tzinfo=UTC)

        def now(self, zone: Any) -> datetime:
            return self.moment

    clock = Clock()
    monkeypatch.setattr(price_data, "datetime", clock)
    seen = set()
    for hour in (3, 18, 3):
        clock.moment = datetime(2026, 1, 1, hour, tzinfo=UTC)
        cost = PRICES.cost("deepseek", "deepseek-reasoner", Usage(1000, 500, 1500))
        assert cost == pytest.approx(library("deepseek", "deepseek-reasoner", clock.moment, input_tokens=1000, output_tokens=500))
        seen.add(cost)
    assert len(seen) == 2


def test_a_faster_service_costs_more() -> None:
    """A price for another kind of service counts if the provider says that the call got it."""
    usual = PRICES.cost("anthropic", "claude-opus-5", Usage(1000, 100, 1100, extra={"service_tier": "standard"}))
    fast = PRICES.cost("anthropic", "claude-opus-5", Usage(1000, 100, 1100, extra={"service_tier": "standard", "speed": "fast"}))
    assert usual == pytest.approx(library("anthropic", "claude-opus-5", input_tokens=1000, output_tokens=100))
    context = {"speed": "fast"}
    expected = library("anthropic", "claude-opus-5", context=context, input_tokens=1000, output_tokens=100)
    assert fast == pytest.approx(expected)
    assert expected > (usual or 0)


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


def test_a_deployment_has_its_own_price() -> None:
    """The price of a deployment comes first, that of the model before `*`; other deployments have those of the provider."""
    by_deployment = {"acme/east": {"m": PriceConfig(input=4, output=0), "*": PriceConfig(input=2, output=0)}}
    prices = Prices({"acme/m": PriceConfig(input=1, output=0)}, {}, by_deployment)
    usage = Usage(1_000_000, 0, 1_000_000)
    assert prices.cost("acme", "m", usage, "acme/east") == 4
    assert prices.cost("acme", "n", usage, "acme/east") == 2
    assert prices.cost("acme", "m", usage, "acme/west") == prices.cost("acme", "m", usage) == 1
    assert prices.cost("acme", "n", usage, "acme/west") is None
    inner = Usage(0, 0, 0, parts=(UsagePart("n", input_tokens=1_000_000),))
    assert prices.cost("acme", "m", inner, "acme/east") == 2


@pytest.mark.parametrize(
    ("name", "provider", "model", "tier", "context"),
    [
        ("openai", "openai", "gpt-5-mini", "flex", {"service_tier": "flex"}),
        ("openai", "openai", "gpt-5-mini", "priority", {"service_tier": "priority"}),
        ("openai", "openai", "gpt-5-mini", "batch", {"processing": "batch"}),
        ("gemini", "google", "gemini-3.8-flash-tts", "flex", {"service_tier": "flex"}),
        ("anthropic", "anthropic", "claude-fable-5", "batch", {"processing": "batch"}),
    ],
)
def test_a_service_tier_has_its_price(name: str, provider: str, model: str, tier: str, context: dict[str, str]) -> None:
    """It is that of the library, which differs from the usual one."""
    usage = Usage(1000, 100, 1100, service_tier=tier)
    cost = PRICES.cost(name, model, usage)
    assert cost == pytest.approx(library(provider, model, context=context, input_tokens=1000, output_tokens=100))
    assert cost != PRICES.cost(name, model, Usage(1000, 100, 1100))


def test_a_service_tier_that_the_library_does_not_have() -> None:
    """It costs what the model usually does, as there is no other price."""
    usual = PRICES.cost("anthropic", "claude-opus-5", Usage(1000, 100, 1100))
    assert PRICES.cost("anthropic", "claude-opus-5", Usage(1000, 100, 1100, service_tier="priority")) == usual


def test_configured_prices_of_a_service_tier() -> None:
    """A tier has its own configured prices, else the model's; the library's are not used for a configured model."""
    tiers = {"priority": TierPriceConfig(input=20, output=200), "flex": TierPriceConfig(input=1, output=2, cached_input=0.5)}
    prices = Prices({"claude-opus-5": PriceConfig(input=10, output=100, cached_input=5, tiers=tiers)}, {})

    def cost(tier: str) -> float | None:
        return prices.cost("anthropic", "claude-opus-5", Usage(1_000_000, 0, 1_000_000, cached_tokens=500_000, service_tier=tier))

    for _ in range(2):  # the second time the usual price is remembered
        assert [cost("priority"), cost("flex"), cost("scale"), cost("")] == [20, 0.75, 7.5, 7.5]


def test_few_models_are_remembered() -> None:
    """Callers choose the names of models, so their number is bounded."""
    prices = Prices({"m": PriceConfig(input=1, output=0)}, {})
    for number in range(1001):
        assert prices.cost("nobody", "m", Usage(1_000_000, 0, 1_000_000), f"nobody/{number}") == 1
    assert len(prices._usual) <= 1000
