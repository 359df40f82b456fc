"""Names and ids of function calls, as the Gemini API accepts them. No I/O.

A name starts with a letter or an underscore, and has at most 64 letters, digits, underscores, dots, colons and dashes. The id of a
call is optional: where the API sends none, one is made here, which is never sent to it.
"""

from __future__ import annotations

import re
from typing import Final

from antiphon.providers.codec.names import NameRule, stable_hash

NAMES: Final = NameRule(re.compile(r"[A-Za-z_][A-Za-z0-9_.:\-]*"), re.compile(r"[^A-Za-z0-9_.:\-]"), 64)

_MADE: Final = "gemini-"
"""The start of the ids that are made here."""


def made_id(reply: str, number: int) -> str:
    """Return the id of a call that has none: the same for each reading of the reply `reply`."""
    return f"{_MADE}{stable_hash(f'{reply}/{number}')[:24]}"


def is_made(call_id: str) -> bool:
    """Return whether an id was made here."""
    return call_id.startswith(_MADE)
