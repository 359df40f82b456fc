"""What an operator decides of prices."""

from __future__ import annotations

from pydantic import Field

from antiphon.config.section import Section


class PriceConfig(Section):
    """The price of a model, in USD per million tokens."""

    input: float = Field(ge=0)
    """Tokens of the prompt."""
    output: float = Field(ge=0)
    """Tokens of the reply, with its reasoning."""
    cached_input: float | None = Field(default=None, ge=0)
    """Prompt tokens that the provider read from its cache. Unset: as `input`."""
