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
    """One filter of what is asked and answered. What is not named here is an option of its kind."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")
    """What the caller of a blocked call is told."""
    kind: str
    on: tuple[Literal["request", "reply"], ...] = Field(default=("request", "reply"), min_length=1)

    def options(self, model: type[Options]) -> Options:
        """The options of its kind. Raises `ConfigError`."""
        try:
            return model.model_validate(self.model_extra)
        except ValidationError as error:
            lines = (f"{dotted(('guards', self.name, *path))}: {wanted}" for path, wanted in mistakes(error, model))
            raise ConfigError("\n".join(lines)) from None
