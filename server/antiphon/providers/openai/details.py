"""Reads reasoning in the form of `reasoning_details`: OpenRouter's, which includes signatures. No I/O.

https://openrouter.ai/docs/use-cases/reasoning-tokens
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from antiphon.domain.content import JsonObject
from antiphon.providers.codec.values import is_shallow

DETAILS: Final = "reasoning_details"
TEXT: Final = "reasoning.text"
SUMMARY: Final = "reasoning.summary"
ENCRYPTED: Final = "reasoning.encrypted"

CONTENT_FIELDS: Final = {TEXT: "text", SUMMARY: "summary", ENCRYPTED: "data"}
"""By type of entry: the field whose value the block holds itself."""


class ReasoningDetail(Struct, frozen=True):
    """One entry of `reasoning_details`, or a piece of one."""

    key: object
    """Equal for all pieces of one entry."""
    text: str
    signature: str | None
    data: str | None
    """Encrypted reasoning; None for entries of other types."""
    fields: JsonObject
    """The other fields of the entry, in the form of `State.fields`."""


def read_details(details: object) -> list[ReasoningDetail] | None:
    """Return the entries; None if they are not in the documented form."""
    if not isinstance(details, list) or not details:
        return None
    found = list(map(_read, details))
    return None if None in found or not is_shallow(details) else found  # type: ignore[return-value]


def _read(entry: Any) -> ReasoningDetail | None:
    """Return one entry; None if it is not in the documented form."""
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
