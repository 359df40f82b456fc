"""Reads the fields of a response beside its items: usage, tools, and what is passed on. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage
from antiphon.providers.codec.values import as_object, count, is_shallow, optional_count, other_fields

_NOT_PASSED_ON: Final = frozenset(
    {
        "created_at",
        "error",
        "frequency_penalty",
        "id",
        "incomplete_details",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "object",
        "output",
        "output_text",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "status",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "usage",
        "user",
    }
)
"""The fields of a response that have a place in the events, or repeat the request."""

_COUNTED: Final = frozenset({"input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "output_tokens_details"})
_COUNTED_DETAILS: Final = frozenset({"cached_tokens", "cache_write_tokens", "audio_tokens", "reasoning_tokens"})
"""The fields of a usage and its details that have a place in `Usage`."""


def custom_tools(tools: list[Any] | list[JsonObject]) -> set[str]:
    """Return the names of the tools that take plain text, in the form of this API or of chat completions."""
    named = (as_object(tool.get("custom")) or tool for tool in map(as_object, tools) if tool.get("type") == "custom")
    return {tool["name"] for tool in named if isinstance(tool.get("name"), str)}


def usage_of(raw: JsonObject, server_tools: Mapping[str, int]) -> Usage:
    """Return the tokens used."""
    prompt, completion = count(raw.get("input_tokens")), count(raw.get("output_tokens"))
    of_prompt, of_completion = as_object(raw.get("input_tokens_details")), as_object(raw.get("output_tokens_details"))
    extra = {name: value for name, value in raw.items() if name not in _COUNTED and value is not None}
    for name, details in (("input_tokens_details", of_prompt), ("output_tokens_details", of_completion)):
        if rest := {key: value for key, value in details.items() if key not in _COUNTED_DETAILS and value is not None}:
            extra[name] = rest
    return Usage(
        prompt,
        completion,
        count(raw.get("total_tokens")) or prompt + completion,
        cached_tokens=optional_count(of_prompt.get("cached_tokens")),
        cache_write_tokens=optional_count(of_prompt.get("cache_write_tokens")),
        reasoning_tokens=optional_count(of_completion.get("reasoning_tokens")),
        audio_input_tokens=optional_count(of_prompt.get("audio_tokens")),
        audio_output_tokens=optional_count(of_completion.get("audio_tokens")),
        server_tools=server_tools,
        extra=extra if is_shallow(extra) else {},
    )


def passed_fields(response: JsonObject) -> JsonObject:
    """Return the fields of a response that are passed on. Raises `ValueError` for values that are nested too deeply."""
    return {name: value for name, value in other_fields(response, _NOT_PASSED_ON).items() if value is not None}
