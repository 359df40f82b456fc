"""Tests of what is published of models, against the data of genai-prices itself."""

import pytest

from antiphon.chat.price_data import PriceData
from antiphon.domain.models import PriceTier, TokenPrices
from antiphon.providers.hosts import HOSTS

DATA = PriceData(
    {host.name: host.base_url for host in HOSTS} | {"mine": "https://api.anthropic.com", "nowhere": "http://127.0.0.1"}
)


def test_prices_with_tiers() -> None:
    """Long prompts have prices of their own, for each kind of token."""
    found = DATA.published("anthropic", "claude-sonnet-4-5")
    assert found is not None
    assert (found.title, found.context_tokens) == ("Claude Sonnet 4.5", 200_000)
    above = TokenPrices(input=6.0, cached_input=0.6, cache_write=7.5, cache_write_1h=12.0, output=22.5)
    assert found.prices == TokenPrices(
        input=3.0, cached_input=0.3, cache_write=3.75, cache_write_1h=6.0, output=15.0, tiers=(PriceTier(200_000, above),)
    )


def test_audio_has_its_own_prices() -> None:
    """Audio in and out is listed where it has its own price."""
    found = DATA.published("openai", "gpt-audio")
    assert found is not None
    assert found.prices is not None
    assert found.prices.audio_input == 32.0
    assert found.prices.audio_output == 64.0


def test_a_provider_is_known_by_name_or_address() -> None:
    """A model is looked up at the provider with its name, else with its address, and nowhere else."""
    assert DATA.published("mine", "claude-sonnet-4-5") == DATA.published("anthropic", "claude-sonnet-4-5")
    assert DATA.published("nowhere", "claude-sonnet-4-5") is None
    assert DATA.published("mine", "gpt-4o") is None
    assert DATA.published("openai", "no-such-model") is None


@pytest.mark.parametrize("host", [host.name for host in HOSTS if host.models])
def test_the_first_model_of_a_row_is_known(host: str) -> None:
    """The model that may become the default has a price."""
    models = next(row.models for row in HOSTS if row.name == host)
    assert DATA.published(host, models[0]) is not None
