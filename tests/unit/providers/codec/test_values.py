"""Tests of the values of answers."""

import pytest

from antiphon.providers.codec.values import (
    MAX_DEPTH,
    StreamedText,
    changed_fields,
    count,
    is_shallow,
    optional_count,
    other_fields,
    text,
)


def nested(levels: int) -> object:
    """Return a list within lists."""
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_depth() -> None:
    """A value may be nested as deeply as a reader of gRPC allows, and no deeper."""
    assert is_shallow(nested(MAX_DEPTH))
    assert not is_shallow(nested(MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="depth"):
        other_fields({"x": nested(MAX_DEPTH + 1)}, frozenset())


@pytest.mark.parametrize(("value", "number"), [(3, 3), (3.0, 3), (0, 0), (-1, 0), (True, 0), ("3", 0), (None, 0), (2**60, 0)])
def test_counts(value: object, number: int) -> None:
    """A count that is none is 0, and missing where 0 would say something."""
    assert count(value) == number
    assert optional_count(value) == (number if number or value == 0 else None)


def test_text() -> None:
    """Null is an empty text; another value is none."""
    assert (text(None), text("x")) == ("", "x")
    with pytest.raises(TypeError):
        text(1)


def test_fields() -> None:
    """Fields without a place are found; of later ones those that changed."""
    assert other_fields({"a": 1, "b": 2}, frozenset("a")) == {"b": 2}
    assert changed_fields({"a": 1, "b": 2, "c": 3, "d": None}, {"b": 2, "c": 4, "d": 5}, frozenset("a")) == ({"c": 3}, ["b"])


def test_the_rest_of_a_text() -> None:
    """A whole text that repeats the streamed one has a rest; one that contradicts it has none."""
    streamed = StreamedText()
    for piece in ("ab", "cd"):
        assert streamed.add(piece) == piece
    assert (streamed.rest("abcdef"), streamed.rest("abxxef"), streamed.rest(None)) == ("ef", "", "")
