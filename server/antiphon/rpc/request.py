"""What typed requests have in common: how their fields at fault are found and told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from antiphon.domain.errors import InvalidRequest, Violation

INVALID: Final = "The request is not valid: see the field violations."

MAX_PAGE_SIZE: Final = 1000


def refuse(*found: Iterable[Violation]) -> None:
    """Raises `InvalidRequest` if there is any violation."""
    wrong = tuple(violation for violations in found for violation in violations)
    if wrong:
        raise InvalidRequest(INVALID, wrong)


def required(field: str, value: str) -> list[Violation]:
    """Of a field that must not be empty; `field` is its path, with dots."""
    return [] if value else [Violation(tuple(field.split(".")), "is required")]


def page_size(size: int) -> list[Violation]:
    """Of a page's size; 0 stands for what the method does by itself."""
    return [] if 0 <= size <= MAX_PAGE_SIZE else [Violation(("page_size",), f"must be between 1 and {MAX_PAGE_SIZE}")]
