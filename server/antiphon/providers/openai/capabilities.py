"""What hosts of the OpenAI protocol take back of what a model has said. Rows of data; no I/O."""

from __future__ import annotations

from enum import Enum, auto
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct


class Thoughts(Enum):
    """Where a host takes the thoughts of a reply that it made."""

    NONE = auto()
    AS_TOLD = auto()
    """Under the name that it used itself, with the tool calls that they led to: some hosts refuse their own calls without."""
    REASONING_CONTENT = auto()
    REASONING = auto()
    DETAILS = auto()
    """In `reasoning_details`, with their signatures."""
    PARTS = auto()
    """As parts of the content."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What one host takes. The defaults are for a host that nobody here knows."""

    thoughts: Thoughts = Thoughts.AS_TOLD
    thought_parts: bool = True
    """Of hosts that take thoughts as they told them: parts of the content too."""
    fill: str | None = None
    """What stands in `reasoning_content` of a reply without thoughts, where a host refuses a history in which a reply has none."""
    thinking_models: tuple[str, ...] = ("*",)
    """Patterns of the models that take thoughts back. Others take those alone that they are known to have had themselves."""
    refusals: bool = True
    """It takes a refusal in a field of its own, with no content. Else a refusal is sent as text."""
    reply_fields: frozenset[str] | None = None
    """The fields of an assistant's message that it takes. None: it passes over what it does not know."""
    call_fields: frozenset[str] = frozenset()
    """The fields of a tool call that it takes beside those of the API, if it takes only certain `reply_fields`."""
    takes_nulls: bool = True
    """It takes null in a reply, and an empty content beside tool calls."""
    unsigned_call: str | None = None
    """The signature of a call that has none, for models that refuse a call without."""
    unsigned_models: tuple[str, ...] = ()
    """Patterns of the models that take a call without a signature."""
    short_call_ids: bool = False
    """It takes ids of calls of nine letters and digits, and no other."""

    def takes_thoughts(self, model: str) -> bool:
        """Return whether a model takes the thoughts of any other."""
        return _matches(model, self.thinking_models)

    def signature_for(self, model: str) -> str | None:
        """Return the signature that a model wants of a call that has none."""
        return None if _matches(model, self.unsigned_models) else self.unsigned_call


UNKNOWN: Final = Capabilities()

FIELDS: Final = Capabilities(thought_parts=False, refusals=False)
"""A host that has thoughts in fields of the message, if at all, and passes over fields that it does not know."""

SILENT: Final = Capabilities(thoughts=Thoughts.NONE, refusals=False)
"""A host that takes no thoughts back, and passes over fields that it does not know."""

OPENAI: Final = Capabilities(thoughts=Thoughts.NONE)
"""OpenAI's own API: the same, but for refusals, which it has made."""


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model.lower(), pattern) for pattern in patterns)
