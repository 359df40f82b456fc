"""What a host of the OpenAI protocol accepts in a request: parts of earlier replies, and options. Data only; no I/O."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from msgspec import Struct

from antiphon.domain import model_names
from antiphon.providers.openai import lacks
from antiphon.providers.openai.lacks import ANY, HostOptions


class Thoughts(Enum):
    """The form in which a host accepts the reasoning of its earlier replies."""

    NONE = auto()
    AS_RECEIVED = auto()
    """In the host's own field, in messages with tool calls only: some hosts refuse their own calls without the reasoning."""
    REASONING_CONTENT = auto()
    REASONING = auto()
    DETAILS = auto()
    """In `reasoning_details`, with signatures."""
    PARTS = auto()
    """As parts of the content."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What one host accepts. The defaults are for unknown hosts."""

    thoughts: Thoughts = Thoughts.AS_RECEIVED
    thought_parts: bool = True
    """With `AS_RECEIVED`: whether reasoning may also be a content part."""
    empty_thought: str | None = None
    """The `reasoning_content` to send for a reply without reasoning, if the host requires the field in every reply; else None."""
    thinking_models: tuple[str, ...] = ("*",)
    """Patterns of the models that accept reasoning. Any other model accepts only its own."""
    refusals: bool = True
    """Whether the host accepts a refusal in a field of its own, without content. If not, a refusal is sent as text."""
    reply_fields: frozenset[str] | None = None
    """The fields that the host accepts in an assistant message. None: it ignores unknown fields."""
    call_fields: frozenset[str] = frozenset()
    """The fields beyond the API's that the host accepts in a tool call, if it has `reply_fields`."""
    nulls: bool = True
    """Whether the host accepts null in a reply, and an empty content beside tool calls."""
    unsigned_call: str | None = None
    """The signature to send for a call without one, if the host's models refuse unsigned calls; else None."""
    unsigned_models: tuple[str, ...] = ()
    """Patterns of the models that accept unsigned calls all the same."""
    short_call_ids: bool = False
    """Whether the host accepts only call ids of exactly nine letters and digits."""
    options: HostOptions = ANY
    """The options that the host or its models do not have."""

    def accepts_thoughts(self, model: str) -> bool:
        """Return whether a model accepts the reasoning of any model."""
        return _matches(model, self.thinking_models)

    def signature_for(self, model: str) -> str | None:
        """Return the signature to send for an unsigned call; None if the model accepts it unsigned."""
        return None if _matches(model, self.unsigned_models) else self.unsigned_call


UNKNOWN: Final = Capabilities()

NO_PARTS: Final = Capabilities(thought_parts=False, refusals=False)
"""A host that has reasoning only in fields of the message, if at all, and ignores unknown fields."""

NO_THOUGHTS: Final = Capabilities(thoughts=Thoughts.NONE, refusals=False)
"""A host that accepts no reasoning, and ignores unknown fields."""

OPENAI: Final = Capabilities(thoughts=Thoughts.NONE, options=lacks.OPENAI)
"""OpenAI's own API: the same, except that it has refusals."""


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(model_names.matches(model.lower(), pattern) for pattern in patterns)
