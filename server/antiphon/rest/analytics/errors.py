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

_WORDS: Final = {413: "Payload Too Large"}
"""Where Python's own words depend on its version."""


class AnalyticsDetail(AnswerSchema):
    """What is wrong with a field."""

    field: str
    message: str


class AnalyticsError(AnswerSchema):
    """What went wrong: the status in words, ours, and the status. `details` is there with 400, `retryAfter` in seconds with 429."""

    error: str
    message: str
    code: int
    details: list[AnalyticsDetail] = []
    retryAfter: int = 0


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """The HTTP status, headers and body of an error before the first byte."""
    return status_of(error), headers_of(error), orjson.dumps(error_object(error))


def error_event(error: AntiphonError) -> bytes:
    """The event of an error after the first byte."""
    return event(error_object(error))


def refusal(status: int, message: str) -> domain.JsonObject:
    """The body of what Envoy refuses."""
    body = {"error": _WORDS.get(status) or HTTPStatus(status).phrase, "message": message, "code": status}
    return {**body, "details": []} if status == 400 else body


def error_object(error: AntiphonError) -> dict[str, Any]:
    """The body of an error, or the event."""
    status = status_of(error)
    # The document's word for a failure of the provider is "Error".
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
    """("messages", 0, "role") as "messages[0].role"; the body itself is "body"."""
    if violation.kind == "json_invalid":
        return "body"
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in violation.path)
    return "".join(steps).removeprefix(".") or "body"


ERRORS: Final = ErrorShape("analytics", render_error, refusal, paths="/api/v1/ai/.*", models={0: AnalyticsError})
