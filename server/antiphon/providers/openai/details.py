"""Thoughts as `reasoning_details`, the form in which OpenRouter and hosts that follow it have them with their signatures. No I/O.

https://openrouter.ai/docs/use-cases/reasoning-tokens
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from antiphon.domain.content import JsonObject
from antiphon.providers.openai.values import is_shallow

DETAILS: Final = "reasoning_details"
TEXT: Final = "reasoning.text"
SUMMARY: Final = "reasoning.summary"
ENCRYPTED: Final = "reasoning.encrypted"

CONTENT_FIELDS: Final = {TEXT: "text", SUMMARY: "summary", ENCRYPTED: "data"}
"""By type: where an entry has what the block holds itself."""


class ReasoningDetail(Struct, frozen=True):
    """One entry, or a piece of one."""

    key: object
    """Pieces of one entry have the same."""
    text: str
    signature: str | None
    data: str | None
    """What is encrypted. None: the entry is of another type."""
    fields: JsonObject
    """The rest of it, as the state of a block has it."""


def read_details(details: object) -> list[ReasoningDetail] | None:
    """Return the entries; None if they have any other form."""
    if not isinstance(details, list) or not details:
        return None
    found = list(map(_read, details))
    return None if None in found or not is_shallow(details) else found  # type: ignore[return-value]


def _read(entry: Any) -> ReasoningDetail | None:
    kind = entry.get("type") if isinstance(entry, dict) else None
    own = CONTENT_FIELDS.get(kind) if isinstance(kind, str) else None
    if own is None:
        return None
    content, signature = entry.get(own), entry.get("signature")
    if not isinstance(content, str | None) or not isinstance(signature, str | None) or (kind == ENCRYPTED and content is None):
        return None
    rest = {name: value for name, value in entry.items() if name not in (own, "signature")}
    text, data = ("", content) if kind == ENCRYPTED else (content or "", None)
    return ReasoningDetail((entry.get("index"), kind), text, signature or None, data, {DETAILS: rest})
