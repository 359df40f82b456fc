"""What every dialect checks of a body."""

import json
from typing import Any

import pytest

from antiphon.errors import InvalidRequest, Violation
from antiphon.rest.body import MAX_DEPTH, Fields, parse


class Thing(Fields):
    """A body."""

    name: str = ""


def wrong(data: bytes, schema: Any = Thing) -> tuple[Violation, ...]:
    """What is told of a body that is refused."""
    with pytest.raises(InvalidRequest) as caught:
        parse(data, schema)
    return caught.value.violations


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[1, {"a": 2, "b": ', "}]")])
def test_depth_is_bounded(opening: str, closing: str) -> None:
    """Arrays, objects and both: the deepest that is taken, and one more. The field at fault is told."""

    def body(levels: int) -> bytes:
        each = 2 if len(closing) == 2 else 1
        nested = opening * (levels // each) + "1" + closing * (levels // each)
        return f'{{"name": "n", "x": {nested}, "y": []}}'.encode()

    parse(body(MAX_DEPTH), Thing)
    for levels in (MAX_DEPTH + 2, 250, 900):
        assert wrong(body(levels)) == (Violation(("x",), "must not be nested deeper than 100 levels", "too_deep"),)


def test_many_brackets_are_not_deep() -> None:
    """Side by side, or in a text."""
    parse(json.dumps({"name": "[{" * 500, "x": [[{}]] * 500}).encode(), Thing)
