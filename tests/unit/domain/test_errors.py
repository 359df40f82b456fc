"""Tests of the error tree, and that every table of statuses has every error."""

import inspect

import grpc
import orjson
import pytest

from antiphon.domain import errors
from antiphon.domain.errors import AntiphonError, Internal, ProviderRateLimited, ProviderUnavailable, Reason, to_public_error
from antiphon.rest.analytics import errors as analytics
from antiphon.rest.assistant import errors as assistant
from antiphon.rest.engine import errors as engine
from antiphon.rest.openai import errors as openai
from antiphon.rest.proxy import errors as proxy
from antiphon.rest.shared import http
from antiphon.rpc import status
from antiphon.v1 import error_reason_pb2


def leaves() -> list[AntiphonError]:
    """Return one instance of each error class."""
    made = []
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, AntiphonError):
            wanted = inspect.signature(kind).parameters.values()
            numbers = {"int", "float"}
            arguments = {p.name: 1 if p.annotation in numbers else "x" for p in wanted if p.default is p.empty}
            made.append(kind(**arguments))
    return made


def test_reasons_are_those_of_the_contract() -> None:
    """`Reason` has the same names as `ErrorReason` in the proto."""
    published = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name}
    assert {reason.value for reason in Reason} == published - {"UNSPECIFIED"}


@pytest.mark.parametrize("error", leaves(), ids=lambda error: type(error).__name__)
def test_every_error_has_a_status_everywhere(error: AntiphonError) -> None:
    """Every error has a gRPC code with an ErrorInfo, and an HTTP status from 400 to 599 with a JSON body."""
    assert status.code_of(error) is not grpc.StatusCode.OK
    assert status.status_of(error).details[0].type_url.endswith("google.rpc.ErrorInfo")
    assert 400 <= http.status_of(error) < 600
    code, headers, body = openai.render_error(error)
    assert 400 <= code < 600
    assert body.startswith(b"{")
    assert ("x-should-retry" in headers) is not error.retryable


# Each class: its HTTP status, its gRPC code, and whether a retry is worth it.
TABLE = {
    "AntiphonError": (500, "INTERNAL", False),
    "BudgetExceeded": (402, "RESOURCE_EXHAUSTED", False),
    "ContentBlocked": (400, "INVALID_ARGUMENT", False),
    "ContextUnavailable": (503, "UNAVAILABLE", True),
    "ConversationChanged": (409, "ABORTED", True),
    "ConversationNotFound": (404, "NOT_FOUND", False),
    "DeadlineExceeded": (504, "DEADLINE_EXCEEDED", True),
    "IdentityUnavailable": (503, "UNAVAILABLE", True),
    "Internal": (500, "INTERNAL", True),
    "InvalidRequest": (400, "INVALID_ARGUMENT", False),
    "KeyNotFound": (404, "NOT_FOUND", False),
    "KeyRevoked": (409, "FAILED_PRECONDITION", False),
    "LimitsUnavailable": (503, "UNAVAILABLE", True),
    "MessageNotFound": (404, "NOT_FOUND", False),
    "ModelNotFound": (404, "NOT_FOUND", False),
    "PermissionDenied": (403, "PERMISSION_DENIED", False),
    "ProviderCredentials": (502, "FAILED_PRECONDITION", False),
    "ProviderError": (502, "FAILED_PRECONDITION", False),
    "ProviderNotFound": (404, "NOT_FOUND", False),
    "ProviderProtocolError": (502, "UNAVAILABLE", True),
    "ProviderRateLimited": (429, "RESOURCE_EXHAUSTED", True),
    "ProviderRejected": (502, "INVALID_ARGUMENT", False),
    "ProviderTimeout": (504, "DEADLINE_EXCEEDED", True),
    "ProviderUnavailable": (502, "UNAVAILABLE", True),
    "RateLimited": (429, "RESOURCE_EXHAUSTED", True),
    "RequestIdReused": (409, "INVALID_ARGUMENT", False),
    "RouteUnavailable": (503, "UNAVAILABLE", True),
    "ShuttingDown": (503, "UNAVAILABLE", True),
    "StoreUnavailable": (503, "UNAVAILABLE", True),
    "TurnInProgress": (409, "ABORTED", True),
    "TurnNotComplete": (409, "ABORTED", False),
    "Unauthenticated": (401, "UNAUTHENTICATED", False),
    "Unsupported": (400, "INVALID_ARGUMENT", False),
}

RENDERERS = {
    "analytics": analytics.render_error,
    "assistant": assistant.render_error,
    "engine": engine.render_error,
    "openai": openai.render_error,
    "openai proxy": proxy.render_openai_error,
    "gemini proxy": proxy.render_gemini_error,
}

# Statuses that a dialect's own document defines otherwise.
OTHERWISE = {
    ("openai", "InvalidRequest"): 422,
    ("engine", "InvalidRequest"): 422,
    ("engine", "ModelNotFound"): 400,
    ("openai", "ProviderRejected"): 400,  # clients of the SDK behave as without a gateway
}


@pytest.mark.parametrize("error", leaves(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("dialect", RENDERERS)
def test_every_dialect_answers_an_error_with_the_same_status(dialect: str, error: AntiphonError) -> None:
    """Every dialect answers an error with the status of TABLE.

    A 429 has `retry-after`, a 401 `www-authenticate`, and an error that should not be retried `x-should-retry: false`.
    """
    name = type(error).__name__
    status_, code, retryable = TABLE[name]
    assert status.code_of(error).name == code
    got, headers, body = RENDERERS[dialect](error)
    assert got == OTHERWISE.get((dialect, name), status_)
    assert error.retryable is retryable
    assert headers.get("x-should-retry") == (None if retryable else "false")
    if got == 429:
        assert int(headers["retry-after"]) >= 1
    assert headers.get("www-authenticate") == ("Bearer" if got == 401 else None)
    assert got != 401 or name == "Unauthenticated"
    assert orjson.loads(body)


@pytest.mark.parametrize("error", leaves(), ids=lambda error: type(error).__name__)
def test_grpc_clients_retry_only_retryable_errors(error: AntiphonError) -> None:
    """An error that is not retryable has neither the code UNAVAILABLE nor a RetryInfo, which gRPC clients retry by themselves."""
    error.retry_after = 3
    error.retryable = False
    assert status.code_of(error) is not grpc.StatusCode.UNAVAILABLE
    assert not [detail for detail in status.status_of(error).details if detail.type_url.endswith("RetryInfo")]


def test_a_permanent_failure_is_not_unavailable() -> None:
    """A `ProviderUnavailable` that is not retryable, such as a redirect, is FAILED_PRECONDITION in gRPC and not retried in REST."""
    error = ProviderUnavailable("x", provider="p", status=302, retryable=False)
    assert status.code_of(error) is grpc.StatusCode.FAILED_PRECONDITION
    assert http.headers_of(error) == {"x-should-retry": "false"}


def test_a_rate_limit_has_retry_after() -> None:
    """`retry-after` is in whole seconds, rounded up, and at least 1."""
    for seconds, header in ((0.2, "1"), (2.1, "3"), (None, "1")):
        error = ProviderRateLimited("x", provider="p", status=429, retry_after=seconds)
        assert http.headers_of(error)["retry-after"] == header


def test_an_internal_error_hides_its_text() -> None:
    """An unexpected exception becomes `Internal`, and its text is not in the message."""
    error = to_public_error(ValueError("secret"))
    assert isinstance(error, Internal)
    assert "secret" not in error.message
