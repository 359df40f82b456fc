"""Writes media as parts of a Gemini request. No I/O.

https://ai.google.dev/gemini-api/docs/file-input-methods. Bytes are `inlineData`, a URL or an uploaded file is `fileData`.
"""

from __future__ import annotations

import mimetypes
from typing import Any, Final
from urllib.parse import urlsplit

from antiphon.domain.content import Audio, Document, Image, JsonObject, Video
from antiphon.domain.errors import Unsupported
from antiphon.providers.codec.data_url import base64_of, picture_type

_PDF: Final = "application/pdf"
_PDF_BEGINS: Final = "JVBER"
"""The base64 of `%PDF`."""
_BINARY: Final = "application/octet-stream"

_FILES: Final = "files/"
_FILES_URL: Final = "https://generativelanguage.googleapis.com/v1beta/"

_PART_FIELDS: Final = frozenset({"videoMetadata", "mediaResolution", "mediaProcessing", "partMetadata"})
"""The fields of a part that callers may set and the domain has no place for."""


def media_part(block: Image | Audio | Video | Document, provider: str) -> dict[str, Any]:
    """Return a block as a part. Raises `Unsupported` if it has neither bytes nor an address that the API knows."""
    fields = {name: value for name, value in block.extra.items() if name in _PART_FIELDS}
    url, file_id = block.media.url, block.media.file_id
    if url is not None and (url.startswith("data:") or (isinstance(block, Document) and "://" not in url)):
        return {"inlineData": _inline(url, block), **fields}
    if url is None and file_id is not None:
        url = _FILES_URL + file_id if file_id.startswith(_FILES) else file_id if "://" in file_id else None
    if url is None:
        raise Unsupported(
            f'The provider {provider} accepts files as bytes, as URLs, and by its own names, such as "files/abc".',
            provider=provider,
        )
    data: dict[str, Any] = {"fileUri": url}
    kind = _guess(urlsplit(url).path) or _named(block)
    if kind:
        data["mimeType"] = kind
    return {"fileData": data, **fields}


def _inline(url: str, block: Image | Audio | Video | Document) -> JsonObject:
    """Return the bytes of a `data:` URL, or those of a document in base64 alone."""
    kind, data = base64_of(url) if url.startswith("data:") else ("", url)
    if isinstance(block, Image):
        kind = picture_type(kind, data)
    elif kind in ("", _BINARY):
        kind = _named(block) or (_PDF if data.startswith(_PDF_BEGINS) else kind)
    return {"mimeType": kind or "text/plain", "data": data}


def _named(block: Image | Audio | Video | Document) -> str | None:
    return _guess(block.filename) if isinstance(block, Document) and block.filename else None


def _guess(path: str) -> str | None:
    return mimetypes.guess_type(path)[0]
