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


class CallIds:
    """The ids of the calls of one request."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}
        self._taken: set[str] = set()

    def sent(self, call_id: str) -> str:
        """Return the id that is sent for a call and for its result."""
        known = self._sent.get(call_id)
        if known is None:
            known = _unused(_REFUSED.sub("_", call_id) or "call", self._taken)
            self._sent[call_id] = known
            self._taken.add(known)
        return known


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, with a number at its end if it is taken."""
    if name not in taken:
        return name
    number = 2
    while (new := f"{name}_{number}") in taken:
        number += 1
    return new
