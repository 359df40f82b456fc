"""The lists of Bedrock's control plane."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.domain.models import Modality, ModelInfo
from antiphon.providers.bedrock.models import merged, read_models, read_profiles

NOVA = {
    "modelId": "amazon.nova-pro-v1:0",
    "modelName": "Nova Pro",
    "inputModalities": ["TEXT", "IMAGE"],
    "outputModalities": ["TEXT"],
    "inferenceTypesSupported": ["ON_DEMAND"],
}


def models(*entries: dict[str, Any]) -> tuple[ModelInfo, ...]:
    return read_models(json.dumps({"modelSummaries": entries}).encode()).models


def test_models_are_listed_that_can_chat_and_be_requested_by_their_ids() -> None:
    """Models for embeddings or pictures, and those behind a profile alone, are left out."""
    embedding = {**NOVA, "modelId": "amazon.titan-embed", "outputModalities": ["EMBEDDING", "IMAGE"]}
    behind = {**NOVA, "modelId": "anthropic.claude-x", "inferenceTypesSupported": ["INFERENCE_PROFILE"]}
    (model,) = models(NOVA, embedding, behind)
    assert model == ModelInfo(
        name="amazon.nova-pro-v1:0",
        title="Nova Pro",
        input_modalities=(Modality.TEXT, Modality.IMAGE),
        output_modalities=(Modality.TEXT,),
    )


def test_profiles_are_listed_page_by_page() -> None:
    profile = {"inferenceProfileId": "eu.amazon.nova-pro-v1:0", "inferenceProfileName": "EU Nova Pro", "status": "ACTIVE"}
    page = read_profiles(json.dumps({"inferenceProfileSummaries": [profile], "nextToken": "next"}).encode())
    assert page.next_query["nextToken"] == "next"
    assert [one.name for one in page.models] == ["eu.amazon.nova-pro-v1:0"]
    both = merged(models(NOVA), page.models)
    assert [one.name for one in both] == ["amazon.nova-pro-v1:0", "eu.amazon.nova-pro-v1:0"]
    assert (both[1].title, both[1].input_modalities) == ("EU Nova Pro", (Modality.TEXT, Modality.IMAGE))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"modelSummaries": 1}', b"<html>"])
def test_what_is_no_list_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        read_models(body)
