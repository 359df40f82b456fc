"""The errors of the analytics dialect: {"error", "message", "code"}."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from antiphon import domain
from antiphon.domain.errors import AntiphonError, InvalidRequest, Violation
from antiphon.rest.shared.dialect import AnswerSchema, ErrorShape
from antiphon.rest.shared.http import headers_of, status_of
from antiphon.rest.shared.json import event

_PHRASES: Final = {413: "Payload Too Large"}
"""Status phrases that depend on the version of Python."""


class AnalyticsDetail(AnswerSchema):
    """A wrong field, and what is wrong with it."""

    field: str
    message: str


class AnalyticsError(AnswerSchema):
    """An error: the phrase of its status, a message, and the status. 400 adds `details`, and 429 `retryAfter` in seconds."""

    error: str
    message: str
    code: int
    details: list[AnalyticsDetail] = []
    retryAfter: int = 0


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """Return the HTTP status, headers and body of an error before the first byte of a response."""
    return status_of(error), headers_of(error), orjson.dumps(error_object(error))


def error_event(error: AntiphonError) -> bytes:
    """Return the event that reports an error after the first byte of a stream."""
    return event(error_object(error))


def refusal(status: int, message: str) -> domain.JsonObject:
    """Return the body of an error that Envoy itself responds with."""
    body = {"error": _PHRASES.get(status) or HTTPStatus(status).phrase, "message": message, "code": status}
    return {**body, "details": []} if status == 400 else body


def error_object(error: AntiphonError) -> dict[str, Any]:
    """Return the JSON object of an error, for a body or an event."""
    status = status_of(error)
    # The document has "Error" for a failure of the provider.
    word = "Error" if status == 502 else HTTPStatus(status).phrase
    body: dict[str, Any] = {"error": word, "message": error.message, "code": status}
    if status == 400:
        violations = error.violations if isinstance(error, InvalidRequest) else ()
        if violations:
            body["message"] = "The request contains invalid parameters or malformed data."
        body["details"] = [{"field": _field(violation), "message": violation.message} for violation in violations]
    if status == 429:
        body["retryAfter"] = int(headers_of(error)["retry-after"])
    return body


def _field(violation: Violation) -> str:
    """Return the path of a violation as text, such as "messages[0].role"; for the body itself, "body"."""
    if violation.kind == "json_invalid":
        return "body"
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in violation.path)
    return "".join(steps).removeprefix(".") or "body"


ERRORS: Final = ErrorShape("analytics", render_error, refusal, paths="/api/v1/ai/.*", models={0: AnalyticsError})
