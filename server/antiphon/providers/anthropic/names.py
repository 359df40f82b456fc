"""Names of tools and ids of calls in the form that Anthropic's API accepts. No I/O.

A name has at most 128 letters, digits, "_" and "-", an id any number of them. Other names, which callers of other APIs may use, are
replaced in the request, and put back in the reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_REFUSED: Final = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME: Final = 128


class ToolNames:
    """The names of the tools of one request."""

    def __init__(self, names: Iterable[str]) -> None:
        self._sent: dict[str, str] = {}
        self._original: dict[str, str] = {}
        names = tuple(dict.fromkeys(names))
        taken = {name for name in names if _is_accepted(name)}
        for name in names:
            if not _is_accepted(name):
                new = _unused(_REFUSED.sub("_", name)[:_MAX_NAME] or "_", taken)
                taken.add(new)
                self._sent[name] = new
                self._original[new] = name

    def sent(self, name: str) -> str:
        """Return the name that is sent for a tool of the request, or for one that only its messages mention."""
        return self._sent.get(name) or (name if _is_accepted(name) else _REFUSED.sub("_", name)[:_MAX_NAME] or "_")

    def original(self, name: str) -> str:
        """Return the caller's name for a name in the reply."""
        return self._original.get(name, name)


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


def _is_accepted(name: str) -> bool:
    return 0 < len(name) <= _MAX_NAME and not _REFUSED.search(name)


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, with a number at its end if it is taken."""
    if name not in taken:
        return name
    number = 2
    while (new := f"{name[: _MAX_NAME - 6]}_{number}") in taken:
        number += 1
    return new
