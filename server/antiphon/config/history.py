"""What an operator decides of how long is kept what people said, and what they used."""

from __future__ import annotations

from pydantic import Field

from antiphon.config.section import Section


class HistoryConfig(Section):
    """How long conversations and usage are kept, in days."""

    retention: int | None = Field(default=None, ge=1)
    """Conversations that nobody used for longer than this are deleted. Unset: kept for good."""
    usage_retention: int | None = Field(default=None, ge=32)
    """Usage of days before this is deleted. Unset: kept for good. A monthly budget needs at least 32 days."""
