"""Names of tools and ids of calls in the form that Anthropic's API accepts. No I/O.

A name has at most 128 letters, digits, "_" and "-", an id any number of them. Other ids, which callers of other APIs may use, are
replaced in the request.
"""

from __future__ import annotations

import re
from typing import Final

from antiphon.providers.codec.names import NameRule

_REFUSED: Final = re.compile(r"[^a-zA-Z0-9_-]")

NAMES: Final = NameRule(re.compile(r"[a-zA-Z0-9_-]+"), _REFUSED, 128)


def accepted_id(call_id: str) -> str:
    """Return the id of a call in the form that the API accepts."""
    return _REFUSED.sub("_", call_id) or "call"
