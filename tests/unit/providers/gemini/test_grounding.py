"""Sources of a text."""

from typing import Any

import pytest

from antiphon.domain.content import Citation
from antiphon.domain.events import Batch, CitationDelta
from antiphon.providers.gemini.grounding import add_grounding, recited

CHUNKS = [{"web": {"uri": "https://a", "title": "A"}}, {"retrievedContext": {"uri": "gs://b"}}]
TEXTS = {3: "Zürich is ", 5: "größer. Bern is not."}


def cited(**support: Any) -> Batch:
    events: Batch = []
    add_grounding({"groundingChunks": CHUNKS, "groundingSupports": [support]}, TEXTS, events)
    return events


def test_bytes_are_characters() -> None:
    """Offsets count bytes there, and characters here; each source is a citation."""
    assert cited(segment={"startIndex": 0, "endIndex": 7, "text": "Zürich"}, groundingChunkIndices=[0, 1, 9, "x"]) == [
        CitationDelta(3, Citation("https://a", "A", "Zürich", start=0, end=6)),
        CitationDelta(3, Citation("gs://b", "", "Zürich", start=0, end=6)),
    ]


@pytest.mark.parametrize(
    ("segment", "place"),
    [
        ({"startIndex": 10, "endIndex": 14, "text": "Bern"}, (5, 8, 12)),
        ({"startIndex": 99, "endIndex": 103, "text": "Bern"}, (5, 8, 12)),
        ({"text": "Bern"}, (5, 8, 12)),
        ({"endIndex": 7}, (3, 0, 6)),
        ({"startIndex": 2, "endIndex": 4, "text": "no"}, (5, 16, 18)),
        ({"text": "Basel"}, None),
        ({"startIndex": 2, "endIndex": 2}, None),
        ({}, None),
        (None, None),
    ],
)
def test_places(segment: Any, place: tuple[int, int, int] | None) -> None:
    """A passage is found by its offsets if they fit its text, else by its text, else not at all."""
    events = cited(segment=segment, groundingChunkIndices=[0])
    found = [(event.block, event.citation.start, event.citation.end) for event in events if isinstance(event, CitationDelta)]
    assert found == ([] if place is None else [place])


def test_recited_works() -> None:
    """They are citations of the last text, with their licence."""
    raw = {"startIndex": 2, "endIndex": 7, "uri": "u", "license": "mit"}
    assert recited(raw, {1: "größe"}) == CitationDelta(1, Citation("u", "", "öße", start=2, end=5, fields={"license": "mit"}))
    assert recited({"endIndex": 99, "title": "t"}, {1: "x"}) == CitationDelta(1, Citation("", "t", "", start=0, end=None))
    assert recited(raw, {}) is None
