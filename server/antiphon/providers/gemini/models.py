"""Reads the list of models of the Gemini API. No I/O.

Its reference: https://ai.google.dev/api/models#method:-models.list. Neither modalities nor prices are in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.models import ModelInfo
from antiphon.providers.model_list import ModelPage, decode, entries, fields, named, text, tokens

FIRST_PAGE: Final = {"pageSize": "1000"}
"""The parameters of the first page. 1000 is the most that the API allows."""

_PREFIX: Final = "models/"
"""The collection of resources that models are in. Requests need not name it."""

_CHAT: Final = "generateContent"


def read_page(body: bytes) -> ModelPage:
    """Return the models of a page that can chat. Raises `ValueError` if it is not a list of models."""
    value = decode(body)
    page = fields(value)
    # Protobuf leaves an empty list out.
    listed = [] if value == {} else page.get("models")
    models = named(_model(entry) for entry in entries(listed) if _chats(entry))
    token = page.get("nextPageToken")
    return ModelPage(models, {"pageToken": token} if isinstance(token, str) and token else {})


def _model(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(
        name=text(entry.get("name")).removeprefix(_PREFIX),
        title=text(entry.get("displayName")),
        context_tokens=tokens(entry.get("inputTokenLimit")),
        max_output_tokens=tokens(entry.get("outputTokenLimit")),
    )


def _chats(entry: Mapping[str, Any]) -> bool:
    methods = entry.get("supportedGenerationMethods")
    return not isinstance(methods, list) or _CHAT in methods
