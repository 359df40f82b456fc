"""A `Chain` for a text that is to be JSON, in pieces or whole. Masked JSON stays valid JSON. No I/O.

Each string, field names included, is a separate text, and is filtered unescaped; so is each number, as it is written. A masked
number becomes a string. Values that no guard changes are emitted as they were written: nothing is parsed, so the nesting depth, the
length of numbers and duplicate field names do not matter.

From the first position that is not JSON on, the output is filtered once more, as one text. Strings in it are still filtered
unescaped, as some JSON readers accept more than JSON. A string in single quotes, which only such readers accept, is treated as
text.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Sequence
from typing import Final

from antiphon.guards.base import LONGEST, Blocked, Guard
from antiphon.guards.chain import PIECE, Chain, filter_text
from antiphon.guards.json_value import FieldNames

_BETWEEN: Final = re.compile(r"[\s{}\[\]:,]+")
_VALUE: Final = re.compile(r"(-?[0-9][0-9.eE+-]*|NaN|-?Infinity|true|false|null)(\s*)(?=([,}\]])|\Z)")
_WORDS: Final = ("NaN", "Infinity", "-Infinity", "true", "false", "null")
_KEYWORDS: Final = {"true", "false", "null"}
"""Values that are not filtered."""

_PLAIN: Final = re.compile(r'"([^"\\\x00-\x1f]*)"')
"""A whole string without escapes. Most strings are such; handling them at once takes a third less time."""

_LITERAL: Final = re.compile(r'[^"\\\x00-\x1f]+|[\x00-\x1f]')
"""Characters of a string that represent themselves. Control characters match one at a time, as JSON writes them as escapes."""
_ESCAPE: Final = re.compile(r'\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_LONGEST_ESCAPE: Final = 12
"""The most characters of an escape: a surrogate pair."""
_ESCAPES: Final = {r"\b": "\b", r"\f": "\f", r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\"": '"', r"\\": "\\", r"\/": "/"}


class JsonChain:
    """Filters one text, with the methods of `Chain`."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._guards = guards
        self._rest = ""  # text whose token is not complete yet
        self._string: _String | None = None
        self._open: list[FieldNames | None] = []  # the open containers: the field names of an object, None for a list
        self._expects_name = False
        self._text_chain: Chain | None = None  # filters the output from where it is not JSON on
        self._json_count = 0  # the number of items of `out` that are before that position

    @property
    def held(self) -> int:
        """Return approximately how many characters are held back, as `Chain.held`."""
        string = 0 if self._string is None else self._string.held
        return len(self._rest) + string + (0 if self._text_chain is None else self._text_chain.held)

    async def feed(self, text: str, *, final: bool = False) -> str:
        """Filter more of the text, as `Chain.feed`. Raises `Blocked`."""
        out: list[str] = []
        try:
            await self._feed(self._rest + text, out, final=final)
        except Blocked as blocked:
            out.append(blocked.before)
            raise Blocked(blocked.guard, await self._filter_as_text(out, final=True)) from None
        return await self._filter_as_text(out, final=final)

    async def _filter_as_text(self, out: list[str], *, final: bool) -> str:
        """Join the output. From where it is not JSON on, filter it once more as one text."""
        if self._text_chain is None:
            return "".join(out)
        begin, self._json_count = self._json_count, 0
        before = "".join(out[:begin])
        try:
            return before + await self._text_chain.feed("".join(out[begin:]), final=final)
        except Blocked as blocked:
            raise Blocked(blocked.guard, before + blocked.before) from None

    async def _feed(self, text: str, out: list[str], *, final: bool) -> None:
        """Read `text`, append what may be passed on to `out`, and keep an incomplete rest. Raises `Blocked`."""
        at, pause = 0, PIECE
        while at < len(text):
            after = await self._step(text, at, out, final=final)
            if after is None:
                break
            at = after
            if at >= pause:  # other calls run, as in `Chain`
                pause = at + PIECE
                await asyncio.sleep(0)
        self._rest = text[at:]
        if final and self._string is not None:
            await self._string.feed([], out, final=True)

    async def _step(self, text: str, at: int, out: list[str], *, final: bool) -> int | None:
        """Read on from `at`, appending to `out`.

        Return where the read part ends; None if that depends on text that has not come yet.
        """
        if self._string is not None:
            return await self._in_string(self._string, text, at, out, final=final)
        if text[at] == '"':
            names = self._open[-1] if self._expects_name else None
            if found := _PLAIN.match(text, at):
                await self._plain_string(found[1], names, out)
                return found.end()
            self._string = _String(self._guards, names)
            out.append('"')
            return at + 1
        if self._text_chain is not None:
            end = text.find('"', at)
            end = len(text) if end < 0 else end
            out.append(text[at:end])
            return end
        if found := _BETWEEN.match(text, at):
            self._track(found[0])
            out.append(found[0])
            return found.end()
        found = _VALUE.match(text, at)
        if found is not None and (final if found[3] is None else self._open):
            value = found[1]
            masked = value if value in _KEYWORDS else await filter_text(self._guards, value)
            out += (value if masked == value else f'"{_quoted(masked)}"', found[2])
            return found.end()
        if not final and len(text) - at <= LONGEST and _may_become_value(text[at:]):
            return None
        self._text_chain, self._json_count = Chain(self._guards), len(out)
        self._expects_name = False
        return at

    async def _in_string(self, string: _String, text: str, at: int, out: list[str], *, final: bool) -> int | None:
        """Read on within a string. Returns as `_step`."""
        begin, pieces, over = at, list[tuple[str, str]](), False
        while at < len(text) and at - begin < PIECE and not over:
            if text[at] == '"':
                over = True
                at += 1
            elif found := _LITERAL.match(text, at):
                pieces.append((found[0], found[0]))
                at = found.end()
            elif found := _ESCAPE.match(text, at):
                unescaped = _ESCAPES.get(found[0]) or json.loads(f'"{found[0]}"')
                if "\ud800" <= unescaped <= "\udfff":  # half a surrogate pair: the other half may come
                    if unescaped < "\udc00" and not final and len(text) - at < _LONGEST_ESCAPE:
                        break
                    unescaped = "\ufffd"
                pieces.append((unescaped, found[0]))
                at = found.end()
            elif not final and len(text) - at < _LONGEST_ESCAPE:
                break
            else:  # no valid escape: a backslash as it is
                pieces.append(("\\", "\\"))
                at += 1
        if pieces or over:
            await string.feed(pieces, out, final=over)
        if over:
            self._string = None
            out.append('"')
        return at if at > begin else None

    async def _plain_string(self, text: str, names: FieldNames | None, out: list[str]) -> None:
        """Emit a whole string that matches `_PLAIN`, filtered, as `_String` does in pieces."""
        try:
            masked = await filter_text(self._guards, text)
        except Blocked as blocked:
            raise Blocked(blocked.guard, f'"{_quoted(blocked.before)}') from None
        written = text if masked == text else _quoted(masked)
        out.append(f'"{written}{names.suffix(text, masked)}"' if names is not None else f'"{written}"')

    def _track(self, between: str) -> None:
        """Update the open objects and lists, and whether a field name comes next, from the characters between two values."""
        for character in between:
            if character in "{[":
                self._open.append(FieldNames() if character == "{" else None)
            elif character in "}]":
                del self._open[-1:]
            if not character.isspace():
                self._expects_name = character in "{," and bool(self._open) and self._open[-1] is not None


class _String:
    """One string between its quotes, emitted as it was written until a guard changes it."""

    def __init__(self, guards: Sequence[Guard], names: FieldNames | None) -> None:
        """Set the guards. If the string is a field name, `names` has the names of its object."""
        self._chain = Chain(guards)
        self._names = names
        self._name: list[str] = []
        self._masked: list[str] = []
        self._held: deque[tuple[str, str]] = deque()  # (unescaped, as written) of the text that is not emitted yet
        self._changed = False

    @property
    def held(self) -> int:
        """Return how many characters of the string, as it is written, are not emitted yet."""
        return self._chain.held if self._changed else sum(len(raw) for _, raw in self._held)

    async def feed(self, pieces: Sequence[tuple[str, str]], out: list[str], *, final: bool) -> None:
        """Filter more of the string, which `final` ends. Raises `Blocked`.

        Each of `pieces` is text unescaped, and as it is written.
        """
        if not self._changed:
            self._held += pieces
        unescaped = "".join([unescaped for unescaped, _ in pieces])
        try:
            filtered = await self._chain.feed(unescaped, final=final)
        except Blocked as blocked:
            raise Blocked(blocked.guard, self._written(blocked.before)) from None
        out.append(self._written(filtered))
        if self._names is not None:
            self._name.append(unescaped)
            self._masked.append(filtered)
            if final:
                out.append(self._names.suffix("".join(self._name), "".join(self._masked)))

    def _written(self, text: str) -> str:
        """Return text that passed the guards as it was written, from the first change on newly escaped."""
        at, written = 0, list[str]()
        while at < len(text) and not self._changed:
            unescaped, raw = self._held[0] if self._held else ("", "")
            if unescaped and text.startswith(unescaped, at):
                self._held.popleft()
                written.append(raw)
                at += len(unescaped)
            elif unescaped == raw and unescaped.startswith(text[at:]):
                self._held[0] = (unescaped[len(text) - at :],) * 2
                written.append(text[at:])
                at = len(text)
            else:
                self._changed = True
                self._held.clear()
        return "".join(written) + _quoted(text[at:]) if at < len(text) else "".join(written)


async def filter_json(guards: Sequence[Guard], text: str) -> str:
    """Return a whole text that is to be JSON with all matches masked. Raises `Blocked`."""
    return await JsonChain(guards).feed(text, final=True) if text else text


def _may_become_value(text: str) -> bool:
    """Return whether more text could make this a number or a keyword."""
    return _VALUE.fullmatch(text) is not None or any(word.startswith(text) for word in _WORDS)


def _quoted(text: str) -> str:
    """Return text escaped for JSON, without the quotes."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
