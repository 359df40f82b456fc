"""The response header with the warnings about parameters, for all dialects that chat. It knows no dialect.

The header is a list in the form of https://www.rfc-editor.org/rfc/rfc9651, which people can read as well:

    x-antiphon-warnings: seed;dropped;reason="the API has no seed", reasoning_effort;mapped="thinking.budget_tokens";reason="..."
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from antiphon.domain.warnings import Treatment, Warnings
from antiphon.rest.shared.body import Path

WARNINGS_HEADER: Final = "x-antiphon-warnings"

MAX_LENGTH: Final = 2000
"""The most characters of the header. What does not fit is counted, as in `more;count=3`."""

_NOT_IN_TOKEN: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~:/-]")
_NOT_IN_STRING: Final = re.compile(r"[^ -~]")
_COUNT_LENGTH: Final = len(", more;count=") + 5


def write_header(headers: dict[str, str], name: Callable[[Path], Path], warnings: Warnings) -> None:
    """Set the header of these warnings, or remove it if there are none. `name` converts a path into that of the caller's body."""
    if not warnings:
        headers.pop(WARNINGS_HEADER, None)
        return
    items: list[str] = []
    left = MAX_LENGTH - _COUNT_LENGTH
    for warning in warnings:
        item = _token(name(warning.path))
        is_mapped = warning.treatment is Treatment.MAPPED
        item += f";mapped={_string(warning.replacement)}" if is_mapped else f";{warning.treatment}"
        item += f";reason={_string(warning.reason)}"
        left -= len(item) + 2
        if left < 0:
            items.append(f"more;count={len(warnings) - len(items)}")
            break
        items.append(item)
    headers[WARNINGS_HEADER] = ", ".join(items)


def _token(path: Path) -> str:
    """Return a path as a token. A name of a caller's own field may have characters that a token may not."""
    token = _NOT_IN_TOKEN.sub("_", ".".join(map(str, path)))[:100]
    return token if token[:1].isalpha() or token.startswith("*") else f"*{token}"


def _string(text: str) -> str:
    text = _NOT_IN_STRING.sub("?", text)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
