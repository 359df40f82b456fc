"""Tests of the errors of the engine dialect."""

import json

import pytest

from antiphon.domain.errors import (
    AntiphonError,
    ProviderCredentials,
    ProviderRateLimited,
    Unauthenticated,
    Unsupported,
)
from antiphon.rest.engine.errors import refusal, render_error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unauthenticated("x"), 401),
        (Unsupported("x", "p"), 400),
        (ProviderRateLimited("x", provider="p"), 429),
        (ProviderCredentials("x", provider="p", status=401), 502),
    ],
)
def test_errors_are_details(error: AntiphonError, status: int) -> None:
    """An error has the field `detail`. A provider's 401 is a 502 for the caller."""
    found, headers, data = render_error(error)
    assert (found, json.loads(data)) == (status, {"detail": "x"})
    assert ("retry-after" in headers) is (status == 429)


def test_envoys_own_errors_are_details() -> None:
    """Envoy's own errors have the same form."""
    assert refusal(413, "No.") == {"detail": "No."}
