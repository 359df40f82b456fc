"""The addresses of Vertex AI: hosts by location, and paths of models. No I/O.

https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations. Without a project and a location a model is reached in
"express mode", with an API key: https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from antiphon.domain.errors import InvalidRequest

GLOBAL: Final = "global"
_MULTI_REGIONS: Final = frozenset({"us", "eu"})

_SEGMENT: Final = r"(?!\.{1,2}(?:/|$))[^/\s]+"
_OTHER_RESOURCE: Final = re.compile(rf"publishers/{_SEGMENT}/models/{_SEGMENT}|endpoints/{_SEGMENT}")
_OF_PUBLISHER: Final = re.compile(rf"(?P<publisher>{_SEGMENT})/(?P<model>{_SEGMENT})")
_MODEL: Final = re.compile(_SEGMENT)


def base_url(location: str | None) -> str:
    """Return the host of a location; None: that of all of them."""
    if location is None or location == GLOBAL:
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def parent(project: str | None, location: str | None) -> str:
    """Return the part of a path that is before the model, with a slash at its end; empty in express mode."""
    return "" if project is None else f"projects/{project}/locations/{location or GLOBAL}/"


def model_resource(model: str, publisher: str = "google") -> str:
    """Return the path of a model below its `parent`, quoted.

    `model` is a name, a `publisher/name`, or a resource within the project: `publishers/.../models/...` or `endpoints/...`. A
    caller can name no other project. Raises `InvalidRequest` for any other text.
    """
    if _OTHER_RESOURCE.fullmatch(model):
        return "/".join(map(_quoted, model.split("/")))
    found = _OF_PUBLISHER.fullmatch(model)
    if found is not None:
        return f"publishers/{_quoted(found['publisher'])}/models/{_quoted(found['model'])}"
    if _MODEL.fullmatch(model) is None:
        raise InvalidRequest("The model is not a name, publisher/name, publishers/.../models/... or endpoints/...")
    return f"publishers/{publisher}/models/{_quoted(model)}"


def _quoted(segment: str) -> str:
    return quote(segment, safe="@")
