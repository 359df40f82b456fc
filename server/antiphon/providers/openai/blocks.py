"""Signatures and other fields of blocks in the OpenAI chat-completions API. No I/O."""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import NOTHING, JsonObject, Origin, State

PROTOCOL: Final = "openai-chat"
"""The protocol's name in the origin of a reply."""

GOOGLE: Final = "google"
EXTRA_CONTENT: Final = "extra_content"
SIGNATURE: Final = "thought_signature"


def take_signature(fields: dict[str, Any]) -> str | None:
    """Remove Google's signature, `extra_content.google.thought_signature`, from `fields`, and return it; None if there is none."""
    content = fields.get(EXTRA_CONTENT)
    google = content.get(GOOGLE) if isinstance(content, dict) else None
    signature = google.get(SIGNATURE) if isinstance(google, dict) else None
    if not isinstance(signature, str) or not isinstance(google, dict) or not isinstance(content, dict):
        return None
    rest = {name: value for name, value in google.items() if name != SIGNATURE}
    around = {name: value for name, value in content.items() if name != GOOGLE}
    if rest:
        around[GOOGLE] = rest
    if around:
        fields[EXTRA_CONTENT] = around
    else:
        del fields[EXTRA_CONTENT]
    return signature


def chat_fields(state: State | None, origin: Origin | None) -> JsonObject:
    """Return the other fields of a block that have a place in this API: those of a provider with another protocol have none.

    `origin` is that of the block's message.
    """
    if state is None:
        return NOTHING
    return state.fields if is_chat(state.origin or origin) else NOTHING


def is_chat(origin: Origin | None) -> bool:
    """Return whether fields of a provider have a place in this API: those of one with another protocol have none."""
    return origin is None or origin.protocol in ("", PROTOCOL)
