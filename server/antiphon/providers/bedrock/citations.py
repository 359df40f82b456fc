"""Reads and writes the citations of the Converse API. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Citation.html. The offsets of a citation are those in the source
that it cites, not in the answer, and so are kept with the fields that only this API has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import Citation, JsonObject

_NAMES: Final = (("title", "title"), ("source_id", "source"))
"""The domain's name of a field, and the API's."""

_CONTENT: Final = "sourceContent"
_LOCATION: Final = "location"


def read_citation(raw: object) -> Citation:
    """Return a citation. Raises `TypeError` for JSON of another shape."""
    if not isinstance(raw, Mapping):
        raise TypeError("citation")
    fields = dict(raw)
    known: dict[str, Any] = {}
    for ours, theirs in _NAMES:
        if isinstance(value := fields.get(theirs), str) and value:
            known[ours] = fields.pop(theirs)
    match fields.get(_CONTENT):
        case [{"text": str(text), **others}] if text and not others:
            known["text"] = text
            del fields[_CONTENT]
    match fields.get(_LOCATION):
        case {"web": {"url": str(url), **others}} if url:  # the only kind with an address
            known["url"] = url
            fields[_LOCATION] = {"web": others}
    return Citation(**known, fields=fields)


def citation_json(citation: Citation) -> JsonObject:
    """Return a citation as the API sent it."""
    result: dict[str, Any] = {theirs: value for ours, theirs in _NAMES if (value := getattr(citation, ours))}
    if citation.text:
        result[_CONTENT] = [{"text": citation.text}]
    result |= citation.fields
    match result.get(_LOCATION):
        case {"web": dict(web)} if citation.url:
            result[_LOCATION] = {"web": {"url": citation.url, **web}}
    return result
