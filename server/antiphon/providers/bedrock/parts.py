"""Writes the parts of user messages and of tool results for the Converse API. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html. The API fetches nothing from the web:
pictures, documents, recordings and videos are sent along, or are in S3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import Audio, Block, Document, Image, JsonObject, Media, Opaque, Refusal, Text, Video
from antiphon.domain.errors import Unsupported
from antiphon.providers.codec.data_url import base64_of, picture_type

CACHE_POINT: Final = "cachePoint"

_S3: Final = "s3://"
_BINARY: Final = "application/octet-stream"

_INNER: Final = ("image_url", "file", "function")
"""The objects in which the dialects keep unknown fields of a part."""

_IMAGES: Final = {f"image/{name}": name for name in ("png", "jpeg", "gif", "webp")}
_AUDIO: Final = {
    "audio/mpeg": "mp3",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/x-m4a": "m4a",
    "audio/x-matroska": "mka",
    "audio/pcm16": "pcm",
} | {f"audio/{name}": name for name in ("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "x-aac", "m4a", "pcm", "webm")}
_VIDEOS: Final = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/x-flv": "flv",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
} | {f"video/{name}": name for name in ("mp4", "webm", "mpeg")}
_VIDEO_ENDINGS: Final = {"mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv"}
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_DOCUMENT_FORMATS: Final = frozenset(_DOCUMENTS.values())
_TEXTUAL: Final = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})

_REFUSED_IN_NAMES: Final = re.compile(r"[^0-9A-Za-z\s\-()\[\]]+")
_WHITE_SPACE: Final = re.compile(r"\s+")
_LONGEST_NAME: Final = 200


class DocumentNames:
    """The names of the documents of one request. No two are the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, document: Document) -> str:
        """Return the name that is sent for a document. One without a usable title is named by its number."""
        wanted = document.title or (document.filename or "").rpartition("/")[2]
        stem, dot, ending = wanted.rpartition(".")
        wanted = stem if dot and stem and ending.lower() in _DOCUMENT_FORMATS else wanted
        plain = _WHITE_SPACE.sub(" ", _REFUSED_IN_NAMES.sub(" ", wanted)).strip()[:_LONGEST_NAME].strip()
        name = plain or "document"
        number = 2
        while name in self._taken:
            end = f" {number}"
            name = (plain or "document")[: _LONGEST_NAME - len(end)].strip() + end
            number += 1
        self._taken.add(name)
        return name


def cache_point(extra: JsonObject) -> list[JsonObject]:
    """Return the mark that follows what is to be cached, as a list of one; of none if the caller wants none.

    Callers write it as it is, or as Anthropic's `cache_control`.
    """
    for fields in (extra, *(extra.get(inner) for inner in _INNER)):
        if not isinstance(fields, Mapping):
            continue
        if isinstance(point := fields.get(CACHE_POINT), Mapping):
            return [{CACHE_POINT: point}]
        if isinstance(mark := fields.get("cache_control"), Mapping):
            time = {"ttl": mark["ttl"]} if mark.get("ttl") else {}
            return [{CACHE_POINT: {"type": "default", **time}}]
    return []


def native(form: JsonObject) -> JsonObject:
    """Return a caller's own block or tool. One with a `type`, as other APIs have it, is a member of a union by that name."""
    kind = form.get("type")
    return {kind: form[kind]} if isinstance(kind, str) and isinstance(form.get(kind), Mapping) else form


def part_of(block: Block, provider: str, names: DocumentNames) -> JsonObject | None:
    """Return a block as a part; None for blank text, which the API refuses.

    Raises `Unsupported` for blocks that the API cannot express, and `InvalidRequest` for data that cannot be read.
    """
    match block:
        case Text(text=text) | Refusal(text=text) | Audio(transcript=text, id=str()) if text:
            return {"text": text} if text.strip() else None
        case Text() | Refusal():
            return None
        case Image():
            return {"image": _media(block.media, _IMAGES, frozenset(_IMAGES.values()), "images", provider)}
        case Audio():
            return {"audio": _media(block.media, _AUDIO, frozenset(_AUDIO.values()), "recordings", provider)}
        case Video():
            return {"video": _media(block.media, _VIDEOS, frozenset(_VIDEO_ENDINGS), "videos", provider)}
        case Document():
            return {"document": _document(block, provider, names)}
        case Opaque():
            return native(block.form)
        case _:
            raise Unsupported(f"The provider {provider} accepts no {type(block).__name__} here.", provider=provider)


def _media(media: Media, formats: Mapping[str, str], endings: frozenset[str], kind: str, provider: str) -> dict[str, Any]:
    """Return the format and the source. `formats` are those of media types, and `endings` those of names in S3."""
    url = media.url or ""
    if url.startswith(_S3):
        ending = url.rpartition(".")[2].lower()
        found: str | None = {"jpg": "jpeg", "3gp": "three_gp"}.get(ending, ending if ending in endings else None)
        source: JsonObject = {"s3Location": {"uri": url}}
    elif url.startswith("data:"):
        media_type, data = base64_of(url)
        found, source = formats.get(picture_type(media_type, data) if formats is _IMAGES else media_type), {"bytes": data}
    else:
        raise Unsupported(f"The provider {provider} accepts {kind} only as data, or in S3.", provider=provider)
    if found is None:
        raise Unsupported(f"The provider {provider} does not accept {kind} of this format.", provider=provider)
    return {"format": found, "source": source}


def _document(block: Document, provider: str, names: DocumentNames) -> JsonObject:
    url = block.media.url or ""
    ending = (url if url.startswith(_S3) else block.filename or "").rpartition(".")[2].lower()
    media_type = ""
    if url.startswith(_S3):
        source: JsonObject = {"s3Location": {"uri": url}}
    elif block.media.file_id is None and not url.startswith(("http://", "https://")):
        media_type, data = base64_of(url) if url.startswith("data:") else ("", url)
        source = {"bytes": data}
    else:
        raise Unsupported(f"The provider {provider} accepts documents only as data, or in S3.", provider=provider)
    found = _DOCUMENTS.get(media_type)
    if found is None and ending in _DOCUMENT_FORMATS:
        found = ending
    if found is None and media_type in ("", _BINARY):
        found = "pdf"
    if found is None and (media_type.startswith("text/") or media_type in _TEXTUAL):
        found = "txt"
    if found is None:
        raise Unsupported(f"The provider {provider} does not accept documents of this format.", provider=provider)
    inner = block.extra.get("file")
    fields = {**(inner if isinstance(inner, Mapping) else {}), **block.extra}
    own = {name: fields[name] for name in ("citations", "context") if fields.get(name) is not None}
    return {"format": found, "name": names.name(block), "source": source, **own}
