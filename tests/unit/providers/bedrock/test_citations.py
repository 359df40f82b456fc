"""Citations of the Converse API."""

from typing import Any

import pytest

from antiphon.domain.content import Citation
from antiphon.providers.bedrock.citations import citation_json, read_citation

PAGE = {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, Citation()),
        (
            {"title": "t", "source": "s", "sourceContent": [{"text": "c"}], "location": PAGE},
            Citation(title="t", text="c", source_id="s", fields={"location": PAGE}),
        ),
        (
            {"title": "", "sourceContent": [{"text": "a"}, {"text": "b"}], "new": 1},
            Citation(fields={"title": "", "sourceContent": [{"text": "a"}, {"text": "b"}], "new": 1}),
        ),
        ({"location": {"web": {"url": "u", "domain": "d"}}}, Citation(url="u", fields={"location": {"web": {"domain": "d"}}})),
    ],
)
def test_both_ways(raw: dict[str, Any], expected: Citation) -> None:
    """What is read is written back as it was."""
    assert read_citation(raw) == expected
    assert citation_json(expected) == raw


def test_another_shape() -> None:
    """It is refused."""
    with pytest.raises(TypeError):
        read_citation([])
