"""Reads the parts of an OpenAI answer that always arrive whole: citations and images. No I/O."""

from __future__ import annotations

from typing import Final

from antiphon.domain.content import Citation, Image, Media
from antiphon.providers.codec.blocks import state_of
from antiphon.providers.codec.values import MAX_INDEX, is_shallow

_CITED: Final = "url_citation"
_CITATION: Final = frozenset({"url", "title", "start_index", "end_index"})


def read_citation(annotation: object) -> Citation | None:
    """Return a citation if the annotation has the documented form, else None."""
    cited = annotation.get(_CITED) if isinstance(annotation, dict) and annotation.get("type") == _CITED else None
    if not isinstance(annotation, dict) or not isinstance(cited, dict) or not isinstance(cited.get("url"), str):
        return None
    title, start, end = cited.get("title", ""), cited.get("start_index"), cited.get("end_index")
    if not isinstance(title, str) or not _is_offset(start) or not _is_offset(end):
        return None
    inner = {name: value for name, value in cited.items() if name not in _CITATION}
    fields = {name: value for name, value in annotation.items() if name not in ("type", _CITED)}
    if inner:
        fields[_CITED] = inner
    return Citation(cited["url"], title, start=start, end=end, fields=fields) if is_shallow(fields) else None


def _is_offset(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MAX_INDEX)


def read_image(image: object) -> Image | None:
    """Return an image if it has the documented form of an `image_url` part, else None."""
    inner = image.get("image_url") if isinstance(image, dict) and image.get("type") == "image_url" else None
    if not isinstance(image, dict) or not isinstance(inner, dict) or not isinstance(inner.get("url"), str):
        return None
    fields = {name: value for name, value in image.items() if name not in ("type", "image_url")}
    if more := {name: value for name, value in inner.items() if name != "url"}:
        fields["image_url"] = more
    return Image(Media(inner["url"]), state=state_of(None, fields)) if is_shallow(fields) else None
