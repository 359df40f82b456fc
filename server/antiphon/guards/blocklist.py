"""The guard `blocklist`: finds matches of regular expressions. Options: `patterns`, `action`, `replacement`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from antiphon.config import ConfigError, GuardConfig, GuardOptions
from antiphon.guards.base import LONGEST, Guard
from antiphon.guards.pattern import Pattern, shortest
from antiphon.guards.scanner import Finder, Rule, Scanner


class _Options(GuardOptions):
    patterns: tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...] = Field(min_length=1, max_length=1000)
    action: Literal["block", "mask"] = "block"
    replacement: str = Field(default="[REMOVED]", max_length=100)


def build(config: GuardConfig) -> Guard:
    """Return the configured guard.

    Raises `ConfigError` for an expression that is invalid, or matches only texts longer than `LONGEST`.
    """
    options = config.options(_Options)
    for number, expression in enumerate(options.patterns):
        try:
            Pattern(expression)
        except ValueError as error:
            raise ConfigError(f"guards.{config.name}.patterns.{number}: {error}") from None
        if shortest(expression) > LONGEST:
            raise ConfigError(
                f"guards.{config.name}.patterns.{number}: it only matches more than {LONGEST} characters, which guards cannot find"
            )
    try:
        together = Pattern(*options.patterns)
    except ValueError as error:
        raise ConfigError(f"guards.{config.name}.patterns: all of them together: {error}") from None
    finder = Finder([Rule(together, options.replacement)], together)
    return partial(Scanner, config.name, finder, block=options.action == "block")
