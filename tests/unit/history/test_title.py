"""Tests of titles that are derived from the first message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Block, Image, Media, Message, Role, Text
from antiphon.history.title import MAX_DERIVED_TITLE, NEW_CHAT, derived_title, title_of


def conversation(*parts: Block) -> list[Message]:
    return [Message(Role.SYSTEM, (Text("Be brief."),)), Message(Role.USER, parts)]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  Hello,\t you \n and more", "Hello, you"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 80 + "…"),
        ("word " * 30, ("word " * 16).strip() + "…"),
        ("x" * 80 + " y", "x" * 80 + "…"),
        ("x" * 79 + "e\u0301e", "x" * 79 + "…"),
        ("x" * 79 + "❤\ufe0f!", "x" * 79 + "…"),
        ("x" * 79 + "👍👍", "x" * 79 + "👍…"),
        ("漢" * 100, "漢" * 80 + "…"),
        ("", NEW_CHAT),
        (" \n\t\u3000", NEW_CHAT),
        ("e" + "\u0301" * 100, "e" + "\u0301" * 79 + "…"),
    ],
)
def test_the_title_is_the_first_line_cut_at_a_word_or_else_between_two_letters(text: str, title: str) -> None:
    """The title is the first line, cut at a word or else between characters; an accent stays with its letter if possible."""
    assert derived_title(conversation(Text(text))) == title


def test_a_conversation_without_text_has_the_default_title() -> None:
    """An image, instructions alone or no message give the default title."""
    assert derived_title(conversation(Image(Media("https://a.test/x.png")))) == NEW_CHAT
    assert derived_title(conversation()[:1]) == derived_title([]) == NEW_CHAT


def test_a_blank_title_is_replaced() -> None:
    """A blank title is replaced by the derived one; any other title is kept unchanged."""
    for blank in (None, "", " ", "\n\u3000"):
        assert title_of(blank, conversation(Text("Hi"))) == "Hi"
    assert title_of(" Mine ", conversation(Text("Hi"))) == " Mine "


@given(st.lists(st.sampled_from(["a", "漢", "🎼", "e\u0301", "❤\ufe0f", "נִ", "की"]), min_size=81, max_size=120))
def test_no_letter_loses_its_accent(letters: list[str]) -> None:
    """A derived title has at most MAX_DERIVED_TITLE characters and never cuts a letter from its accents."""
    title = derived_title(conversation(Text("".join(letters)))).removesuffix("…")
    assert len(title) <= MAX_DERIVED_TITLE
    assert title in {"".join(letters[:count]) for count in range(1, MAX_DERIVED_TITLE + 1)}
