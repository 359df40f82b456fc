"""Turns the exceptions inside an event stream into `ProviderError`s. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html. An exception has a name and a
message, and no status; its status is what the same exception has as an answer. Exceptions before the stream are answers with a
status, which `antiphon.providers.failure` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from antiphon.domain.errors import ProviderError
from antiphon.net.eventstream import Header
from antiphon.providers.failure import error_of_payload

MODEL_FAILED: Final = 424

_STATUSES: Final[Mapping[str, int]] = {
    "accessdeniedexception": 403,
    "internalserverexception": 500,
    "modelerrorexception": MODEL_FAILED,
    "modelnotreadyexception": 429,
    "modelstreamerrorexception": MODEL_FAILED,
    "modeltimeoutexception": 408,
    "resourcenotfoundexception": 404,
    "serviceunavailableexception": 503,
    "throttlingexception": 429,
    "validationexception": 400,
}
"""By name, in lower case: the stream begins names with a small letter, answers with a capital one."""

_OF_THE_REQUEST: Final = frozenset({400, 408, 413, 422, 429})
"""Original statuses below 500 that are about this request, and not about the key with which AWS asks the model's host."""


def error_of_exception(provider: str, headers: Mapping[str, Header], payload: bytes) -> tuple[ProviderError, bytes]:
    """Return the error for a message of the type `exception` or `error`, and the provider's text about it, for the log."""
    name = str(headers.get(":exception-type") or headers.get(":error-code") or "")
    fields = _fields(payload)
    if ":error-message" in headers:
        fields = {"message": str(headers[":error-message"]), **fields}
    status = _STATUSES.get(name.lower())
    original = fields.get("originalStatusCode")
    if status == MODEL_FAILED and isinstance(original, int) and (original in _OF_THE_REQUEST or 500 <= original < 600):
        status = original
    fields = {**fields, "type": name}
    return error_of_payload(provider, fields if status is None else {**fields, "status": status}), orjson.dumps(fields)


def _fields(payload: bytes) -> dict[str, Any]:
    """Return the fields of an exception; none if the payload is not a JSON object."""
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}
