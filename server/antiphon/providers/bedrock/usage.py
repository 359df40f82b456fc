"""Reads the tokens used, as the Converse API counts them. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html. The API's count of the input leaves out what
was read from a cache and written to it; the domain's count does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage
from antiphon.providers.codec.values import as_object, count, is_shallow, optional_count

_INPUT: Final = "inputTokens"
_OUTPUT: Final = "outputTokens"
_READ: Final = "cacheReadInputTokens"
_WRITTEN: Final = "cacheWriteInputTokens"
_DETAILS: Final = "cacheDetails"
_TOOLS: Final = "serverToolUsage"
_HOUR: Final = "1h"

_COUNTED: Final = frozenset(
    # The names with "Count" are older ones, sent beside the others.
    {_INPUT, _OUTPUT, "totalTokens", _READ, _WRITTEN, _DETAILS, _TOOLS, "cacheReadInputTokenCount", "cacheWriteInputTokenCount"}
)
"""Fields with a place in `Usage`."""


def read_usage(raw: JsonObject) -> Usage:
    """Return the tokens used. Fields without a place in `Usage` are in its `extra`."""
    read, written = optional_count(raw.get(_READ)), optional_count(raw.get(_WRITTEN))
    prompt = count(raw.get(_INPUT)) + (read or 0) + (written or 0)
    completion = count(raw.get(_OUTPUT))
    extra = {name: value for name, value in raw.items() if name not in _COUNTED and value is not None}
    return Usage(
        prompt,
        completion,
        prompt + completion,
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_written_for_an_hour(raw.get(_DETAILS), written),
        server_tools={name: used for name, value in as_object(raw.get(_TOOLS)).items() if (used := count(value))},
        extra=extra if is_shallow(extra) else {},
    )


def _written_for_an_hour(details: object, written: int | None) -> int | None:
    """Return the tokens that were written for an hour; None if nothing is told of how long they are kept."""
    if written is None or not isinstance(details, list) or not details:
        return None
    hours = [count(one.get("inputTokens")) for one in details if isinstance(one, Mapping) and one.get("ttl") == _HOUR]
    return min(sum(hours), written)
