"""Tests of the classes of attempts."""

import asyncio

import pytest

from antiphon.domain import errors
from antiphon.domain.attempt_class import AttemptClass, classify

P = {"provider": "p"}


@pytest.mark.parametrize(
    ("error", "has_output", "expected"),
    [
        (None, True, "ok"),
        (asyncio.CancelledError(), True, "gone"),
        (GeneratorExit(), False, "gone"),
        (errors.DeadlineExceeded(), False, "deadline"),
        (errors.ShuttingDown(), True, "stopping"),
        (errors.ProviderUnavailable("", **P), False, "connect"),
        (errors.ProviderUnavailable("", status=503, **P), False, "overloaded"),
        (errors.ProviderProtocolError("", **P), False, "overloaded"),
        (errors.ProviderProtocolError("", **P), True, "cut"),
        (errors.ProviderTimeout("", **P), False, "late"),
        (errors.ProviderTimeout("", **P), True, "cut"),
        (errors.ProviderRateLimited("", status=429, **P), False, "rate_limited"),
        (errors.ProviderCredentials("", status=401, **P), False, "credentials"),
        (errors.ProviderRejected("", status=400, **P), False, "invalid"),
        (errors.ProviderRateLimited("", status=429, **P), True, "cut"),
        (errors.ProviderRateLimited("", status=429, retryable=False, **P), False, "credentials"),
        (errors.Unsupported("", **P), False, "unsupported"),
        (ValueError(), False, "internal"),
    ],
)
def test_each_end_of_an_attempt_has_a_class(error: BaseException | None, has_output: bool, expected: str) -> None:
    """Each end of an attempt has its class. A provider's failure after some output is `cut`, whatever the error."""
    assert classify(error, has_output=has_output) is AttemptClass(expected)


def test_an_error_inside_an_answer_is_not_one_of_the_connection() -> None:
    """A provider that sends an error without a status inside a 200 was reached: it is overloaded."""
    error = errors.ProviderUnavailable("", **P)
    error.was_reached = True
    assert classify(error, has_output=False) is AttemptClass.OVERLOADED


@pytest.mark.parametrize("rejection", errors.Rejection)
def test_a_rejected_request_has_the_class_of_its_reason(rejection: errors.Rejection) -> None:
    """A rejection has the class of its reason: invalid, too long, refused, state, or unsupported."""
    error = errors.ProviderRejected("", status=400, **P)
    error.rejection = rejection
    assert classify(error, has_output=False) is AttemptClass[rejection.name]
