"""How long a provider says to wait before a retry: in the headers of an error, or in its body. No I/O.

https://www.rfc-editor.org/rfc/rfc9110#field.retry-after for the header. In bodies: Google's `RetryInfo`; a field for the wait;
OpenRouter's `metadata.headers`; and the message of OpenAI, Azure, Groq and others, the only place that has it in a stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from antiphon.providers.error_fields import details_of, explanation

LONGEST_RETRY: Final = 24 * 3600.0
"""The most seconds to wait that a provider may ask for."""

_DELAY: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
"""A `google.protobuf.Duration` in JSON, such as "34.5s"."""

_FIELDS: Final = {"retry_after_ms": 0.001, "retry_after_seconds": 1.0, "retry_after": 1.0}
"""Fields of error objects that have the wait, and their unit in seconds."""

_RESETS: Final = "x-ratelimit-reset"
"""The header with the moment at which OpenRouter takes calls again, in milliseconds of Unix time."""

_UNIT: Final = r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)(?![a-z])"
_SENTENCE: Final = re.compile(
    rf"\b(?:try|retry) (?:again )?(?:in|after) ((?:\d{{1,9}}(?:\.\d{{1,9}})?\s?{_UNIT},?\s?)+)", re.IGNORECASE
)
"""OpenAI: "Please try again in 1m30.5s."; Azure: "Please retry after 26 seconds."; Groq: "Please try again in 7.66s."."""

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s?(ms|mil|[smh])", re.IGNORECASE)
_UNITS: Final = {"ms": 0.001, "mil": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
"""The beginnings of the units in such a sentence."""

_MILLISECONDS: Final = 10**11
"""A Unix time from here on is in milliseconds."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait before a retry, or None if the headers do not say.

    Reads `retry-after-ms`, else `Retry-After` in seconds or as a date. The names in `headers` must be lower-case, or its lookup
    case-insensitive. A wait of 0 says nothing, and neither does a date that is over, as that of a host whose clock is slow: to call
    at once a host that has just refused would be refused again.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds:
        return min(milliseconds / 1000, LONGEST_RETRY)
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None:
        try:
            when = parsedate_to_datetime(value)
            seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return _wait(seconds)


def retry_delay(fields: Mapping[str, Any]) -> float | None:
    """Return the seconds to wait before a retry, or None if the error object does not say."""
    for entry in details_of(fields):
        found = _DELAY.fullmatch(str(entry.get("retryDelay")))
        if found and (wait := _wait(float(found[1]))) is not None:
            return wait
    metadata = fields.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    for place in (fields, metadata):
        for name, unit in _FIELDS.items():
            seconds = _number(str(place.get(name)))
            if seconds:
                return min(seconds * unit, LONGEST_RETRY)
    headers = metadata.get("headers")
    if (
        isinstance(headers, dict)
        and (seconds := _by_header({str(name).lower(): str(headers[name]) for name in headers})) is not None
    ):
        return seconds
    raw = metadata.get("raw")  # the error of the provider that OpenRouter asked
    return _wait_in_message(explanation(fields)) or (_wait_in_message(raw) if isinstance(raw, str) else None)


def _by_header(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait by the headers that a body repeats."""
    seconds = retry_after(headers)
    moment = _number(headers.get(_RESETS))
    if seconds is not None or moment is None:
        return seconds
    moment = moment / 1000 if moment >= _MILLISECONDS else moment
    return _wait(moment - datetime.now(UTC).timestamp())


def _wait(seconds: float) -> float | None:
    return min(seconds, LONGEST_RETRY) if seconds > 0 else None


def _wait_in_message(message: str) -> float | None:
    """Return the seconds to wait in a message; None if it has no such sentence."""
    found = _SENTENCE.search(message[:2000])
    if found is None:
        return None
    return _wait(sum(float(number) * _UNITS[unit.lower()] for number, unit in _PART.findall(found[1])))


def _number(text: str | None) -> float | None:
    """Return a finite number that is not negative; None for any other text."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
