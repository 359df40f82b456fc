"""Models as the OpenAI API lists them. No I/O.

The API has a name, a time and an owner (https://platform.openai.com/docs/api-reference/models/object), which are always there.
Sizes, modalities and prices are added where they are known, under the names of OpenRouter's list, which many clients read:
https://openrouter.ai/docs/api-reference/list-available-models. Its prices are texts, in USD per token.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from antiphon.chat.catalog import CatalogEntry
from antiphon.domain.models import Modality, ModelInfo, TokenPrices

_NAMES: Final = {modality: modality.value for modality in Modality} | {Modality.DOCUMENT: "file"}


def model_json(entry: CatalogEntry, started: int) -> dict[str, Any]:
    """Return the JSON object of a model. `started` is the time to give, in Unix seconds, if its own is not known."""
    info = entry.info
    created = started if info.created is None else info.created
    model: dict[str, Any] = {"id": entry.name, "object": "model", "created": created, "owned_by": entry.provider}
    if info.title:
        model["name"] = info.title
    if info.context_tokens is not None:
        model["context_length"] = info.context_tokens
    if info.max_output_tokens is not None:
        model["top_provider"] = {"context_length": info.context_tokens, "max_completion_tokens": info.max_output_tokens}
    if architecture := _architecture(info):
        model["architecture"] = architecture
    if info.prices is not None:
        model["pricing"] = _pricing(info.prices)
    return model


def _architecture(info: ModelInfo) -> dict[str, list[str]]:
    named = {"input_modalities": info.input_modalities, "output_modalities": info.output_modalities}
    return {name: [_NAMES[modality] for modality in found] for name, found in named.items() if found}


def _pricing(prices: TokenPrices) -> dict[str, str]:
    """Return the known prices of short prompts, per token."""
    named = {
        "prompt": prices.input,
        "completion": prices.output,
        "input_cache_read": prices.cached_input,
        "input_cache_write": prices.cache_write,
        "audio": prices.audio_input,
    }
    return {name: _per_token(price) for name, price in named.items() if price is not None}


def _per_token(price: float) -> str:
    """Return a price per million tokens as that of one, without an exponent, which not all clients can read."""
    text = f"{Decimal(str(price)) / 1_000_000:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
