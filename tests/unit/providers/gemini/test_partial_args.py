"""Arguments of a call that arrive in pieces."""

from typing import Any

import pytest

from antiphon.providers.gemini.partial_args import PartialArgs


def assembled(*pieces: dict[str, Any], **args: Any) -> dict[str, Any]:
    made = PartialArgs(args)
    for piece in pieces:
        made.add(piece)
    made.close()
    return made.value


def test_paths() -> None:
    """Objects and lists are made as the paths name them."""
    assert assembled(
        {"jsonPath": "$.a.b[0].c", "stringValue": "x"},
        {"jsonPath": "$.a.b[1].c", "numberValue": 1.5},
        {"jsonPath": "$['d e'][\"f'\"]", "boolValue": False},
        {"jsonPath": "$.n", "nullValue": "NULL_VALUE"},
        {"jsonPath": "$.l[0][0]", "numberValue": 2**70},
        {"jsonPath": "$.l[0][0]", "numberValue": 3},
        {"jsonPath": "$.nothing"},
        g="h",
    ) == {"g": "h", "a": {"b": [{"c": "x"}, {"c": 1.5}]}, "d e": {"f'": False}, "n": None, "l": [[3]]}


def test_a_text_in_pieces() -> None:
    """It goes on while the provider says so, and is written even if its end is missing."""
    assert assembled(
        {"jsonPath": "$.a", "stringValue": "x", "willContinue": True},
        {"jsonPath": "$.a", "stringValue": "y", "willContinue": True},
        {"jsonPath": "$.a", "stringValue": ""},
        {"jsonPath": "$.b", "stringValue": "1", "willContinue": True},
        {"jsonPath": "$.c", "stringValue": "2", "willContinue": True},
    ) == {"a": "xy", "b": "1", "c": "2"}


@pytest.mark.parametrize(
    "piece",
    [
        {"jsonPath": "$", "stringValue": "x"},
        {"jsonPath": "a", "stringValue": "x"},
        {"jsonPath": "$..a", "stringValue": "x"},
        {"jsonPath": "$.a[1]", "stringValue": "x"},
        {"jsonPath": "$[0]", "stringValue": "x"},
        {"jsonPath": "$.s.a", "stringValue": "x"},
        {"jsonPath": "$" + ".a" * 30, "stringValue": "x"},
        {"jsonPath": "$.a", "stringValue": 1},
        {"jsonPath": 1, "boolValue": True},
        {"stringValue": "x"},
    ],
)
def test_what_does_not_fit(piece: dict[str, Any]) -> None:
    """A path that is none, or that leaves a gap, is an error of the provider."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        assembled(piece, s="text")
