r"""Matches regular expressions in linear time, also in text of which more may come. No I/O.

RE2 runs them: it never backtracks, so no text makes it slow, but it has no look-around and no back-references
(https://github.com/google/re2/wiki/Syntax). It can tell whether a text matches; for a stream one must also know whether it could
match when more has come. So each expression is compiled a second time, rewritten: each part that consumes a character may match the
end of the text instead. `c[ao]t` becomes `(?:c|\z)(?:[ao]|\z)(?:t|\z)`, which matches "cat", and "c" and "co" at the end.
"""

from __future__ import annotations

import re
from typing import Any, Final

import re2

_TOKEN: Final = re.compile(
    r"""
      (?P<quoted> \\Q (?P<text> .*?) (?: \\E | \Z))
    | (?P<start>  \^ | \\A)                                     # decided by the text before
    | (?P<syntax> \(\?P?<\w+> | \(\?[a-zA-Z-]*[:)] | [()|]
                | (?: [*+?] | \{\d+(?:,\d*)?\} ) \?? )
    | (?P<part>   \\[pP]\{\^?\w+\} | \\[pP]. | \\x\{[0-9a-fA-F]+\} | \\x.. | \\[0-7]{2,3} | \\.
                | \[ \^? \]? (?: \[:\^?\w+:\] | \\[pP]\{\^?\w+\} | \\. | [^\]\\] )* \]
                | . )
    """,
    re.VERBOSE | re.DOTALL,
)

_EMPTY: Final = {r"\b", r"\B", r"\z", "$"}
"""Parts that consume no character."""

_MAX_MEMORY: Final = 32 << 20
"""The most memory of one expression, compiled and running, in bytes."""


class Pattern:
    """One or more regular expressions. Of the matches with the first start, the longest is used."""

    def __init__(self, *expressions: str) -> None:
        """Compile expressions; a text matches if any of them matches.

        Raises `ValueError`, with the reason, for an invalid expression, and for one that matches the empty text.
        """
        for expression in expressions:
            if any(token[0] == r"\C" for token in _TOKEN.finditer(expression)):
                raise ValueError(r"\C is a byte, and could cut a character")
            if _compile(expression).search("") is not None:
                raise ValueError("it matches the empty text")
        rewritten = [_may_end(expression) for expression in expressions]
        self._whole = _compile(_any(expressions))
        self._possible = _compile(_any(rewritten))
        self._open = _compile(f"(?:{_any(rewritten)})\\z")

    def end(self, text: str, at: int, limit: int) -> int | None:
        """Return where the match that begins at `at` ends, at most `limit`; None if there is none."""
        found = self._whole.match(text, at, limit)
        return found.end() if found is not None and found.end() > at else None

    def first(self, text: str, at: int) -> int:
        """Return where the first match from `at` on begins, in a complete text; the text's length if there is none."""
        found = self._whole.search(text, at)
        return len(text) if found is None else int(found.start())

    def first_possible(self, text: str, at: int) -> int:
        """Return the same for a text of which more may come: where a match begins, or could begin with what comes."""
        found = self._possible.search(text, at)
        return len(text) if found is None else int(found.start())

    def undecided(self, text: str, at: int) -> bool:
        """Return whether text that follows can still change the match that begins at `at`, or whether there is one."""
        return self._open.match(text, at) is not None


def shortest(expression: str) -> int:
    """Return the length of the shortest text that a valid expression can match, in characters."""
    groups: list[list[list[int]]] = [[[]]]  # open groups > alternatives > the shortest length of each part
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
                if found[-1] != ")":  # flags such as (?i) are no group
                    groups.append([[]])
            case _ if parts:
                parts[-1] *= int(found.lstrip("{").split(",")[0].rstrip("}?")) if found[0] == "{" else int(found[0] == "+")
            case _:
                pass
    return min(map(sum, groups[0]))


def _compile(expression: str) -> Any:
    """Compile an expression. Raises `ValueError`, with the reason."""
    options = re2.Options()
    options.longest_match = True
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        (reason,) = error.args
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None


def _any(expressions: list[str] | tuple[str, ...]) -> str:
    return "|".join(f"(?:{expression})" for expression in expressions)


def _may_end(expression: str) -> str:
    """Return a valid expression rewritten so that each of its parts may match the end of the text instead."""
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
