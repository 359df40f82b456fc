"""The title of an unnamed conversation, made from its first user message. No I/O."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from antiphon.domain.content import Message, Role, Text

MAX_DERIVED_TITLE: Final = 80
"""The most characters of such a title, without the "…" for the rest."""

NEW_CHAT: Final = "New chat"
"""The title if no message has text for one."""


def title_of(given: str | None, messages: Sequence[Message]) -> str:
    """Return `given`, unless it is blank; else a title made from the messages."""
    return given if given and given.strip() else derived_title(messages)


def derived_title(messages: Sequence[Message]) -> str:
    """Return a title from the first user message with text: its first line, cut at a word. `NEW_CHAT` if there is none."""
    for message in messages:
        if message.role is Role.USER:
            for block in message.blocks:
                if isinstance(block, Text) and block.text.strip():
                    return _cut(" ".join(block.text.strip().splitlines()[0].split()))
    return NEW_CHAT


def _cut(line: str) -> str:
    """Return a line cut to `MAX_DERIVED_TITLE` characters, with "…": whole words, or the start of a long word."""
    if len(line) <= MAX_DERIVED_TITLE:
        return line
    words, space, _ = line[: MAX_DERIVED_TITLE + 1].rpartition(" ")
    if space:
        return words + "…"
    end = MAX_DERIVED_TITLE
    while end and unicodedata.category(line[end]).startswith("M"):  # do not separate an accent from its letter
        end -= 1
    return line[: end or MAX_DERIVED_TITLE] + "…"
