"""Warnings about parameters of a request that the provider does not get as the caller set them. Plain values; no I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct


class Treatment(StrEnum):
    """What was done with a parameter."""

    DROPPED = "dropped"
    """It was left out: the reply is as if the caller had not set it."""
    MAPPED = "mapped"
    """The provider gets the nearest equivalent that it has."""


class ParameterWarning(Struct, frozen=True):
    """One parameter that the provider or the model does not have."""

    path: tuple[str, ...]
    """Its path in `ChatRequest`, as in ("sampling", "seed")."""
    treatment: Treatment
    reason: str
    """Why, in a sentence without a full stop. ASCII, and nothing of the request."""
    replacement: str = ""
    """The provider's parameter that is sent instead, if it was mapped."""


Warnings: TypeAlias = "tuple[ParameterWarning, ...]"
"""The warnings of one request, in the order in which its parameters were encoded."""


def ignore(_warnings: Warnings) -> None:
    """Do nothing with the warnings: for callers that have no use for them."""
