"""Tests of the paths of models at Vertex AI."""

import pytest

from antiphon.domain.errors import InvalidRequest
from antiphon.providers.locations import vertex_url
from antiphon.providers.vertex.resource import VertexModel, find_model, parent


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (None, "aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("europe-west1", "europe-west1-aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
    ],
)
def test_hosts(location: str | None, host: str) -> None:
    """A region, a multi-region and all of them have hosts of their own."""
    assert vertex_url(location) == f"https://{host}"


def test_parents() -> None:
    """A model is below a project and a location, and in express mode below neither."""
    assert parent("acme", "us-east5") == "projects/acme/locations/us-east5/"
    assert parent("acme", None) == "projects/acme/locations/global/"
    assert parent(None, None) == ""


@pytest.mark.parametrize(
    ("written", "publisher", "name", "path"),
    [
        ("gemini-3-pro", "google", "gemini-3-pro", "publishers/google/models/gemini-3-pro"),
        (
            "claude-opus-4-1@20250805",
            "anthropic",
            "claude-opus-4-1@20250805",
            "publishers/anthropic/models/claude-opus-4-1@20250805",
        ),
        ("anthropic/claude-x", "anthropic", "claude-x", "publishers/anthropic/models/claude-x"),
        ("google/gemma:1?a=b#c%2f", "google", "gemma:1?a=b#c%2f", "publishers/google/models/gemma%3A1%3Fa%3Db%23c%252f"),
        ("publishers/meta/models/llama", "meta", "llama", "publishers/meta/models/llama"),
        ("endpoints/123", "google", "123", "endpoints/123"),
    ],
)
def test_models(written: str, publisher: str, name: str, path: str) -> None:
    """A model is named alone, with its publisher, or by its path; what has a meaning in a URL is quoted."""
    assert find_model(written) == VertexModel(publisher, name, path)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "..",
        "../x",
        "x/..",
        "publishers/../models/x",
        "publishers/google/models/..",
        "endpoints/..",
        "projects/other/locations/us/publishers/google/models/x",
        "a/b/c",
        "a//b",
        "/a",
    ],
)
def test_nothing_outside_the_project_can_be_named(written: str) -> None:
    """A caller can leave neither the project nor the models."""
    with pytest.raises(InvalidRequest):
        find_model(written)
