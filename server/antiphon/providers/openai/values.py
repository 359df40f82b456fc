"""The values of an OpenAI answer, checked: what hosts put there need be neither of the type nor in the range that is documented.

Two ways to take what is wrong. What only tells of the reply - a time, a count of tokens - is left out: it does not cost the reply.
What is the reply raises `TypeError` or `ValueError`, which `response` turns into an error of our tree. No I/O.
"""

from __future__ import annotations

import binascii
import math
from typing import Any, Final, TypeGuard

from antiphon.domain.content import JsonObject
from antiphon.domain.events import Usage

MAX_INDEX: Final = 2**31 - 1
"""Of a choice, or of a place in a text, as 32 bits hold it."""

MAX_DEPTH: Final = 24
"""Objects and lists in each other, in a field that is handed on unread: gRPC's readers take about 30."""

UNLIKELY: Final = -9999.0
"""The log probability that the API writes for a token that is very unlikely."""

_MAX_COUNT: Final = 2**53
"""Of tokens: sums of it still fit 64 bits, and it is exact in JSON."""

# Built once: `int | float` in a call is made anew each time.
_NUMBERS: Final = (int, float)
_CONTAINERS: Final = (dict, list)

_MAX_TIME: Final = 253_402_300_799
"""The last second of the year 9999, which is as far as a timestamp goes."""

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


class ErrorInside(Exception):
    """A choice, or its delta, holds an error in place of output."""

    def __init__(self, error: object) -> None:
        super().__init__("an error inside a choice")
        self.error = error


def text(value: object) -> str:
    """A text, where null is an empty one."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise TypeError("not a text")


def as_object(value: object) -> JsonObject:
    """An object; anything else is an empty one."""
    return value if isinstance(value, dict) else {}


def is_shallow(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether no more than `depth` objects and lists are in each other."""
    level: list[Any] = [value]
    while level := [one for one in level if isinstance(one, _CONTAINERS)]:
        if depth == 0:
            return False
        depth -= 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return True


def changed_fields(chunk: JsonObject, known: JsonObject, places: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Fields of a chunk beside those of `places` that are new or changed, in the host's order, and the names of those that are not.

    A null after something is neither. Of Groq's own object the usage is left out. Raises for what is nested too deep.
    """
    changed: dict[str, Any] = {}
    repeated: list[str] = []
    for name, value in chunk.items():
        if name in places:
            continue
        if name == "x_groq" and isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if key != "usage"} or None  # noqa: PLW2901
        if name not in known:
            changed[name] = value
        elif value == known[name]:
            repeated.append(name)
        elif value is not None:
            changed[name] = value
    if changed and not is_shallow(changed):
        raise ValueError("depth")
    return changed, repeated


def seconds(value: object) -> int | None:
    """A time in Unix seconds, None if it is none."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:20])
    return int(value) if _is_number(value) and 0 < value <= _MAX_TIME else None


def read_logprobs(value: object) -> tuple[JsonObject, ...]:
    """The entries of `logprobs.content`, of which an infinite one is as the API writes it. Raises for what is none."""
    if value is None:
        return ()
    if not isinstance(value, list) or not is_shallow(value):
        raise TypeError("logprobs")
    for entry in value:
        _check_logprob(entry)
        for other in entry.get("top_logprobs") or ():
            _check_logprob(other)
    return tuple(value)


def _check_logprob(entry: dict[str, Any]) -> None:
    if not isinstance(entry["token"], str) or not isinstance(entry["logprob"], int | float | None):
        raise TypeError("logprob")
    if entry["logprob"] is not None and not math.isfinite(entry["logprob"]):
        entry["logprob"] = None if math.isnan(entry["logprob"]) else UNLIKELY
    given = entry.get("bytes")
    if given is not None:
        if not isinstance(given, list):
            raise TypeError("bytes")
        bytes(given)  # raises for what is no list of bytes


class StreamedText:
    """The length and the last piece of a text that streams. The text itself is not kept, to keep the cost of a token low."""

    __slots__ = ("last", "length")

    def __init__(self) -> None:
        self.length = 0
        self.last = ""

    def add(self, piece: str) -> str:
        """Add a piece, and return it."""
        self.length += len(piece)
        self.last = piece
        return piece

    def rest(self, whole: object) -> str:
        """Return what a whole text adds to what has streamed; empty if it does not continue that."""
        if not isinstance(whole, str):
            return ""
        goes_on = whole[self.length - len(self.last) : self.length] == self.last
        return whole[self.length :] if goes_on else ""


class Base64Joiner:
    """Makes whole base64 of sound that comes in pieces, which may be cut anywhere."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, data: str) -> str:
        """As much as is whole by now. Raises for what is not base64."""
        data = self._rest + data
        whole = len(data) // 4 * 4
        data, self._rest = data[:whole], data[whole:]
        binascii.a2b_base64(data, strict_mode=True)
        return data

    def end(self) -> None:
        """Raises if something is missing."""
        if self._rest:
            raise ValueError("base64")


def read_usage(raw: JsonObject) -> Usage:
    """Return the tokens used. What has no place is handed on."""
    prompt_details = as_object(raw.get("prompt_tokens_details"))
    completion_details = as_object(raw.get("completion_tokens_details"))
    prompt, completion = _count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens"))
    total, reasoning = _count(raw.get("total_tokens")), _optional_count(completion_details.get("reasoning_tokens"))
    if reasoning and prompt + completion + reasoning == total:
        completion += reasoning  # xAI's chat API leaves thoughts out of the completion, and out of nothing else
    extra = {name: value for name, value in raw.items() if name not in _USAGE and value is not None}
    for name, details, known in (
        ("prompt_tokens_details", prompt_details, _PROMPT_DETAILS),
        ("completion_tokens_details", completion_details, _COMPLETION_DETAILS),
    ):
        if rest := {key: value for key, value in details.items() if value is not None and key not in known}:
            extra[name] = rest
    cached = prompt_details.get("cached_tokens") or raw.get("prompt_cache_hit_tokens") or raw.get("cached_tokens")
    return Usage(
        prompt,
        completion,
        total or prompt + completion,
        cached_tokens=_optional_count(prompt_details.get("cached_tokens") if cached is None else cached),
        cache_write_tokens=_optional_count(prompt_details.get("cache_write_tokens")),
        reasoning_tokens=reasoning,
        audio_input_tokens=_optional_count(prompt_details.get("audio_tokens")),
        audio_output_tokens=_optional_count(completion_details.get("audio_tokens")),
        extra=extra if not extra or is_shallow(extra) else {},
    )


def _optional_count(value: object) -> int | None:
    """Return a count; None where there is none, or nothing that is one."""
    return None if value != 0 and not _count(value) else _count(value)


def _count(value: object) -> int:
    if type(value) is int:  # nearly always
        return value if 0 <= value <= _MAX_COUNT else 0
    return int(value) if _is_number(value) and 0 <= value <= _MAX_COUNT else 0


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)
