"""Writes blocks as the content of a message of the chat-completions API. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from antiphon.domain.content import Audio, Block, Document, Image, JsonObject, Opaque, Refusal, Text, Video, with_extra
from antiphon.domain.errors import Unsupported

_AUDIO_FORMATS: Final = {"mpeg": "mp3", "wave": "wav", "vnd.wave": "wav", "mp4": "m4a"}
"""The API's name of an `audio/` subtype, if it differs from the subtype."""


def content_json(
    blocks: Iterable[Block | JsonObject],
    provider: str,
    *,
    listed: bool,
    joins: bool = False,
    document_urls: bool = False,
    videos: bool = True,
) -> str | list[JsonObject] | None:
    """Return the content: a string for a single text, because some hosts accept nothing else; otherwise a list.

    `listed`: the caller sent a list, so it stays one. `joins`: several texts are concatenated without a separator.
    `document_urls` and `videos`: see `HostCapabilities`. Returns None for no content.
    """
    blocks = list(blocks)
    if not blocks:
        return [] if listed else None
    texts = [block.text for block in blocks if isinstance(block, Text) and not block.extra]
    if not listed and len(texts) == len(blocks) and (joins or len(texts) == 1):
        return "".join(texts)
    return [
        _part(block, provider, document_urls=document_urls, videos=videos) if isinstance(block, Struct) else block
        for block in blocks
    ]


def _part(block: Block, provider: str, *, document_urls: bool, videos: bool) -> JsonObject:
    """Return a block as a content part. Raises `Unsupported` for blocks that this API cannot express."""
    match block:
        case Text():
            return with_extra({"type": "text", "text": block.text}, block.extra)
        case Image():
            if block.media.url is None:
                raise Unsupported(f"The provider {provider} accepts an image only as a URL.", provider=provider)
            image = {"url": block.media.url} if block.detail is None else {"url": block.media.url, "detail": block.detail}
            return with_extra({"type": "image_url", "image_url": image}, block.extra)
        case Audio() if document_urls and block.media.url is not None:
            head, comma, data = block.media.url.partition(";base64,")
            return with_extra({"type": "input_audio", "input_audio": data if comma else head}, block.extra)
        case Audio():
            return with_extra({"type": "input_audio", "input_audio": _audio(block, provider)}, block.extra)
        case Document() if document_urls:
            return with_extra(_document(block), block.extra)
        case Document():
            media = block.media
            file = {"file_id": media.file_id} if media.file_id is not None else {"file_data": media.url}
            if block.filename is not None:
                file["filename"] = block.filename
            return with_extra({"type": "file", "file": file}, block.extra)
        case Refusal():
            return {"type": "refusal", "refusal": block.text}
        case Opaque():
            return block.form
        case Video() if videos:
            return _video(block, provider)
        case _:
            raise Unsupported(f"The provider {provider} accepts no {type(block).__name__} here.", provider=provider)


def _video(block: Video, provider: str) -> JsonObject:
    if block.media.url is None:
        raise Unsupported(f"The provider {provider} accepts a video only as a URL.", provider=provider)
    return with_extra({"type": "video_url", "video_url": {"url": block.media.url}}, block.extra)


def _document(block: Document) -> JsonObject:
    """Return a document in Mistral's form."""
    if block.media.file_id is not None:
        return {"type": "file", "file_id": block.media.file_id}
    name = {} if block.filename is None else {"document_name": block.filename}
    return {"type": "document_url", "document_url": block.media.url, **name}


def _audio(block: Audio, provider: str) -> JsonObject:
    """Return the value of `input_audio`. Raises `Unsupported` unless the media is a base64 `data:` URL of a recording."""
    head, comma, data = (block.media.url or "").partition(",")
    media_type, *parameters = head.removeprefix("data:").lower().split(";")
    kind, _, subtype = media_type.partition("/")
    if not comma or not head.startswith("data:") or kind != "audio" or "base64" not in parameters:
        raise Unsupported(f"The provider {provider} accepts a recording only as a data URL with its media type.", provider=provider)
    subtype = subtype.removeprefix("x-")
    return {"data": data, "format": _AUDIO_FORMATS.get(subtype, subtype)}
