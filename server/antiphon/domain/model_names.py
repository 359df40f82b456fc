"""Names of models, as callers and operators write them: what may be one, and which pattern it fits. No I/O."""

from __future__ import annotations

from fnmatch import fnmatchcase


def is_name(text: str) -> bool:
    """Whether it can be a model's name: nothing but what shows, and no white space at its ends.

    A provider may read "gpt-4o " or "gpt-4o" with a line break as gpt-4o, where no price and no list of models here would.
    """
    return text.isprintable() and text == text.strip()


def fits(name: str, pattern: str) -> bool:
    """Whether a name is the one that is written, in which `*` stands for any characters, and all others for themselves."""
    return name == pattern or ("*" in pattern and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")))
