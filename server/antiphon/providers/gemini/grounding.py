"""Reads the sources that the Gemini API names for a text: grounding by searches, and recited works. No I/O.

https://ai.google.dev/gemini-api/docs/google-search. The offsets of the API count bytes of UTF-8; those of the domain count
characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from antiphon.domain.content import Citation, JsonObject
from antiphon.domain.events import Batch, CitationDelta
from antiphon.providers.codec.values import as_object, is_shallow

_RECITED: Final = frozenset({"startIndex", "endIndex", "uri", "title"})


def add_grounding(metadata: JsonObject, texts: dict[int, str], events: Batch) -> None:
    """Append the citations of `groundingMetadata`. `texts` are those of the open blocks, by number.

    A passage that is in none of them is left out.
    """
    chunks = metadata.get("groundingChunks")
    for support in map(as_object, metadata.get("groundingSupports") or ()):
        found = _find(as_object(support.get("segment")), texts)
        if found is None:
            continue
        block, start, end = found
        passage = texts[block][start:end]
        for source in _sources(support, chunks if isinstance(chunks, list) else []):
            events.append(
                CitationDelta(block, Citation(_text(source.get("uri")), _text(source.get("title")), passage, start=start, end=end))
            )


def recited(raw: JsonObject, texts: dict[int, str]) -> CitationDelta | None:
    """Return the citation of a recited work; None if there is no open text, or the entry is of another shape."""
    block = next((number for number in reversed(texts) if texts[number]), None)
    if block is None or not is_shallow(raw):
        return None
    text = texts[block]
    start, end = _characters(text, raw.get("startIndex", 0)), _characters(text, raw.get("endIndex"))
    passage = "" if start is None or end is None else text[start:end]
    fields = {name: value for name, value in raw.items() if name not in _RECITED}
    return CitationDelta(
        block, Citation(_text(raw.get("uri")), _text(raw.get("title")), passage, start=start, end=end, fields=fields)
    )


def _sources(support: JsonObject, chunks: list[Any]) -> Iterator[JsonObject]:
    """Return the sources of a passage: objects with `uri` and `title`."""
    for index in support.get("groundingChunkIndices") or ():
        if type(index) is int and 0 <= index < len(chunks):
            yield next(map(as_object, as_object(chunks[index]).values()), {})


def _find(segment: JsonObject, texts: dict[int, str]) -> tuple[int, int, int] | None:
    """Return the block of a passage, and its place there in characters; None if it is in none of the texts."""
    passage = _text(segment.get("text"))
    for number, text in texts.items():
        start, end = _characters(text, segment.get("startIndex", 0)), _characters(text, segment.get("endIndex"))
        if start is not None and end is not None and start < end and passage in ("", text[start:end]):
            return number, start, end
    for number, text in texts.items():
        at = text.find(passage) if passage else -1
        if at >= 0:
            return number, at, at + len(passage)
    return None


def _characters(text: str, offset: object) -> int | None:
    """Return the characters in the first `offset` bytes of a text; None if it is shorter, or the offset is within a character."""
    if type(offset) is not int or not 0 <= offset <= 4 * len(text):
        return None
    data = text.encode("utf-8", "surrogatepass")
    try:
        return None if offset > len(data) else len(data[:offset].decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
