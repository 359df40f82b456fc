"""Tests of the list of models of the Gemini API."""

import json

import pytest

from antiphon.domain.models import ModelInfo
from antiphon.providers.gemini.models import read_page

ENTRY = {
    "name": "models/gemini-2.5-flash",
    "version": "001",
    "displayName": "Gemini 2.5 Flash",
    "inputTokenLimit": 1_048_576,
    "outputTokenLimit": 65_536,
    "supportedGenerationMethods": ["generateContent", "countTokens", "createCachedContent"],
    "thinking": True,
}


def test_a_page() -> None:
    """Models that chat are read, by the name that requests use. The token leads to the next page."""
    embedding = {"name": "models/gemini-embedding-001", "supportedGenerationMethods": ["embedContent"]}
    page = read_page(json.dumps({"models": [ENTRY, embedding], "nextPageToken": "next"}).encode())
    assert page.models == (
        ModelInfo(name="gemini-2.5-flash", title="Gemini 2.5 Flash", context_tokens=1_048_576, max_output_tokens=65_536),
    )
    assert page.next_query == {"pageToken": "next"}


def test_an_empty_page() -> None:
    """An empty list is left out of the JSON."""
    page = read_page(b"{}")
    assert page.models == ()
    assert not page.next_query


@pytest.mark.parametrize("body", [b"[]", b"<html>", b'{"models": 1}', b'{"error": {"code": 400}}'])
def test_anything_else_is_no_list(body: bytes) -> None:
    """A body that is not a list of models is refused."""
    with pytest.raises(ValueError):  # noqa: PT011  # any reason will do
        read_page(body)
