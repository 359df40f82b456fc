"""Reads the list of models of the OpenAI API, which chat completions and the Responses API have in common. No I/O.

The API itself gives names and times alone (https://platform.openai.com/docs/api-reference/models/list). Many hosts add sizes,
modalities and prices, each under its own names, which do not contradict each other: OpenRouter, Groq, Mistral, Together, Fireworks,
Moonshot, vLLM and others. All of them are read at any host, as private hosts copy one or the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.models import Modality, ModelInfo, TokenPrices
from antiphon.providers.model_list import ModelPage, decode, entries, fields, modalities, named, text, tokens, unix_time

_MILLION: Final = 1_000_000

_PREFIX: Final = "models/"
"""Gemini's endpoint has it before each name, and accepts names without it."""

_OTHER_TYPES: Final = frozenset(
    {"audio", "embedding", "embeddings", "image", "moderation", "rerank", "stt", "transcribe", "tts", "video"}
)
"""Values of `type` of models that do not chat, at Together, LM Studio and others."""


def read_page(body: bytes) -> ModelPage:
    """Return the models of a page that can chat. Raises `ValueError` if it is not a list of models."""
    value = decode(body)
    if isinstance(value, list):  # Together sends the list alone
        return ModelPage(named(map(_model, entries(value))))
    page = fields(value)
    models = named(map(_model, entries(page.get("data"))))
    last = text(page.get("last_id")) if page.get("has_more") is True else ""
    return ModelPage(models, {"after": last} if last else {})


def _model(entry: Mapping[str, Any]) -> ModelInfo | None:
    """Return one model; None if its host says that it does not chat."""
    name = entry.get("id")
    if not isinstance(name, str) or not _chats(entry):
        return None
    top, metadata, architecture = (fields(entry.get(field)) for field in ("top_provider", "metadata", "architecture"))
    return ModelInfo(
        name=name.removeprefix(_PREFIX),
        title=text(entry.get("display_name")) or text(entry.get("name")),
        created=unix_time(entry.get("created")),
        context_tokens=tokens(
            entry.get("context_length"),
            entry.get("context_window"),
            entry.get("max_context_length"),
            entry.get("max_model_len"),
            entry.get("context_size"),
            metadata.get("context_length"),
            top.get("context_length"),
        ),
        max_output_tokens=tokens(
            entry.get("max_completion_tokens"), entry.get("max_output_tokens"), top.get("max_completion_tokens")
        ),
        input_modalities=modalities(architecture.get("input_modalities") or entry.get("input_modalities")) or _flags(entry),
        output_modalities=modalities(architecture.get("output_modalities") or entry.get("output_modalities")),
        prices=_prices(fields(entry.get("pricing")) or fields(metadata.get("pricing"))),
    )


def _chats(entry: Mapping[str, Any]) -> bool:
    """Return whether a model can chat, as far as its host says."""
    kind = entry.get("type")
    no = (fields(entry.get("capabilities")).get("completion_chat"), entry.get("supports_chat"), entry.get("active"))
    return False not in no and not (isinstance(kind, str) and kind.lower() in _OTHER_TYPES)


def _flags(entry: Mapping[str, Any]) -> tuple[Modality, ...]:
    """Return what a model reads, where its host has a flag for each: Mistral, Fireworks, Moonshot."""
    capabilities = fields(entry.get("capabilities"))
    flags = {
        Modality.IMAGE: (capabilities.get("vision"), entry.get("supports_image_input"), entry.get("supports_image_in")),
        Modality.AUDIO: (capabilities.get("audio"),),
        Modality.VIDEO: (entry.get("supports_video_in"),),
    }
    if not any(isinstance(value, bool) for values in flags.values() for value in values):
        return ()
    return (Modality.TEXT, *(kind for kind, values in flags.items() if True in values))


def _prices(pricing: Mapping[str, Any]) -> TokenPrices | None:
    """Return the prices: texts in USD per token under OpenRouter's names, or numbers per million tokens under Together's."""
    if "prompt" in pricing:
        prices = TokenPrices(
            input=_per_token(pricing.get("prompt")),
            cached_input=_per_token(pricing.get("input_cache_read")),
            cache_write=_per_token(pricing.get("input_cache_write")),
            audio_input=_per_token(pricing.get("audio")),
            output=_per_token(pricing.get("completion")),
        )
    else:
        prices = TokenPrices(
            input=_usd(pricing.get("input")), cached_input=_usd(pricing.get("cached_input")), output=_usd(pricing.get("output"))
        )
    if prices.input is None or prices.output is None:
        return None
    # Together writes zeros for models that are billed by the hour.
    return None if "prompt" not in pricing and prices.input == prices.output == 0 else prices


def _per_token(value: Any) -> float | None:
    """Return the price of a million tokens; None for a value that is none, such as "-1" for a model that is chosen later."""
    try:
        price = _usd(float(value)) if isinstance(value, str) else _usd(value)
    except ValueError:
        return None
    return None if price is None else round(price * _MILLION, 6)


def _usd(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < _MILLION else None
