"""Pictures of replies and media in results of tools, for APIs that take them from the user alone. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from antiphon.domain.content import NOTHING, Audio, Block, Document, Image, ToolResult, Video
from antiphon.domain.errors import InvalidRequest, Unsupported

_MEDIA: Final = (Image, Audio, Video, Document)

_ADDRESSES: Final = ("data:", "https://", "http://")


def without_media(result: ToolResult, media: list[Block]) -> ToolResult:
    """Return a result without its pictures, recordings and documents, which are appended to `media`."""
    found = [block for block in result.blocks if isinstance(block, _MEDIA)]
    if not found:
        return result
    media += found
    return replace(result, blocks=tuple(block for block in result.blocks if not isinstance(block, _MEDIA)))


def of_the_user(picture: Image, write: Callable[[Image], object], addresses: tuple[str, ...] = _ADDRESSES) -> list[Block]:
    """Return a picture of a reply as one that the user sends, as a list of one; of none if the API cannot take it.

    A picture may have failed, be of a format that the API does not know, or be where only its provider reads it. The conversation
    goes on without it, as the caller cannot change what a model has made. `write` is the encoder of pictures of the user, and
    `addresses` are the beginnings of the URLs that the API reads.
    """
    made = replace(picture, state=None, extra=NOTHING)
    if not (made.media.url or "").startswith(addresses):
        return []
    try:
        write(made)
    except (InvalidRequest, Unsupported):
        return []
    return [made]
