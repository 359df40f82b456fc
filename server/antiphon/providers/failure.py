"""Turns failures of providers - HTTP statuses, error payloads, headers - into `ProviderError`s, for every protocol.

Providers put their error words in different places, but mean the same by them.

Who may read a provider's text: the caller reads the gateway's messages and the codes in `SAFE_CODES`. If the request was rejected,
the caller also reads the provider's explanation, without keys, hosts and addresses (`explain`). The log has the status, the size,
and the error object's `type`, `code` and `param` if each is one word. All else may quote the request, so it is logged at the level
"debug" only, redacted and truncated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog

from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    Rejection,
)
from antiphon.providers.error_fields import (
    details_of,
    error_fields,
    error_status,
    explanation,
    invalid_field,
    is_daily_quota,
)
from antiphon.providers.rejection import rejection_of
from antiphon.providers.retry_advice import retry_after, retry_delay
from antiphon.telemetry.redaction import publishable, redact

ERROR_BODY_BYTES: Final = 64 * 1024
"""The most bytes read of an error response's body."""

ERROR_BODY_SECONDS: Final = 1.0
"""The most seconds spent reading that body: the status is known without it."""

_LOGGED_CHARACTERS: Final = 500

EXPLANATION_CHARACTERS: Final = 1000
"""The most characters of a provider's explanation that a caller reads."""

_WORD: Final = re.compile(r"[\w.\-/\[\]]{1,64}")
"""The values of an error object's fields that may be logged: one word, which cannot be a sentence of the request."""

_CODE: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")
"""The provider codes that a caller may read: identifiers, in which no address fits."""

_DEFAULT_RETRY: Final = 1.0
"""Seconds to wait if a provider limits the rate without saying for how long."""

_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    400: ProviderRejected,
    401: ProviderCredentials,
    402: ProviderCredentials,  # the account is not paid for
    403: ProviderCredentials,
    404: ProviderCredentials,  # the model does not exist there: the configuration is wrong
    408: ProviderTimeout,
    413: ProviderRejected,
    422: ProviderRejected,
    429: ProviderRateLimited,
    504: ProviderTimeout,
}

_RETRYABLE_STATUSES: Final = frozenset({409, 424, 425, 498, 499})
"""Statuses below 500 without an error class of their own after which a retry may succeed: a conflict, a model that failed (AWS
Bedrock), a request that came too early, a tier without capacity (Groq), or Google's `CANCELLED`."""

_BLOCKED: Final = 498
_BLOCKED_TEXT: Final = re.compile(r"\s*blocked (?:input|output)\b", re.IGNORECASE)
"""Cohere's status for a prompt or a reply that it refuses, and the start of its messages. Groq has it for a lack of capacity."""

_FINAL_STATUSES: Final = frozenset({501, 505})
"""Statuses from 500 on after which a retry is useless, because the host cannot do it at all."""

_ABOUT_OUR_ACCOUNT: Final = re.compile(
    r"\s*(?:access denied|authentication (?:error|fail|is required|required)|not authorized|unauthorized"
    r"|(?:the |your )?api[ -]?key (?:not|is|has|was|expired|invalid|missing|required)\b"
    r"|(?:an? )?(?:incorrect|invalid|missing|expired|unknown|no) (?:api[ _-]?key|(?:access |auth )?token\W*$|credentials?\b)"
    r"|(?:(?:your|you have) )?insufficient (?:balance|credits?|funds|quota)\b|your (?:credit )?balance\b"
    r"|you have (?:reached your specified|exceeded your|run out of|no credits?\b)"
    r"|user location is not supported\b"
    r"|(?:this|the|your) (?:account|organi[sz]ation|project|team|workspace) (?:has been|is|was) (?:deactivat|disabl|suspend)ed)",
    re.IGNORECASE,
)
"""The start of messages that are about the gateway's key or account, from hosts that send no status or code for that.

Anthropic: "Your credit balance is too low ...", "You have reached your specified API usage limits."; Google: "API key not valid.",
"User location is not supported for the API use."; xAI: "Incorrect API key provided: ...". Only the start is matched, and only if no
field is named, so that text from the caller is not taken for a bad key.
"""

_ABOUT_OUR_MODEL: Final = re.compile(
    r"\s*(?:the provided model identifier is invalid|invocation of model id \S+ with on-demand throughput isn.t supported"
    r"|\S{1,128} is not a valid model id\b)",
    re.IGNORECASE,
)
"""The start of messages of hosts (Bedrock, OpenRouter) that do not have a model, and send no word for that."""

_QUOTA_USED_UP: Final = frozenset(
    {
        "insufficient_quota",
        "insufficient_balance",
        "billing_hard_limit_reached",
        "ServiceQuotaExceededException",
        # Anthropic's `details.error_code`: https://platform.claude.com/docs/en/api/errors
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    }
)
"""The `code` or `type` of an error that says the quota or balance is used up. A retry is useless, however late."""

_SHOULD_RETRY: Final = {"true": True, "false": False}
"""The values of the header `x-should-retry`."""

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
"""Codes that a caller may read: fixed words of the OpenAI API, and of hosts that follow it. They reveal nothing about the gateway.

https://platform.openai.com/docs/guides/error-codes, and `ResponseError.code` of its API reference.
"""

_AWS_TYPE: Final = "x-amzn-errortype"
"""The header in which AWS names the error: `ThrottlingException`, or the same with a colon and an address."""

_MODEL_WORDS: Final = frozenset(
    {
        "invalid_model",
        "model_decommissioned",
        "model_not_available",
        "model_not_found",
        "not_found",
        "not_found_error",
        "resourcenotfoundexception",
    }
)
"""Values of `code`, `type` or `status` that mean the host does not have the model."""

# By the `type` or `code` of an error payload, in lower case with "_" between words. Only whole words are compared, because matching
# parts of sentences would be wrong some day.
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
            "servicequotaexceededexception",
            "throttlingexception",
            "tokens",
            "too_many_requests",
            "toomanyrequests",
        ),
        ProviderRateLimited,
    ),
    **dict.fromkeys(
        (
            "access_denied",
            "accessdenied",
            "accessdeniedexception",
            "account_deactivated",
            "api_key_expired",
            "api_key_invalid",
            "api_key_service_blocked",
            "arrearage",
            "authentication_error",
            "authenticationerror",
            "authorization_error",
            "billing_disabled",
            "billing_error",
            "billing_not_active",
            "consumer_suspended",
            "expiredtokenexception",
            "incompletesignatureexception",
            "invalid_api_key",
            "invalid_authentication",
            "invalidsignatureexception",
            "missingauthenticationtokenexception",
            *_MODEL_WORDS,
            "permission_denied",
            "permission_error",
            "service_disabled",
            "unauthenticated",
            "unauthorized",
            "unrecognizedclientexception",
        ),
        ProviderCredentials,
    ),
    **dict.fromkeys(
        (
            "bad_request",
            "badrequesterror",
            "invalid_argument",
            "invalid_request",
            "invalid_request_error",
            "request_too_large",
            "validationexception",
        ),
        ProviderRejected,
    ),
    **dict.fromkeys(("deadline_exceeded", "timeout", "timeout_error", "request_timeout", "modeltimeoutexception"), ProviderTimeout),
}

_log = structlog.get_logger(__name__)


def error_of_status(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Return the error for a response with a status other than 2xx."""
    fields = error_fields(body)
    if _AWS_TYPE in headers and "type" not in fields:
        fields = {**fields, "type": headers[_AWS_TYPE].partition(":")[0]}
    is_blocked = status == _BLOCKED and _BLOCKED_TEXT.match(explanation(fields)) is not None
    kind = ProviderRejected if is_blocked else _rejection_kind(_BY_STATUS.get(status, ProviderUnavailable), fields)
    wait = retry_after(headers)
    error = _build(provider, kind, status, fields, retry_delay(fields) if wait is None else wait)
    advice = _SHOULD_RETRY.get(headers.get("x-should-retry", ""))
    if advice is not None and kind in (ProviderRateLimited, ProviderTimeout, ProviderUnavailable):
        error.retryable = advice
    return error


def error_of_payload(provider: str, error: object) -> ProviderError:
    """Return the error for an error object inside a 2xx response: a whole JSON object, or the value of its "error"."""
    if isinstance(error, list) and error:
        error = error[0]
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
    inner = fields.get("error")
    if isinstance(inner, dict):
        fields = inner
    status = next((s for s in map(error_status, (fields.get(name) for name in ("status", "code", "status_code"))) if s), None)
    kind = _rejection_kind(_BY_STATUS.get(status or 0) or _by_words(fields) or ProviderUnavailable, fields)
    return _build(provider, kind, status, fields, retry_delay(fields))


def explain(error: ProviderError, body: bytes, private: Iterable[str]) -> None:
    """Add the provider's code, param and message to a `ProviderRejected`; leave other errors unchanged.

    `body` is the provider's response. `private` are the texts to remove from it: keys, and names of hosts.
    """
    if not isinstance(error, ProviderRejected) or _BY_STATUS.get(error.status or 0) is ProviderCredentials:
        return  # text with such a status may name the gateway's account
    private = tuple(private)
    fields = error_fields(body)
    code, text = fields.get("code"), explanation(fields)
    if isinstance(code, str) and code != str(error.status) and _CODE.fullmatch(code) and publishable(code, private) == code:
        error.code = code
    param = invalid_field(fields)
    if _WORD.fullmatch(param) and publishable(param, private) == param:
        error.param = param
    # Truncated after the redaction, which would not find half a secret.
    error.explanation = publishable(text, private).strip()[:EXPLANATION_CHARACTERS] or None


def log_refusal(provider: str, status: int | None, body: bytes, secrets: Iterable[str]) -> None:
    """Log that a provider failed, with its error words; its full text only at the level "debug"."""
    secrets = tuple(secrets)
    fields = error_fields(body)
    words = {name: redact(str(fields[name]), secrets) for name in ("type", "code", "param") if _is_word(fields.get(name))}
    _log.warning("provider_error", provider=provider, status=status, size=len(body), **words)
    text = redact(body[:ERROR_BODY_BYTES].decode("utf-8", "replace"), secrets)
    _log.debug("provider_error_body", provider=provider, status=status, body=text[:_LOGGED_CHARACTERS])


def _build(
    provider: str, kind: type[ProviderError], status: int | None, fields: Mapping[str, Any], wait: float | None
) -> ProviderError:
    """Return an error of class `kind`, with the message, code and retry rules of that class. `wait` is in seconds."""
    message = f"The provider {provider} failed."
    is_about_model = status == 404 or _mentions_model(fields)
    code = None
    retryable = None
    if kind is ProviderRateLimited:
        message = f"The provider {provider} limits the rate of calls, or its quota is used up."
        wait = _DEFAULT_RETRY if wait is None else wait
        details = fields.get("details")
        words = (fields.get("code"), fields.get("type"), details.get("error_code") if isinstance(details, dict) else None)
        is_used_up = any(word in _QUOTA_USED_UP for word in words if isinstance(word, str)) or is_daily_quota(fields)
        retryable = not is_used_up
    elif kind is ProviderRejected:
        message = f"The provider {provider} refused the request."
        wait = None
    elif kind is ProviderCredentials and is_about_model:
        message = f"The provider {provider} does not have the model, or not for the key that it was asked with."
        wait = None
    elif kind is ProviderCredentials:
        message = f"The provider {provider} refused the key that this gateway has for it."
        wait = None
    elif kind is ProviderTimeout:
        message = f"The provider {provider} took too long."
    elif kind is ProviderUnavailable and status is not None:
        retryable = status in _RETRYABLE_STATUSES or (status >= 500 and status not in _FINAL_STATUSES)
    word = fields.get("code")
    rejection = rejection_of(fields, explanation(fields)) if kind is ProviderRejected else Rejection.INVALID
    if rejection is Rejection.TOO_LONG:
        word = "context_length_exceeded"  # whatever the host calls it: clients shorten the conversation then
    if kind in (ProviderRejected, ProviderRateLimited, ProviderCredentials) and isinstance(word, str) and word in SAFE_CODES:
        code = word
        message = f"{message[:-1]}: {code}."
    made = kind(message, provider=provider, status=status, code=code, retry_after=wait, retryable=retryable)
    if isinstance(made, ProviderCredentials):
        made.is_about_model = is_about_model
    elif isinstance(made, ProviderRejected):
        made.rejection = rejection
    return made


def _rejection_kind(kind: type[ProviderError], fields: Mapping[str, Any]) -> type[ProviderError]:
    """Return the class of an error, whatever the class that its status means.

    Some hosts answer 400 to a bad key or an empty account, 403 or 404 to what one request has in it, such as its content or state
    that they do not have, and 500 to a request that is too long. The next request may be answered then.
    """
    if kind in (ProviderCredentials, ProviderUnavailable):
        found = rejection_of(fields, explanation(fields))
        is_rejected = found is Rejection.TOO_LONG or (found is not Rejection.INVALID and kind is ProviderCredentials)
        return ProviderRejected if is_rejected else kind
    if kind is not ProviderRejected:
        return kind
    meant = _by_words(fields)
    if meant in (ProviderCredentials, ProviderRateLimited):
        return meant
    text = "" if invalid_field(fields) else explanation(fields)
    return ProviderCredentials if _ABOUT_OUR_ACCOUNT.match(text) or _ABOUT_OUR_MODEL.match(text) else kind


def _mentions_model(fields: Mapping[str, Any]) -> bool:
    words = [fields.get(name) for name in ("code", "type", "status")]
    is_named = any(_normal(word) in _MODEL_WORDS for word in words if isinstance(word, str))
    return is_named or _ABOUT_OUR_MODEL.match(explanation(fields)) is not None


def _normal(word: str) -> str:
    """Return a word in the form of the tables here: lower case, with "_" between words."""
    return word.lower().replace("-", "_").replace(" ", "_")


def _is_word(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and _WORD.fullmatch(value) is not None)


def _by_words(fields: Mapping[str, Any]) -> type[ProviderError] | None:
    """Return the error class for the reason, code, type or status words of an error object; None if all are unknown."""
    reasons = [entry.get("reason") for entry in details_of(fields)]
    for word in (*reasons, fields.get("code"), fields.get("type"), fields.get("status")):
        if isinstance(word, str):
            kind = _BY_WORD.get(_normal(word))
            if kind is not None:
                return kind
            if word in SAFE_CODES:
                return ProviderRejected
    return None
