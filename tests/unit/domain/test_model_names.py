"""Tests of model names and patterns."""

import pytest

from antiphon.domain.model_names import MAX_CHARACTERS, is_name, matches


@pytest.mark.parametrize(
    ("name", "pattern", "does"),
    [
        ("llama1", "llama1", True),
        ("llama1", "llama[1]", False),
        ("llama[1]", "llama[1]", True),
        ("llama[1]-x", "llama[1]*", True),
        ("llama1-x", "llama[1]*", False),
        ("llama[!1]2", "llama[!1]*", True),
        ("llama1", "llama?", False),
        ("llama?", "llama?", True),
        ("llama?b", "*?b", True),
        ("llamaxb", "*?b", False),
        ("gpt-4o-mini", "gpt-*-mini", True),
        ("GPT-4o", "gpt-*", False),
        ("a.b", "a*b", True),
        ("a\nb", "a*", True),
        ("anything", "*", True),
        ("openai/gpt-4o", "openai/*", True),
    ],
)
def test_only_a_star_matches_other_characters(name: str, pattern: str, does: bool) -> None:
    """Only `*` matches other characters; `?` and `[` are ordinary characters."""
    assert matches(name, pattern) is does


@pytest.mark.parametrize("good", ["gpt-4o", "Qwen/Qwen2.5-7B", "a model", "llama3.1:8b@q4", "模型", "ft:gpt-4o:org::id"])
def test_a_name_may_have_any_script(good: str) -> None:
    """A name may have characters of any script and spaces inside."""
    assert is_name(good)


@pytest.mark.parametrize("odd", ["fast ", " fast", "fast\n", "fa\tst", "fa\0st", "fast\u200b", "fast\u00a0", "\ud800", "\x1b[2J"])
def test_a_name_has_no_invisible_characters(odd: str) -> None:
    """A name may not have outer spaces, other white space, invisible characters or half a surrogate pair."""
    assert not is_name(odd)


@pytest.mark.parametrize(("name", "does"), [("a" * MAX_CHARACTERS, True), ("a" * (MAX_CHARACTERS + 1), False)])
def test_a_name_has_a_bound(name: str, does: bool) -> None:
    """A name has at most MAX_CHARACTERS, because callers choose it, and it is logged and is a key in the database."""
    assert is_name(name) is does
