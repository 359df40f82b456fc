"""A `Chain` for a text that is to be JSON: piece by piece, or whole. What is masked in it leaves it JSON. No I/O.

Each string, names of fields too, is a text of its own, read as what it stands for, and so is each number, as it is written; one
that is masked becomes a string. What no guard changes is told as it was written: nothing is parsed, so it does not matter how deep
it is, how long its numbers are, or whether a field is named twice.

From where it turns out not to be JSON, what is told is read once more, as one text. Strings in it are still read as what they stand
for: some readers of JSON take more than JSON. What only they know as a string, in single quotes, is text.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Sequence
from typing import Final

from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import PIECE, Chain, passed
from antiphon.guards.json_value import Names
from antiphon.guards.scanner import LONGEST

_BETWEEN: Final = re.compile(r"[\s{}\[\]:,]+")
_VALUE: Final = re.compile(r"(-?[0-9][0-9.eE+-]*|NaN|-?Infinity|true|false|null)(\s*)(?=([,}\]])|\Z)")
_WORDS: Final = ("NaN", "Infinity", "-Infinity", "true", "false", "null")
_UNREAD: Final = {"true", "false", "null"}

_PLAIN: Final = re.compile(r'"([^"\\\x00-\x1f]*)"')
"""A whole string that is written as what it stands for: most are, and reading it at once takes a third less time."""

_SAID: Final = re.compile(r'[^"\\\x00-\x1f]+|[\x00-\x1f]')
"""What stands for itself; JSON writes the latter as an escape, so each is told for itself."""
_ESCAPE: Final = re.compile(r'\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_LONGEST_ESCAPE: Final = 12
_STANDS_FOR: Final = {r"\b": "\b", r"\f": "\f", r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\"": '"', r"\\": "\\", r"\/": "/"}


class JsonChain:
    """One text, as `Chain`."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._guards = guards
        self._rest = ""  # what cannot be read yet
        self._string: _String | None = None
        self._around: list[Names | None] = []  # what is open: the names of each object, None for a list
        self._name_comes = False
        self._other: Chain | None = None  # reads what is told since it is not JSON
        self._before = 0  # how much of what is told now came before that

    @property
    def held(self) -> int:
        """See `Chain.held`."""
        string = 0 if self._string is None else self._string.held
        return len(self._rest) + string + (0 if self._other is None else self._other.held)

    async def feed(self, text: str, *, final: bool = False) -> str:
        """See `Chain.feed`."""
        told: list[str] = []
        try:
            await self._feed(self._rest + text, told, final=final)
        except Blocked as blocked:
            told.append(blocked.before)
            raise Blocked(blocked.guard, await self._read_again(told, final=True)) from None
        return await self._read_again(told, final=final)

    async def _read_again(self, told: list[str], *, final: bool) -> str:
        if self._other is None:
            return "".join(told)
        begin, self._before = self._before, 0
        before = "".join(told[:begin])
        try:
            return before + await self._other.feed("".join(told[begin:]), final=final)
        except Blocked as blocked:
            raise Blocked(blocked.guard, before + blocked.before) from None

    async def _feed(self, text: str, told: list[str], *, final: bool) -> None:
        at, pause = 0, PIECE
        while at < len(text):
            after = await self._step(text, at, told, final=final)
            if after is None:
                break
            at = after
            if at >= pause:  # other calls have their turn, as in `Chain`
                pause = at + PIECE
                await asyncio.sleep(0)
        self._rest = text[at:]
        if final and self._string is not None:
            await self._string.say([], told, final=True)

    async def _step(self, text: str, at: int, told: list[str], *, final: bool) -> int | None:
        """Reads on. Where what was read ends; None if what comes decides what it is."""
        if self._string is not None:
            return await self._in_string(self._string, text, at, told, final=final)
        if text[at] == '"':
            names = self._around[-1] if self._name_comes else None
            if found := _PLAIN.match(text, at):
                await self._say(found[1], names, told)
                return found.end()
            self._string = _String(self._guards, names)
            told.append('"')
            return at + 1
        if self._other is not None:
            end = text.find('"', at)
            end = len(text) if end < 0 else end
            told.append(text[at:end])
            return end
        if found := _BETWEEN.match(text, at):
            self._note(found[0])
            told.append(found[0])
            return found.end()
        found = _VALUE.match(text, at)
        if found is not None and (final if found[3] is None else self._around):
            value = found[1]
            masked = value if value in _UNREAD else await passed(self._guards, value)
            told += (value if masked == value else f'"{_quoted(masked)}"', found[2])
            return found.end()
        if not final and len(text) - at <= LONGEST and _may_become_value(text[at:]):
            return None
        self._other, self._before = Chain(self._guards), len(told)
        self._name_comes = False
        return at

    async def _in_string(self, string: _String, text: str, at: int, told: list[str], *, final: bool) -> int | None:
        """The same within one."""
        begin, pieces, over = at, list[tuple[str, str]](), False
        while at < len(text) and at - begin < PIECE and not over:
            if text[at] == '"':
                over = True
                at += 1
            elif found := _SAID.match(text, at):
                pieces.append((found[0], found[0]))
                at = found.end()
            elif found := _ESCAPE.match(text, at):
                said = _STANDS_FOR.get(found[0]) or json.loads(f'"{found[0]}"')
                if "\ud800" <= said <= "\udfff":  # half a character: the other may come
                    if said < "\udc00" and not final and len(text) - at < _LONGEST_ESCAPE:
                        break
                    said = "\ufffd"
                pieces.append((said, found[0]))
                at = found.end()
            elif not final and len(text) - at < _LONGEST_ESCAPE:
                break
            else:  # stands for nothing but itself
                pieces.append(("\\", "\\"))
                at += 1
        if pieces or over:
            await string.say(pieces, told, final=over)
        if over:
            self._string = None
            told.append('"')
        return at if at > begin else None

    async def _say(self, text: str, names: Names | None, told: list[str]) -> None:
        """A string that is `_PLAIN`, as a `_String` says it."""
        try:
            masked = await passed(self._guards, text)
        except Blocked as blocked:
            raise Blocked(blocked.guard, f'"{_quoted(blocked.before)}') from None
        written = text if masked == text else _quoted(masked)
        told.append(f'"{written}{names.ending(text, masked)}"' if names is not None else f'"{written}"')

    def _note(self, between: str) -> None:
        """Remembers where in objects and lists it is, and whether the next string names a field."""
        for character in between:
            if character in "{[":
                self._around.append(Names() if character == "{" else None)
            elif character in "}]":
                del self._around[-1:]
            if not character.isspace():
                self._name_comes = character in "{," and bool(self._around) and self._around[-1] is not None


class _String:
    """One string between its quotes, told as it was written until a guard changes it."""

    def __init__(self, guards: Sequence[Guard], names: Names | None) -> None:
        """`names` are those of the object whose field it names."""
        self._chain = Chain(guards)
        self._names = names
        self._name: list[str] = []
        self._masked: list[str] = []
        self._held: deque[tuple[str, str]] = deque()  # what it stands for and how it is written, of what is not told
        self._changed = False

    @property
    def held(self) -> int:
        """How many characters of it, as it is written, are not told yet."""
        return self._chain.held if self._changed else sum(len(raw) for _, raw in self._held)

    async def say(self, pieces: Sequence[tuple[str, str]], told: list[str], *, final: bool) -> None:
        """More of it: what it stands for, each with how it is written. With `final` it ends. Raises `Blocked`."""
        if not self._changed:
            self._held += pieces
        said = "".join([said for said, _ in pieces])
        try:
            passed_on = await self._chain.feed(said, final=final)
        except Blocked as blocked:
            raise Blocked(blocked.guard, self._written(blocked.before)) from None
        told.append(self._written(passed_on))
        if self._names is not None:
            self._name.append(said)
            self._masked.append(passed_on)
            if final:
                told.append(self._names.ending("".join(self._name), "".join(self._masked)))

    def _written(self, text: str) -> str:
        at, written = 0, list[str]()
        while at < len(text) and not self._changed:
            said, raw = self._held[0] if self._held else ("", "")
            if said and text.startswith(said, at):
                self._held.popleft()
                written.append(raw)
                at += len(said)
            elif said == raw and said.startswith(text[at:]):
                self._held[0] = (said[len(text) - at :],) * 2
                written.append(text[at:])
                at = len(text)
            else:
                self._changed = True
                self._held.clear()
        return "".join(written) + _quoted(text[at:]) if at < len(text) else "".join(written)


async def passed_json(guards: Sequence[Guard], text: str) -> str:
    """What of a whole text that is to be JSON may be passed on. Raises `Blocked`."""
    return await JsonChain(guards).feed(text, final=True) if text else text


def _may_become_value(text: str) -> bool:
    return _VALUE.fullmatch(text) is not None or any(word.startswith(text) for word in _WORDS)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
