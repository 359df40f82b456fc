"""What an operator decides of guards."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from antiphon.config.section import ConfigError, Section
from antiphon.config.words import dotted, mistakes


class GuardOptions(Section):
    """The options of one kind of guard: each kind has its own subclass, where it is made."""


Options = TypeVar("Options", bound=GuardOptions)


class GuardConfig(Section):
    """A filter of requests and replies. Each kind has options of its own beside these."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")
    """Told to a caller whose call is blocked."""
    kind: str
    """`blocklist` or `personal_data`."""
    on: tuple[Literal["request", "reply"], ...] = Field(default=("request", "reply"), min_length=1)
    """What it reads."""

    def options(self, model: type[Options]) -> Options:
        """Return the options of its kind. Raises `ConfigError`."""
        try:
            return model.model_validate(self.model_extra)
        except ValidationError as error:
            lines = (f"{dotted(('guards', self.name, *path))}: {wanted}" for path, wanted in mistakes(error, model))
            raise ConfigError("\n".join(lines)) from None
