"""What every dialect checks of a body."""

import json
from typing import Any

import pytest

from antiphon.errors import InvalidRequest, Violation
from antiphon.rest.body import MAX_DEPTH, Fields, parse


class Inner(Fields):
    """An object in a body."""

    kind: str


class Thing(Fields):
    """A body."""

    name: str = ""
    size: float | None = None
    count: int | None = None
    content: str | list[dict[str, Any]] | None = None
    inner: list[Inner] | None = None


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


def test_a_whole_number_is_a_number() -> None:
    """Types are strict, but JSON knows one kind of number; null is the same as not sent."""
    body = parse(b'{"size": 1, "count": null}', Thing)
    assert (body.size, body.count) == (1.0, None)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"5", [((), "Input should be an object")]),
        (b'{"inner": [5]}', [(("inner", 0), "Input should be an object")]),
        (b'{"inner": [{}]}', [(("inner", 0, "kind"), "Field required")]),
        (b'{"inner": [{"kind": 1}]}', [(("inner", 0, "kind"), "Input should be a valid string")]),
        (b'{"count": true}', [(("count",), "Input should be a valid integer")]),
        (b'{"size": "1"}', [(("size",), "Input should be a valid number")]),
        (
            b'{"content": 5}',
            [(("content",), "Input should be a valid string"), (("content",), "Input should be a valid list")],
        ),
        (
            b'{"content": [{}, 5]}',
            [(("content",), "Input should be a valid string"), (("content", 1), "Input should be a valid dictionary")],
        ),
    ],
)
def test_what_is_wrong_is_told_by_the_path_in_the_body(data: bytes, found: list[Any]) -> None:
    """Neither our classes nor the alternatives of a field are part of it."""
    assert [(violation.path, violation.message) for violation in wrong(data)] == found
