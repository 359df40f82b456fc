"""The data of `data:` URLs, as the APIs take it that have no such URLs. No I/O."""

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes

from antiphon.domain.errors import InvalidRequest


def base64_of(url: str) -> tuple[str, str]:
    """Return the media type and the base64 of a `data:` URL. Raises `InvalidRequest`."""
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma:
        raise InvalidRequest("A data URL has no comma.")
    media_type, *parameters = (word.strip().lower() for word in head.split(";"))
    if "base64" not in parameters:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return media_type, data
