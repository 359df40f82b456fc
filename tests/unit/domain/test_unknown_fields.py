"""Tests of adding up unknown fields of a provider."""

from typing import Any

from antiphon.domain import unknown_fields
from antiphon.domain.content import JsonObject


def merged(*fields: JsonObject, joins: bool = True) -> JsonObject:
    known: dict[str, Any] = {}
    for one in fields:
        unknown_fields.add(known, one, joins=joins)
    return known


def test_fields_of_a_message_add_up() -> None:
    """Texts are joined and names are not.

    Objects are merged, in lists by index and type. Null replaces nothing but numbers. The deltas stay unchanged.
    """
    first = {"x": {"id": "a", "type": "t", "name": "n", "input": "1"}, "n": 1, "b": True, "s": "a", "l": [1], "z": None}
    second = {"x": {"id": "a", "type": None, "name": "", "input": "2"}, "n": None, "b": False, "s": None, "l": None, "z": "z"}
    assert merged(first, second) == {
        "x": {"id": "a", "type": "t", "name": "n", "input": "12"},
        "n": None,
        "b": False,
        "s": "a",
        "l": [1],
        "z": "z",
    }
    assert merged({"channel": "analysis"}, {"channel": "final"}) == {"channel": "final"}
    assert first["x"] == {"id": "a", "type": "t", "name": "n", "input": "1"}
    details = [
        {"d": [{"index": 0, "type": "text", "text": "a", "format": "f"}, {"index": 1, "text": "x"}]},
        {"d": [{"index": 0, "type": "text", "text": "b", "format": "f"}, {"index": 0, "type": "sealed", "data": "s"}]},
        {"d": [{"index": 1, "text": "y"}, {"text": "none"}, 7]},
    ]
    assert merged(*details)["d"] == [
        {"index": 0, "type": "text", "text": "ab", "format": "f"},
        {"index": 1, "text": "xy"},
        {"index": 0, "type": "sealed", "data": "s"},
        {"text": "none"},
        7,
    ]


def test_the_latest_field_of_a_choice_wins() -> None:
    """In fields of a choice the latest value wins, but lists are extended and objects are merged."""
    deltas = ({"reason": "a", "found": {"x": {"is": "safe"}}, "ids": [1]}, {"reason": "b", "found": {"x": {"n": 1}}, "ids": [2]})
    assert merged(*deltas, joins=False) == {"reason": "b", "found": {"x": {"is": "safe", "n": 1}}, "ids": [1, 2]}


def test_an_item_that_goes_on() -> None:
    """The first new item of a list goes on with the last one before, if the reader says so; the others are appended."""
    known: dict[str, Any] = {}
    for items in ([{"t": "H"}], [{"t": "m"}, {"t": "O"}], [{"t": "h"}]):
        unknown_fields.add(known, {"b": items, "c": items}, joins=True, continued=frozenset({"b"}))
    assert known["b"] == [{"t": "Hm"}, {"t": "Oh"}]
    assert known["c"] == [{"t": "H"}, {"t": "m"}, {"t": "O"}, {"t": "h"}]
