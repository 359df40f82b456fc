"""Checks the values of an answer, because hosts send values of other types and ranges than documented. No I/O.

Wrong values are handled in two ways. Values that only describe the reply, such as times and token counts, are left out, so they do
not cost the reply. Wrong content raises `TypeError` or `ValueError`, which `StreamReader` turns into a `ProviderError`.
"""

from __future__ import annotations

import binascii
import math
from typing import Any, Final, TypeGuard

from msgspec import Struct

from antiphon.domain.content import JsonObject

MAX_INDEX: Final = 2**31 - 1
"""The highest index of a choice, or offset in a text: the limit of 32 bits."""

MAX_DEPTH: Final = 24
"""The most nested objects and lists in a field that is passed on unread. Readers of gRPC messages allow about 30."""

UNLIKELY: Final = -9999.0
"""The log probability that the API sends for a very unlikely token."""

_MAX_COUNT: Final = 2**53
"""The most tokens: sums of it still fit 64 bits, and it is exact in JSON."""

# Built once: an `int | float` in a call is built each time.
_NUMBERS: Final = (int, float)
_CONTAINERS: Final = (dict, list)

MAX_TIME: Final = 253_402_300_799
"""The last second of the year 9999, the latest that a timestamp can hold."""


def text(value: object) -> str:
    """Return a text; empty for None. Raises `TypeError` for other values."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise TypeError("not a text")


_USUAL_TIERS: Final = frozenset({"auto", "default", "standard", "on_demand", "unspecified"})


def service_tier(value: object) -> str:
    """Return the word for the service that a call got; empty for the usual one, and for any other value."""
    tier = value.lower() if isinstance(value, str) else ""
    return "" if tier in _USUAL_TIERS else tier


def as_object(value: object) -> JsonObject:
    """Return a JSON object unchanged, and an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def index_of(value: object) -> int:
    """Return an index. Raises `TypeError` or `ValueError` if it is none."""
    if type(value) is not int:
        raise TypeError("index")
    if not 0 <= value <= MAX_INDEX:
        raise ValueError("index")
    return value


def check_depth(value: object) -> None:
    """Raise `ValueError` for fields that are nested too deeply to be passed on."""
    if not is_shallow(value):
        raise ValueError("depth")


def is_shallow(value: object, depth: int = MAX_DEPTH) -> bool:
    """Return whether objects and lists are nested at most `depth` levels deep."""
    level: list[Any] = [value]
    while level := [one for one in level if isinstance(one, _CONTAINERS)]:
        if depth == 0:
            return False
        depth -= 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return True


def other_fields(fields: JsonObject, known: frozenset[str]) -> JsonObject:
    """Return the fields that are not `known`. Raises `ValueError` for values that are nested too deeply."""
    others = {name: value for name, value in fields.items() if name not in known}
    if not is_shallow(others):
        raise ValueError("depth")
    return others


def changed_fields(chunk: JsonObject, known: JsonObject, places: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the unknown fields of a chunk that are new or changed, in the host's order, and the names of those repeated unchanged.

    `places` are the known fields, and `known` the earlier values of unknown ones. A null after another value is neither new nor
    repeated. Raises `ValueError` for values that are nested too deeply.
    """
    changed: dict[str, Any] = {}
    repeated: list[str] = []
    for name, value in chunk.items():
        if name in places:
            continue
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
    """Return a time in Unix seconds; None if the value is not one."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:20])
    if type(value) is int:  # the fast path
        return value if 0 < value <= MAX_TIME else None
    return int(value) if _is_number(value) and 0 < value <= MAX_TIME else None


def read_logprobs(value: object) -> tuple[JsonObject, ...]:
    """Return log probabilities, in the form of the domain, which is that of the OpenAI API.

    An infinite value is replaced by `UNLIKELY`, and NaN by None.

    Raises `TypeError`, `ValueError` or `KeyError` for JSON of another shape.
    """
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
    """Check one entry, and replace an infinite or NaN log probability in place. Raises for other shapes."""
    if not isinstance(entry["token"], str) or not isinstance(entry["logprob"], int | float | None):
        raise TypeError("logprob")
    if entry["logprob"] is not None and not math.isfinite(entry["logprob"]):
        entry["logprob"] = None if math.isnan(entry["logprob"]) else UNLIKELY
    given = entry.get("bytes")
    if given is not None:
        if not isinstance(given, list):
            raise TypeError("bytes")
        bytes(given)  # raises unless it is a list of bytes


class StreamedText(Struct):
    """The length and the last piece of a streamed text. The text itself is not kept, so that a token costs little."""

    length: int = 0
    last: str = ""

    def add(self, piece: str) -> str:
        """Add a piece, and return it."""
        self.length += len(piece)
        self.last = piece
        return piece

    def rest(self, whole: object) -> str:
        """Return the part of a whole text that was not streamed yet. Some hosts send the whole text again at the end.

        Empty if it does not continue the streamed text, judged by length and last piece, or is no text.
        """
        if not isinstance(whole, str):
            return ""
        goes_on = whole[self.length - len(self.last) : self.length] == self.last
        return whole[self.length :] if goes_on else ""


class Base64Joiner:
    """Turns base64 that may be cut anywhere into pieces that can be decoded on their own."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, data: str) -> str:
        """Return the longest piece that can be decoded by now. Raises `ValueError` for invalid base64."""
        data = self._rest + data
        whole = len(data) // 4 * 4
        data, self._rest = data[:whole], data[whole:]
        binascii.a2b_base64(data, strict_mode=True)
        return data

    def end(self) -> None:
        """Raise `ValueError` if the last group is incomplete."""
        if self._rest:
            raise ValueError("base64")


def optional_count(value: object) -> int | None:
    """Return a token count; None if the value is missing or invalid."""
    if value is None or type(value) is int:  # the fast path
        return value if value is not None and 0 <= value <= _MAX_COUNT else None
    return None if value != 0 and not count(value) else count(value)


def count(value: object) -> int:
    """Return a token count; 0 if the value is missing or invalid."""
    if type(value) is int:  # the fast path
        return value if 0 <= value <= _MAX_COUNT else 0
    return int(value) if _is_number(value) and 0 <= value <= _MAX_COUNT else 0


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)
