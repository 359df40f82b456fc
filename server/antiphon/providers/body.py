"""Writes the JSON body of a request. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from antiphon.domain.errors import InvalidRequest


def dumps(body: dict[str, Any]) -> bytes:
    """Return the JSON of a body. Raises `InvalidRequest` if it cannot be encoded."""
    try:
        return orjson.dumps(body, default=_plain)
    except orjson.JSONEncodeError:
        pass  # perhaps an integer of more than 64 bits, which msgspec, though slower, can encode
    try:
        return msgspec.json.encode(body, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest("The request cannot be sent as JSON: it is nested too deeply, or contains invalid text.") from None


def _plain(value: object) -> object:
    """Return a mapping as a `dict`, the only kind that the encoders know. Raises `TypeError` for any other value."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
