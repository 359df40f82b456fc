"""Regular expressions."""

import pytest

from antiphon.guards.pattern import Pattern


@pytest.mark.parametrize(
    "expression",
    ["a(", r"(?=a)", r"(a)\1", "a*", "^", r"a\C", "(?:a{1000}){1000}"],
)
def test_what_cannot_be_read_in_linear_time_or_matches_nothing_is_refused(expression: str) -> None:
    """With the reason, as a `ValueError`."""
    with pytest.raises(ValueError, match=r"\w"):
        Pattern(expression)


@pytest.mark.parametrize("expression", [r"(a+)+$", r"(a|a)*b", r"(.*a){20}b", r"(x+x+)+y"])
def test_no_text_makes_one_slow(expression: str) -> None:
    """These take a backtracking engine for ever."""
    assert Pattern(expression).first("a" * 100_000 + "!" + "x" * 100_000, 0) == 200_001
