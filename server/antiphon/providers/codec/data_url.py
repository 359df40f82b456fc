"""The data of `data:` URLs, as the APIs take it that have no such URLs. No I/O."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from antiphon.domain.errors import InvalidRequest

_PICTURES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
)
"""How the data of pictures begins, and their media types."""

_START: Final = 16
"""The characters of base64 that are looked at."""

_SAME: Final = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
"""Other names of media types."""


def picture_type(media_type: str, data: str) -> str:
    """Return the media type of a picture in base64: of what its data is, else what the caller says.

    Many callers name another type than that of the data, which some APIs refuse.
    """
    try:
        start = base64.b64decode(data[:_START])
    except (binascii.Error, ValueError):
        start = b""
    found = next((name for pattern, name in _PICTURES if pattern.match(start)), None)
    return found or _SAME.get(media_type, media_type)


def base64_of(url: str) -> tuple[str, str]:
    """Return the media type and the base64 of a `data:` URL. Raises `InvalidRequest`."""
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma:
        raise InvalidRequest("A data URL has no comma.")
    media_type, *parameters = (word.strip().lower() for word in head.split(";"))
    if "base64" not in parameters:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return media_type, data
