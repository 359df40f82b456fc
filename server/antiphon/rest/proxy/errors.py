"""The errors of the proxies. They have the form of the API that is proxied: OpenAI's or Gemini's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from antiphon import domain
from antiphon.domain.errors import AntiphonError, InvalidRequest
from antiphon.rest.openai import errors as openai
from antiphon.rest.proxy.proxied import field_of
from antiphon.rest.shared.dialect import ErrorShape
from antiphon.rest.shared.http import headers_of, status_of

_GEMINI_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def render_openai_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """Return the HTTP status, headers and body of a gateway error before the first byte, as in the OpenAI API."""
    return status_of(error), headers_of(error), orjson.dumps({"error": openai_error(error)})


def openai_error(error: AntiphonError) -> dict[str, Any]:
    """Return the `error` object of the OpenAI API."""
    error_json = openai.error_object(error)
    if isinstance(error, InvalidRequest) and error.violations:
        error_json |= {"message": error.message, "param": field_of(error.violations[0]), "code": error.violations[0].kind}
    return error_json


def openai_refusal(status: int, message: str) -> domain.JsonObject:
    """Return the body of an error that Envoy itself responds with, as in the OpenAI API."""
    return {"error": openai.refusal_object(status, message)}


def render_gemini_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """Return the HTTP status, headers and body of a gateway error before the first byte, as in the Gemini API."""
    return status_of(error), headers_of(error), orjson.dumps({"error": gemini_error(error)})


def gemini_error(error: AntiphonError) -> dict[str, Any]:
    """Return the `error` object of the Gemini API, which is a `google.rpc.Status` in JSON."""
    code = status_of(error)
    return {"code": code, "message": error.message, "status": _GEMINI_STATUSES.get(code, "UNKNOWN")}


def gemini_refusal(status: int, message: str) -> domain.JsonObject:
    """Return the body of an error that Envoy itself responds with, as in the Gemini API."""
    word = _GEMINI_STATUSES.get(status) or ("INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    return {"error": {"code": status, "message": message, "status": word}}


OPENAI: Final = ErrorShape("openai_proxy", render_openai_error, openai_refusal, paths="/api/v1/proxy/.*")
GEMINI: Final = ErrorShape(
    "gemini_proxy",
    render_gemini_error,
    gemini_refusal,
    paths="/api/v1/proxy/[^/]+/v1[a-z]*/.*",  # an OpenAI path has a key where this one has a version
)
