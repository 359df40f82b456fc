"""Keeps the marks of what is to be cached within the number that an API accepts. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from antiphon.providers.parameters import Parameters

PATH = ("messages", "cache_control")
"""The path in warnings."""


def limit_marks(
    lists: Iterable[list[Any]], most: int, parameters: Parameters, *, is_mark: Callable[[Any], bool], without: Callable[[Any], Any]
) -> None:
    """Remove marks from lists of parts, in the order of the prompt, until there are at most `most`: the first ones go.

    The last ones count because each is for all that is before it. `is_mark` says whether a part is marked, `without` returns it
    without the mark; None if it is nothing else. Raises `Unsupported` if the policy is to refuse.
    """
    lists = list(lists)
    over = sum(map(is_mark, (part for parts in lists for part in parts))) - most
    if over <= 0:
        return
    reason = f"the API has {most} marks for a cache at most, so that the last ones count" if most else "the model has no cache"
    parameters.dropped(PATH, reason)
    for parts in lists:
        kept: list[Any] = []
        for part in parts:
            is_removed = over > 0 and is_mark(part)
            over -= is_removed
            made = without(part) if is_removed else part
            if made is not None:
                kept.append(made)
        parts[:] = kept
