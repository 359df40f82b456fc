"""Names and ids of function calls, as the Gemini API accepts them. No I/O.

A name starts with a letter or an underscore, and has at most 64 letters, digits, underscores, dots, colons and dashes. Any other
name is replaced, and mapped back in the reply. The id of a call is optional: where the API sends none, one is made here, which is
never sent to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from antiphon.domain.request import NativeTool, Tool

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:\-]{0,63}")
_NOT_ALLOWED: Final = re.compile(r"[^A-Za-z0-9_.:\-]")
_NAME_LENGTH: Final = 64
_DIGITS: Final = 8
"""Digits of the hash that keeps replaced names unique."""

_MADE: Final = "gemini-"
"""The start of the ids that are made here."""


def sent_name(name: str) -> str:
    """Return the name under which a function is sent."""
    if _NAME.fullmatch(name):
        return name
    plain = _NOT_ALLOWED.sub("_", name)
    if not plain[:1].isalpha():
        plain = f"_{plain}"
    return f"{plain[: _NAME_LENGTH - _DIGITS - 1]}_{_hash(name)[:_DIGITS]}"


def original_names(tools: Iterable[Tool | NativeTool]) -> Mapping[str, str]:
    """Return the names of the tools that are sent under another one, by that one."""
    names = (tool.name for tool in tools if isinstance(tool, Tool))
    return {sent: name for name in names if (sent := sent_name(name)) != name}


def made_id(reply: str, number: int) -> str:
    """Return the id of a call that has none: the same for each reading of the reply `reply`."""
    return f"{_MADE}{_hash(f'{reply}/{number}')[:24]}"


def is_made(call_id: str) -> bool:
    """Return whether an id was made here."""
    return call_id.startswith(_MADE)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
