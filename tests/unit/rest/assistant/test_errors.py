"""Tests of the errors of the assistant dialect."""

import json
from typing import Any

import pytest

from antiphon.domain.errors import (
    ConversationNotFound,
    InvalidRequest,
    ProviderRateLimited,
    StoreUnavailable,
    Unauthenticated,
    Violation,
)
from antiphon.rest.assistant.errors import refusal, render_error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (Unauthenticated("No key."), 401, "No key."),
        (ConversationNotFound("x"), 404, "The conversation does not exist."),
        (StoreUnavailable(), 503, "The database cannot be reached at the moment."),
        (ProviderRateLimited("Busy.", provider="p", retry_after=2.1), 429, "Busy."),
        (
            InvalidRequest("x", (Violation(("chat_history", 0, "role"), "Field required"), Violation((), "Odd."))),
            400,
            "chat_history.0.role: Field required; Odd.",
        ),
        (InvalidRequest("x", (Violation((3,), "JSON decode error: x", "json_invalid"),)), 400, "JSON decode error: x"),
    ],
)
def test_errors_are_a_message(error: Any, status: int, message: str) -> None:
    """An error is a status and a `message`, which names the wrong fields."""
    found, headers, body = render_error(error)
    assert (found, json.loads(body)) == (status, {"message": message})
    assert ("retry-after" in headers) == (status in (429, 503))


def test_envoys_own_errors_are_messages() -> None:
    """Envoy's own errors have the same form."""
    assert refusal(413, "No.") == {"message": "No."}
