"""The errors of the engine dialect: {"detail"}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from antiphon import domain
from antiphon.domain.errors import AntiphonError, InvalidRequest, ModelNotFound, ProviderNotFound, Reason, Violation
from antiphon.rest.shared.dialect import AnswerSchema, ErrorShape, FieldAtFault
from antiphon.rest.shared.errors import message_of_error
from antiphon.rest.shared.http import headers_of, status_of


class FieldsAtFault(AnswerSchema):
    """An invalid request, with its wrong fields."""

    detail: list[FieldAtFault]


class EngineError(AnswerSchema):
    """An error."""

    detail: str


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """Return the HTTP status, headers and body of an error before the first byte of a response."""
    status = status_of(error)
    detail: str | list[dict[str, Any]] = message_of_error(error)
    match error:
        case InvalidRequest(reason=Reason.INVALID_REQUEST):
            status = 422
            violations = error.violations or (Violation((), error.message),)
            detail = [{"type": violation.kind, "loc": violation.path, "msg": violation.message} for violation in violations]
        case ProviderNotFound():
            pass
        case ModelNotFound():
            status = 400
        case _:
            pass
    return status, headers_of(error), orjson.dumps({"detail": detail})


def refusal(_status: int, message: str) -> domain.JsonObject:
    """Return the body of an error that Envoy itself responds with."""
    return {"detail": message}


ERRORS: Final = ErrorShape(
    "engine",
    render_error,
    refusal,
    paths="/(api/engine/|health).*",
    models={422: FieldsAtFault, 0: EngineError},
)
