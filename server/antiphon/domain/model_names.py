"""Validation of model names, and matching of names against patterns. No I/O."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

MAX_CHARACTERS: Final = 256
"""The most characters of a model name: it is a key in the database, a metric label, and in every log line of a call."""


def is_name(text: str) -> bool:
    """Return whether `text` can be a model name: not too long, printable, and without white space at the ends.

    A provider may read "gpt-4o " or "gpt-4o" with a line break as gpt-4o, while prices and model lists here would not match it.
    """
    return len(text) <= MAX_CHARACTERS and text.isprintable() and text == text.strip()


def matches(name: str, pattern: str) -> bool:
    """Return whether a name equals `pattern`, in which `*` stands for any characters and all other characters for themselves."""
    return name == pattern or ("*" in pattern and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")))
