"""A `Chain` for a reply that is asked to be JSON: as it comes piece by piece, what is masked in it leaves it JSON. No I/O.

Each string is a text of its own, read as what it stands for, and so is each number; one that is masked becomes a string. What turns
out not to be JSON is one text from there on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Final

from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import PIECE, Chain, passed
from antiphon.guards.scanner import LONGEST

_BETWEEN: Final = re.compile(r"[\s{}\[\]:,]+")
_VALUE: Final = re.compile(r"(-?[0-9][0-9.eE+-]*|true|false|null)(\s*)(?=([,}\]])|\Z)")
_BEGUN: Final = re.compile(r"-|t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?")
"""What may become a value with what comes."""

_SAID: Final = re.compile(r'[^"\\]+')
_ESCAPE: Final = re.compile(r'\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_LONGEST_ESCAPE: Final = 12


class JsonChain:
    """One text, as `Chain`."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._guards = guards
        self._began = False
        self._rest = ""
        self._string: Chain | None = None
        self._other: Chain | None = None

    async def feed(self, text: str, *, final: bool = False) -> str:
        """See `Chain.feed`."""
        if self._other is not None:
            return await self._other.feed(text, final=final)
        told: list[str] = []
        try:
            await self._feed(self._rest + text, told, final=final)
        except Blocked as blocked:
            raise Blocked(blocked.guard, "".join(told) + blocked.before) from None
        return "".join(told)

    async def _feed(self, text: str, told: list[str], *, final: bool) -> None:
        at, pause = 0, PIECE
        if not self._began:
            stripped = text.lstrip()
            self._began = stripped != ""
            if self._began and stripped[0] not in "{[":
                await self._not_json(text, told, final=final)
                return
        while at < len(text):
            step = self._in_string if self._string is not None else self._outside
            after = await step(text, at, told, final=final)
            if after is None:
                if final or len(text) - at > LONGEST or not self._may_become(text, at):
                    await self._not_json(text[at:], told, final=final)
                    return
                break
            at = after
            if at >= pause:  # other calls have their turn, as in `Chain`
                pause = at + PIECE
                await asyncio.sleep(0)
        self._rest = text[at:]
        if final and self._string is not None:
            await self._say("", told, final=True)

    def _may_become(self, text: str, at: int) -> bool:
        """Whether what cannot be read yet can be with what comes."""
        if self._string is not None:
            return len(text) - at < _LONGEST_ESCAPE
        return _VALUE.fullmatch(text, at) is not None or _BEGUN.fullmatch(text, at) is not None

    async def _in_string(self, text: str, at: int, told: list[str], *, final: bool) -> int | None:
        """Where what was read ends; None if nothing can be."""
        if text[at] == '"':
            await self._say("", told, final=True)
            self._string = None
            told.append('"')
            return at + 1
        if found := _SAID.match(text, at):
            await self._say(found[0], told)
            return found.end()
        found = _ESCAPE.match(text, at)
        if found is None:
            return None
        said = json.loads(f'"{found[0]}"')
        if "\ud800" <= said <= "\udfff":  # half a character: the other may come
            if said < "\udc00" and not final and len(text) - at < _LONGEST_ESCAPE:
                return None
            said = "\ufffd"
        await self._say(said, told)
        return found.end()

    async def _outside(self, text: str, at: int, told: list[str], *, final: bool) -> int | None:
        """The same between strings."""
        if found := _BETWEEN.match(text, at):
            told.append(found[0])
            return found.end()
        if text[at] == '"':
            self._string = Chain(self._guards)
            told.append('"')
            return at + 1
        found = _VALUE.match(text, at)
        if found is None or (found[3] is None and not final):
            return None
        value = found[1]
        masked = value if value in {"true", "false", "null"} else await passed(self._guards, value)
        told += (value if masked == value else json.dumps(masked, ensure_ascii=False), found[2])
        return found.end()

    async def _say(self, text: str, told: list[str], *, final: bool = False) -> None:
        """More of the string that goes on."""
        assert self._string is not None
        try:
            told.append(_quoted(await self._string.feed(text, final=final)))
        except Blocked as blocked:
            raise Blocked(blocked.guard, _quoted(blocked.before)) from None

    async def _not_json(self, text: str, told: list[str], *, final: bool) -> None:
        if self._string is not None:
            await self._say("", told, final=True)
        self._rest = ""
        self._other = Chain(self._guards)
        told.append(await self._other.feed(text, final=final))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
