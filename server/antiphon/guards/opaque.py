"""Tells ids, signatures, encrypted content and URLs from text, which guards filter. No I/O."""

from __future__ import annotations

import re
from typing import Final

_OPAQUE: Final = re.compile(r"[\x21-\x7e]*")
"""Visible ASCII without spaces; a string with any other character counts as text."""


def is_opaque(value: str) -> bool:
    """Return whether a value is not text, so that guards do not filter it."""
    return _OPAQUE.fullmatch(value) is not None
