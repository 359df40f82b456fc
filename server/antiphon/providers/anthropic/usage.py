"""Reads the tokens used, as Anthropic's Messages API counts them. No I/O.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance. The rules:

- `input_tokens` leaves out what was read from a cache and written to it; the domain's count does not.
- The counts of `message_delta` are those of the whole reply so far, and replace those of `message_start`. Missing ones and nulls do
  not.
- The split of cache writes by duration may be older than their sum. It then only shows of which durations they are.
- The counts leave out compaction and the calls of other models, which are only in `iterations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage, UsagePart
from antiphon.providers.codec.values import as_object, count, is_shallow, optional_count, service_tier

_INPUT: Final = "input_tokens"
_OUTPUT: Final = "output_tokens"
_READ: Final = "cache_read_input_tokens"
_WRITTEN: Final = "cache_creation_input_tokens"
_SPLIT: Final = "cache_creation"
_DETAILS: Final = "output_tokens_details"
_ITERATIONS: Final = "iterations"
_COUNTED: Final = frozenset({_INPUT, _OUTPUT, _READ, _WRITTEN, _DETAILS})
"""Fields with a place in `Usage`."""

_MESSAGE: Final = "message"
_COUNTED_ITERATIONS: Final = frozenset({_MESSAGE, "fallback_message"})
"""Types of iterations that are part of the counts beside them."""


class UsageReader:
    """Merges the usage of one reply."""

    def __init__(self) -> None:
        self._raw: dict[str, Any] = {}
        self._split_of: object = None
        """The written tokens when the split by duration was told."""

    @property
    def is_known(self) -> bool:
        """Return whether anything was told."""
        return bool(self._raw)

    def add(self, raw: object) -> None:
        """Add an object of the API."""
        told = {name: value for name, value in as_object(raw).items() if value is not None}
        self._raw |= told
        if _SPLIT in told:
            self._split_of = self._raw.get(_WRITTEN)

    def usage(self, model: str) -> Usage | None:
        """Return the tokens used by a reply of `model`; None if nothing was told."""
        raw = self._raw
        if not raw:
            return None
        parts = _parts(raw.get(_ITERATIONS), model)
        others = [part for part in parts if part.type not in _COUNTED_ITERATIONS]
        read, written = optional_count(raw.get(_READ)), optional_count(raw.get(_WRITTEN))
        prompt = count(raw.get(_INPUT)) + (read or 0) + (written or 0) + sum(part.input_tokens for part in others)
        completion = count(raw.get(_OUTPUT)) + sum(part.output_tokens for part in others)
        extra = {name: value for name, value in raw.items() if name not in _COUNTED}
        return Usage(
            prompt,
            completion,
            prompt + completion,
            cached_tokens=_with(read, (part.cached_tokens for part in others)),
            cache_write_tokens=_with(written, (part.cache_write_tokens for part in others)),
            cache_write_1h_tokens=self._written_for_an_hour(written),
            reasoning_tokens=optional_count(as_object(raw.get(_DETAILS)).get("thinking_tokens")),
            server_tools=_server_tools(raw.get("server_tool_use")),
            parts=parts if len(parts) > 1 or others else (),
            service_tier=service_tier(raw.get("service_tier")),
            extra=extra if is_shallow(extra) else {},
        )

    def _written_for_an_hour(self, written: int | None) -> int | None:
        split = as_object(self._raw.get(_SPLIT))
        short, long = optional_count(split.get("ephemeral_5m_input_tokens")), optional_count(split.get("ephemeral_1h_input_tokens"))
        if written is None or long is None:
            return None
        if self._split_of != written:
            split_sums = [as_object(one.get(_SPLIT)) for one in self._raw.get(_ITERATIONS) or () if isinstance(one, dict)]
            sums = [sum(count(one.get(f"ephemeral_{time}_input_tokens")) for one in split_sums) for time in ("5m", "1h")]
            if sum(sums) == written:
                return sums[1]
            if long and not short:
                return written
        return min(long, written)


def _parts(raw: object, model: str) -> tuple[UsagePart, ...]:
    """Return the inner calls. One without a model is a call of the model of the reply."""
    return tuple(_part(one, model) for one in raw if isinstance(one, Mapping)) if isinstance(raw, list) else ()


def _part(raw: JsonObject, model: str) -> UsagePart:
    name, kind = raw.get("model"), raw.get("type")
    read, written = count(raw.get(_READ)), count(raw.get(_WRITTEN))
    return UsagePart(
        name if isinstance(name, str) and name else model,
        kind if isinstance(kind, str) else "",
        count(raw.get(_INPUT)) + read + written,
        count(raw.get(_OUTPUT)),
        read,
        written,
        min(count(as_object(raw.get(_SPLIT)).get("ephemeral_1h_input_tokens")), written),
    )


def _server_tools(raw: object) -> Mapping[str, int]:
    """Return how often each tool of the provider was used."""
    counts = {name.removesuffix("_requests"): count(value) for name, value in as_object(raw).items()}
    return {name: count for name, count in counts.items() if count}


def _with(count: int | None, more: Any) -> int | None:
    added = sum(more)
    return (count or 0) + added if added else count
