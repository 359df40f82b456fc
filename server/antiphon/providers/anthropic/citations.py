"""Reads and writes the citations of Anthropic's Messages API. No I/O.

https://platform.claude.com/docs/en/build-with-claude/citations. The offsets of a citation are those in the document that it cites,
not in the answer, and so are kept with the fields that only this API has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import Citation, JsonObject

_NAMES: Final = (("url", "url"), ("title", "title"), ("text", "cited_text"), ("source_id", "file_id"))
"""The domain's name of a field, and the API's."""

_TITLE_OF_DOCUMENT: Final = "document_title"
_OF_DOCUMENTS: Final = frozenset({"char_location", "page_location", "content_block_location"})


def read_citation(raw: object) -> Citation:
    """Return a citation. Raises `TypeError` for JSON of another shape."""
    if not isinstance(raw, Mapping):
        raise TypeError("citation")
    fields = dict(raw)
    known: dict[str, Any] = {}
    for ours, theirs in (*_NAMES, ("title", _TITLE_OF_DOCUMENT)):
        if ours not in known and isinstance(value := fields.get(theirs), str) and value:
            known[ours] = fields.pop(theirs)
    return Citation(**known, fields=fields)


def citation_json(citation: Citation) -> JsonObject:
    """Return a citation as the API sent it."""
    result: dict[str, Any] = {}
    is_of_document = citation.fields.get("type") in _OF_DOCUMENTS
    for ours, theirs in _NAMES:
        if value := getattr(citation, ours):
            result[_TITLE_OF_DOCUMENT if ours == "title" and is_of_document else theirs] = value
    return {**result, **citation.fields}
