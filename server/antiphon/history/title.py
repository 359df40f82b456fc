"""The title of a conversation that nobody has named, made from what was said in it. No I/O."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from antiphon.domain.content import Message, Role, Text

MAX_DERIVED_TITLE: Final = 80
"""Characters, beside the mark that some were cut off."""

NEW_CHAT: Final = "New chat"
"""The title where nothing was said that could be one."""


def title_of(given: str | None, messages: Sequence[Message]) -> str:
    """The title that was given, unless it is blank; else one from the messages."""
    return given if given and given.strip() else derived_title(messages)


def derived_title(messages: Sequence[Message]) -> str:
    """A title from the first message of the user: its first line, cut at a word."""
    for message in messages:
        if message.role is Role.USER:
            for block in message.blocks:
                if isinstance(block, Text) and block.text.strip():
                    return _cut(" ".join(block.text.strip().splitlines()[0].split()))
    return NEW_CHAT


def _cut(line: str) -> str:
    """The line as far as there is room for it: its whole words, or of one long word its first letters, with their accents."""
    if len(line) <= MAX_DERIVED_TITLE:
        return line
    words, space, _ = line[: MAX_DERIVED_TITLE + 1].rpartition(" ")
    if space:
        return words + "…"
    end = MAX_DERIVED_TITLE
    while end and unicodedata.category(line[end]).startswith("M"):  # a mark belongs to the letter before it
        end -= 1
    return line[: end or MAX_DERIVED_TITLE] + "…"
