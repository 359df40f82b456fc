"""What the dialects share of HTTP: which reason is which status, the headers of an error, and how a transfer is broken off."""

from __future__ import annotations

import math
from typing import Any, Final

import grpc

from antiphon.domain.errors import AntiphonError, ProviderRejected, Reason

ENVOY_HEADERS: Final = 100
"""As many headers, and trailers, as Envoy takes from this server."""

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
    """The HTTP status of an error, where its dialect documents no other."""
    return _STATUSES[error.reason]


def sdk_status_of(error: AntiphonError) -> int:
    """The HTTP status of an error in a dialect of an SDK: a request that the provider refuses is the caller's fault, not a 502.

    So clients do what they do without a gateway: shorten a conversation that is too long, and do not try again.
    """
    return 400 if isinstance(error, ProviderRejected) else status_of(error)


def headers_of(error: AntiphonError) -> dict[str, str]:
    """The headers of an error: `retry-after` in whole seconds, `x-should-retry`, and `www-authenticate` with a 401."""
    headers: dict[str, str] = {}
    status = status_of(error)
    if error.retry_after is not None or status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after or 1)))
    if not error.retryable:
        headers["x-should-retry"] = "false"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


def abort_transfer(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Sees to it that the caller's transfer breaks when the call ends with an error, though an answer has begun.

    To Envoy's transcoder such an end is a good one: nothing would tell half a JSON array from a whole one but its text. More
    trailers than Envoy takes (`max_headers_count` in `gateway/clusters.yaml`) make it reset the stream, this one alone: a caller of
    HTTP/1.1 gets no last chunk and loses the connection, one of HTTP/2 gets a reset.
    """
    context.set_trailing_metadata((("x-antiphon-cut", "1"),) * (ENVOY_HEADERS + 1))
