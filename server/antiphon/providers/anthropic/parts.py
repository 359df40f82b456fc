"""Writes the parts of user messages and of tool results for Anthropic's Messages API. No I/O.

https://platform.claude.com/docs/en/api/messages. Of the caller's unknown fields only those that the API documents are sent, because
it refuses all others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import Audio, Block, Document, Image, JsonObject, Media, Opaque, Refusal, Text
from antiphon.domain.errors import InvalidRequest, Unsupported
from antiphon.providers.codec.data_url import base64_of, picture_type

_PART_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("cache_control", "citations"),
    "image": ("cache_control", "transformations"),
    "document": ("cache_control", "citations", "context", "title"),
    "tool_use": ("cache_control", "caller", "toolset_name"),
    "tool_result": ("cache_control", "toolset_name"),
}
"""By type of part: the fields that a caller may add."""

_INNER: Final = ("image_url", "file", "function")
"""The objects in which the dialects keep unknown fields of a part."""

_WEB: Final = ("http://", "https://")
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF: Final = "application/pdf"
_EXTENSIONS: Final = {"pdf": _PDF, "txt": "text/plain", "md": "text/markdown", "csv": "text/csv", "html": "text/html"}
_TEXTUAL: Final = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


def with_caller_fields(part: dict[str, Any], extra: JsonObject) -> dict[str, Any]:
    """Return the part with those of the caller's fields added that the API documents."""
    for name in _PART_FIELDS.get(part["type"], ()):
        for fields in (extra, *(extra.get(inner) for inner in _INNER)):
            value = fields.get(name) if isinstance(fields, Mapping) else None
            if value is not None:
                part.setdefault(name, value)
    return part


def part_of(block: Block, provider: str) -> JsonObject | None:
    """Return a block as a part; None for blank text, which the API refuses.

    Raises `Unsupported` for blocks that the API cannot express, and `InvalidRequest` for data that cannot be decoded.
    """
    part: dict[str, Any]
    match block:
        case Text(text=text) | Refusal(text=text) | Audio(transcript=text, id=str()) if text:
            if not text.strip():
                return None
            part = {"type": "text", "text": text}
        case Text() | Refusal():
            return None
        case Image():
            part = {"type": "image", "source": _image_source(block.media, provider)}
        case Document():
            part = {"type": "document", "source": _document_source(block, provider)}
            if title := block.title or block.filename:
                part["title"] = title
        case Opaque():
            return block.form
        case _:
            raise Unsupported(f"The provider {provider} accepts no {type(block).__name__} here.", provider=provider)
    return with_caller_fields(part, block.extra)


def _image_source(media: Media, provider: str) -> JsonObject:
    if media.file_id is not None:
        return {"type": "file", "file_id": media.file_id}
    url = media.url or ""
    if url.startswith(_WEB):
        return {"type": "url", "url": url}
    if not url.startswith("data:"):
        raise Unsupported(f"The provider {provider} accepts images as data, and from the web.", provider=provider)
    media_type, data = base64_of(url)
    media_type = picture_type(media_type, data)
    if media_type not in _IMAGES:
        raise Unsupported(f"The provider {provider} accepts images as JPEG, PNG, GIF or WebP only.", provider=provider)
    return {"type": "base64", "media_type": media_type, "data": data}


def _document_source(block: Document, provider: str) -> JsonObject:
    if block.media.file_id is not None:
        return {"type": "file", "file_id": block.media.file_id}
    url = block.media.url or ""
    if url.startswith(_WEB):
        return {"type": "url", "url": url}
    media_type, data = base64_of(url) if url.startswith("data:") else ("", url)
    if media_type in ("", "application/octet-stream"):
        media_type = _EXTENSIONS.get((block.filename or "").rpartition(".")[2].lower(), media_type or _PDF)
    if media_type == _PDF:
        return {"type": "base64", "media_type": _PDF, "data": data}
    if media_type.startswith("text/") or media_type in _TEXTUAL:
        return {"type": "text", "media_type": "text/plain", "data": _decoded(data)}
    raise Unsupported(f"The provider {provider} accepts documents as PDF or text only.", provider=provider)


def _decoded(data: str) -> str:
    """Return the text in base64. Raises `InvalidRequest`."""
    try:
        return base64.b64decode(data, validate=False).decode()
    except (binascii.Error, ValueError):
        raise InvalidRequest("A document of text is not base64 of UTF-8.") from None
