"""Reads the tokens used, as the Gemini API counts them. No I/O.

https://ai.google.dev/api/generate-content#UsageMetadata. The counts of a stream are cumulative, and later ones may lack fields of
earlier ones. `promptTokenCount` includes what was read from a cache, but not the results of the provider's own tools;
`candidatesTokenCount` does not include thoughts, unless the total says so.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage
from antiphon.providers.codec.values import as_object, count, is_shallow, optional_count, service_tier

_PLACES: Final = frozenset(
    {"promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount", "cachedContentTokenCount"}
)


def read(raw: JsonObject) -> Usage | None:
    """Return the tokens used; None if none are counted. Fields without a place in `Usage` are in its `extra`."""
    prompt, candidates, thoughts, tools, total = (
        count(raw.get(f"{name}TokenCount")) for name in ("prompt", "candidates", "thoughts", "toolUsePrompt", "total")
    )
    if not any((prompt, candidates, thoughts, total)):
        return None
    includes_thoughts = thoughts > 0 and candidates >= thoughts and prompt + tools + candidates == total
    output = candidates if includes_thoughts else candidates + thoughts
    inputs, outputs = _modalities(raw.get("promptTokensDetails")), _modalities(raw.get("candidatesTokensDetails"))
    extra = {name: value for name, value in raw.items() if name not in _PLACES and value is not None}
    return Usage(
        prompt + tools,
        output,
        total or prompt + tools + output,
        cached_tokens=optional_count(raw.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts if "thoughtsTokenCount" in raw else None,
        audio_input_tokens=inputs.get("AUDIO"),
        audio_output_tokens=outputs.get("AUDIO"),
        audio_cached_tokens=_modalities(raw.get("cacheTokensDetails")).get("AUDIO"),
        image_input_tokens=inputs.get("IMAGE"),
        image_output_tokens=outputs.get("IMAGE"),
        service_tier=service_tier(raw.get("serviceTier")) or service_tier(_traffic(raw.get("trafficType"))),
        extra=extra if is_shallow(extra) else {},
    )


def _traffic(kind: object) -> str:
    """Return Vertex AI's word for the service without that for the way of payment, as the Gemini API has it."""
    return kind.removeprefix("ON_DEMAND_") if isinstance(kind, str) else ""


def _modalities(details: Any) -> dict[str, int]:
    """Return the tokens of each modality."""
    entries = map(as_object, details if isinstance(details, list) else ())
    return {str(entry.get("modality")): tokens for entry in entries if (tokens := count(entry.get("tokenCount")))}
