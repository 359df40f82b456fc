"""What an operator decides of prices."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from antiphon.config.section import Section


class TierPriceConfig(Section):
    """The price of a model in one service tier, in USD per million tokens."""

    input: float = Field(ge=0)
    """Tokens of the prompt."""
    output: float = Field(ge=0)
    """Tokens of the reply, with its reasoning."""
    cached_input: float | None = Field(default=None, ge=0)
    """Prompt tokens that the provider read from its cache. Unset: as `input`."""


class PriceConfig(TierPriceConfig):
    """The price of a model, in USD per million tokens."""

    tiers: Mapping[str, TierPriceConfig] = Field(default_factory=dict)
    """Other prices by the service that a call got, in the provider's words: `flex`, `priority`, `batch`. A tier that is not here
    has the model's prices above."""
