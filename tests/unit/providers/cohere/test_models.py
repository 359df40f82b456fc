"""Tests of the list of models of Cohere's API."""

import json

import pytest

from antiphon.domain.models import Modality, ModelInfo
from antiphon.providers.cohere.models import read_page

ENTRY = {
    "name": "command-a-vision-07-2025",
    "is_deprecated": False,
    "endpoints": ["chat", "generate"],
    "finetuned": False,
    "context_length": 128_000,
    "tokenizer_url": "https://storage.example.com/tokenizer.json",
    "default_endpoints": [],
    "features": ["json_mode", "vision"],
}


def test_a_page() -> None:
    """Models that chat are read. The token leads to the next page."""
    rerank = {"name": "rerank-v3.5", "endpoints": ["rerank"], "context_length": 4096}
    plain = {"name": "command-a-03-2025", "endpoints": ["chat"], "features": None}
    page = read_page(json.dumps({"models": [ENTRY, rerank, plain], "next_page_token": "next"}).encode())
    assert page.models == (
        ModelInfo(
            name="command-a-vision-07-2025",
            context_tokens=128_000,
            input_modalities=(Modality.TEXT, Modality.IMAGE),
            output_modalities=(Modality.TEXT,),
        ),
        ModelInfo(name="command-a-03-2025"),
    )
    assert page.next_query == {"page_token": "next"}


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"models": 1}', b'{"message": "no"}'])
def test_anything_else_is_no_list(body: bytes) -> None:
    """A body that is not a list of models is refused."""
    with pytest.raises(ValueError):  # noqa: PT011  # any reason will do
        read_page(body)
