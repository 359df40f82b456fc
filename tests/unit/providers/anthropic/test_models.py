"""Tests of the list of models of Anthropic's API."""

import json
from typing import Any

import pytest

from antiphon.domain.models import Modality, ModelInfo
from antiphon.providers.anthropic.models import read_page

ENTRY: dict[str, Any] = {
    "type": "model",
    "id": "claude-opus-5",
    "display_name": "Claude Opus 5",
    "created_at": "2026-05-20T00:00:00Z",
    "lifecycle": "active",
    "line": "opus",
    "max_input_tokens": 1_000_000,
    "max_tokens": 128_000,
    "capabilities": {"image_input": {"supported": True}, "pdf_input": {"supported": False}, "batch": {"supported": True}},
}
UNKNOWN = {
    "type": "model",
    "id": "claude-old",
    "display_name": "Claude Old",
    "created_at": "1970-01-01T00:00:00Z",
    "capabilities": None,
}


def test_a_page() -> None:
    """Sizes and modalities are read; an epoch time means that it is not known. The next page begins after the last model."""
    page = read_page(json.dumps({"data": [ENTRY, UNKNOWN], "has_more": True, "last_id": "claude-old"}).encode())
    assert page.models == (
        ModelInfo(
            name="claude-opus-5",
            title="Claude Opus 5",
            created=1779235200,
            context_tokens=1_000_000,
            max_output_tokens=128_000,
            input_modalities=(Modality.TEXT, Modality.IMAGE),
            output_modalities=(Modality.TEXT,),
        ),
        ModelInfo(name="claude-old", title="Claude Old"),
    )
    assert page.next_query == {"after_id": "claude-old"}


def test_the_last_page_and_retired_models() -> None:
    """The last page has none after it. Retired models, which fail, are left out."""
    page = read_page(json.dumps({"data": [ENTRY | {"lifecycle": "retired"}], "has_more": False, "last_id": "x"}).encode())
    assert page.models == ()
    assert not page.next_query


def test_the_entry_is_one_of_the_sdk() -> None:
    """The SDK's type has every field that is read, so that a renamed one is noticed."""
    types = pytest.importorskip("anthropic.types")
    read = {"id", "display_name", "created_at", "max_input_tokens", "max_tokens", "capabilities", "lifecycle"}
    assert read <= set(types.ModelInfo.model_fields)
    assert {"image_input", "pdf_input"} <= set(types.ModelCapabilities.model_fields)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"data": 1}', b'{"type": "error"}'])
def test_anything_else_is_no_list(body: bytes) -> None:
    """A body that is not a list of models is refused."""
    with pytest.raises(ValueError):  # noqa: PT011  # any reason will do
        read_page(body)
