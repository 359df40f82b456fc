"""Reads the fields of a response beside its items: usage, tools, and what is passed on. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage
from antiphon.providers.openai.values import as_object, is_shallow, read_usage

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

_COUNTED: Final = frozenset({"cached_tokens", "cache_write_tokens", "audio_tokens", "reasoning_tokens"})
"""The details of a usage that have a place in `Usage`."""


def custom_tools(tools: list[Any] | list[JsonObject]) -> set[str]:
    """Return the names of the tools that take plain text, in the form of this API or of chat completions."""
    named = (as_object(tool.get("custom")) or tool for tool in map(as_object, tools) if tool.get("type") == "custom")
    return {tool["name"] for tool in named if isinstance(tool.get("name"), str)}


def usage_of(raw: JsonObject, server_tools: Mapping[str, int]) -> Usage:
    """Return the tokens used."""
    counts: dict[str, Any] = {}
    rest = dict(raw)
    for ours, theirs in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        counts[ours] = rest.pop(theirs, None)
        counts[f"{ours}_details"] = details = {**as_object(rest.pop(f"{theirs}_details", None))}
        for name in [name for name in details if name not in _COUNTED]:
            rest.setdefault(f"{theirs}_details", {})[name] = details.pop(name)
    return replace(read_usage({**rest, **counts}), server_tools=server_tools)


def other_fields(response: JsonObject) -> JsonObject:
    """Return the fields of a response that are passed on. Raises `ValueError` for values that are nested too deeply."""
    others = {name: value for name, value in response.items() if name not in _NOT_PASSED_ON and value is not None}
    if not is_shallow(others):
        raise ValueError("depth")
    return others
