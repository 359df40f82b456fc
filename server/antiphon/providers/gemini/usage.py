"""Reads the tokens used, as the Gemini API counts them. No I/O.

https://ai.google.dev/api/generate-content#UsageMetadata. The counts of a stream are cumulative, and later ones may lack fields of
earlier ones. `promptTokenCount` includes what was read from a cache, but not the results of the provider's own tools;
`candidatesTokenCount` does not include thoughts, unless the total says so.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage
from antiphon.providers.openai.values import as_object, is_shallow, read_usage

_PLACES: Final = frozenset(
    {"promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount", "cachedContentTokenCount"}
)


def read(raw: JsonObject) -> Usage | None:
    """Return the tokens used; None if none are counted. Fields without a place in `Usage` are in its `extra`."""
    prompt, candidates, thoughts, tools, total = (
        _count(raw.get(f"{name}TokenCount")) for name in ("prompt", "candidates", "thoughts", "toolUsePrompt", "total")
    )
    if not any((prompt, candidates, thoughts, total)):
        return None
    includes_thoughts = thoughts > 0 and candidates >= thoughts and prompt + tools + candidates == total
    output = candidates if includes_thoughts else candidates + thoughts
    inputs, outputs = _modalities(raw.get("promptTokensDetails")), _modalities(raw.get("candidatesTokensDetails"))
    read_counts = read_usage(
        {
            "prompt_tokens": prompt + tools,
            "completion_tokens": output,
            "total_tokens": raw.get("totalTokenCount"),
            "prompt_tokens_details": {
                "cached_tokens": raw.get("cachedContentTokenCount"),
                "audio_tokens": inputs.get("AUDIO"),
            },
            "completion_tokens_details": {"audio_tokens": outputs.get("AUDIO")},
        }
    )
    extra = {name: value for name, value in raw.items() if name not in _PLACES and value is not None}
    return Usage(
        read_counts.input_tokens,
        read_counts.output_tokens,
        read_counts.total_tokens,
        cached_tokens=read_counts.cached_tokens,
        reasoning_tokens=thoughts if "thoughtsTokenCount" in raw else None,
        audio_input_tokens=read_counts.audio_input_tokens,
        audio_output_tokens=read_counts.audio_output_tokens,
        image_input_tokens=inputs.get("IMAGE"),
        image_output_tokens=outputs.get("IMAGE"),
        extra=extra if is_shallow(extra) else {},
    )


def _modalities(details: Any) -> dict[str, int]:
    """Return the tokens of each modality."""
    entries = map(as_object, details if isinstance(details, list) else ())
    return {str(entry.get("modality")): count for entry in entries if (count := _count(entry.get("tokenCount")))}


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value <= 2**53 else 0
