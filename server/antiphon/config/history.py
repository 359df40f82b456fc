"""What an operator decides of how long is kept what people said, and what they used."""

from __future__ import annotations

from pydantic import Field

from antiphon.config.section import Section


class HistoryConfig(Section):
    """How long things are kept, in days. Unset: for good."""

    retention: int | None = Field(default=None, ge=1)
    """A conversation that nobody has touched for longer is removed."""
    usage_retention: int | None = Field(default=None, ge=32)
    """Rows of usage of days before that are removed. The budget of a month needs them until its end."""
