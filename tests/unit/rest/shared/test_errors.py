"""Tests of the message of an error."""

from typing import Any

import pytest

from antiphon.domain.errors import InvalidRequest, StoreUnavailable, Violation
from antiphon.rest.shared.errors import message_of_error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StoreUnavailable(), "The database cannot be reached at the moment."),
        (InvalidRequest("x"), "x"),
        (InvalidRequest("x", (Violation((), "Odd."),)), "Odd."),
        (InvalidRequest("x", (Violation(("a", 0, "b"), "Field required"), Violation((), "Odd."))), "a.0.b: Field required; Odd."),
        (InvalidRequest("x", (Violation((3,), "JSON decode error: x", "json_invalid"),)), "JSON decode error: x"),
    ],
)
def test_every_field_at_fault_is_in_the_message(error: Any, message: str) -> None:
    """The message lists every wrong field by its path. A position in invalid JSON is not a path."""
    assert message_of_error(error) == message
