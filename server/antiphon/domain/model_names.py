"""Names of models, as callers and operators write them: what may be one, and which pattern it fits. No I/O."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

LONGEST: Final = 256
"""The most characters of a model's name: it is a key in the database, a label, and stands in every log line of a call."""


def is_name(text: str) -> bool:
    """Return whether it can be a model's name: not too long, printable, and without white space at its ends.

    A provider may read "gpt-4o " or "gpt-4o" with a line break as gpt-4o, where no price and no list of models here would.
    """
    return len(text) <= LONGEST and text.isprintable() and text == text.strip()


def fits(name: str, pattern: str) -> bool:
    """Whether a name is the one that is written, in which `*` stands for any characters, and all others for themselves."""
    return name == pattern or ("*" in pattern and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")))
