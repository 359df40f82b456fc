"""The errors of the OpenAI dialect: the `error` that the SDKs read, and the `detail` of the gateway's own document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from antiphon import domain
from antiphon.domain.errors import (
    AntiphonError,
    ConversationNotFound,
    InvalidRequest,
    ModelNotFound,
    ProviderRejected,
    Reason,
    Violation,
    field_path,
)
from antiphon.rest.shared.dialect import AnswerSchema, ErrorShape, FieldAtFault
from antiphon.rest.shared.http import headers_of, sdk_status_of
from antiphon.rest.shared.json import event

_ERROR_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    408: "server_error",  # clients retry it
    409: "conflict_error",
    429: "rate_limit_error",
}

_NAMED_VIOLATIONS = 5
"""The most wrong fields that `error.message` names; `detail` has all of them."""


class ErrorObject(AnswerSchema):
    """An error in the form that the SDKs of the OpenAI API read."""

    message: str
    type: str
    param: str | None
    code: str | None


class DetailAndError(AnswerSchema):
    """An error, in both forms."""

    detail: str
    error: ErrorObject


class FieldsAtFaultAndError(AnswerSchema):
    """An invalid request, in both forms."""

    detail: list[FieldAtFault]
    error: ErrorObject


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """Return the HTTP status, headers and body of an error before the first byte of a response."""
    error_json = error_object(error)
    if _violations(error):
        detail = [{"loc": ["body", *v.path], "msg": v.message, "type": v.kind} for v in _violations(error)]
        return 422, headers_of(error), orjson.dumps({"detail": detail, "error": error_json})
    return sdk_status_of(error), headers_of(error), orjson.dumps({"detail": error_json["message"], "error": error_json})


def error_event(error: AntiphonError) -> bytes:
    """Return the event that reports an error after the first byte of a stream."""
    return event({"error": error_object(error)})


def refusal(status: int, message: str) -> domain.JsonObject:
    """Return the body of an error that Envoy itself responds with."""
    return {"detail": message, "error": refusal_object(status, message)}


def refusal_object(status: int, message: str) -> domain.JsonObject:
    """Return the `error` object of an error that Envoy itself responds with."""
    return {"message": message, "type": _type_of(status), "param": None, "code": None}


def error_object(error: AntiphonError) -> dict[str, Any]:
    """Return the `error` object, of which the SDKs show the message. They do not show the fields beside the object."""
    status = sdk_status_of(error)
    message, param = error.message, None
    match error:
        case ModelNotFound():
            param = "model"
        case ConversationNotFound():
            param = "session_id"
        case ProviderRejected():
            message, param = error.explanation or message, error.param
        case InvalidRequest(violations=(first, *_) as violations):
            lines = [f"{field_path(v.path) or 'body'}: {v.message}" for v in violations[:_NAMED_VIOLATIONS]]
            message, param = "; ".join(lines), field_path(first.path) or None
    code = error.metadata.get("code") or error.reason.lower()
    return {"message": message, "type": _type_of(status), "param": param, "code": code}


def _type_of(status: int) -> str:
    return _ERROR_TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")


def _violations(error: AntiphonError) -> tuple[Violation, ...]:
    """Return the wrong fields: at least one for an invalid request, none for any other error."""
    if isinstance(error, InvalidRequest) and error.reason is Reason.INVALID_REQUEST:
        return error.violations or (Violation((), error.message),)
    return ()


ERRORS: Final = ErrorShape(
    "openai",
    render_error,
    refusal,
    paths="(/api)?/v1/(chat/completions|models).*",
    models={422: FieldsAtFaultAndError, 0: DetailAndError},
)
