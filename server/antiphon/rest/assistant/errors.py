"""The errors of the assistant dialect: {"message"}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from antiphon import domain
from antiphon.domain.errors import AntiphonError
from antiphon.rest.shared.dialect import AnswerSchema, ErrorShape
from antiphon.rest.shared.errors import message_of_error
from antiphon.rest.shared.http import headers_of, status_of
from antiphon.rest.shared.json import dumps, event


class AssistantError(AnswerSchema):
    """An error."""

    message: str


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """Return the HTTP status, headers and body of an error before the first byte of a response."""
    return status_of(error), headers_of(error), dumps({"message": message_of_error(error)})


def error_event(error: AntiphonError) -> bytes:
    """Return the event that reports an error after the first byte of a stream."""
    return event({"type": "error", "content": None, "error": {"message": message_of_error(error)}})


def refusal(_status: int, message: str) -> domain.JsonObject:
    """Return the body of an error that Envoy itself responds with."""
    return {"message": message}


ERRORS: Final = ErrorShape("assistant", render_error, refusal, paths="/api/v1/chat([/?].*)?", models={0: AssistantError})
