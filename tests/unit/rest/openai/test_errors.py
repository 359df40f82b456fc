"""Tests of the errors of the OpenAI dialect."""

import json

import pytest

from antiphon.domain.errors import InvalidRequest, ModelNotFound, ProviderRejected, TurnInProgress, Unauthenticated, Violation
from antiphon.providers.failure import error_of_status
from antiphon.rest.openai import errors


def test_errors_have_the_documented_shapes() -> None:
    """An error has `detail` (a list with 422) and the `error` object that the SDKs read; a 401 has its header."""
    status, headers, body = errors.render_error(Unauthenticated("No."))
    expected = {"message": "No.", "type": "authentication_error", "param": None, "code": "unauthenticated"}
    assert (status, json.loads(body), headers["www-authenticate"]) == (401, {"detail": "No.", "error": expected}, "Bearer")
    violations = (Violation(("messages", 0, "role"), "is missing", "missing"), Violation(("n",), "is too large", "too_large"))
    status, headers, body = errors.render_error(InvalidRequest("No.", violations))
    expected = {"message": "messages[0].role: is missing; n: is too large", "type": "invalid_request_error"}
    detail = [
        {"loc": ["body", "messages", 0, "role"], "msg": "is missing", "type": "missing"},
        {"loc": ["body", "n"], "msg": "is too large", "type": "too_large"},
    ]
    assert (status, json.loads(body)) == (
        422,
        {"detail": detail, "error": {**expected, "param": "messages[0].role", "code": "invalid_request"}},
    )
    _, _, body = errors.render_error(InvalidRequest("No."))
    assert json.loads(body)["error"] == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_request",
    }
    status, _, body = errors.render_error(ModelNotFound("x"))
    error = json.loads(body)["error"]
    assert (status, error["type"], error["param"], error["code"]) == (404, "invalid_request_error", "model", "model_not_found")
    status, _, body = errors.render_error(TurnInProgress("x"))
    assert (status, json.loads(body)["error"]["type"]) == (409, "conflict_error")


@pytest.mark.parametrize(("explanation", "message"), [("Too long.", "Too long."), (None, "No.")])
def test_a_request_that_the_provider_refuses_is_the_callers_400(explanation: str | None, message: str) -> None:
    """A request that the provider rejects is a 400 with its code, param and explanation, not retryable; also within a stream."""
    rejected = ProviderRejected("No.", provider="p", status=422, code="context_length_exceeded")
    rejected.param, rejected.explanation = "messages", explanation
    status, headers, body = errors.render_error(rejected)
    expected = {"message": message, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
    assert (status, headers, json.loads(body)) == (400, {"x-should-retry": "false"}, {"detail": message, "error": expected})
    assert json.loads(errors.error_event(rejected).removeprefix(b"data: ")) == {"error": expected}


@pytest.mark.parametrize("status", [401, 404, 500])
def test_another_failure_of_the_provider_is_a_502(status: int) -> None:
    """Another provider error is a 502 without the provider's text."""
    got, _, body = errors.render_error(error_of_status("p", status, {}, b'{"error": {"message": "secret"}}'))
    assert (got, json.loads(body)["error"]["type"]) == (502, "server_error")
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (408, "server_error"), (503, "server_error")],
)
def test_envoys_own_errors_have_the_same_shape(status: int, kind: str) -> None:
    """Envoy's own errors have the same form, with the type that makes the SDKs retry where it helps."""
    error = {"message": "No.", "type": kind, "param": None, "code": None}
    assert errors.refusal(status, "No.") == {"detail": "No.", "error": error}
