"""The title of a conversation that nobody has named, made from what was said in it. No I/O.

Where a long line is cut, no character as a reader sees it is cut in two: the rules are the main ones of Unicode's grapheme clusters
(UAX #29), as the standard library tells characters apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from antiphon.domain.content import Message, Role, Text

MAX_DERIVED_TITLE: Final = 80

NEW_CHAT: Final = "New chat"
"""The title where nothing was said that could be one."""

_JOINER: Final = "\N{ZERO WIDTH JOINER}"


def title_of(given: str | None, messages: Sequence[Message]) -> str:
    """The title that was given, unless it is blank; else one from the messages."""
    return given if given and given.strip() else derived_title(messages)


def derived_title(messages: Sequence[Message]) -> str:
    """A title from the first message of the user: its first line, cut at a word."""
    for message in messages:
        if message.role is Role.USER:
            for part in message.parts:
                if isinstance(part, Text) and part.text.strip():
                    return _cut(" ".join(part.text.strip().splitlines()[0].split()))
    return NEW_CHAT


def _cut(line: str) -> str:
    if len(line) <= MAX_DERIVED_TITLE:
        return line
    words, space, _ = line[: MAX_DERIVED_TITLE + 1].rpartition(" ")
    if space:
        return words + "…"
    end = MAX_DERIVED_TITLE
    while end and not _is_boundary(line, end):
        end -= 1
    return line[: end or MAX_DERIVED_TITLE] + "…"


def _is_boundary(line: str, at: int) -> bool:
    """Whether a character, as a reader sees it, may begin at `at`."""
    before, after = line[at - 1], line[at]
    if _JOINER in {before, after} or unicodedata.category(after) in {"Mn", "Me", "Mc"} or _modifies(after):
        return False
    if _is_flag_half(before) and _is_flag_half(after):  # two are a flag: an even number of them stands before a boundary
        begin = at
        while begin and _is_flag_half(line[begin - 1]):
            begin -= 1
        return (at - begin) % 2 == 0
    # A syllable of Hangul that is written in its letters.
    return not (0x1100 <= ord(before) <= 0x11FF and 0x1160 <= ord(after) <= 0x11FF)


def _modifies(character: str) -> bool:
    """Colours of skin, the tags that flags of regions are spelt in, and the vowel AM of Thai and Lao."""
    return 0x1F3FB <= ord(character) <= 0x1F3FF or 0xE0020 <= ord(character) <= 0xE007F or ord(character) in {0xE33, 0xEB3}


def _is_flag_half(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF
