"""Turns an error into a `google.rpc.Status`. The only module that maps reasons to gRPC status codes."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from antiphon.domain.errors import AntiphonError, InvalidRequest, ProviderRejected, Reason, field_path

DOMAIN = "antiphon"
MAX_VIOLATIONS = 20
MAX_TEXT = 200
"""The most field violations in a status, and the most characters of a text in it: trailers above a few KiB do not arrive."""

DETAILS_KEY = "grpc-status-details-bin"
"""The trailer that carries the serialised `google.rpc.Status`."""

_CODES = {
    Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNSUPPORTED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.PROVIDER_RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.PROVIDER_REJECTED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PROVIDER_CREDENTIALS: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.PROVIDER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.PROVIDER_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.PROVIDER_PROTOCOL: grpc.StatusCode.UNAVAILABLE,
    Reason.ROUTE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.CONVERSATION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.MESSAGE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.CONVERSATION_CHANGED: grpc.StatusCode.ABORTED,
    Reason.TURN_NOT_COMPLETE: grpc.StatusCode.ABORTED,
    Reason.TURN_IN_PROGRESS: grpc.StatusCode.ABORTED,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.CONTEXT_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.KEY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.KEY_REVOKED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.IDENTITY_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.RATE_LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.BUDGET_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.LIMITS_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.CONTENT_BLOCKED: grpc.StatusCode.INVALID_ARGUMENT,
}


def code_of(error: AntiphonError) -> grpc.StatusCode:
    """Return the gRPC status code of an error.

    Clients retry UNAVAILABLE, so an error that is not worth a retry is FAILED_PRECONDITION instead.
    """
    code = _CODES[error.reason]
    return grpc.StatusCode.FAILED_PRECONDITION if code is grpc.StatusCode.UNAVAILABLE and not error.retryable else code


def status_of(error: AntiphonError) -> status_pb2.Status:
    """Return the status of an error with its details: always `ErrorInfo`; `BadRequest` and `RetryInfo` if they apply."""
    packed = [
        _pack(
            error_details_pb2.ErrorInfo(
                reason=error.reason, domain=DOMAIN, metadata={name: value[:MAX_TEXT] for name, value in error.metadata.items()}
            )
        )
    ]
    violations: list[error_details_pb2.BadRequest.FieldViolation] = []
    if isinstance(error, InvalidRequest):
        violations = [_violation(field_path(v.path), v.message, v.kind) for v in error.violations[:MAX_VIOLATIONS]]
    elif isinstance(error, ProviderRejected) and error.explanation:
        violations = [_violation(error.param or "", error.explanation[:MAX_TEXT], error.code or "")]
    if violations:
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
    if error.retry_after is not None and error.retryable:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    code: int = code_of(error).value[0]
    return status_pb2.Status(code=code, message=error.message, details=packed)


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _violation(field: str, description: str, kind: str) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(field=field, description=description, reason=kind.upper())
