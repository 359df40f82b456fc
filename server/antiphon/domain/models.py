"""What is known of a model: its sizes, what it reads and writes, and its prices."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Modality(Enum):
    """A kind of content that a model reads or writes."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    DOCUMENT = "document"


class TokenPrices(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Prices in USD per million tokens. None: not known, or the model has no such price of its own."""

    input: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    """Of prompt tokens written to a cache, for five minutes where the provider has several durations."""
    cache_write_1h: float | None = None
    audio_input: float | None = None
    output: float | None = None
    audio_output: float | None = None
    tiers: tuple[PriceTier, ...] = ()
    """The prices of longer prompts, the shortest first."""


class PriceTier(Struct, frozen=True):
    """The prices of all tokens of a call whose prompt is longer than `above` tokens."""

    above: int
    prices: TokenPrices


class ModelInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model of a provider. Whatever is not known is None or empty."""

    name: str
    """The provider's own name of it."""
    title: str = ""
    """Its name for people."""
    created: int | None = None
    """When it appeared, in Unix seconds."""
    context_tokens: int | None = None
    """The most tokens of a prompt; for most providers the reply counts too."""
    max_output_tokens: int | None = None
    input_modalities: tuple[Modality, ...] = ()
    output_modalities: tuple[Modality, ...] = ()
    prices: TokenPrices | None = None
