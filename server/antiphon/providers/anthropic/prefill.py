"""A reply that the model is to continue, which Claude 4.6 and later do not by themselves. No I/O.

https://platform.claude.com/docs/en/about-claude/models/migration-guide: they refuse a conversation that ends with a reply, and are
to be told to continue it by a message of the user. A reply that the model paused for its own tools is continued by all.
"""

from __future__ import annotations

from typing import Final

from antiphon.domain.errors import Unsupported
from antiphon.providers.parameters import Parameters

_INSTRUCTION: Final = "Continue your reply from where it ends. Repeat nothing of it, and say nothing else before."


def continuation(provider: str, parameters: Parameters) -> str:
    """Return what the user says, and report it. Raises `Unsupported` if the policy is not to map."""
    if not parameters.mapped(("messages",), "a message of the user", "the model continues a reply only if it is told to"):
        raise Unsupported(f"The provider {provider} has a model that continues no reply: the user has to speak last.", provider)
    return _INSTRUCTION
