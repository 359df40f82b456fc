"""Tests of the scanner on texts that are split at any place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.guards.base import Blocked
from antiphon.guards.pattern import Pattern
from antiphon.guards.scanner import LONGEST, Finder, Rule, Scanner
from tests.unit.guards.feeding import fed, pieces

EXPRESSIONS = (
    r"cat|catfish|a\b",
    r"(?i)secret\s+plan",
    r"\bab+\b",
    r"a.*b",
    r"(?s)a.*?b",
    r"^ab|b$",
    r"(?m)^b+$",
    r"[ab ]{3,5}c?",
    r"(?:ab|ba){2}(?P<end>\d)",
    r"\x61\Qb.\E|[[:digit:]]{2}|\p{Lu}é",
    r"b\B.|\Aa",
    r"(a|(?i:b))+c{2,}?",
)
TEXT = st.text(alphabet="ab cC1.é\nsecrtpln", max_size=40)


def scanner(*expressions: str, block: bool = False) -> Scanner:
    pattern = Pattern(*expressions)
    return Scanner("test", Finder([Rule(pattern, "#")], pattern), block=block)


def simple(expressions: tuple[str, ...], text: str) -> str:
    """Mask a whole text by the definition: at each place the longest match that begins there."""
    pattern, at, output = Pattern(*expressions), 0, ""
    while at < len(text):
        end = pattern.end(text, at, min(at + LONGEST, len(text)))
        output += text[at] if end is None else "#"
        at = at + 1 if end is None else end
    return output


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3), pieces(TEXT), st.booleans())
def test_what_is_passed_on_does_not_depend_on_where_the_text_was_split(
    expressions: list[str], split: list[str], block: bool
) -> None:
    """Masking and blocking give the same result for any split, and that of the definition."""
    whole = fed(scanner(*expressions, block=block), ["".join(split)])
    assert fed(scanner(*expressions, block=block), split) == whole
    expected = simple(tuple(expressions), "".join(split))
    assert whole == (expected.partition("#")[0] + "!" if block and "#" in expected else expected)


_ATOMS = st.sampled_from(["a", "b", "c", ".", r"\w", r"\s", "[ab]", "[^a]", r"\b", r"\B", "^", "$", r"\.", r"\d", "1"])
_EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda both: f"(?:{both[0]}|{both[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{2,}"])).map(
            lambda both: f"(?:{both[0]}){both[1]}"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=600, deadline=None)
@given(_EXPRESSIONS, pieces(st.text(alphabet="abc1 .\n", max_size=20)))
def test_that_holds_for_any_expression(expression: str, split: list[str]) -> None:
    """The same holds for any expression of RE2 that does not match the empty text."""
    try:
        made = scanner(expression)
    except ValueError:
        return
    assert fed(made, split) == simple((expression,), "".join(split))


@settings(max_examples=60, deadline=None)
@given(pieces(st.text(alphabet="ab", min_size=LONGEST - 5, max_size=LONGEST + 40)))
def test_a_match_that_does_not_end_is_given_up_at_the_same_place(split: list[str]) -> None:
    """A match longer than LONGEST is not found, wherever the text is split."""
    for expression in ("a.*c", "a[ab]+", "ab*a?$"):
        assert fed(scanner(expression), split) == simple((expression,), "".join(split))


def test_text_is_passed_on_as_soon_as_no_match_can_begin_in_it() -> None:
    """Only text that may be the beginning of a match is held back."""
    reader = scanner(r"secret\s+plan")
    assert reader.feed("The se", final=False) == "The "
    assert reader.feed("ven", final=False) == "seven"
    assert reader.feed(" secret  ", final=False) == " "
    assert reader.feed("plan", final=False) == ""
    assert reader.feed(" B", final=False) == "# B"
    assert reader.feed("", final=True) == ""


def test_no_more_is_held_back_than_the_longest_match() -> None:
    """At most LONGEST characters are held back, whatever the expression."""
    reader, released = scanner("a.*b"), 0
    for count in range(1, 1000):
        released += len(reader.feed("a", final=False))
        assert count - released <= LONGEST


@pytest.mark.parametrize("pieces", [list("my password=hunter, then"), ["my password=hunter, then"]])
def test_a_match_that_is_blocked_ends_the_text(pieces: list[str]) -> None:
    """Text before a blocked match is passed on, and `Blocked` has the guard's name."""
    reader, output = scanner("password=[a-z]+", block=True), []
    with pytest.raises(Blocked) as caught:
        for piece in pieces:
            output += [reader.feed(piece, final=False)]
    assert "".join(output) + caught.value.before == "my "
    assert caught.value.guard == "test"


def test_of_two_rules_the_longer_match_counts_and_a_check_decides() -> None:
    """The longer match of two rules wins. A rule's check may accept a shorter part of the match, or nothing."""
    word, long = Pattern("[a-z]+"), Pattern("[a-z]+[0-9]+")
    rules = [Rule(word, "W", lambda text: text.startswith("x")), Rule(long, "L")]
    made = Finder(rules, Pattern("[a-z]+", "[a-z]+[0-9]+"))
    assert Scanner("test", made, block=False).feed("abc xyz ab1 x1", final=True) == "abc Wyz L L"
