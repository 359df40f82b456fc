"""Finds matches in a text that comes in pieces, and masks them, or stops at the first. No I/O.

The result depends on the text alone, not on where it was split. For this, whether a match begins at a position, and where it ends,
depends on at most `LONGEST` characters from there and one on each side; and it is decided once, when no further text can change it,
or when all these characters are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from antiphon.guards.base import LONGEST, Blocked
from antiphon.guards.pattern import Pattern


class Rule(Struct, frozen=True):
    """What to find, and its replacement.

    `check`, if set, takes a match of the pattern, and returns how many of its first characters are really what is searched; 0 for
    none.
    """

    pattern: Pattern
    replacement: str
    check: Callable[[str], int] | None = None


class Finder:
    """Finds the matches of any of several rules: the first start, then the longest match, then the first rule."""

    def __init__(self, rules: Sequence[Rule], together: Pattern) -> None:
        """Set the rules; `together` is the pattern that matches if any of theirs does."""
        self._rules = rules
        self._together = together

    def begin(self, text: str, at: int, *, final: bool) -> int:
        """Return the first position from `at` on where a match may begin; there is none before it. `final`: no text follows."""
        return self._together.first(text, at) if final else self._together.first_possible(text, at)

    def undecided(self, text: str, at: int) -> bool:
        """Return whether the match at `at` depends on text that has not come yet."""
        return len(text) - at <= LONGEST and self._together.undecided(text, at)

    def match(self, text: str, at: int) -> tuple[int, str] | None:
        """Return the end of the match that begins at `at`, and its replacement; None if there is none."""
        best, replacement = at, ""
        for rule in self._rules:
            end = rule.pattern.end(text, at, min(at + LONGEST, len(text)))
            if end is not None and rule.check is not None:
                end = at + rule.check(text[at:end])
            if end is not None and end > best:
                best, replacement = end, rule.replacement
        return (best, replacement) if best > at else None


class Scanner:
    """A `Filter` that applies a `Finder` to one text."""

    def __init__(self, guard: str, finder: Finder, *, block: bool) -> None:
        """Set the guard's name and its finder. `block`: a match raises `Blocked`; otherwise it is masked."""
        self._guard = guard
        self._finder = finder
        self._block = block
        self._text = ""
        self._at = 0  # held back from here on; one character before is kept as context

    @property
    def held(self) -> int:
        """Return how many characters are held back."""
        return len(self._text) - self._at

    def feed(self, piece: str, *, final: bool) -> str:
        """Return the text that may be passed on now, as `Filter.feed`. Raises `Blocked`."""
        text, at, finder = self._text + piece, self._at, self._finder
        out = []
        while at < len(text):
            begin = finder.begin(text, at, final=final)
            out.append(text[at:begin])
            at = begin
            if at == len(text) or (not final and finder.undecided(text, at)):
                break
            found = finder.match(text, at)
            if found is None:
                out.append(text[at])
                at += 1
            elif self._block:
                raise Blocked(self._guard, "".join(out))
            else:
                at, replacement = found
                out.append(replacement)
        before = max(0, at - 1)
        self._text, self._at = text[before:], at - before
        return "".join(out)
