"""The error tree, and that every table knows all of it."""

import inspect

import grpc
import pytest

from antiphon import errors
from antiphon.errors import AntiphonError, Internal, ProviderRateLimited, Reason, told
from antiphon.rest import http, openai
from antiphon.rpc import status
from antiphon.v1 import error_reason_pb2


def leaves() -> list[AntiphonError]:
    """One of each."""
    made = []
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, AntiphonError):
            wanted = inspect.signature(kind).parameters.values()
            numbers = {"int", "float"}
            arguments = {p.name: 1 if p.annotation in numbers else "x" for p in wanted if p.default is p.empty}
            made.append(kind(**arguments))
    return made


def test_reasons_are_those_of_the_contract() -> None:
    """`ErrorReason` in the proto has the same names."""
    published = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name}
    assert {reason.value for reason in Reason} == published - {"UNSPECIFIED"}


@pytest.mark.parametrize("error", leaves(), ids=lambda error: type(error).__name__)
def test_every_error_has_a_status_everywhere(error: AntiphonError) -> None:
    """A gRPC code that is not OK, with an ErrorInfo; an HTTP status of 4xx or 5xx with a JSON body."""
    assert status.code_of(error) is not grpc.StatusCode.OK
    assert status.status_of(error).details[0].type_url.endswith("google.rpc.ErrorInfo")
    assert 400 <= http.status_of(error) < 600
    code, headers, body = openai.render_error(error)
    assert 400 <= code < 600
    assert body.startswith(b"{")
    assert ("x-should-retry" in headers) is not error.retryable


def test_a_rate_limit_tells_when_to_try_again() -> None:
    """In whole seconds, rounded up, and one at least."""
    for seconds, header in ((0.2, "1"), (2.1, "3"), (None, "1")):
        error = ProviderRateLimited("x", provider="p", status=429, retry_after=seconds)
        assert http.headers_of(error)["retry-after"] == header


def test_a_fault_of_ours_tells_nothing() -> None:
    """What an unexpected exception says stays in the log."""
    error = told(ValueError("secret"))
    assert isinstance(error, Internal)
    assert "secret" not in error.message
