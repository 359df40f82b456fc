"""Tests of errors as a `google.rpc.Status`."""

import grpc
from google.rpc import error_details_pb2

from antiphon.domain.errors import ProviderRejected
from antiphon.rpc.status import MAX_TEXT, code_of, status_of


def test_a_request_that_the_provider_refuses_is_an_invalid_argument() -> None:
    """A request that the provider rejects is INVALID_ARGUMENT with its code and param.

    The explanation is a field violation, cut to fit a trailer.
    """
    error = ProviderRejected("The provider p refused the request.", provider="p", status=400, code="context_length_exceeded")
    error.param, error.explanation = "messages", "€" * 1000
    status = status_of(error)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT
    assert (info.reason, dict(info.metadata)) == (
        "PROVIDER_REJECTED",
        {"provider": "p", "status": "400", "code": "context_length_exceeded", "param": "messages"},
    )
    (violation,) = bad.field_violations
    assert (violation.field, violation.reason) == ("messages", "CONTEXT_LENGTH_EXCEEDED")
    assert violation.description == "€" * MAX_TEXT
    assert status.message == "The provider p refused the request."
