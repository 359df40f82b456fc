"""What hosts of the OpenAI protocol take back of what a model has said. Rows of data; no I/O."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from msgspec import Struct


class Thoughts(Enum):
    """Where a host takes the thoughts of a reply that it made."""

    NONE = auto()
    AS_RECEIVED = auto()
    """Under the name that it used itself, with the tool calls that they led to: some hosts refuse their own calls without."""
    REASONING_CONTENT = auto()
    REASONING = auto()
    DETAILS = auto()
    """In `reasoning_details`, with their signatures."""
    PARTS = auto()
    """As parts of the content."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What one host takes. The defaults are for a host that nobody here knows."""

    thoughts: Thoughts = Thoughts.AS_RECEIVED
    empty_thought: str | None = None
    """What stands in `reasoning_content` of a reply without thoughts, where a host refuses a history in which a reply has none."""
    reply_fields: frozenset[str] | None = None
    """The fields of an assistant's message that it takes. None: it passes over what it does not know."""
    short_call_ids: bool = False
    """It takes ids of calls of nine letters and digits, and no other."""


UNKNOWN: Final = Capabilities()

NO_THOUGHTS: Final = Capabilities(thoughts=Thoughts.NONE)
"""A host that takes no thoughts back, and passes over fields that it does not know."""
