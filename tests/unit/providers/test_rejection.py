"""Tests of why a provider rejected a request."""

import json
from typing import Any

import pytest

from antiphon.domain.errors import ProviderCredentials, ProviderRejected, Rejection
from antiphon.providers.failure import error_of_payload, error_of_status

UNCHANGED = "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These blocks must remain"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "context_length_exceeded", "message": "This model's maximum ..."}, Rejection.TOO_LONG),
        ({"type": "invalid_request_error", "message": "prompt is too long: 212000 tokens > 200000 maximum"}, Rejection.TOO_LONG),
        (
            {"status": "INVALID_ARGUMENT", "message": "The input token count (1200000) exceeds the maximum number"},
            Rejection.TOO_LONG,
        ),
        ({"message": "Input is too long for requested model."}, Rejection.TOO_LONG),
        ({"code": "content_filter", "message": "The response was filtered"}, Rejection.REFUSED),
        ({"code": "cyber_policy", "message": "This request was flagged."}, Rejection.REFUSED),
        ({"message": "blocked output: this generation may be a potential violation"}, Rejection.REFUSED),
        ({"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}, Rejection.REFUSED),
        ({"message": "messages.1.content.0: Invalid `signature` in `thinking` block"}, Rejection.STATE),
        ({"message": f"messages.1.content.2: {UNCHANGED}"}, Rejection.STATE),
        ({"code": "invalid_encrypted_content", "message": "..."}, Rejection.STATE),
        ({"message": "The encrypted content gAAA... could not be verified."}, Rejection.STATE),
        ({"message": "temperature must be at most 2", "param": "temperature"}, Rejection.INVALID),
        ({"message": "My essay says: prompt is too long, is it?"}, Rejection.INVALID),
        ({}, Rejection.INVALID),
    ],
)
def test_a_rejection_has_a_reason(error: dict[str, Any], expected: Rejection) -> None:
    """Codes and the starts of known messages say why a request was rejected; a message that only contains such words does not."""
    found = error_of_status("p", 400, {}, json.dumps({"error": error}).encode())
    assert isinstance(found, ProviderRejected)
    assert found.rejection is expected
    inside = error_of_payload("p", {"error": {"status": 400, **error}})
    assert isinstance(inside, ProviderRejected)
    assert inside.rejection is expected


def test_a_request_that_is_too_long_has_the_code_that_clients_know() -> None:
    """Whatever the host calls it, the code is OpenAI's."""
    body = json.dumps({"error": {"message": "prompt is too long: 3 tokens > 2 maximum"}}).encode()
    assert error_of_status("p", 400, {}, body).code == "context_length_exceeded"


def test_an_account_that_is_not_paid_for_is_about_the_credentials() -> None:
    """402 is a failure of the gateway's account."""
    assert isinstance(error_of_status("p", 402, {}, b""), ProviderCredentials)
