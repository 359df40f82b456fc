"""Checks that typed requests share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from antiphon.domain.errors import InvalidRequest, Violation

INVALID: Final = "The request is not valid: see the field violations."

MAX_PAGE_SIZE: Final = 1000


def raise_if_invalid(*found: Iterable[Violation]) -> None:
    """Raise `InvalidRequest` with all the violations, if there are any."""
    wrong = tuple(violation for violations in found for violation in violations)
    if wrong:
        raise InvalidRequest(INVALID, wrong)


def required_violations(field: str, value: str) -> list[Violation]:
    """Return a violation if `value` is empty. `field` is the field's path, with dots."""
    return [] if value else [Violation(tuple(field.split(".")), "is required")]


def page_size_violations(size: int) -> list[Violation]:
    """Return a violation if `size` is out of range. 0 stands for the method's default."""
    return [] if 0 <= size <= MAX_PAGE_SIZE else [Violation(("page_size",), f"must be between 1 and {MAX_PAGE_SIZE}")]
