"""Reads the lists of models of Bedrock's control plane: foundation models, and the inference profiles that lead to them. No I/O.

Their reference: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListFoundationModels.html and
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListInferenceProfiles.html. Many models have a profile alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from antiphon.domain.models import Modality, ModelInfo
from antiphon.providers.model_list import ModelPage, decode, entries, fields, modalities, named, text

FIRST_PROFILES: Final = {"maxResults": "1000"}
"""The parameters of the first page of profiles. 1000 is the most that the API allows."""

_ON_DEMAND: Final = "ON_DEMAND"
_ACTIVE: Final = "ACTIVE"


def read_models(body: bytes) -> ModelPage:
    """Return the foundation models that can chat and be requested by their own ids. Raises `ValueError` if it is no such list."""
    listed = entries(fields(decode(body)).get("modelSummaries"))
    return ModelPage(named(_model(entry) for entry in listed if _is_requested_by_id(entry)))


def read_profiles(body: bytes) -> ModelPage:
    """Return the inference profiles of a page, without modalities. Raises `ValueError` if it is no such list."""
    page = fields(decode(body))
    profiles = named(
        ModelInfo(name=text(entry.get("inferenceProfileId")), title=text(entry.get("inferenceProfileName")))
        for entry in entries(page.get("inferenceProfileSummaries"))
        if entry.get("status", _ACTIVE) == _ACTIVE
    )
    token = page.get("nextToken")
    return ModelPage(profiles, {**FIRST_PROFILES, "nextToken": token} if isinstance(token, str) and token else {})


def merged(models: Iterable[ModelInfo], profiles: Iterable[ModelInfo]) -> tuple[ModelInfo, ...]:
    """Return both lists as one. A profile such as "eu.anthropic.claude-x" has what is known of its model, if that is listed."""
    known = {model.name: model for model in models}
    found = dict(known)
    for profile in profiles:
        model = known.get(profile.name.partition(".")[2])
        found.setdefault(profile.name, profile if model is None else replace(model, name=profile.name, title=profile.title))
    return tuple(found.values())


def _model(entry: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(
        name=text(entry.get("modelId")),
        title=text(entry.get("modelName")),
        input_modalities=modalities(entry.get("inputModalities")),
        output_modalities=modalities(entry.get("outputModalities")),
    )


def _is_requested_by_id(entry: Mapping[str, Any]) -> bool:
    kinds = entry.get("inferenceTypesSupported")
    writes = modalities(entry.get("outputModalities"))
    return (not isinstance(kinds, list) or _ON_DEMAND in kinds) and (not writes or Modality.TEXT in writes)
