"""What is no text for the model, though it is a string: ids, signatures, encrypted content and URLs. No I/O."""

from __future__ import annotations

import re
from typing import Final

_OPAQUE: Final = re.compile(r"[\x21-\x7e]*")
"""Visible ASCII without a space: what has another character is a text."""


def is_opaque(value: str) -> bool:
    """Return whether nobody reads a value as text, so that no guard does."""
    return _OPAQUE.fullmatch(value) is not None
