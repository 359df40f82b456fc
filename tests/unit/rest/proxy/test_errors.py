"""Tests of the errors of the two proxy paths."""

import json

import pytest

from antiphon.domain import errors
from antiphon.domain.errors import InvalidRequest
from antiphon.rest.proxy.errors import gemini_refusal, openai_refusal, render_gemini_error, render_openai_error


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.Unauthenticated("x"), 401, "UNAUTHENTICATED"),
        (errors.PermissionDenied("x"), 403, "PERMISSION_DENIED"),
        (InvalidRequest("x"), 400, "INVALID_ARGUMENT"),
        (errors.DeadlineExceeded(), 504, "DEADLINE_EXCEEDED"),
        (errors.ShuttingDown(), 503, "UNAVAILABLE"),
        (errors.Internal(), 500, "INTERNAL"),
        (errors.ProviderTimeout("x", provider="h"), 504, "DEADLINE_EXCEEDED"),
        (errors.ProviderUnavailable("x", provider="h"), 502, "UNAVAILABLE"),
        (errors.ProviderProtocolError("x", provider="h"), 502, "UNAVAILABLE"),
    ],
)
def test_errors_have_the_shape_of_each_api(error: errors.AntiphonError, status: int, name: str) -> None:
    """An error has the form of its API, OpenAI's or Gemini's, with the same status in both."""
    code, _, body = render_openai_error(error)
    assert (code, set(json.loads(body)), set(json.loads(body)["error"])) == (
        status,
        {"error"},
        {"message", "type", "param", "code"},
    )
    code, headers, body = render_gemini_error(error)
    assert (code, json.loads(body)) == (status, {"error": {"code": status, "message": error.message, "status": name}})
    assert ("x-should-retry" in headers) == (not error.retryable)


@pytest.mark.parametrize(
    ("status", "word"),
    [(400, "INVALID_ARGUMENT"), (405, "NOT_FOUND"), (408, "DEADLINE_EXCEEDED"), (413, "INVALID_ARGUMENT"), (503, "UNAVAILABLE")],
)
def test_envoys_own_errors_have_the_shape_of_each_api(status: int, word: str) -> None:
    """Envoy's own errors have the same forms."""
    assert gemini_refusal(status, "No.") == {"error": {"code": status, "message": "No.", "status": word}}
    assert openai_refusal(status, "No.").keys() == {"error"}
