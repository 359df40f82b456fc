"""Reads the list of models of Anthropic's API. No I/O.

Its reference: https://platform.claude.com/docs/en/api/models/list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.models import Modality, ModelInfo
from antiphon.providers.model_list import ModelPage, decode, entries, fields, named, text, tokens, unix_time

FIRST_PAGE: Final = {"limit": "1000"}
"""The parameters of the first page. 1000 is the most that the API allows."""


def read_page(body: bytes) -> ModelPage:
    """Return the models of a page that are not retired. Raises `ValueError` if it is not a list of models."""
    page = fields(decode(body))
    models = named(_model(entry) for entry in entries(page.get("data")) if entry.get("lifecycle") != "retired")
    last = text(page.get("last_id")) if page.get("has_more") is True else ""
    return ModelPage(models, {"after_id": last} if last else {})


def _model(entry: Mapping[str, Any]) -> ModelInfo:
    capabilities = fields(entry.get("capabilities"))
    reads = {Modality.IMAGE: "image_input", Modality.DOCUMENT: "pdf_input"}
    known = {kind: fields(capabilities.get(name)).get("supported") for kind, name in reads.items() if name in capabilities}
    return ModelInfo(
        name=text(entry.get("id")),
        title=text(entry.get("display_name")),
        created=unix_time(entry.get("created_at")),
        context_tokens=tokens(entry.get("max_input_tokens")),
        max_output_tokens=tokens(entry.get("max_tokens")),
        input_modalities=(Modality.TEXT, *(kind for kind, supported in known.items() if supported is True)) if known else (),
        output_modalities=(Modality.TEXT,) if known else (),
    )
