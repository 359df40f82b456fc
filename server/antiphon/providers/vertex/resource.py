"""The paths of models at Vertex AI. No I/O.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.publishers.models. Without a project a model is
reached in "express mode", with an API key: https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from antiphon.domain.errors import InvalidRequest
from antiphon.providers.locations import GLOBAL

GOOGLE: Final = "google"
ANTHROPIC: Final = "anthropic"

_SEGMENT: Final = r"(?!\.{1,2}(?:/|$))[^/\s]+"
_ENDPOINT: Final = re.compile(rf"endpoints/{_SEGMENT}")
_OF_PUBLISHER: Final = re.compile(rf"(?:publishers/)?(?P<publisher>{_SEGMENT})/(?:models/)?(?P<name>{_SEGMENT})")
_NAME: Final = re.compile(_SEGMENT)


class VertexModel(Struct, frozen=True):
    """A model of a publisher, or one that a project has tuned or deployed (`endpoints/...`), which counts as Google's."""

    publisher: str
    name: str
    path: str
    """Its path below `parent`, quoted."""


def parent(project: str | None, location: str | None) -> str:
    """Return the part of a path that is before the model, with a slash at its end; empty in express mode."""
    return "" if project is None else f"projects/{project}/locations/{location or GLOBAL}/"


def find_model(written: str) -> VertexModel:
    """Return the model that a request names: by a name, `publisher/name`, `publishers/.../models/...` or `endpoints/...`.

    A name alone is Google's, one that begins with "claude" Anthropic's. A caller can name nothing outside the project. Raises
    `InvalidRequest` for any other text.
    """
    if _ENDPOINT.fullmatch(written):
        name = written.partition("/")[2]
        return VertexModel(GOOGLE, name, f"endpoints/{_quoted(name)}")
    found = _OF_PUBLISHER.fullmatch(written)
    if found is not None:
        return _of_publisher(found["publisher"], found["name"])
    if _NAME.fullmatch(written) is None:
        raise InvalidRequest("The model is not a name, publisher/name, publishers/.../models/... or endpoints/...")
    return _of_publisher(ANTHROPIC if written.startswith("claude") else GOOGLE, written)


def _of_publisher(publisher: str, name: str) -> VertexModel:
    return VertexModel(publisher, name, f"publishers/{_quoted(publisher)}/models/{_quoted(name)}")


def _quoted(segment: str) -> str:
    return quote(segment, safe="@")
