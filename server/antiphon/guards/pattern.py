r"""Regular expressions in time linear in the text, and over text of which more may come. No I/O.

RE2 reads them: it never backtracks, so no text can make it slow, and it knows neither look-around nor back-references
(https://github.com/google/re2/wiki/Syntax). It tells whether a text matches; a stream also needs to know whether one could match
when more of it has come. So each expression is compiled a second time, rewritten: every part that takes a character may instead
stand at the end of the text. `c[ao]t` becomes `(?:c|\z)(?:[ao]|\z)(?:t|\z)`, which matches "cat", and "c" and "co" at the end.
"""

from __future__ import annotations

import re
from typing import Any, Final

import re2

_TOKEN: Final = re.compile(
    r"""
      (?P<quoted> \\Q (?P<text> .*?) (?: \\E | \Z))
    | (?P<start>  \^ | \\A)                                     # known from what came before
    | (?P<syntax> \(\?P?<\w+> | \(\?[a-zA-Z-]*[:)] | [()|]
                | (?: [*+?] | \{\d+(?:,\d*)?\} ) \?? )
    | (?P<part>   \\[pP]\{\^?\w+\} | \\[pP]. | \\x\{[0-9a-fA-F]+\} | \\x.. | \\[0-7]{2,3} | \\.
                | \[ \^? \]? (?: \[:\^?\w+:\] | \\[pP]\{\^?\w+\} | \\. | [^\]\\] )* \]
                | . )
    """,
    re.VERBOSE | re.DOTALL,
)

_EMPTY: Final = {r"\b", r"\B", r"\z", "$"}
"""Parts that take no character."""

_MAX_MEMORY: Final = 32 << 20
"""Bytes that one expression may take, compiled and while it runs."""


class Pattern:
    """One regular expression. Of the matches that begin first, the longest counts."""

    def __init__(self, *expressions: str) -> None:
        """A text matches if it matches any of the `expressions`.

        Raises `ValueError`, which tells what is wrong, also for one that matches the empty text.
        """
        for expression in expressions:
            if any(token[0] == r"\C" for token in _TOKEN.finditer(expression)):
                raise ValueError(r"\C is a byte, and could cut a character")
            if _compile(expression).search("") is not None:
                raise ValueError("it matches the empty text")
        rewritten = [_may_end(expression) for expression in expressions]
        self._whole = _compile(_any(expressions))
        self._begun = _compile(_any(rewritten))
        self._open = _compile(f"(?:{_any(rewritten)})\\z")

    def end(self, text: str, at: int, limit: int) -> int | None:
        """Where the match that begins at `at` ends, by `limit` at the latest. None if there is none."""
        found = self._whole.match(text, at, limit)
        return found.end() if found is not None and found.end() > at else None

    def first(self, text: str, at: int) -> int:
        """Where the first match from `at` on begins, in a text that is whole; its length if there is none."""
        found = self._whole.search(text, at)
        return len(text) if found is None else int(found.start())

    def first_possible(self, text: str, at: int) -> int:
        """The same in a text of which more may come: where a match begins, or might with what comes."""
        found = self._begun.search(text, at)
        return len(text) if found is None else int(found.start())

    def undecided(self, text: str, at: int) -> bool:
        """Whether what comes can still change if, and how far, a match that begins at `at` goes."""
        return self._open.match(text, at) is not None


def shortest(expression: str) -> int:
    """Characters of the shortest text that an expression can match; it is one that RE2 takes."""
    groups: list[list[list[int]]] = [[[]]]  # those that are open, each with its alternatives, each with the least of its parts
    for token in _TOKEN.finditer(expression):
        parts, found = groups[-1][-1], token[0]
        match token.lastgroup:
            case "quoted" | "text":
                parts += [1] * len(token["text"])
            case "part":
                parts.append(0 if found in _EMPTY else 1)
            case "start":
                parts.append(0)
            case _ if found == "|":
                groups[-1].append([])
            case _ if found == ")":
                closed = min(map(sum, groups.pop()))
                groups[-1][-1].append(closed)
            case _ if found[0] == "(":
                if found[-1] != ")":  # that of (?i) is no group
                    groups.append([[]])
            case _ if parts:
                parts[-1] *= int(found.lstrip("{").split(",")[0].rstrip("}?")) if found[0] == "{" else int(found[0] == "+")
            case _:
                pass
    return min(map(sum, groups[0]))


def _compile(expression: str) -> Any:
    options = re2.Options()
    options.longest_match = True
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        (told,) = error.args
        raise ValueError(told.decode(errors="replace") if isinstance(told, bytes) else str(told)) from None


def _any(expressions: list[str] | tuple[str, ...]) -> str:
    return "|".join(f"(?:{expression})" for expression in expressions)


def _may_end(expression: str) -> str:
    """The expression, each of whose parts may instead stand at the end of the text. It is one that RE2 takes."""
    parts = []
    for token in _TOKEN.finditer(expression):
        match token.lastgroup:
            case "quoted" | "text":
                parts += [f"(?:{re2.escape(character)}|\\z)" for character in token["text"]]
            case "part":
                parts.append(f"(?:{token[0]}|\\z)")
            case _:
                parts.append(token[0])
    return "".join(parts)
