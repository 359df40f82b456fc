"""Reads the list of models of Cohere's API. No I/O.

Its reference: https://docs.cohere.com/reference/list-models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.models import Modality, ModelInfo
from antiphon.providers.model_list import ModelPage, decode, entries, fields, named, text, tokens

_CHAT: Final = "chat"

FIRST_PAGE: Final = {"page_size": "1000", "endpoint": _CHAT}
"""The parameters of the first page. 1000 is the most that the API allows."""


def read_page(body: bytes) -> ModelPage:
    """Return the models of a page that can chat. Raises `ValueError` if it is not a list of models."""
    page = fields(decode(body))
    models = named(_model(entry) for entry in entries(page.get("models")) if _chats(entry))
    token = page.get("next_page_token")
    return ModelPage(models, {"page_token": token} if isinstance(token, str) and token else {})


def _model(entry: Mapping[str, Any]) -> ModelInfo:
    features = entry.get("features")
    known = isinstance(features, list)
    sees = isinstance(features, list) and "vision" in features
    return ModelInfo(
        name=text(entry.get("name")),
        context_tokens=tokens(entry.get("context_length")),
        input_modalities=(Modality.TEXT, *((Modality.IMAGE,) if sees else ())) if known else (),
        output_modalities=(Modality.TEXT,) if known else (),
    )


def _chats(entry: Mapping[str, Any]) -> bool:
    endpoints = entry.get("endpoints")
    return not isinstance(endpoints, list) or _CHAT in endpoints
