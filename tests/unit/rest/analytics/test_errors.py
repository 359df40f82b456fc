"""Tests of the errors of the analytics dialect."""

import json

import pytest

from antiphon.domain.errors import (
    AntiphonError,
    ContentBlocked,
    ContextUnavailable,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    ProviderRateLimited,
    ProviderUnavailable,
    Unauthenticated,
    Unsupported,
    Violation,
)
from antiphon.rest.analytics.errors import refusal, render_error


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (Unauthenticated("x"), 401, "Unauthorized"),
        (PermissionDenied("x"), 403, "Forbidden"),
        (ModelNotFound("x"), 404, "Not Found"),
        (ProviderUnavailable("x", provider="p"), 502, "Error"),
        (DeadlineExceeded(), 504, "Gateway Timeout"),
        (ContextUnavailable("acme"), 503, "Service Unavailable"),
        (Internal(), 500, "Internal Server Error"),
    ],
)
def test_errors_have_the_documented_shape(error: AntiphonError, status: int, word: str) -> None:
    """An error has the fields `error`, `message` and `code`."""
    found, headers, data = render_error(error)
    assert found == status
    assert json.loads(data) == {"error": word, "message": error.message, "code": status}
    assert ("www-authenticate" in headers) is (status == 401)


def test_a_rate_limit_tells_when_to_try_again_in_body_and_header() -> None:
    """A rate limit has the time to wait in body and header, in whole seconds, rounded up."""
    status, headers, data = render_error(ProviderRateLimited("x", provider="p", retry_after=2.5))
    assert (status, headers["retry-after"]) == (429, "3")
    assert json.loads(data) == {"error": "Too Many Requests", "message": "x", "code": 429, "retryAfter": 3}


def test_a_400_always_has_details() -> None:
    """A 400 always has `details`, also if no single field is wrong, a guard blocks, or the body is not JSON."""
    blocked = json.loads(render_error(ContentBlocked("pii"))[2])
    assert (blocked["code"], blocked["details"]) == (400, [])
    assert json.loads(render_error(Unsupported("No video.", "p"))[2]) == {
        "error": "Bad Request",
        "message": "No video.",
        "code": 400,
        "details": [],
    }
    broken = InvalidRequest("x", (Violation((7,), "JSON decode error", "json_invalid"),))
    assert json.loads(render_error(broken)[2])["details"] == [{"field": "body", "message": "JSON decode error"}]


def test_envoys_own_errors_have_the_documented_shape() -> None:
    """Envoy's own errors have the same form, with fixed names of statuses."""
    assert refusal(413, "No.") == {"error": "Payload Too Large", "message": "No.", "code": 413}
    assert refusal(400, "No.") == {"error": "Bad Request", "message": "No.", "code": 400, "details": []}
