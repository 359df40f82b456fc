"""Reads the tokens used, as hosts of the OpenAI protocol count them. No I/O."""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage
from antiphon.providers.codec.values import as_object, count, is_shallow, optional_count

_PROMPT_DETAILS: Final = frozenset({"cached_tokens", "cache_write_tokens", "audio_tokens"})
_COMPLETION_DETAILS: Final = frozenset({"reasoning_tokens", "audio_tokens"})
_USAGE: Final = frozenset(
    {
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    }
)

_PLAIN: Final = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


def read_usage(raw: JsonObject) -> Usage:
    """Return the tokens used. Fields without a place in `Usage` are in its `extra`."""
    prompt, completion, total = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens")), count(raw.get("total_tokens"))
    if raw.keys() <= _PLAIN:  # the fast path
        return Usage(prompt, completion, total or prompt + completion)
    prompt_details = as_object(raw.get("prompt_tokens_details"))
    completion_details = as_object(raw.get("completion_tokens_details"))
    prompt = count(raw.get("prompt_tokens", raw.get("input_tokens")))
    completion = count(raw.get("completion_tokens", raw.get("output_tokens")))
    reasoning = _first(completion_details.get("reasoning_tokens"), raw.get("reasoning_tokens"))
    if reasoning and prompt + completion + reasoning == total:
        completion += reasoning  # xAI's chat API leaves reasoning out of the completion tokens, but not out of the total
    written = _first(
        prompt_details.get("cache_write_tokens"),
        prompt_details.get("cache_creation_tokens"),
        prompt_details.get("cache_creation_input_tokens"),
        raw.get("cache_creation_input_tokens"),
    )
    cached = _first(
        prompt_details.get("cached_tokens") or None,
        raw.get("prompt_cache_hit_tokens"),
        raw.get("cached_tokens"),
        raw.get("cache_read_input_tokens"),
        prompt_details.get("cached_tokens"),
    )
    extra = _others(raw, _USAGE)
    if rest := _others(prompt_details, _PROMPT_DETAILS):
        extra["prompt_tokens_details"] = rest
    if rest := _others(completion_details, _COMPLETION_DETAILS):
        extra["completion_tokens_details"] = rest
    return Usage(
        prompt,
        completion,
        total or prompt + completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        audio_input_tokens=optional_count(prompt_details.get("audio_tokens")),
        audio_output_tokens=optional_count(completion_details.get("audio_tokens")),
        image_input_tokens=optional_count(prompt_details.get("image_tokens")),
        image_output_tokens=optional_count(completion_details.get("image_tokens")),
        extra=extra if not extra or is_shallow(extra) else {},
    )


def _first(*values: object) -> int | None:
    """Return the first of the values that is a number of tokens; None if none is."""
    return next((number for value in values if (number := optional_count(value)) is not None), None)


def _others(fields: JsonObject, known: frozenset[str]) -> dict[str, Any]:
    """Return the fields that are not `known` and not null."""
    if fields.keys() <= known:
        return {}
    return {name: value for name, value in fields.items() if value is not None and name not in known}
