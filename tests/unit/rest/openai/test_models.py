"""Tests of models as the OpenAI API lists them."""

import pytest
from openai.types import Model

from antiphon.chat.catalog import CatalogEntry
from antiphon.domain.models import Modality, ModelInfo, PriceTier, TokenPrices
from antiphon.rest.openai.models import model_json


def test_what_is_not_known_is_left_out() -> None:
    """Of a model of which nothing is known there are the documented fields alone."""
    entry = CatalogEntry("acme/m", "acme", is_default=False, info=ModelInfo(name="m"))
    assert model_json(entry, 7) == {"id": "acme/m", "object": "model", "created": 7, "owned_by": "acme"}


def test_what_is_known_is_added_as_openrouter_names_it() -> None:
    """Sizes, modalities and prices stand where clients of OpenRouter look for them; the SDK reads the object."""
    info = ModelInfo(
        name="m",
        title="The M",
        created=1700000000,
        context_tokens=200_000,
        max_output_tokens=64_000,
        input_modalities=(Modality.TEXT, Modality.DOCUMENT),
        output_modalities=(Modality.TEXT,),
        prices=TokenPrices(
            input=3, output=15, cached_input=0.3, cache_write=3.75, cache_write_1h=6, tiers=(PriceTier(1, TokenPrices(input=6)),)
        ),
    )
    found = model_json(CatalogEntry("m", "acme", is_default=True, info=info), 7)
    assert found == {
        "id": "m",
        "object": "model",
        "created": 1700000000,
        "owned_by": "acme",
        "name": "The M",
        "context_length": 200_000,
        "top_provider": {"context_length": 200_000, "max_completion_tokens": 64_000},
        "architecture": {"input_modalities": ["text", "file"], "output_modalities": ["text"]},
        "pricing": {
            "prompt": "0.000003",
            "completion": "0.000015",
            "input_cache_read": "0.0000003",
            "input_cache_write": "0.00000375",
        },
    }
    read = Model.model_validate(found)
    assert (read.id, read.created, read.owned_by) == ("m", 1700000000, "acme")


@pytest.mark.parametrize(
    ("price", "text"), [(0, "0"), (1_000_000, "1"), (0.05, "0.00000005"), (0.000001, "0.000000000001"), (150.0, "0.00015")]
)
def test_prices_are_per_token_without_an_exponent(price: float, text: str) -> None:
    """A price per million tokens is written as that of one token, in plain digits."""
    info = ModelInfo(name="m", prices=TokenPrices(input=price, output=price))
    assert model_json(CatalogEntry("m", "acme", is_default=False, info=info), 7)["pricing"]["prompt"] == text
