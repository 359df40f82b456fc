"""Which parts of earlier replies a host of the OpenAI protocol accepts in a request. Data only; no I/O."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from msgspec import Struct


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
    empty_thought: str | None = None
    """The `reasoning_content` to send for a reply without reasoning, if the host requires the field in every reply; else None."""
    reply_fields: frozenset[str] | None = None
    """The fields that the host accepts in an assistant message. None: it ignores unknown fields."""
    short_call_ids: bool = False
    """Whether the host accepts only call ids of exactly nine letters and digits."""


UNKNOWN: Final = Capabilities()

NO_THOUGHTS: Final = Capabilities(thoughts=Thoughts.NONE)
"""A host that accepts no reasoning, and ignores unknown fields."""
