"""Tests of citations and images in the documented form of the API."""

from typing import Any

import pytest

from antiphon.domain.content import Citation, Image, Media, State
from antiphon.providers.openai.attachments import read_citation, read_image

URL = "https://x.test/"


def cited(**fields: Any) -> dict[str, Any]:
    return {"type": "url_citation", "url_citation": {"url": URL, **fields}}


@pytest.mark.parametrize(
    ("annotation", "citation"),
    [
        (cited(title="X", start_index=0, end_index=5), Citation(URL, "X", start=0, end=5)),
        (cited(), Citation(URL)),
        ({**cited(content="c"), "x": 1}, Citation(URL, fields={"x": 1, "url_citation": {"content": "c"}})),
        (cited(start_index=-1), None),
        (cited(end_index=2**31), None),
        (cited(start_index=True), None),
        (cited(title=5), None),
        (cited(url=5), None),
        ({"type": "file_citation", "file_citation": {"url": URL}}, None),
        ("x", None),
    ],
)
def test_a_source(annotation: object, citation: Citation | None) -> None:
    """A documented annotation becomes a citation and keeps its unknown fields. One with impossible positions or types is None."""
    assert read_citation(annotation) == citation


@pytest.mark.parametrize(
    ("image", "block"),
    [
        ({"type": "image_url", "image_url": {"url": URL}}, Image(Media(URL))),
        (
            {"type": "image_url", "index": 0, "image_url": {"url": URL, "x": 1}},
            Image(Media(URL), state=State(fields={"index": 0, "image_url": {"x": 1}})),
        ),
        ({"type": "image_url", "image_url": URL}, None),
        ({"type": "image", "image_url": {"url": URL}}, None),
    ],
)
def test_a_picture(image: object, block: Image | None) -> None:
    """A documented image becomes a block and keeps its unknown fields; any other form is None."""
    assert read_image(image) == block
