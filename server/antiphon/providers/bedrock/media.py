"""Reads the images and recordings of a reply of the Converse API. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ImageBlock.html
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from antiphon.domain.content import Audio, Block, Image, JsonObject, Media, State
from antiphon.providers.codec.blocks import state_of
from antiphon.providers.codec.values import as_object, text

_TYPES: Final = {"image": "image/", "audio": "audio/"}
"""By member of the union: the beginning of its media type."""


def joined_base64(pieces: list[str]) -> str:
    """Return the base64 of the bytes of all pieces. Raises `ValueError` for other text."""
    return base64.b64encode(b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)).decode()


def media_block(name: str, value: JsonObject) -> Block:
    """Return an image or a recording. One that failed has no location, and its error in its state."""
    kind: type[Image | Audio] = Image if name == "image" else Audio
    match as_object(value.get("source")):
        case {"bytes": str(data), **others} if not others:
            url = f"data:{_TYPES[name]}{text(value.get('format'))};base64,{data}"
            rest = {key: one for key, one in value.items() if key not in ("source", "format")}
        case {"s3Location": {"uri": str(url), **others}} if not others:
            rest = {key: one for key, one in value.items() if key != "source"}
        case _:
            return kind(media=Media(), state=State(fields=value))
    return kind(media=Media(url=url), state=state_of(None, rest))
