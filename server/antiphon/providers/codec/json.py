"""Reads JSON as providers write it, even where it is not quite valid. No I/O.

Nearly all of it is decoded directly by `msgspec`, which keeps integers of any length. Whatever it rejects is decoded again and
repaired: a byte order mark, `NaN` and `Infinity`, and single surrogates, because some hosts cut a text in the middle of a surrogate
pair.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from antiphon.net import json_bounds

decode: Final = msgspec.json.Decoder().decode
"""Decode valid JSON of any size. Raises `ValueError`, and `RecursionError` if it is nested too deeply."""

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

_BOM: Final = b"\xef\xbb\xbf"
_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF: Final = re.compile("[\ud800-\udfff]")


def read(payload: bytes) -> Any:
    """Decode a text. Raises `ValueError` if it is not JSON or too large, and `RecursionError` if it is nested too deeply."""
    if len(payload) > json_bounds.SMALL:
        json_bounds.check(payload)
    try:
        return decode(payload)
    except ValueError:
        return _mended(load(payload))


def load(payload: bytes) -> Any:
    """Decode a text that `decode` rejects. Texts in it may have single surrogates. Raises as `read` does."""
    return json.loads(payload.removeprefix(_BOM))


def join_halves(text: str) -> str:
    """Return a text in which each pair of surrogates is one character."""
    return _PAIR.sub(_joined, text) if _HALF.search(text) else text


def replace_halves(text: str) -> str:
    """Return a text in which each single surrogate is a replacement character."""
    return _HALF.sub(REPLACEMENT, text)


def _mended(value: Any) -> Any:
    match value:
        case str():
            return replace_halves(join_halves(value))
        case dict():
            return {name: _mended(field) for name, field in value.items()}
        case list():
            return [_mended(item) for item in value]
        case _:
            return value


def _joined(pair: re.Match[str]) -> str:
    return pair.group().encode("utf-16", "surrogatepass").decode("utf-16")
