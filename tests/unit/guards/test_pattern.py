"""Tests of the guards' regular expressions."""

import pytest

from antiphon.guards.pattern import Pattern, shortest


@pytest.mark.parametrize(
    "expression",
    ["a(", r"(?=a)", r"(a)\1", "a*", "^", r"a\C", "(?:a{1000}){1000}"],
)
def test_expressions_that_are_not_linear_or_match_the_empty_text_are_refused(expression: str) -> None:
    """An expression that RE2 cannot run, or that matches the empty text, is a `ValueError` with the reason."""
    with pytest.raises(ValueError, match=r"\w"):
        Pattern(expression)


@pytest.mark.parametrize("expression", [r"(a+)+$", r"(a|a)*b", r"(.*a){20}b", r"(x+x+)+y"])
def test_no_text_makes_one_slow(expression: str) -> None:
    """Expressions that take a backtracking engine forever run in linear time."""
    assert Pattern(expression).first("a" * 100_000 + "!" + "x" * 100_000, 0) == 200_001


@pytest.mark.parametrize(
    ("expression", "characters"),
    [
        ("bad", 3),
        (r"(?i)\bba+d?\b$", 2),
        (r"a{3}b{2,}c{4,9}d*?", 9),
        (r"(?:ab|c){10}", 10),
        (r"(?P<x>(a|bc)d){2,3}|\Qx.yz+\E{2}", 4),
        (r"[^]x]{5}\pL{2}\x{1F600}\x41", 9),
        (r"^(?:x|)y", 1),
        ("(?:[a-z]{100}){3}", 300),
    ],
)
def test_the_shortest_match_of_an_expression(expression: str, characters: int) -> None:
    """`shortest` returns the length of the shortest match, with groups, repetitions and alternatives."""
    assert Pattern(expression)
    assert shortest(expression) == characters
