"""What it means that a provider refuses: HTTP statuses, error payloads and their headers become errors of our tree.

For every protocol; what differs between providers is where the words stand, not what they say.

Who may read what a provider wrote: the caller reads our words, and a code of `SAFE_CODES`. The log has the status, the size, and
the error object's `type`, `code` and `param`, each if it is one word. The rest may quote the request, so it is logged at the level
"debug" only, redacted and cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson
import structlog

from antiphon.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from antiphon.redaction import redact

ERROR_BODY_BYTES: Final = 64 * 1024
"""As much as is read of the body of a refusal."""

ERROR_BODY_SECONDS: Final = 1.0
"""As long as it is read: the status is known without it."""

_LOGGED_CHARACTERS: Final = 500

_WORD: Final = re.compile(r"[\w.\-/\[\]]{1,64}")
"""What may be logged of an error object's field: one word, as no sentence of a request is."""

_DEFAULT_RETRY: Final = 1.0
"""Seconds to wait where a provider limits the rate and does not say for how long."""

_LONGEST_RETRY: Final = 24 * 3600.0

_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    400: ProviderRejected,
    401: ProviderCredentials,
    403: ProviderCredentials,
    404: ProviderRejected,
    408: ProviderTimeout,
    413: ProviderRejected,
    422: ProviderRejected,
    429: ProviderRateLimited,
    504: ProviderTimeout,
}

_PASSING: Final = frozenset({409, 425})
"""Statuses below 500, without a kind of their own, that another try may not meet: a conflict, and what came too early."""

_LASTING: Final = frozenset({501, 505})
"""Statuses from 500 on that it would meet again: what the host cannot do at all."""

_SPENT: Final = frozenset({"insufficient_quota", "insufficient_balance", "billing_hard_limit_reached"})
"""What the `code` or `type` of a payload says where nobody has paid: no time to wait will do."""

SAFE_CODES: Final = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "context_length_exceeded",
        "image_content_policy_violation",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_url",
        "invalid_json_schema",
        "invalid_prompt",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
        "model_not_found",
        "rate_limit_exceeded",
        "insufficient_quota",
        "string_above_max_length",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
    }
)
"""Codes that a caller may be told: fixed words of the OpenAI API, and of those who follow it, that hold nothing of ours.

https://platform.openai.com/docs/guides/error-codes, and `ResponseError.code` of its API reference.
"""

# What the `type` or `code` of an error payload says, in lower case with "_" between words. Whole words only: a guess from a part
# of a sentence would be wrong one day.
_BY_WORD: Final[Mapping[str, type[ProviderError]]] = {
    **dict.fromkeys(
        (
            "insufficient_quota",
            "quota_exceeded",
            "rate_limit",
            "rate_limited",
            "rate_limit_error",
            "rate_limit_exceeded",
            "rate_limit_reached",
            "ratelimiterror",
            "requests",
            "resource_exhausted",
            "tokens",
            "too_many_requests",
            "toomanyrequests",
        ),
        ProviderRateLimited,
    ),
    **dict.fromkeys(
        (
            "access_denied",
            "api_key_invalid",
            "authentication_error",
            "authenticationerror",
            "authorization_error",
            "invalid_api_key",
            "invalid_authentication",
            "permission_denied",
            "permission_error",
            "unauthenticated",
            "unauthorized",
        ),
        ProviderCredentials,
    ),
    **dict.fromkeys(
        ("bad_request", "badrequesterror", "invalid_argument", "invalid_request", "invalid_request_error", "not_found_error"),
        ProviderRejected,
    ),
    **dict.fromkeys(("deadline_exceeded", "timeout", "timeout_error", "request_timeout"), ProviderTimeout),
}

_log = structlog.get_logger(__name__)


def of_status(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The error that a status other than 2xx means."""
    fields = _error_fields(body)
    kind = _BY_STATUS.get(status, ProviderUnavailable)
    if kind is ProviderRejected and _by_words(fields) is ProviderCredentials:
        kind = ProviderCredentials  # some hosts answer 400 to a bad key
    return _build(provider, kind, status, fields, retry_after(headers))


def of_payload(provider: str, error: object) -> ProviderError:
    """The error that an error object inside a good answer means: a whole JSON object, or what stands under its "error"."""
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
    inner = fields.get("error")
    if isinstance(inner, dict):
        fields = inner
    status = next((s for s in map(_status, (fields.get(name) for name in ("status", "code", "status_code"))) if s), None)
    kind = _BY_STATUS.get(status or 0) or _by_words(fields) or ProviderUnavailable
    return _build(provider, kind, status, fields, None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before the next try, if the headers tell: `retry-after-ms`, or `Retry-After` in seconds or as a date.

    The names in `headers` are in lower case, or its look-up does not mind the case.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, _LONGEST_RETRY)
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
    return min(max(seconds, 0.0), _LONGEST_RETRY)


def log_refusal(provider: str, status: int | None, body: bytes, secrets: Iterable[str]) -> None:
    """Writes to the log that a provider failed, and how it calls that; what it said besides only at the level "debug"."""
    secrets = tuple(secrets)
    fields = _error_fields(body)
    words = {name: redact(str(fields[name]), secrets) for name in ("type", "code", "param") if _is_word(fields.get(name))}
    _log.warning("provider_error", provider=provider, status=status, size=len(body), **words)
    text = redact(body[:ERROR_BODY_BYTES].decode("utf-8", "replace"), secrets)
    _log.debug("provider_error_body", provider=provider, status=status, body=text[:_LOGGED_CHARACTERS])


def _build(
    provider: str, kind: type[ProviderError], status: int | None, fields: Mapping[str, Any], wait: float | None
) -> ProviderError:
    message = f"The provider {provider} failed."
    code = None
    retryable = None
    if kind is ProviderRateLimited:
        message = f"The provider {provider} limits the rate of calls, or its quota is used up."
        wait = _DEFAULT_RETRY if wait is None else wait
        retryable = not any(fields.get(name) in _SPENT for name in ("code", "type"))
    elif kind is ProviderRejected:
        message = f"The provider {provider} refused the request."
        wait = None
    elif kind is ProviderCredentials:
        message = f"The provider {provider} refused the key that this gateway has for it."
        wait = None
    elif kind is ProviderTimeout:
        message = f"The provider {provider} took too long."
    elif kind is ProviderUnavailable and status is not None:
        retryable = status in _PASSING or (status >= 500 and status not in _LASTING)
    word = fields.get("code")
    if kind in (ProviderRejected, ProviderRateLimited) and isinstance(word, str) and word in SAFE_CODES:
        code = word
        message = f"{message[:-1]}: {code}."
    return kind(message, provider=provider, status=status, code=code, retry_after=wait, retryable=retryable)


def _error_fields(body: bytes) -> Mapping[str, Any]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(payload, list) and payload:  # Google's hosts put it in an array
        payload = payload[0]
    if not isinstance(payload, dict):
        return {}
    inner = payload.get("error")
    return inner if isinstance(inner, dict) else payload


def _is_word(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and _WORD.fullmatch(value) is not None)


def _by_words(fields: Mapping[str, Any]) -> type[ProviderError] | None:
    for name in ("code", "type", "status"):
        word = fields.get(name)
        if isinstance(word, str):
            kind = _BY_WORD.get(word.lower().replace("-", "_").replace(" ", "_"))
            if kind is not None:
                return kind
            if word in SAFE_CODES:
                return ProviderRejected
    return None


def _status(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:4])
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
