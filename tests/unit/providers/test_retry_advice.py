"""Tests of reading how long a provider says to wait."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from antiphon.providers.failure import error_of_payload, error_of_status
from antiphon.providers.retry_advice import retry_after, retry_delay


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e99"}, 24 * 3600),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after-ms": "0", "retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 24 * 3600),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
        ({"retry-after": "Mon, 1 Jan 2024 1:1:1 +999999999999999999"}, None),
        ({"retry-after": "Thu, 01 Jan 0001 00:00:00 +2359"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """The time to wait is read in milliseconds, seconds or as a date; an invalid one is None."""
    assert retry_after(headers) == seconds


def test_retry_after_date() -> None:
    """A future date gives the seconds until then."""
    value = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)})
    assert value is not None
    assert 57 < value <= 60


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (
            "Rate limit reached for gpt-5 on tokens per min (TPM): Limit 1. Please try again in 1.898s. Visit https://u",
            1.898,
        ),
        ("Rate limit reached for requests. Please try again in 20ms.", 0.02),
        ("Please try again in 6m0s. Contact us", 360),
        ("Please try again in 1h2m3.5s.", 3723.5),
        ("Requests have exceeded the call rate limit. Please retry after 26 seconds.", 26),
        ("Please try again in 1 minute.", 60),
        ("Try again in 2 minutes, 3 seconds", 123),
        ("Please retry after 500 milliseconds", 0.5),
        ("Please try again in 5 months.", None),
        ("Please try again in a moment.", None),
        ("Please try again later. It took 5s.", None),
        ("Please try again in 999999999h", 24 * 3600),
    ],
)
def test_what_a_message_says(message: str, seconds: float | None) -> None:
    """OpenAI, Azure, Groq and others say it in a sentence; inside a stream there is no other place."""
    assert retry_delay({"message": message}) == (None if seconds is None else pytest.approx(seconds))
    body = {"error": {"message": message, "code": "rate_limit_exceeded"}}
    expected = pytest.approx(1.0 if seconds is None else seconds)
    assert error_of_payload("acme", body).retry_after == expected
    assert error_of_status("acme", 429, {}, json.dumps(body).encode()).retry_after == expected
    assert error_of_status("acme", 429, {"retry-after": "9"}, json.dumps(body).encode()).retry_after == 9


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"retry_after": 7}, 7),
        ({"retry_after_seconds": 2.5}, 2.5),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"metadata": {"retry_after_seconds": 4}}, 4),
        ({"metadata": {"headers": {"Retry-After": "3"}}}, 3),
        ({"metadata": {"raw": '{"error":{"message":"Please try again in 12s."}}'}}, 12),
        ({"metadata": {"headers": [], "raw": {}}}, None),
        ({"metadata": {"headers": {"X-RateLimit-Reset": "0"}}}, None),
        ({"metadata": 1, "retry_after": None}, None),
        ({"retry_after": -1}, None),
        ({"retry_after": True}, None),
        ({}, None),
    ],
)
def test_fields_of_an_error(fields: dict[str, Any], seconds: float | None) -> None:
    assert retry_delay(fields) == seconds


@pytest.mark.parametrize("unit", [1, 1000])
def test_the_moment_in_the_body_of_an_error(unit: int) -> None:
    """OpenRouter repeats headers there; the moment is in Unix time, of seconds or milliseconds."""
    moment = int((datetime.now(UTC).timestamp() + 60) * unit)
    found = retry_delay({"metadata": {"headers": {"X-RateLimit-Reset": str(moment)}}})
    assert found is not None
    assert 57 < found <= 60
