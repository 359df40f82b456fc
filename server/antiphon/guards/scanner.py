"""Finds matches in a text that comes piece by piece, and masks them or stops at the first. No I/O.

What is given for a text depends on the text alone, not on where it was split. That holds because whether a match begins at a place,
and where it ends, is decided by no more than `LONGEST` characters from there and one on each side, and is decided once: either
when nothing that comes could change it, or when all of them are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from antiphon.guards.base import Blocked
from antiphon.guards.pattern import Pattern

LONGEST: Final = 255
"""Characters of the longest match, and the most that are held back of a text: what is longer is not found."""


class Rule(Struct, frozen=True):
    """What to find, and what to put in its place.

    `check`, if there is one, tells how many characters of what the pattern matched are one indeed, from its beginning on; 0: none.
    """

    pattern: Pattern
    replacement: str
    check: Callable[[str], int] | None = None


class Finder:
    """Finds what any of some rules find: of the matches that begin first, the longest; of equally long ones, the first rule's."""

    def __init__(self, rules: Sequence[Rule], together: Pattern) -> None:
        """`together` matches what any of the rules' patterns matches."""
        self._rules = rules
        self._together = together

    def begin(self, text: str, at: int, *, final: bool) -> int:
        """The first place from `at` on where a match may begin. Not before it does one, whatever follows the text."""
        return self._together.first(text, at) if final else self._together.first_possible(text, at)

    def undecided(self, text: str, at: int) -> bool:
        """Whether what a match at `at` is depends on what comes."""
        return len(text) - at <= LONGEST and self._together.undecided(text, at)

    def match(self, text: str, at: int) -> tuple[int, str] | None:
        """Where the match that begins at `at` ends, and what to put in its place. None if there is none."""
        best, replacement = at, ""
        for rule in self._rules:
            end = rule.pattern.end(text, at, min(at + LONGEST, len(text)))
            if end is not None and rule.check is not None:
                end = at + rule.check(text[at:end])
            if end is not None and end > best:
                best, replacement = end, rule.replacement
        return (best, replacement) if best > at else None


class Scanner:
    """A `Filter`: one text."""

    def __init__(self, guard: str, finder: Finder, *, block: bool) -> None:
        """`block`: a match ends the text; else it is masked."""
        self._guard = guard
        self._finder = finder
        self._block = block
        self._text = ""
        self._at = 0  # what of the text is held back; before it, the last character that is not

    @property
    def held(self) -> int:
        """How many characters are held back."""
        return len(self._text) - self._at

    def feed(self, piece: str, *, final: bool) -> str:
        """See `Filter.feed`."""
        text, at, finder = self._text + piece, self._at, self._finder
        passed = []
        while at < len(text):
            begin = finder.begin(text, at, final=final)
            passed.append(text[at:begin])
            at = begin
            if at == len(text) or (not final and finder.undecided(text, at)):
                break
            found = finder.match(text, at)
            if found is None:
                passed.append(text[at])
                at += 1
            elif self._block:
                raise Blocked(self._guard, "".join(passed))
            else:
                at, replacement = found
                passed.append(replacement)
        before = max(0, at - 1)
        self._text, self._at = text[before:], at - before
        return "".join(passed)
