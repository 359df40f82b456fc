"""HTTP rules that the dialects share: the status and headers of an error."""

from __future__ import annotations

import math

from antiphon.domain.errors import AntiphonError, ProviderRejected, Reason

_STATUSES = {
    Reason.INVALID_REQUEST: 400,
    Reason.UNSUPPORTED: 400,
    Reason.UNAUTHENTICATED: 401,
    Reason.PERMISSION_DENIED: 403,
    Reason.MODEL_NOT_FOUND: 404,
    Reason.DEADLINE_EXCEEDED: 504,
    Reason.SHUTTING_DOWN: 503,
    Reason.INTERNAL: 500,
    Reason.PROVIDER_RATE_LIMITED: 429,
    Reason.PROVIDER_REJECTED: 502,
    Reason.PROVIDER_CREDENTIALS: 502,
    Reason.PROVIDER_UNAVAILABLE: 502,
    Reason.PROVIDER_TIMEOUT: 504,
    Reason.PROVIDER_PROTOCOL: 502,
    Reason.ROUTE_UNAVAILABLE: 503,
    Reason.CONVERSATION_NOT_FOUND: 404,
    Reason.MESSAGE_NOT_FOUND: 404,
    Reason.CONVERSATION_CHANGED: 409,
    Reason.TURN_NOT_COMPLETE: 409,
    Reason.TURN_IN_PROGRESS: 409,
    Reason.REQUEST_ID_REUSED: 409,
    Reason.STORE_UNAVAILABLE: 503,
    Reason.CONTEXT_UNAVAILABLE: 503,
    Reason.KEY_NOT_FOUND: 404,
    Reason.KEY_REVOKED: 409,
    Reason.IDENTITY_UNAVAILABLE: 503,
    Reason.RATE_LIMIT_EXCEEDED: 429,
    Reason.BUDGET_EXCEEDED: 402,
    Reason.LIMITS_UNAVAILABLE: 503,
    Reason.CONTENT_BLOCKED: 400,
}


def status_of(error: AntiphonError) -> int:
    """Return the HTTP status of an error, for dialects that document no other."""
    return _STATUSES[error.reason]


def sdk_status_of(error: AntiphonError) -> int:
    """Return the HTTP status of an error for a dialect of an SDK: a request that the provider rejects gets 400, not 502.

    Clients then behave as without a gateway: they shorten a conversation that is too long, and do not retry.
    """
    return 400 if isinstance(error, ProviderRejected) else status_of(error)


def headers_of(error: AntiphonError) -> dict[str, str]:
    """Return the headers of an error: `retry-after`, `x-should-retry` and `www-authenticate`, as far as they apply.

    `retry-after`, in whole seconds, is set with 429 and 503, and if the error has a delay; `x-should-retry` is false if a retry is
    useless; `www-authenticate` is set with 401.
    """
    headers: dict[str, str] = {}
    status = status_of(error)
    if error.retry_after is not None or status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after or 1)))
    if not error.retryable:
        headers["x-should-retry"] = "false"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers
